"""What the commands that use a trained model have in common."""

import glob
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nacre import images
from nacre.cli import flags
from nacre.cli.given import changed, fit_of, tell
from nacre.data import DataSet, DataSettings
from nacre.data.dataset import Prepared, Split
from nacre.data.decode import SUFFIXES
from nacre.data.sources import prepare_sides, together
from nacre.engine import pictures, sampling
from nacre.errors import ConfigError, RunError, ShapeError
from nacre.networks import Shape, is_image
from nacre.pretrained import Pretrained, load
from nacre.protocols import check_seed
from nacre.spec import Field

LARGEST_PAGE = 64_000_000
"""Pixels of the images on one page: more than anybody looks at, and about what a viewer opens."""

COMMON = [
    Field("model", str | None, None, "FILE.py:CLASS, for a model of your own"),
    Field("checkpoint", str | None, None, "'best', or a step of the run; by default the latest weights"),
    Field("device", str, "auto", "'auto', 'cpu', 'cuda', 'mps' …"),
    Field("batch_size", int, 256, "items in one forward pass; results do not depend on it"),
    Field("json", bool, False, "print the answer as JSON"),
]

DATA = Field("data", str | None, None, "a data source; by default the held-out images of the run's own")


def parser(command: str, description: str, own: Sequence[Field], usage: str = "RUN [flags]") -> flags.Parser:
    """A parser for a command that uses a run."""
    made = flags.parser(command, description, usage)
    made.add_argument("run", help="a run, a model folder, or a hub id (user/name)")
    flags.add(made, command, own)
    flags.add(made, "common", COMMON)
    return made


def image_parser(
    command: str,
    description: str,
    own: Sequence[Field],
    *,
    needs: str = "",
    nargs: str = "+",
    named: str = "image files, folders, or any data source",
) -> flags.Parser:
    """A parser for a command that uses a run on images that are named behind it.

    Args:
        needs: flags that belong into the usage.
        nargs: "+" for one image or more, "*" where there need be none.
        named: what may be named.
    """
    places = "IMAGE [IMAGE ...]" if nargs == "+" else "[IMAGE ...]"
    made = parser(command, description, own, " ".join(filter(None, ("RUN", places, needs, "[flags]"))))
    made.add_argument("images", nargs=nargs, type=str, help=named)
    return made


def image_place(out: str | None, default: str) -> Path:
    """Where an image goes, a .png, or several, a folder. Raises ConfigError for another kind of file."""
    path = Path(out or default)
    if path.suffix not in ("", ".png"):
        raise ConfigError(f"--out takes a .png, or a folder for several; got {path}.")
    return path


def check_place(out: Path, count: int) -> None:
    """Raise ConfigError if `count` images would go into one file."""
    if out.suffix and count > 1:
        raise ConfigError(f"{count} images do not go into one file; say --out FOLDER.")


def sheet_place(word: str | None, default: str) -> Path | None:
    """Where a page of pictures goes, None for "none". Raises ConfigError for another kind of file than .png."""
    if word == "none":
        return None
    path = Path(word or default)
    if path.suffix != ".png":
        raise ConfigError(f"--sheet takes a .png, or 'none'; got {path}.")
    return path


def save_sheet(sheet: Path, page: np.ndarray) -> None:
    """Write a page of pictures. Raises RunError if that cannot be done."""
    try:
        pictures.save(sheet, page)
    except OSError as error:
        raise RunError(f"{sheet} cannot be written ({error.strerror or error}); take another --sheet.") from None


def spare_given(places: Iterable[Path | None], words: Iterable[str | None]) -> None:
    """Raise ConfigError if a file that is to be written would replace one that was given, or an image in a folder that was.

    Args:
        places: files that will be written; two of them may not be the same.
        words: what was given, None where nothing was.
    """
    named = [Path(word).expanduser() for word in words if word]
    given = [path.resolve() for path in named if path.exists()]
    written: set[Path] = set()
    for place in filter(None, places):
        file = place.resolve()
        if place.exists() and any(
            file == one or (one in file.parents and file.suffix.lower() in SUFFIXES) for one in given
        ):
            raise ConfigError(f"{place} was given, and would be replaced by what is made of it; take another --out.")
        if file in written:
            raise ConfigError(f"two results would go to {place}, and one be lost; take another --out or --sheet.")
        written.add(file)


