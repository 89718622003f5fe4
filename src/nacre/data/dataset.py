"""A data set in one array, and the rule that says which images are kept aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

import numpy as np

from nacre import seeds
from nacre.data.settings import DataSettings, Fit
from nacre.errors import DataError

Kind = Literal["digits", "photos", "vectors"]
Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
UNSAID = -1
DIGEST_SIZE = 16


@dataclass(frozen=True)
class BadFile:
    """A file that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Listing:
    """What a source says about its N items besides their pixels.

    Args:
        names: what each item is called.
        kind: "digits" is anything digit-like, where a mirror image is wrong; "vectors" are not images at all.
        labels: (N,) int64, or None.
        classes: the names of the labels, () when there are none.
        captions: one text an item, or None.
        fixed: (N,) int8, the index in `SPLITS` that the source itself gives an item, `UNSAID` where it gives none.
        notes: sentences for the user.
        bad: files that could not be used.
    """

    names: tuple[str, ...]
    kind: Kind
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None
    fixed: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    bad: tuple[BadFile, ...] = ()

    def finding(self, bad: tuple[BadFile, ...]) -> "Listing":
        """The same listing with another list of bad files."""
        return replace(self, bad=bad)

    def noting(self, *notes: str) -> "Listing":
        """The same listing with more notes."""
        return replace(self, notes=self.notes + notes)

    def keep(self, rows: np.ndarray) -> "Listing":
        """The same listing with only `rows`, ascending int64 indices."""
        if len(rows) == len(self.names):
            return self
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            labels=None if self.labels is None else self.labels[rows],
            captions=None if self.captions is None else tuple(self.captions[row] for row in rows),
            fixed=None if self.fixed is None else self.fixed[rows],
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A source brought to one size, before it is split.

    Args:
        source: the source's full name.
        items: (N, C, H, W) uint8, or (N, D) float32 for vectors.
        listing: names, labels and so on of the N items.
        digests: N × `DIGEST_SIZE` bytes: a digest of each item as it was before any resizing.
        sizes: how many originals had which size, as "WxH".
        modes: how many originals had which Pillow mode.
        content: hexadecimal digest of `items`.
    """

    source: str
    items: np.ndarray
    listing: Listing
    digests: bytes
    sizes: Mapping[str, int]
    modes: Mapping[str, int]
    content: str


@dataclass(frozen=True, eq=False)
class DataSet:
    """N images of one size, or N points, with what is known about them.

    Args:
        source: where it comes from, with full paths; loading this again gives the same set.
        items: (N, C, H, W) uint8, perhaps a read-only memory map; or (N, D) float32 for vectors.
        labels: (N,) int64, -1 where it is not known, or None.
        classes: the names of the labels, () when there are none.
        captions: one text an item, or None.
        names: what each item is called: its path inside the source, or its index as text.
        split: (N,) int8: 0 train, 1 validation, 2 test.
        mirror: whether training may flip these left and right.
        kind: "digits" is anything digit-like, where a mirror image is wrong; "vectors" are not images at all.
        bad: files that were skipped, each with the reason.
        notes: sentences for the user.
        fingerprint: hexadecimal digest of items, labels, captions and split: equal content, equal fingerprint.
        other: side B, for models that translate between two kinds of images.
        fit: how images of another size were brought to this one.
    """

    source: str
    items: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    captions: tuple[str, ...] | None
    names: tuple[str, ...]
    split: np.ndarray
    mirror: bool
    kind: Kind
    bad: tuple[BadFile, ...]
    notes: tuple[str, ...]
    fingerprint: str
    other: "DataSet | None" = None
    fit: Fit = "crop"

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one item: (C, H, W) or (D,)."""
        return tuple(self.items.shape[1:])

    def rows(self, split: Split) -> np.ndarray:
        """The int64 indices of the items in `split`, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def assemble(prepared: Prepared, settings: DataSettings) -> DataSet:
    """Split a prepared source and resolve what the settings left open.

    Raises:
        DataError: too many bad files, or nothing left to train on.
    """
    listing = prepared.listing
    refuse_too_many_bad(listing.bad, len(listing.names), settings.max_bad, prepared.source)
    split = assign(prepared.digests, listing.fixed, settings)
    labels = listing.labels if settings.labelled is None else _few_labels(listing, split, settings)
    return DataSet(
        source=prepared.source,
        items=prepared.items,
        labels=labels,
        classes=listing.classes,
        captions=listing.captions,
        names=listing.names,
        split=split,
        mirror=_mirrors(listing) if settings.mirror is None else settings.mirror and listing.kind != "vectors",
        kind=listing.kind,
        bad=listing.bad,
        notes=listing.notes + _about_splits(split, settings, prepared.source) + _about_leaks(prepared, split),
        fingerprint=_fingerprint(prepared, labels, split),
        fit=settings.fit,
    )


def assign(digests: bytes, fixed: np.ndarray | None, settings: DataSettings) -> np.ndarray:
    """Give each item a split: the source's own validation and test sets stay, what it lacks is drawn by content.

    An item is drawn by its own pixels and the seed alone, so that new images move nobody and equal images stay
    together. The shares grow from the two ends of [0, 1): changing one does not disturb the other.

    Returns:
        (N,) int8.
    """
    count = len(digests) // DIGEST_SIZE
    given = np.full(count, UNSAID, np.int8) if fixed is None else fixed
    place = _places(digests, settings.split_seed)
    split = np.zeros(count, np.int8)
    if not (given == 1).any():
        split[place < settings.validation] = 1
    if not (given == 2).any():
        split[place >= 1 - settings.test] = 2
    return np.where(given > 0, given, split)


def _few_labels(listing: Listing, split: np.ndarray, settings: DataSettings) -> np.ndarray:
    """Labels, -1 for all but `settings.labelled` items to train on, equally many a class, and for those that judge.

    Raises:
        DataError: there are no labels, or too few items of a class.
    """
    labels, wanted = listing.labels, settings.labelled or 0
    count = len(listing.classes)
    if labels is None or wanted % count:
        raise DataError(
            f"--labelled {wanted} takes as many items of each class, and there are {count} classes; "
            + ("give a multiple of that." if labels is not None else "take data with labels.")
        )
    order = seeds.permutation(settings.split_seed, 0, len(labels))
    order = order[split[order] == 0]
    kept = np.where(split == SPLITS.index("test"), labels, UNSAID)
    for label in range(count):
        members = order[labels[order] == label][: wanted // count]
        if len(members) < wanted // count:
            raise DataError(
                f"--labelled {wanted} takes {wanted // count} items of each class, and there are {len(members)} of "
                f"'{listing.classes[label]}' to train on; give less."
            )
        kept[members] = label
    return kept


def digest(item: np.ndarray) -> bytes:
    """`DIGEST_SIZE` bytes that name the content of an (H, W, C) image or a vector.

    Grey pixels count as grey however they are stored, so that a grey picture and its RGB copy stay in one split.
    """
    if item.ndim == 3 and item.shape[2] == 3 and _is_grey(item):
        item = item[:, :, :1]
    state = blake2b(f"{item.dtype.str}{item.shape}".encode(), digest_size=DIGEST_SIZE)
    state.update(np.ascontiguousarray(item).data)
    return state.digest()


def content_digest(state: blake2b, shape: tuple[int, ...], dtype: str) -> str:
    """The `Prepared.content` of items whose bytes were fed to `state`."""
    state.update(f"{dtype}{shape}".encode())
    return state.hexdigest()


def refuse_too_many_bad(bad: tuple[BadFile, ...], good: int, most: float, source: str) -> None:
    """Raise DataError when the share of bad files among all is above `most`."""
    total = good + len(bad)
    if not bad or (good and len(bad) <= most * total):
        return
    first = "; ".join(f"{file.name} ({file.reason})" for file in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    advice = "mend or remove them" + (f", or raise --max-bad (now {most:g})" if good else "")
    raise DataError(
        f"{len(bad)} of {total} files in {source} ({len(bad) / total:.0%}) cannot be read: {first}{more}; {advice}."
    )


def left_out(bad: Sequence[BadFile]) -> str:
    """How many files were skipped, and the first of them."""
    names = ", ".join(f"{file.name} ({file.reason})" for file in bad[:3]) + (" …" if len(bad) > 3 else "")
    return f"{len(bad)} file{'s' if len(bad) > 1 else ''} left out that cannot be read: {names}"


def _is_grey(image: np.ndarray) -> bool:
    # One pixel settles it for nearly every colour picture.
    if not image[0, 0, 0] == image[0, 0, 1] == image[0, 0, 2]:
        return False
    return bool((image[:, :, 0] == image[:, :, 1]).all() and (image[:, :, 1] == image[:, :, 2]).all())


def _places(digests: bytes, seed: int) -> np.ndarray:
    """A number in [0, 1) for each digest, (N,) float64."""
    salt = seed.to_bytes(16, "little")
    pieces = (digests[start : start + DIGEST_SIZE] for start in range(0, len(digests), DIGEST_SIZE))
    mixed = b"".join(blake2b(piece, digest_size=8, salt=salt).digest() for piece in pieces)
    # 53 bits: as many as a double holds, so that rounding never reaches 1.
    return (np.frombuffer(mixed, "<u8") >> np.uint64(11)) / 2.0**53


def _mirrors(listing: Listing) -> bool:
    return listing.kind == "photos" and listing.captions is None


def _about_splits(split: np.ndarray, settings: DataSettings, source: str) -> tuple[str, ...]:
    counts = np.bincount(split, minlength=3)
    if not counts[0]:
        raise DataError(
            f"All {len(split)} items of {source} are kept aside and none is left to train on; "
            "add some, or lower --validation and --test."
        )
    wanted: dict[Split, float] = {"validation": settings.validation, "test": settings.test}
    empty = [name for name, share in wanted.items() if share and not (split == SPLITS.index(name)).any()]
    return (f"With {len(split)} items, none happens to be kept aside for {' or '.join(empty)}.",) if empty else ()


def _about_leaks(prepared: Prepared, split: np.ndarray) -> tuple[str, ...]:
    """A note if the source's own splits share images, which a split by content never does."""
    if prepared.listing.fixed is None:
        return ()
    pieces = np.frombuffer(prepared.digests, f"V{DIGEST_SIZE}").tolist()
    trained = {piece for piece, kept in zip(pieces, split, strict=True) if kept == 0}
    leaked = sum(piece in trained for piece, kept in zip(pieces, split, strict=True) if kept != 0)
    return (f"{leaked} items kept aside repeat the exact pixels of one to train on.",) if leaked else ()


