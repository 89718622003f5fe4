"""Every model of the catalogue from the command line with default flags, on digits, MNIST and a folder of 64×64 colour images.

    python benchmarks/matrix.py [--mnist DIR] [--photos FOLDER|ZIP] [--models ae vae …] [--steps 30]

Protocol: for each model and source `nacre train MODEL --data SOURCE --steps N`, `nacre resume` for half as many steps
more, and each command that the model's capabilities allow: sample (an autoencoder that has no prior: with a mixture),
reconstruct, encode, classify. A cell is ok if every command leaves with 0, every file is there, every loss is finite and
every array is finite and has the shape that it should. `transfer` reuses the encoder of the source's `ae`. The photos are
dealt out to two folders, so that models that learn from labels have classes; they ignore what the classes mean.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import rows
from nacre.data import DataSettings, load
from nacre.models import CATALOGUE
from nacre.protocols import capabilities
from nacre.spec import find_class, spec

SIZE, DRAWN, USED = 64, 256, 16
PROTOCOL = (
    "nacre train MODEL --data SOURCE --steps {steps}, nacre resume --steps {more}, then each of sample (ae, stacked_ae: --prior "
    "gmm --components 2), reconstruct, encode, classify that the model can do; default flags otherwise; transfer with "
    "--encoder of the ae; one process after another; ok: exit code 0, files there, losses and arrays finite and of the right "
    "shape; seconds and images/s are of the training command, its start and its checkpoint included in the seconds"
)


class FailedError(Exception):
    """A cell did not do what it should; the message says what."""


@dataclass(frozen=True)
class Source:
    """A source of the matrix: what `--data` takes, and the shape of its items."""

    name: str
    data: str
    shape: tuple[int, ...]
    items: Path


@dataclass
class Cell:
    """One model on one source; `why` says what failed."""

    model: str
    source: str
    seconds: float = math.nan
    images_per_s: float = math.nan
    commands: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def ok(self) -> bool:
        return not self.why


def sources(asked: argparse.Namespace, folder: Path) -> Iterator[Source]:
    """The three sources, each with a file of a few items to use a model on."""
    photos = folder / "photos"
    if asked.photos is None:
        drawn(photos)
    elif zipfile.is_zipfile(asked.photos):
        with zipfile.ZipFile(asked.photos) as archive:
            archive.extractall(folder / "unpacked")
        dealt(folder / "unpacked", photos)
    else:
        dealt(asked.photos, photos)
    mnist = f"mnist:{asked.mnist}" if asked.mnist else "mnist"
    for name, data in {"digits": "digits", "mnist": mnist, "photos": str(photos)}.items():
        dataset = load(DataSettings(data=data))
        items = folder / f"{name}.npy"
        images = dataset.items[:USED]
        np.save(items, np.moveaxis(images, 1, 3) if images.shape[1] == 3 else images[:, 0])
        yield Source(name, data, tuple(dataset.shape), items)


def dealt(found: Path, photos: Path) -> None:
    """The pictures in a folder, in turn in two folders."""
    pictures = sorted(path for path in found.rglob("*.png"))
    for number, path in enumerate(pictures):
        place = photos / str(number % 2) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())


def drawn(photos: Path) -> None:
    """Discs and squares of random colours, sizes and places."""
    generator = np.random.default_rng(0)
    for number in range(DRAWN):
        page = Image.new("RGB", (SIZE, SIZE), tuple(generator.integers(160, 256, 3).tolist()))
        left, top = generator.integers(2, SIZE // 2, 2).tolist()
        side, colour = int(generator.integers(12, SIZE // 2 - 2)), tuple(generator.integers(0, 160, 3).tolist())
        shape = ("disc", "square")[number % 2]
        pencil = ImageDraw.Draw(page)
        (pencil.ellipse if shape == "disc" else pencil.rectangle)((left, top, left + side, top + side), fill=colour)
        place = photos / shape / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        page.save(place)


def play(cell: Cell, source: Source, folder: Path, steps: int) -> None:
    """Train, resume and use one model on one source; what it took and what failed goes into the cell."""
    run, more = folder / source.name / cell.model, steps + (steps + 1) // 2
    begun = time.perf_counter()
    beside = ["--encoder", str(run.parent / "ae")] if cell.model == "transfer" else []
    if hasattr(find_class(cell.model), "sides"):  # a rate that falls with the steps would fix their number
        beside = ["--data-b", source.data, "--lr-schedule", "constant"]
    call(cell, "train", cell.model, "--data", source.data, "--steps", str(steps), "--out", str(run), *beside)
    cell.seconds = time.perf_counter() - begun
    check_run(run, steps)
    cell.images_per_s = history(run, "images_per_s")[-1]
    call(cell, "resume", str(run), "--steps", str(more))
    check_run(run, more)
    for command, flags, key, shape in uses(cell.model, source):
        out = run / f"{command}.npz"
        call(cell, command, str(run), *flags, "--out", str(out))
        with np.load(out) as arrays:
            check_array(arrays[key], (USED, *shape), command)


def uses(model: str, source: Source) -> Iterator[tuple[str, list[str], str, tuple[int, ...]]]:
    """What a model can be asked for: command, flags, the array that it writes, and its shape for an item."""
    classes = 2 if source.name == "photos" else 10
    labels = {"classes": classes} if getattr(find_class(model), "supervised", False) else {}
    built = spec(model, labels).build(source.shape)
    can, on = capabilities(built), ["--data", str(source.items)]
    if "sample" in can:
        yield "sample", ["-n", str(USED)], "images", source.shape
    elif {"encode", "decode"} <= set(can):
        yield "sample", ["-n", str(USED), "--prior", "gmm", "--components", "2", *on], "images", source.shape
    if "reconstruct" in can:
        yield "reconstruct", on, "images", source.shape
    if "encode" in can:
        yield "encode", on, "codes", (getattr(built, "code_dim", built.latent_dim),)
    if "classify" in can:
        yield "classify", on, "probabilities", (classes,)


def call(cell: Cell, *words: str) -> None:
    """Run a command in a process of its own."""
    cell.commands.append(words[0])
    done = subprocess.run([sys.executable, "-m", "nacre", *words], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise FailedError(f"nacre {' '.join(words)} left with {done.returncode} and said: {said[-1]}")


def check_run(run: Path, steps: int) -> None:
    """Raise FailedError unless a run of so many steps has all its files, and finite losses."""
    expected = [
        "config.yaml",
        "log.jsonl",
        f"checkpoints/step-{steps:08d}",
        "model/config.json",
        "model/model.safetensors",
    ]
    if missing := [name for name in expected if not (run / name).exists()]:
        raise FailedError(f"{run} has no {', '.join(missing)}")
    losses = history(run, "losses")
    if not losses or not all(math.isfinite(value) for line in losses for value in line.values()):
        raise FailedError(f"the losses are not finite: {losses[-1:]}")
    for path in run.glob("*.png"):
        with Image.open(path) as page:
            page.load()


def history(run: Path, key: str) -> list:
    """What the log of a run has under `key`, line by line."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[key] for line in lines if key in line]