def source_of(parsed: Any) -> list[str]:
    """The data that a command reads: what --data names, or else what the run was trained on."""
    if parsed.data is not None:
        return [parsed.data]
    own = _own_settings(Path(parsed.run))
    return [word for word in (own.get("data"), own.get("data_b")) if word]


def _own_settings(run: Path) -> dict[str, Any]:
    """How a run's own data are read; nothing of what is no run."""
    from nacre.run import config as configuration

    return dict(configuration.read(run)["data"]) if (run / configuration.NAME).is_file() else {}


def stems(names: Sequence[str]) -> list[str]:
    """What the files of images are called in a folder: their names without folder and ending, numbered where they are alike."""
    plain = [Path(name).stem for name in names]
    alike, numbered = Counter(plain), [f"{number:04d}-{stem}" for number, stem in enumerate(plain)]
    chosen = [stem if alike[stem] == 1 else other for stem, other in zip(plain, numbered, strict=True)]
    return chosen if len(set(chosen)) == len(chosen) else numbered


def model_of(parsed: Any) -> Pretrained:
    """The model that a command names. Raises ConfigError for a seed or a batch size that is none, before it is loaded."""
    seed, size = getattr(parsed, "seed", None) or 0, parsed.batch_size
    check_seed(seed)
    if size is not None and size < 1:
        raise ConfigError(f"--batch-size must be 1 or more, got {size}.")
    model = load(parsed.run, model=parsed.model, checkpoint=parsed.checkpoint, device=parsed.device or "auto")
    model.facts.setdefault("fit", _own_settings(Path(parsed.run)).get("fit", "crop"))  # older folders do not say it
    return model


def batch_size(parsed: Any) -> int:
    """Items in one forward pass."""
    return sampling.CHUNK if parsed.batch_size is None else int(parsed.batch_size)


def items_of(parsed: Any, model: Pretrained, split: Split | None) -> tuple[DataSet, np.ndarray]:
    """Data for a model, at its size: a set and the rows to take."""
    if parsed.data is None:
        settings = _own_settings(Path(parsed.run))
        if not settings:
            raise ConfigError(f"{parsed.run} is not a run, so it has no data of its own: say --data SOURCE.")
    else:
        settings = {"data": parsed.data, "validation": 0.0, "test": 0.0, "max_bad": 1.0}
        if is_image(model.shape):
            settings |= {"channels": model.shape[0], "image_size": model.shape[1:], "fit": fit_of(model)}
    read = prepare_sides(DataSettings(**settings), progress=True)
    dataset = together(read)
    if dataset.shape != model.shape:
        raise ShapeError(
            f"{parsed.run} was built for items of shape {model.shape} and {dataset.source} has {dataset.shape}; "
            "give data of that shape."
        )
    if parsed.data is not None:
        _tell(dataset, model, read[0][0])
    if split and split == split_of(parsed, dataset, split):
        return dataset, dataset.rows(split)
    return dataset, np.arange(len(dataset.items))


def split_of(parsed: Any, dataset: DataSet, wanted: Split) -> Split | Literal["all"] | None:
    """The split that `items_of` takes: all where the run kept none of `wanted` aside, None of other data than its own."""
    if parsed.data is not None:
        return None
    return wanted if len(dataset.rows(wanted)) else "all"


def called(split: str | None, wanted: Split) -> str:
    """What the items of a split are called in an answer."""
    if split == "all":
        return f"items (the run kept no {wanted} items aside: most of these were trained on)"
    return f"{split} items" if split else "items"


def _tell(dataset: DataSet, model: Pretrained, prepared: Prepared) -> None:
    """A note on what became of a source's images on their way to a model."""
    resized, recoloured = (0, 0)
    if is_image(dataset.shape) and dataset.other is None:
        resized, recoloured = changed(prepared, dataset.shape)
    tell(model, len(dataset.items), resized, recoloured, dataset.bad)


def floats(dataset: DataSet, rows: np.ndarray) -> Tensor:
    """Items as the model takes them."""
    return images.to_float(torch.from_numpy(np.ascontiguousarray(dataset.items[rows])))


