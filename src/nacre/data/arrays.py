"""Images and vectors that are arrays already: what their shapes and values mean, and NumPy's own files."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from nacre.data.archives import DAMAGE, refuse_bomb
from nacre.data.dataset import UNSAID, Kind, Listing, about_unlabelled, numbered
from nacre.data.decode import Header, Picture, grey_levels, white_level
from nacre.errors import DataError

BLOCK = 1024
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
IMAGE_KEYS = ("images", "x", "data", "arr_0")
LABEL_KEYS = ("labels", "y")
CAPTIONS = "captions"
NUMBERS = "numbers"  # of samples, which nacre writes beside them


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in one array.

    Args:
        images: (N, H, W, 1, 3 or 4) of any number type, perhaps a memory map.
        white: the value that means white; black is 0.
    """

    listing: Listing
    images: np.ndarray
    white: float = 255.0

    def header(self) -> Header:
        """What every image of the array is."""
        _, height, width, channels = self.images.shape
        return Header((width, height), MODES[channels])

    def visit(self, rows: Sequence[int]) -> Iterator["ArrayImage"]:
        """The images of `rows`."""
        return (ArrayImage(self, row) for row in rows)

    def in_place(self) -> np.ndarray | None:
        """The images as (N, 1 or 3, H, W) uint8 if they lie just so in a file that is mapped, otherwise None. As long as
        they are used, the file may be replaced but must not be written to."""
        planes = np.moveaxis(self.images, 3, 1)
        ready = planes.dtype == np.uint8 and self.white == 255 and planes.shape[1] < 4 and planes.flags.c_contiguous
        return planes if ready and isinstance(planes, np.memmap) else None

    def block(self, start: int, stop: int) -> np.ndarray:
        """Images `start` to `stop` as (n, H, W, 1 or 3) uint8, transparency over white."""
        levels = grey_levels(self.images[start:stop], self.white)
        if levels.shape[3] < 4:
            return levels
        alpha = levels[:, :, :, 3:].astype(np.uint32)
        # Rounded to the nearest: (colour × alpha + 255 × (255 - alpha)) / 255.
        return ((levels[:, :, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """Image `row` of an array."""

    source: ArraySource
    row: int

    def header(self) -> Header:
        """What every image of the array is."""
        return self.source.header()

    def picture(self) -> Picture:
        """The image as uint8."""
        return Picture(self.source.block(self.row, self.row + 1)[0], self.header().mode)


@dataclass(frozen=True, eq=False)
class VectorSource:
    """Points: (N, D) float32."""

    listing: Listing
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Part:
    """One array of a source, with what belongs to it."""

    values: np.ndarray
    labels: np.ndarray | None
    split: int = UNSAID
    captions: np.ndarray | None = None


def source_of(
    parts: list[Part], name: str, kind: Kind | None = None, classes: tuple[str, ...] = ()
) -> ArraySource | VectorSource:
    """Make a source of arrays that belong together (a training and a test set, say).

    Args:
        parts: (N, D) vectors, or (N, H, W), (N, H, W, C) or (N, C, H, W) images, of equal shapes but for N.
        name: what to call the source in an error.
        kind: by default "digits" for grey images and "photos" for colour.
        classes: what the labels 0, 1 … mean; by default the labels' own values name them, and they are numbered anew.

    Raises:
        DataError: the shapes or values cannot be meant.
    """
    values = _joined([part.values for part in parts], name)
    low, high = _range(values, name)
    listing = _listing(parts, classes, name)
    if values.ndim == 2:
        if max(-low, high) > float(np.finfo(np.float32).max):
            raise DataError(f"{name} holds values up to {max(-low, high):g}, beyond 32-bit floats.")
        note = _flat_images(values)
        return VectorSource(replace(listing, kind="vectors").noting(*note), values.astype(np.float32, copy=False))
    images = _channels_last(values, name)
    white = white_level(low, high)
    if white is None:
        raise DataError(f"The images in {name} run from {low:g} to {high:g}; 0 to 1 or 0 to 255 was expected.")
    listing = replace(listing, kind=kind or ("digits" if images.shape[3] == 1 else "photos"))
    note = (
        ("All values lie between 0 and 1, so 1 was taken as white.",)
        if values.dtype.kind in "iu" and white == 1
        else ()
    )
    return ArraySource(listing.noting(*note), images, white)


def open_npy(path: Path) -> ArraySource | VectorSource:
    """Map a .npy file of images or vectors.

    Raises:
        DataError: it is damaged, holds Python objects, or shapes or values that cannot be meant.
    """
    with path.open("rb") as file:
        _check_header(file, path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    return source_of([Part(values, None)], str(path))


def open_npz(path: Path) -> ArraySource | VectorSource:
    """Read a .npz file: `images`, `x`, `data` or a single array, with `labels` or `y` and `captions`; or `x_train`,
    `y_train`, `x_test`, `y_test`, `captions_train` and so on, where the split is fixed.

    Raises:
        DataError: it is damaged, holds Python objects or a bomb, or lacks images.
    """
    _check_members(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    parts = _parts(arrays, path)
    source = source_of(parts, str(path))
    used = [array for part in parts for array in (part.values, part.labels, part.captions)]
    unused = [name for name, array in arrays.items() if name != NUMBERS and not any(array is each for each in used)]
    note = (f"Not used: the arrays {', '.join(unused)}.",) if unused else ()
    return replace(source, listing=source.listing.noting(*note))


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of rows, of bounded size."""
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _joined(arrays: list[np.ndarray], name: str) -> np.ndarray:
    if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise DataError(f"The arrays in {name} do not fit together: {shapes}.")
    values = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if values.dtype.kind not in "buif":
        raise DataError(f"{name} holds values of type {values.dtype}; numbers were expected.")
    if values.size == 0 or values.ndim < 2:
        raise DataError(f"{name} has the shape {values.shape}; {_EXPECTED}.")
    return values


_EXPECTED = "images (N, H, W), (N, H, W, C) or (N, C, H, W), or vectors (N, D), were expected"


def _range(values: np.ndarray, name: str) -> tuple[float, float]:
    """Bounds of the values, block by block: the least and the greatest, but for bytes; refuses what is not a number."""
    low, high = np.inf, -np.inf
    for start, stop in blocks(len(values)):
        block = values[start:stop]
        if values.dtype.kind == "f":
            finite = np.isfinite(block).reshape(len(block), -1).all(1)
            if not finite.all():
                raise DataError(f"Row {start + int(np.argmin(finite))} of {name} holds NaN or infinity.")
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        if values.dtype == np.uint8 and high > 1:  # what else may come is known; a large file is not read to its end
            return 0.0, 255.0
    return low, high


def _channels_last(values: np.ndarray, name: str) -> np.ndarray:
    shape = values.shape
    if values.ndim == 3 and shape[2] in MODES and shape[1] > shape[2]:
        raise DataError(f"{name} has the shape {shape}, which looks like one picture; {_EXPECTED}.")
    if values.ndim == 3:
        return values[:, :, :, None]
    if values.ndim != 4 or not (shape[1] in MODES or shape[3] in MODES):
        raise DataError(f"{name} has the shape {shape}; {_EXPECTED} (C: 1, 3 or 4).")
    if shape[1] in MODES and shape[3] in MODES:
        raise DataError(f"{name} has the shape {shape}, where either {shape[1]} or {shape[3]} may be the channels.")
    return values if shape[3] in MODES else np.moveaxis(values, 1, 3)


def _flat_images(values: np.ndarray) -> tuple[str, ...]:
    side = round(values.shape[1] ** 0.5)
    if values.dtype != np.uint8 or side * side != values.shape[1] or side < 4:
        return ()
    return (f"Rows of {side * side} values are taken as vectors; save them as (N, {side}, {side}) to have images.",)


def _listing(parts: list[Part], classes: tuple[str, ...], name: str) -> Listing:
    labels = _labels(parts, name)
    if labels is not None:
        labels, classes = (labels.astype(np.int64), classes) if classes else numbered(labels)
    notes = () if labels is None else about_unlabelled(labels)
    labels = labels if classes else None
    fixed = np.concatenate([np.full(len(part.values), part.split, np.int8) for part in parts])
    names = tuple(map(str, range(len(fixed))))
    captions = None
    if any(part.captions is not None for part in parts):
        captions = tuple(text for part in parts for text in _texts(part))
    return Listing(names, "photos", labels, classes, captions, None if (fixed == UNSAID).all() else fixed, notes)


def _texts(part: Part) -> list[str]:
    return [""] * len(part.values) if part.captions is None else part.captions.tolist()


def _labels(parts: list[Part], name: str) -> np.ndarray | None:
    if all(part.labels is None for part in parts):
        return None
    labels = []
    for part in parts:
        if part.labels is None or part.labels.shape not in [(len(part.values),), (len(part.values), 1)]:
            shape = None if part.labels is None else part.labels.shape
            raise DataError(
                f"{name} has {len(part.values)} items and labels of shape {shape}; one label each was expected."
            )
        labels.append(part.labels.ravel())
    return np.concatenate(labels)


def _parts(arrays: Mapping[str, np.ndarray], path: Path) -> list[Part]:
    if "x_train" in arrays:
        pairs = [("train", UNSAID), ("val", 1), ("test", 2)]
        captions = {part: arrays.get(f"{CAPTIONS}_{part}") for part, _ in pairs}
        captions["train"] = arrays.get(CAPTIONS, captions["train"])
        return [
            Part(items, arrays.get(f"y_{part}"), split, _captions(captions[part], len(items), path))
            for part, split in pairs
            if (items := arrays.get(f"x_{part}")) is not None
        ]
    labels = next((arrays[key] for key in LABEL_KEYS if key in arrays), None)
    rest = [key for key in arrays if key not in (*LABEL_KEYS, CAPTIONS)]
    key = next((key for key in IMAGE_KEYS if key in arrays), rest[0] if len(rest) == 1 else None)
    if key is None:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; an array called images, x or data was expected."
        )
    return [Part(arrays[key], labels, captions=_captions(arrays.get(CAPTIONS), len(arrays[key]), path))]


def _captions(captions: np.ndarray | None, count: int, path: Path) -> np.ndarray | None:
    if captions is not None and (captions.dtype.kind != "U" or captions.shape != (count,)):
        raise DataError(
            f"{path} has captions of type {captions.dtype} and shape {captions.shape}; one text an item was expected."
        )
    return captions


def _check_members(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as file:
                    size = _check_header(file, path)
                if size != info.file_size:
                    raise DataError(
                        f"{path} is damaged: {info.filename} has {info.file_size} bytes and declares {size}."
                    )
                refuse_bomb(path, info.compress_size, size)
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as a .npz file: {error}.") from error


def _check_header(file: IO[bytes], path: Path) -> int:
    """Refuse an array of Python objects before anything else is read; how many bytes the file should have."""
    try:
        version = np.lib.format.read_magic(file)
        read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    if dtype.hasobject:
        raise DataError(f"{path} holds Python objects, which nacre never unpickles; save it with numpy.savez(...).")
    size = dtype.itemsize
    for length in shape:
        size *= length
    return file.tell() + size
