"""The pictures of docs/models/ that no other benchmark makes: each is made by the commands that stand beside it on its page.

    NACRE_DATA=DIR python benchmarks/pictures.py [NAMES ...] [--work FOLDER] [--out FOLDER]

NACRE_DATA names the folder that holds `mnist` and `fashion-mnist`. Commands run one after another, on as many threads as
torch takes; the seconds that are printed are of all cores together. Runs that are there already are gone on with. Most
pictures are drawn by the last command; others are put together here of what the commands wrote.
"""

import argparse
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import nacre
from nacre.data import DataSettings, load
from nacre.engine.pictures import page

PAGES = Path(__file__).resolve().parents[1] / "docs" / "models"
LEVELS = 16
"""Grey levels of a picture; more would double the file and not be seen."""
MARGIN = 12
STYLES, FRAME = 8, 3
GREEN, RED = (30, 140, 60), (200, 30, 30)


@dataclass(frozen=True)
class Picture:
    """How the picture of a page is made.

    Args:
        commands: as they are typed, in one folder.
        drawn: the file that they leave behind, or what makes a page (H, W[, 3]) uint8 of it in that folder.
    """

    commands: tuple[str, ...]
    drawn: str | Callable[[Path], np.ndarray]


def beside(*files: str) -> Callable[[Path], np.ndarray]:
    """Grey pictures of equal height side by side."""

    def drawn(folder: Path) -> np.ndarray:
        parts = [np.asarray(Image.open(folder / file).convert("L")) for file in files]
        gap = np.full((len(parts[0]), MARGIN), 255, np.uint8)
        return np.concatenate([parts[0], *(part for other in parts[1:] for part in (gap, other))], 1)

    return drawn


def styles(folder: Path) -> np.ndarray:
    """Test digits in the first column; right of each the same style z under every label."""
    model = nacre.load(folder / "runs/m2")
    images = held_out("mnist", STYLES, image_size=model.shape[1])
    z = model.encode(images)[:, : model.module.latent_dim]
    codes = torch.cat([z.repeat_interleave(10, 0), torch.eye(10).repeat(STYLES, 1)], 1)
    written = model.decode(codes).unflatten(0, (STYLES, 10))
    return page(torch.cat([images[:, None], torch.ones_like(images[:, None]), written], 1).flatten(0, 1), columns=12)


def columns_by_class(folder: Path) -> np.ndarray:
    """Test digits, a column for each class that they were put into; red frames around those put into a wrong one."""
    answer = np.load(folder / "classes.npz")
    given, labels = answer["probabilities"].argmax(1), answer["labels"]
    rows = [np.flatnonzero(given == digit)[:STYLES] for digit in range(10)]
    order = np.stack(rows, 1).ravel()
    cells = []
    for digit, right in zip(held_out("mnist", len(labels))[order], (given == labels)[order], strict=True):
        colour = torch.tensor(GREEN if right else RED).view(3, 1, 1) / 255
        cell = colour.expand(3, 28 + 2 * FRAME, 28 + 2 * FRAME).clone()
        cell[:, FRAME:-FRAME, FRAME:-FRAME] = digit
        cells.append(cell)
    return page(torch.stack(cells), columns=10)


def held_out(source: str, count: int, image_size: int = 28) -> Tensor:
    """The first test images, (count, 1, size, size) in [0, 1]."""
    dataset = load(DataSettings(data=source, image_size=image_size))
    return torch.from_numpy(dataset.items[dataset.rows("test")[:count]]).float() / 255