def check_room(
    out: Path, count: int, shape: Shape, elsewhere: str = "a folder takes single PNGs, and --format npz writes shards"
) -> None:
    """Refuse what `write_items` could not write, before the items are made; `elsewhere` says what to do instead.

    Raises:
        ConfigError: the name says no kind of file, or neither a page nor the memory holds so many items.
    """
    if out.suffix not in ("", ".png", ".npz"):
        raise ConfigError(f"--out takes a .png (a grid), a .npz, or a folder for single PNGs; got {out}.")
    if not out.suffix and not is_image(shape):
        raise ConfigError(f"vectors are written to a .npz or drawn into a .png, not into single PNGs; got --out {out}.")
    if out.suffix == ".png" and is_image(shape) and count * math.prod(shape[1:]) > LARGEST_PAGE:
        most = LARGEST_PAGE // math.prod(shape[1:])
        raise ConfigError(f"a page holds {most:,} images of {shape[2]}×{shape[1]} at most, got {count:,}; {elsewhere}.")
    if out.suffix and 2 * 4 * count * math.prod(shape) > memory():
        size = 4 * count * math.prod(shape) / 1e9
        raise ConfigError(f"{count:,} items are {size:,.0f} GB, too much for this machine's memory; {elsewhere}.")


def memory() -> float:
    """Bytes of memory that this machine has, as far as the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def write_items(out: Path, items: Tensor, stem: str = "sample", columns: int | None = None, first: int = 0) -> None:
    """Items as a grid (.png) of so many columns, an archive (.npz), or a folder of PNGs, numbered from `first` on.

    Raises:
        ConfigError: the name says none of these.
        RunError: it cannot be written.
    """
    try:
        if out.suffix == ".png":
            pictures.save(out, pictures.page(items, columns))
        elif out.suffix == ".npz":
            stored = images.to_uint8(items) if is_image(tuple(items.shape[1:])) else items
            write_arrays(out, {"images" if stored.dtype == torch.uint8 else "x": stored.numpy()})
        elif out.suffix:
            raise ConfigError(f"--out takes a .png (a grid), a .npz, or a folder for single PNGs; got {out}.")
        else:
            _folder(out, items, stem, first)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None


def check_older(out: Path, count: int, stem: str) -> None:
    """Raise ConfigError if a folder holds images of this stem with numbers of `count` and more, which would mix with new ones."""
    numbers = [path.stem.removeprefix(f"{stem}-") for path in out.glob(f"{glob.escape(stem)}-*.png")]
    others = sum(number.isdecimal() and int(number) >= count for number in numbers)
    if others:
        raise ConfigError(
            f"{out} holds {others} older images besides the {count} asked for; take another --out, or remove them."
        )


def check_numbered(out: Path, count: int) -> None:
    """Raise ConfigError if samples 0 to `count` - 1 would mix with what a folder holds: older ones, shards, or a run."""
    check_older(out, count, "sample")
    if (out / "samples.json").exists():
        raise ConfigError(f"{out} holds shards of samples; take another --out.")
    check_no_run(out)


def check_no_run(out: Path) -> None:
    """Raise ConfigError if a folder is a run's or a model's own."""
    if any((out / name).exists() for name in ("config.yaml", "config.json")):
        raise ConfigError(f"{out} holds a run or a model; take another --out.")


def archive_named(out: str | None, default: str) -> Path:
    """Where a .npz goes. Raises ConfigError for another kind of file."""
    path = Path(out or default)
    if path.suffix != ".npz":
        raise ConfigError(f"--out takes a .npz, got {path}.")
    return path


def in_batches(function: Callable[[Tensor], Tensor], dataset: DataSet, rows: np.ndarray, size: int) -> np.ndarray:
    """What `function` makes of rows of a set, `size` of them at a time."""
    parts = [rows[part.start : part.stop] for part in sampling.chunks(0, len(rows), size)]
    return torch.cat([function(floats(dataset, part)) for part in parts]).numpy()


def write_arrays(out: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A .npz, whole or not at all. Raises RunError if it cannot be written."""
    from nacre import files

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(out) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None


def answer(as_json: bool | None, sentence: str, **facts: Any) -> int:
    """Say what was done, to a person or to a program."""
    print(json.dumps({"schema_version": 1, **facts}) if as_json else sentence)
    return 0


def _folder(out: Path, items: Tensor, stem: str, first: int) -> None:
    if not is_image(tuple(items.shape[1:])):
        raise ConfigError(f"vectors are written to a .npz or drawn into a .png, not into single PNGs; got --out {out}.")
    out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(items, first):
        pictures.save(out / f"{stem}-{index:06d}.png", images.grid(image[None], gap=0))
