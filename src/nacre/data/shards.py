"""Data sets in many files that are read in place: which files they are, and what they say about their samples."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nacre.data.build import Source
from nacre.data.dataset import UNSAID, BadFile, Listing, about_unlabelled, numbered
from nacre.data.decode import UnreadableError
from nacre.data.layout import SHARDS, SPLIT_NAMES, is_junk
from nacre.errors import DataError

MOST_SHARDS = 1 << 17
REMEDY = "download this shard again, or leave it out"
"""What to do about a damaged one."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


def expand(pattern: Path) -> list[Path]:
    """The files that a path with braces means, in its order: {0000..0009} is a range, {a,b} a choice.

    Raises:
        DataError: braces that mean nothing, files of another kind, or one that is not there.
    """
    paths = [Path(path) for path in _choices(str(pattern))]
    if pattern.suffix not in SHARDS:
        raise DataError(
            f"{pattern} names {len(paths)} files; only .tar and .parquet files are read as shards of one set."
        )
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(paths)} files that {pattern} names are not there: {missing[0]} first."
        )
    return paths


def inside(folder: Path) -> list[Path]:
    """The shards in a folder and the folders in it, sorted by path; none if it holds none.

    Raises:
        DataError: it holds shards of two kinds.
    """
    found = sorted(path for suffix in SHARDS for path in folder.rglob(f"*{suffix}") if path.is_file())
    paths = [path for path in found if not any(map(is_junk, path.relative_to(folder).parts))]
    if len({path.suffix for path in paths}) > 1:
        raise DataError(
            f"{folder} holds .tar and .parquet files; name one kind, such as {folder}/train-{{0000..0009}}.tar."
        )
    return paths


@dataclass(eq=False)
class Samples:
    """What is said about the samples of shards, gathered one after another; some hundred bytes each, for there may be
    millions.

    Args:
        paths: the shards.
        root: the folder that they are named from.
    """

    paths: Sequence[Path]
    root: Path
    names: list[str] = field(default_factory=list)
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    captions: list[str] = field(default_factory=list)
    shards: "array[int]" = field(default_factory=lambda: array("i"))
    bad: list[BadFile] = field(default_factory=list)
    called: dict[str, int] = field(default_factory=dict)

    def name(self, shard: int, sample: str) -> str:
        """What a sample of shard number `shard` is called."""
        return f"{self.paths[shard].relative_to(self.root).as_posix()}/{sample}"

    def add(self, shard: int, sample: str, label: int | str | None, caption: str) -> None:
        """Take note of the next sample."""
        if isinstance(label, str):  # numbered as they come, so that there need not be millions of them
            label = self.called.setdefault(label, len(self.called)) if label else None
        self.names.append(self.name(shard, sample))
        self.shards.append(shard)
        self.labels.append(label if label is not None and -(2**63) <= label < 2**63 else UNSAID)
        self.captions.append(caption)

    def listing(self, classes: Sequence[str] = ()) -> Listing:
        """All of it, as photos.

        Args:
            classes: what the labels 0, 1 … mean; by default their own values name them, and they are numbered anew.
        """
        count, captioned = len(self.names), sum(map(bool, self.captions))
        labels, names = self._classes(tuple(classes))
        notes = about_unlabelled(labels) if names else ()
        if 0 < captioned < count:
            notes += (f"{count - captioned} of {count} images have no caption.",)
        return Listing(
            names=tuple(self.names),
            kind="photos",
            labels=labels if names else None,
            classes=names,
            captions=tuple(self.captions) if captioned else None,
            fixed=self._splits(),
            notes=notes,
            bad=tuple(self.bad),
        )

    def _classes(self, classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        labels = np.array(self.labels, np.int64)
        if self.called:
            names = tuple(sorted(self.called))
            place = np.empty(len(names), np.int64)
            place[[self.called[name] for name in names]] = np.arange(len(names))
            return np.where(labels == UNSAID, UNSAID, place[labels]), names
        if classes and UNSAID < labels.max(initial=UNSAID) < len(classes) and labels.min() >= UNSAID:
            return labels, classes
        return numbered(labels)

    def _splits(self) -> np.ndarray | None:
        """Shards that are all called train…, test… and so on fix the split, unless all are of one."""
        splits = [_split_of(path.relative_to(self.root)) for path in self.paths]
        if None in splits or len(set(splits)) == 1:
            return None
        return np.array(splits, np.int8)[np.array(self.shards, np.int32)]


def judged(source: Source) -> Listing:
    """The listing of a source of photos; if its first image that can be read is grey, they are taken as digits."""
    listing = source.listing
    for image in source.visit(range(len(listing.names))):
        try:
            grey = image.header().grey
        except UnreadableError:
            continue
        note = "The images are grey, so mirror images are not made; --mirror changes that."
        return replace(listing, kind="digits").noting(note) if grey and listing.captions is None else listing
    return listing


def _choices(text: str) -> Iterator[str]:
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    for choice in _meant(found[1], text):
        yield from _choices(text[: found.start()] + choice + text[found.end() :])


def _meant(inner: str, text: str) -> list[str]:
    numbers = _RANGE.fullmatch(inner)
    if numbers is None and "," in inner:
        return inner.split(",")
    first, last = (int(numbers[1]), int(numbers[2])) if numbers else (0, -1)
    if numbers is None or not first <= last < first + MOST_SHARDS:
        raise DataError(f"{{{inner}}} in {text} is no range of files; one such as {{0000..0009}} was expected.")
    return [f"{number:0{len(numbers[1])}}" for number in range(first, last + 1)]


def _split_of(path: Path) -> int | None:
    """The split that a shard's name or one of its folders begins with, such as train-00000-of-00005."""
    words = (re.match(r"[a-z]*", part.lower()) for part in reversed(path.parts))
    return next((SPLIT_NAMES[word[0]] for word in words if word and word[0] in SPLIT_NAMES), None)
