"""Two kinds of images that are translated into each other: two sources, or one folder with `trainA` and `trainB`."""

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from nacre.data.dataset import DIGEST_SIZE, SPLITS, DataSet, Split
from nacre.data.folders import Scan
from nacre.data.layout import few
from nacre.data.settings import DataSettings
from nacre.errors import DataError

SIDES = ("A", "B")
MARK = "#"
"""Stands between a folder with two sides and the side that is meant: photos2paintings#A."""


def named(settings: DataSettings) -> tuple[DataSettings, DataSettings | None]:
    """The settings of each side; of one alone where there is only one.

    Raises:
        DataError: the first source has two sides already, and another is named.
    """
    one, other = replace(settings, data_b=None), settings.data_b
    if other is not None and holds_both(settings.data):
        raise DataError(
            f"{settings.data} holds trainA and trainB already; leave --data-b out, or name one of these folders by --data."
        )
    if other is None and holds_both(settings.data):
        one, other = replace(one, data=f"{settings.data}{MARK}A"), f"{settings.data}{MARK}B"
    return one, None if other is None else replace(one, data=other)


def holds_both(data: str) -> bool:
    """Whether a folder holds the training images of two sides."""
    path = Path(data).expanduser()
    return all((path / f"train{side}").is_dir() for side in SIDES)


def side_of(path: Path) -> tuple[Path, str] | None:
    """The folder and the side that a name with a mark means; None for any other."""
    name, mark, side = path.name.rpartition(MARK)
    folder = path.with_name(name) if name else path
    return (folder, side) if mark and side in SIDES and not path.exists() and holds_both(str(folder)) else None


def of_side(found: Scan, side: str) -> tuple[Scan, dict[str, str]]:
    """What a scanned folder holds of a side, as if its folders were called train, val and test; and where each file lies."""
    places = {}
    lines = []
    for line in found.lines:
        path, rest = line.split("\0", 1)
        top, _, inner = path.partition("/")
        if inner and top in (f"train{side}", f"val{side}", f"test{side}"):
            places[f"{top[:-1]}/{inner}"] = path
            lines.append(f"{top[:-1]}/{inner}\0{rest}")
    return Scan(sorted(lines), found.notes), places


def joined(one: DataSet, other: DataSet) -> DataSet:
    """A data set with its other side.

    Raises:
        DataError: the sides differ in size, or one holds no images.
    """
    for side in (one, other):
        if len(side.shape) != 3:
            raise DataError(f"{side.source} holds no images, and only images are translated into each other.")
    if one.shape[1:] != other.shape[1:]:
        raise DataError(
            f"{one.source} has images of {one.shape[1:]} and {other.source} of {other.shape[1:]}; give --image-size."
        )
    state = blake2b(f"{one.fingerprint} {other.fingerprint}".encode(), digest_size=DIGEST_SIZE)
    notes = tuple(f"{side.source}: {note}" for side in (one, other) for note in side.notes)
    return replace(one, other=other, notes=notes, fingerprint=state.hexdigest())


def partners(dataset: DataSet) -> np.ndarray:
    """For each item of A the row of the item of B that is called the same but for its suffix; -1 for none.

    Returns:
        (N,) int64.

    Raises:
        DataError: there is no pair, or a side has two images of one name.
    """
    assert dataset.other is not None
    one, other = (_stems(side) for side in (dataset, dataset.other))
    found = np.array([other.get(stem, -1) for stem in one], np.int64)
    if not (found >= 0).any():
        raise DataError(
            f"pairs are made by file name, and no image of {dataset.source} is called as one of {dataset.other.source} is."
        )
    return found


def paired_rows(dataset: DataSet, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The rows of A in a split that have a partner, and their partners' rows of B: the split of A is the pair's."""
    found = partners(dataset)
    rows = np.flatnonzero((dataset.split == SPLITS.index(split)) & (found >= 0))
    return rows, found[rows]


def about_unpaired(dataset: DataSet) -> str | None:
    """A sentence on the images of either side that have no partner; None if all have."""
    assert dataset.other is not None
    found = partners(dataset)
    lone = [f"A's {dataset.names[row]}" for row in np.flatnonzero(found < 0)]
    lone += [f"B's {dataset.other.names[row]}" for row in np.setdiff1d(np.arange(len(dataset.other)), found)]
    return f"{len(lone):,} images have no partner by name and are left out ({few(lone)})" if lone else None


def _stems(dataset: DataSet) -> dict[str, int]:
    stems: dict[str, int] = {}
    for row, name in enumerate(dataset.names):
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in stems:
            raise DataError(f"{dataset.source} holds two images called {stem}; pairs are made by file name.")
        stems[stem] = row
    return stems