def _fingerprint(prepared: Prepared, labels: np.ndarray | None, split: np.ndarray) -> str:
    state = blake2b(prepared.content.encode(), digest_size=DIGEST_SIZE)
    captions = prepared.listing.captions
    for part in (
        split.tobytes(),
        b"" if labels is None else labels.astype("<i8").tobytes(),
        b"" if captions is None else "\0".join(captions).encode("utf-8", "surrogatepass"),
    ):
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()


def numbered(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any numbers or texts as 0 … K - 1 in sorted order, (N,) int64, and what each was.

    What is not known, -1, NaN or an empty text, is `UNSAID`.
    """
    known = (labels != UNSAID) & ~np.isnan(labels) if labels.dtype.kind in "biuf" else labels != labels.dtype.type()
    values, numbers = np.unique(labels[known], return_inverse=True)
    if values.dtype.kind == "f" and (values == values.round()).all():
        values = values.astype(np.int64)  # NaN among whole numbers made them floats
    found = np.full(len(labels), UNSAID, np.int64)
    found[known] = numbers
    return found, tuple(str(value) for value in values)


def about_unlabelled(labels: np.ndarray) -> tuple[str, ...]:
    """A note if some items have no label, or none has."""
    missing = int((labels == UNSAID).sum())
    return (f"{missing} of {len(labels)} items have no label.",) if missing else ()