def check_array(array: np.ndarray, shape: Sequence[int], command: str) -> None:
    """Raise FailedError unless an array has this shape and only finite numbers."""
    if array.shape != tuple(shape):
        raise FailedError(f"{command} wrote an array of shape {array.shape} instead of {tuple(shape)}")
    if not np.isfinite(array).all():
        raise FailedError(f"{command} wrote numbers that are not finite")


def main() -> int:
    """Play all cells and write the row; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files; by default $NACRE_DATA/mnist")
    parser.add_argument("--photos", type=Path, help="a folder or .zip of 64×64 colour PNGs; by default some are drawn")
    parser.add_argument("--models", nargs="+", choices=CATALOGUE, default=list(CATALOGUE), metavar="MODEL")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="where the row is written")
    asked = parser.parse_args()
    models = sorted(asked.models, key=list(CATALOGUE).index)
    cells = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NACRE_CACHE"] = str(folder / "cache")
        for source in sources(asked, folder):
            for model in models:
                cells.append(cell := Cell(model, source.name))
                try:
                    play(cell, source, folder, asked.steps)
                except FailedError as error:
                    cell.why = re.sub(re.escape(name), "…", str(error))
                told = (
                    cell.why or f"{cell.seconds:.1f} s, {cell.images_per_s:,.0f} images/s; {', '.join(cell.commands)}"
                )
                print(f"{'ok' if cell.ok else 'FAILED':>6}  {model:<10} {source.name:<6} {told}", flush=True)
    protocol = PROTOCOL.format(steps=asked.steps, more=asked.steps + (asked.steps + 1) // 2)
    values = {"cells": len(cells), "ok": sum(cell.ok for cell in cells)}
    each = [{**asdict(cell), "ok": cell.ok} for cell in cells]
    print(rows.write_row("matrix", protocol, values, [0], len(cells), results=asked.results, each=each))
    return 0 if all(cell.ok for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
