"""What `nacre data` says about a source: counts, sizes, duplicates, bad files; and a sheet of images as a model sees them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nacre import seeds
from nacre.data.dataset import DIGEST_SIZE, SPLITS, UNSAID, BadFile, DataSet, Kind, Prepared, assemble
from nacre.data.settings import DataSettings
from nacre.data.sides import joined
from nacre.data.sources import prepare_sides
from nacre.errors import DataError
from nacre.images import to_float

SCHEMA_VERSION = 1
SHOWN = 20
SHEET = 64


@dataclass(frozen=True, kw_only=True)
class Description:
    """A source in numbers.

    Args:
        count: good items; `bad` are the others.
        shape: of one item, (C, H, W) or (D,).
        splits: items in each split.
        classes: items of each class, in the order of the labels; empty without labels.
        unlabelled: items without a label where others have one.
        sizes: originals of each size, "WxH", the most common first.
        modes: originals of each Pillow mode, the most common first.
        duplicates: how many items repeat the exact pixels of an earlier one.
        duplicate_groups: names that share their pixels.
        captions: items with a caption.
        notes: sentences for the user.
        other: side B, if there are two; `fingerprint` is then of both.
    """

    source: str
    kind: Kind
    count: int
    shape: tuple[int, ...]
    splits: Mapping[str, int]
    classes: Mapping[str, int]
    unlabelled: int
    sizes: Mapping[str, int]
    modes: Mapping[str, int]
    duplicates: int
    duplicate_groups: tuple[tuple[str, ...], ...]
    captions: int
    mirror: bool
    fingerprint: str
    bad: tuple[BadFile, ...]
    notes: tuple[str, ...]
    other: "Description | None" = None

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON, with a `schema_version`."""
        return {
            "schema_version": SCHEMA_VERSION,
            **vars(self),
            "shape": list(self.shape),
            "duplicate_groups": [list(group) for group in self.duplicate_groups],
            "bad": [vars(file) for file in self.bad],
            "notes": list(self.notes),
            "other": None if self.other is None else self.other.as_dict(),
        }

    def as_text(self) -> str:
        """Everything, for people: one fact a line."""
        lines = [f"source       {self.source}", f"items        {self.count:,} {self._what()}"]
        lines += [f"{name:<12} {text}" for name, text in self._facts().items() if text]
        lines += _first("duplicate", [" = ".join(group) for group in self.duplicate_groups])
        lines += _first("bad", [f"{file.name}: {file.reason}" for file in self.bad])
        lines += [f"note         {note}" for note in self.notes]
        return "\n".join(lines if self.other is None else [*lines, "", "side B", self.other.as_text()])

    def _what(self) -> str:
        if self.kind == "vectors":
            return f"points of {self.shape[0]} coordinates"
        channels, height, width = self.shape
        return f"images, {width}x{height} {'grey' if channels == 1 else 'colour'}"

    def _facts(self) -> dict[str, str]:
        return {
            "splits": _counts(self.splits),
            "classes": _counts(self.classes),
            "unlabelled": f"{self.unlabelled:,}" if self.unlabelled else "",
            "captions": f"{self.captions:,}" if self.captions else "",
            "sizes": _counts(self.sizes),
            "modes": _counts(self.modes),
            "mirrored": "" if self.kind == "vectors" else "yes" if self.mirror else "no",
            "duplicates": f"{self.duplicates:,}",
            "bad files": f"{len(self.bad):,}",
            "fingerprint": self.fingerprint,
        }


def describe(settings: DataSettings, *, progress: bool = False) -> Description:
    """Load what `settings` name and describe it. Raises as `load` does."""
    found = [(prepared, assemble(prepared, each)) for prepared, each in prepare_sides(settings, progress=progress)]
    told = [_described(prepared, data) for prepared, data in found]
    if len(told) == 1:
        return told[0]
    return replace(told[0], other=told[1], fingerprint=joined(*(data for _, data in found)).fingerprint)


def _described(prepared: Prepared, data: DataSet) -> Description:
    groups = _duplicates(prepared)
    return Description(
        source=data.source,
        kind=data.kind,
        count=len(data),
        shape=data.shape,
        splits={name: len(data.rows(name)) for name in SPLITS},
        classes=_class_counts(data),
        unlabelled=0 if data.labels is None else int((data.labels == UNSAID).sum()),
        sizes=dict(prepared.sizes),
        modes=dict(prepared.modes),
        duplicates=sum(len(group) - 1 for group in groups),
        duplicate_groups=tuple(groups),
        captions=sum(map(bool, data.captions or ())),
        mirror=data.mirror,
        fingerprint=data.fingerprint,
        bad=data.bad,
        notes=data.notes,
    )


def contact_sheet(data: DataSet, count: int = SHEET, seed: int | None = None) -> Tensor:
    """The first `count` images or, given a seed, random ones, exactly as a model sees them (but for mirroring).

    Returns:
        (n, C, H, W) float32 in [0, 1], n at most `count`; for `nacre.images.grid`.

    Raises:
        DataError: the set holds points.
    """
    if data.kind == "vectors":
        raise DataError(f"{data.source} holds points, not images: there is no sheet to show.")
    order = np.arange(len(data)) if seed is None else seeds.permutation(seed, 0, len(data))
    return to_float(torch.from_numpy(data.items[np.sort(order[:count])]))


def _first(title: str, facts: Sequence[str]) -> list[str]:
    """A line for each of the first facts, and one for the rest."""
    lines = [f"{title:<12} {fact}" for fact in facts[:SHOWN]]
    return lines + ([f"{'':<12} … and {len(facts) - SHOWN:,} more"] if len(facts) > SHOWN else [])


def _counts(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in islice(counts.items(), SHOWN))
    return shown + (f", … {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else "")


def _class_counts(data: DataSet) -> dict[str, int]:
    if data.labels is None:
        return {}
    counts = np.bincount(data.labels[data.labels != UNSAID], minlength=len(data.classes)).tolist()
    return dict(zip(data.classes, counts, strict=True))


def _duplicates(prepared: Prepared) -> list[tuple[str, ...]]:
    groups: defaultdict[bytes, list[str]] = defaultdict(list)
    for index, name in enumerate(prepared.listing.names):
        groups[prepared.digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
