"""Decoded images on disk: one .npy file a source and size, found again by the stamp of what it was made from.

`<key>-<stamp>.npy` holds the items, `<key>.record` all else: a digest of what follows, then a .npz of a few words in JSON
and of arrays with an entry for each item. Each is written aside and renamed, the record last, so that a reader finds a
pair that belongs together or none. Nothing is trusted that can be seen to be wrong: a missing, shortened or unreadable
part means that the source is decoded again. A source that is such an .npy file itself is used where it lies.
"""

import io
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nacre.data import jpeg
from nacre.data.archives import DAMAGE
from nacre.data.build import Record
from nacre.data.dataset import DIGEST_SIZE, BadFile, Listing, Prepared
from nacre.data.decode import can_read_heic
from nacre.data.settings import DataSettings
from nacre.errors import DataError
from nacre.files import whole_file

VERSION = 4
LARGEST_IN_MEMORY = 1 << 26  # bytes
SUM_SIZE = 16  # bytes
ABANDONED = 24 * 3600  # seconds after which a half-written file is nobody's


def cache_folder() -> Path:
    """$NACRE_CACHE, or ~/.cache/nacre."""
    return Path(os.environ.get("NACRE_CACHE") or "~/.cache/nacre").expanduser()


def key(source: str, settings: DataSettings) -> str:
    """A name for what `source` is when it is decoded under `settings`; the split is no part of it."""
    parts = [VERSION, source, settings.size, settings.fit, settings.channels, can_read_heic(), jpeg.decoder()]
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def find(source: str, key: str, stamp: str) -> Prepared | None:
    """What was stored under `key`, if it is whole and was made from what has this `stamp`."""
    folder = cache_folder()
    try:
        told, record = _read(folder / f"{key}.record")
        if told["stamp"] != stamp or told["version"] != VERSION:
            return None
        path = Path(source) if told["in_place"] else folder / f"{key}-{stamp}.npy"
        items = _planes(path, record.shape) if told["in_place"] else _items(path, record.shape)
    except (*DAMAGE, KeyError, TypeError):
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
        _write(folder / f"{key}.record", record, stamp, in_place=False)
        _forget_older(folder, key, path)
        return prepared(source, _items(path, record.shape), record)
    except OSError as error:
        note = f"The decoded images are not kept: {folder} cannot be written ({error.strerror}); NACRE_CACHE names another."
    return _store_nowhere(source, fill, note)


def store_in_place(source: str, key: str, stamp: str, items: np.ndarray, record: Record) -> Prepared:
    """Keep the record of a source that is an .npy file with just these items; a cache that cannot be written only costs
    the time to make the record again."""
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{key}.record", record, stamp, in_place=True)
    return prepared(source, items, record)


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


def _planes(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Map a source's own file as (N, C, H, W); ValueError if that is not how it lies there."""
    items: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if items.dtype != np.uint8 or not items.flags.c_contiguous:
        raise ValueError("another array")
    return items.reshape(shape)


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


def _write(path: Path, record: Record, stamp: str, *, in_place: bool) -> None:
    listing = record.listing
    told = {
        "version": VERSION,
        "stamp": stamp,
        "in_place": in_place,
        "shape": record.shape,
        "sizes": record.sizes,
        "modes": record.modes,
        "content": record.content,
        "kind": listing.kind,
        "classes": listing.classes,
        "notes": listing.notes,
        "bad": [[file.name, file.reason] for file in listing.bad],
    }
    arrays: dict[str, Any] = {"told": np.frombuffer(json.dumps(told).encode(), np.uint8)}
    arrays["digests"] = np.frombuffer(record.digests, np.uint8)
    arrays |= _packed("names", listing.names)
    if listing.captions is not None:
        arrays |= _packed("captions", listing.captions)
    arrays |= {
        name: array for name, array in (("labels", listing.labels), ("fixed", listing.fixed)) if array is not None
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    with whole_file(path) as aside, aside.open("wb") as written:
        written.write(_sum(file.getbuffer()))
        written.write(file.getbuffer())


def _read(path: Path) -> tuple[dict[str, Any], Record]:
    """What `_write` wrote; ValueError and the like if it is something else."""
    content = memoryview(path.read_bytes())
    if content[:SUM_SIZE] != _sum(content[SUM_SIZE:]):
        raise ValueError("not what was written")
    with np.load(io.BytesIO(content[SUM_SIZE:]), allow_pickle=False) as stored:
        arrays = dict(stored)
    told = json.loads(arrays["told"].tobytes())
    listing = Listing(
        names=_unpacked("names", arrays),
        kind=told["kind"],
        labels=arrays.get("labels"),
        classes=tuple(told["classes"]),
        captions=_unpacked("captions", arrays) if "captions" in arrays else None,
        fixed=arrays.get("fixed"),
        notes=tuple(told["notes"]),
        bad=tuple(BadFile(name, reason) for name, reason in told["bad"]),
    )
    digests = arrays["digests"].tobytes()
    if not len(listing.names) == len(digests) // DIGEST_SIZE == told["shape"][0]:
        raise ValueError("names, digests and items differ in number")
    record = Record(tuple(told["shape"]), listing, digests, told["sizes"], told["modes"], told["content"])
    return told, record


def _sum(content: memoryview) -> bytes:
    return blake2b(content, digest_size=SUM_SIZE).digest()


def _packed(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts end to end in UTF-8, and how many characters each has, for there may be millions."""
    joined = "".join(texts).encode("utf-8", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return {name: np.frombuffer(joined, np.uint8), f"{name}_lengths": lengths}


def _unpacked(name: str, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    joined = arrays[name].tobytes().decode("utf-8", "surrogatepass")
    ends = accumulate(arrays[f"{name}_lengths"].tolist(), initial=0)
    return tuple([joined[start:end] for start, end in pairwise(ends)])
