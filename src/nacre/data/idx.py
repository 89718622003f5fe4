"""The idx format, in which MNIST and its like are published: big-endian, gzip or not."""

import gzip
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nacre.data.archives import DAMAGE, refuse_bomb
from nacre.data.arrays import ArraySource, Part, VectorSource, source_of
from nacre.data.dataset import UNSAID
from nacre.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"(idx\d?|ubyte)(\.gz)?$")


def is_idx(path: Path) -> bool:
    """Whether a file is named like idx: something.idx, something-idx3-ubyte, either with .gz."""
    return NAME.search(path.name.lower()) is not None


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file, in the byte order of this machine.

    Raises:
        DataError: it is not idx, or not as long as it declares.
    """
    return parse_idx(unpacked(path), path)


def parse_idx(content: bytes, path: Path) -> np.ndarray:
    """The array in the bytes of an idx file called `path`; see `read_idx`."""
    code, rank = (content[2], content[3]) if content[:2] == b"\0\0" and len(content) >= 4 else (0, 0)
    start = 4 + 4 * rank
    if code not in TYPES or not 1 <= rank <= 4 or len(content) < start:
        raise DataError(f"{path} is not an idx file: its first bytes are {content[:4].hex(' ') or 'missing'}.")
    shape = tuple(np.frombuffer(content, ">u4", rank, 4).tolist())
    dtype = np.dtype(TYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(f"{path} is damaged: it declares {shape}, {expected:,} bytes, and has {len(content):,}.")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def unpacked(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is gzip.

    Raises:
        DataError: it cannot be read, is cut short, or is a bomb.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                return path.read_bytes()
        packed, pieces, size = path.stat().st_size, [], 0
        with gzip.open(path, "rb") as compressed:
            while piece := compressed.read(1 << 22):
                pieces.append(piece)
                size += len(piece)
                refuse_bomb(path, packed, size)
        return b"".join(pieces)
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def open_idx(path: Path) -> ArraySource | VectorSource:
    """An idx file of images or vectors, or a folder of such files with their labels.

    Files named t10k or test are the test split, those named val the validation split.

    Raises:
        DataError: no such file, or files that do not fit together.
    """
    if path.is_file():
        return source_of([Part(read_idx(path), None)], str(path), "digits")
    files = sorted(file for file in path.iterdir() if is_idx(file) and not file.name.startswith("."))
    # Beside an unpacked file, its packed twin is nothing new.
    files = [file for file in files if file.suffix != ".gz" or file.with_suffix("") not in files]
    parts = [_part(files, split, path) for split in (UNSAID, *_SPLIT_WORDS)]
    present = [part for part in parts if part is not None]
    if not present:
        raise DataError(f"{path} holds no idx file of images; names such as train-images-idx3-ubyte.gz are looked for.")
    return source_of(present, str(path), "digits")


_SPLIT_WORDS = {1: ("val",), 2: ("t10k", "test")}


def _part(files: Sequence[Path], split: int, folder: Path) -> Part | None:
    arrays = [(file, read_idx(file)) for file in files if _split_of(file.name) == split]
    items = [(file, array) for file, array in arrays if array.ndim > 1]
    labels = [array for _, array in arrays if array.ndim == 1]
    if not items:
        return None
    if len(items) > 1 or len(labels) > 1:
        names = ", ".join(file.name for file, _ in arrays)
        raise DataError(f"{folder} holds several idx sets ({names}); name one file.")
    return Part(items[0][1], labels[0] if labels else None, split)


def _split_of(name: str) -> int:
    return next((split for split, words in _SPLIT_WORDS.items() if any(word in name.lower() for word in words)), UNSAID)