PICTURES = {
    "ae": Picture(
        (
            "nacre train ae --data fashion-mnist --steps 6000 --out runs/ae",
            "nacre reconstruct runs/ae --out ae.png",
        ),
        "ae.png",
    ),
    "stacked_ae": Picture(
        (
            "nacre train stacked_ae --data mnist --greedy --layer-steps 500 --steps 3500 --out runs/stacked_ae",
            "nacre reconstruct runs/stacked_ae --out stacked_ae.png",
        ),
        "stacked_ae.png",
    ),
    "transfer": Picture(
        (
            "nacre train ae --data mnist --noise masking --steps 4000 --out runs/ae-mnist",
            "nacre train transfer --encoder runs/ae-mnist --data mnist --labelled 100 --steps 1500 --out runs/transfer",
            "nacre classify runs/transfer",
        ),
        columns_by_class,
    ),
    "iwae": Picture(
        (
            "nacre train iwae --data mnist --latent-dim 100 --upper-dims 50 --estimator dreg --batch-size 256 --steps 10000 "
            "--validation 0.01 --out runs/iwae",
            "nacre sample runs/iwae --out iwae.png",
        ),
        "iwae.png",
    ),
    "lvae": Picture(
        (
            "nacre train lvae --data mnist --image-size 16 --steps 800 --kl-warmup 300 --out runs/lvae",
            "nacre sample runs/lvae --out lvae.png",
        ),
        "lvae.png",
    ),
    "m2": Picture(
        (
            "nacre train m2 --data mnist --image-size 14 --labelled 100 --alpha 2000 --hidden 256,128 --steps 10000 "
            "--lr-schedule cosine --precision bf16 --validation 0 --out runs/m2",
        ),
        styles,
    ),
    "vaegan": Picture(
        (
            "nacre train vaegan --steps 3000 --out runs/vaegan",
            "nacre reconstruct runs/vaegan --out vaegan.png",
        ),
        "vaegan.png",
    ),
    "wgan": Picture(
        (
            "nacre train wgan --data mnist --image-size 16 --width 16 --lr 2e-4 --steps 9000 --out runs/wgan",
            "nacre sample runs/wgan --out wgan.png",
        ),
        "wgan.png",
    ),
    "wgan_gp": Picture(
        ("nacre train wgan_gp --data mnist --network resnet --width 32 --lr 2e-4 --steps 5000 --out runs/wgan_gp",),
        "runs/wgan_gp/samples.png",
    ),
    "r3gan": Picture(
        (
            "nacre data toy:grid25 --sheet real.png",
            "nacre train r3gan --data toy:grid25 --fourier 20 --gamma 0.3 --gamma-final 0.1 --gamma-steps 8000 --latent-dim 2 "
            "--hidden 256,256,256,256 --discriminator-hidden 128,128 --batch-size 256 --lr 1e-3 --lr-schedule cosine "
            "--ema 0.998 --steps 16000 --compile on --validation 0 --out runs/r3gan",
            "nacre sample runs/r3gan -n 20000 --out generated.png",
        ),
        beside("real.png", "generated.png"),
    ),
    "mixture": Picture(
        (
            "nacre train ae --latent-dim 8 --steps 4000 --out runs/digits",
            "nacre sample runs/digits --prior gmm --out mixture.png",
        ),
        "mixture.png",
    ),
}


def make(picture: Picture, folder: Path, out: Path) -> float:
    """Run the commands in `folder` and write the page to `out`; returns the seconds of all cores that they took."""
    before = used()
    for command in picture.commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        subprocess.run([*words, *(["--or-resume"] if "train" in words else [])], cwd=folder, check=True)
    seconds = used() - before
    drawn = picture.drawn
    whole = Image.open(folder / drawn) if isinstance(drawn, str) else Image.fromarray(drawn(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    few = whole.quantize(LEVELS, dither=Image.Dither.NONE)
    few.save(out, optimize=True)
    return seconds


def used() -> float:
    """Seconds of processor time that the commands took so far."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    """Make the pictures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"by default all: {', '.join(PICTURES)}")
    parser.add_argument("--work", type=Path, default=Path("runs/pictures"), help="where the commands run")
    parser.add_argument("--out", type=Path, default=PAGES)
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(PICTURES):
        parser.error(f"there is no picture {', '.join(sorted(unknown))}")
    for name in asked.names or PICTURES:
        folder = asked.work / name
        folder.mkdir(parents=True, exist_ok=True)
        seconds = make(PICTURES[name], folder, asked.out / f"{name}.png")
        size = (asked.out / f"{name}.png").stat().st_size
        print(f"{name}: {seconds:.0f} s of one core, {size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
