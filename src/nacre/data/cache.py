"""Decoded images on disk: one .npy file a source and size, found again by the stamp of what it was made from.

`<key>.json` says everything but the items, after a digest of itself; `<key>-<stamp>.npy` holds the items. Each is written
aside and renamed, the JSON last, so that a reader finds a pair that belongs together or none. Nothing is trusted that
can be seen to be wrong: a missing, shortened or unreadable part means that the source is decoded again.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nacre.data.build import Record
from nacre.data.dataset import DIGEST_SIZE, BadFile, Listing, Prepared
from nacre.data.decode import can_read_heic
from nacre.data.settings import DataSettings
from nacre.errors import DataError
from nacre.files import whole_file, write_text

VERSION = 1
LARGEST_IN_MEMORY = 1 << 28  # bytes
ABANDONED = 24 * 3600  # seconds after which a half-written file is nobody's


def cache_folder() -> Path:
    """$NACRE_CACHE, or ~/.cache/nacre."""
    return Path(os.environ.get("NACRE_CACHE") or "~/.cache/nacre").expanduser()


def key(source: str, settings: DataSettings) -> str:
    """A name for what `source` is when it is decoded under `settings`; the split is no part of it."""
    parts = [VERSION, source, settings.size, settings.fit, settings.channels, can_read_heic()]
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def find(source: str, key: str, stamp: str) -> Prepared | None:
    """What was stored under `key`, if it is whole and was made from what has this `stamp`."""
    folder = cache_folder()
    try:
        told = _checked((folder / f"{key}.json").read_text(encoding="utf-8"))
        if told["stamp"] != stamp or told["version"] != VERSION:
            return None
        record = _record(told)
        items = _items(folder / f"{key}-{stamp}.npy", record.shape)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return prepared(source, items, record)


def store(source: str, key: str, stamp: str, fill: Callable[[BinaryIO], Record]) -> Prepared:
    """Let `fill` write the items, keep them under `key` and open them.

    A cache that cannot be written costs time, not the training: the items then live in a nameless temporary file, and
    a note says so.

    Raises:
        DataError: not even that is possible, or what `fill` raises.
    """
    folder = cache_folder()
    path = folder / f"{key}-{stamp}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside, aside.open("wb") as file:
            record = fill(file)
        write_text(folder / f"{key}.json", _with_sum(json.dumps(_told(record, stamp))))
        _forget_older(folder, key, path)
        return prepared(source, _items(path, record.shape), record)
    except OSError as error:
        note = f"The decoded images are not kept: {folder} cannot be written ({error.strerror}); NACRE_CACHE names another."
    return _store_nowhere(source, fill, note)


def prepared(source: str, items: np.ndarray, record: Record) -> Prepared:
    """A record together with its items."""
    return Prepared(source, items, record.listing, record.digests, record.sizes, record.modes, record.content)


def _store_nowhere(source: str, fill: Callable[[BinaryIO], Record], note: str) -> Prepared:
    try:
        with tempfile.TemporaryFile() as file:
            record = fill(file)
            file.flush()
            file.seek(0)
            # The mapping keeps the file's space until the last array that uses it is gone.
            items = np.memmap(file, np.uint8, "r", offset=_header_size(file, record.shape), shape=record.shape)
    except OSError as error:
        raise DataError(f"{source} cannot be decoded: no room in the temporary folder ({error.strerror}).") from error
    return prepared(source, items, replace(record, listing=record.listing.noting(note)))


def _items(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Open the items, mapped if they are large; ValueError or OSError if the file is not what it was."""
    with path.open("rb") as file:
        size = _header_size(file, shape) + math.prod(shape)
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size} bytes and not {size}")
    large = size > LARGEST_IN_MEMORY
    items: np.ndarray = np.load(path, mmap_mode="r" if large else None, allow_pickle=False)
    return items


def _header_size(file: BinaryIO, shape: tuple[int, ...]) -> int:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not what this version writes")
    if np.lib.format.read_array_header_1_0(file) != (shape, False, np.dtype(np.uint8)):
        raise ValueError("another array")
    return file.tell()


def _forget_older(folder: Path, key: str, kept: Path) -> None:
    """Remove what was stored under this key before, and what killed builders left. Who has it mapped keeps it."""
    older = [path for path in folder.glob(f"{key}-*.npy") if path != kept]
    for path in (*older, *folder.glob(f".{key}*")):
        with suppress(OSError):
            if path in older or path.stat().st_mtime < time.time() - ABANDONED:
                path.unlink()


def _with_sum(text: str) -> str:
    return f"{blake2b(text.encode(), digest_size=16).hexdigest()}\n{text}"


def _checked(content: str) -> dict[str, Any]:
    """The JSON after the first line, which is its digest; ValueError if it is another's."""
    text = content.partition("\n")[2]
    if content != _with_sum(text):
        raise ValueError("not what was written")
    told: dict[str, Any] = json.loads(text)
    return told


def _told(record: Record, stamp: str) -> dict[str, Any]:
    listing = record.listing
    return {
        "version": VERSION,
        "stamp": stamp,
        "shape": record.shape,
        "digests": record.digests.hex(),
        "sizes": record.sizes,
        "modes": record.modes,
        "content": record.content,
        "names": listing.names,
        "kind": listing.kind,
        "labels": None if listing.labels is None else listing.labels.tolist(),
        "classes": listing.classes,
        "captions": listing.captions,
        "fixed": None if listing.fixed is None else listing.fixed.tolist(),
        "notes": listing.notes,
        "bad": [[file.name, file.reason] for file in listing.bad],
    }


def _record(told: dict[str, Any]) -> Record:
    count = told["shape"][0]
    listing = Listing(
        names=tuple(told["names"]),
        kind=told["kind"],
        labels=None if told["labels"] is None else np.array(told["labels"], np.int64),
        classes=tuple(told["classes"]),
        captions=None if told["captions"] is None else tuple(told["captions"]),
        fixed=None if told["fixed"] is None else np.array(told["fixed"], np.int8),
        notes=tuple(told["notes"]),
        bad=tuple(BadFile(name, reason) for name, reason in told["bad"]),
    )
    digests = bytes.fromhex(told["digests"])
    if len(listing.names) != count or len(digests) != count * DIGEST_SIZE:
        raise ValueError("names, digests and items differ in number")
    return Record(tuple(told["shape"]), listing, digests, told["sizes"], told["modes"], told["content"])
