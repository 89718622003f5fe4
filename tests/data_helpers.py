"""Small image sets that the data tests make for themselves."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from nacre.data import DataSet, DataSettings, load


def pixels(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    """Random (H, W, C) uint8, or (H, W) for one channel."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return values[:, :, 0] if channels == 1 else values


def encoded(image: Image.Image | np.ndarray, form: str = "PNG", **options: object) -> bytes:
    """An image as the bytes of a file."""
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def pictures(names: Iterable[str], **options: int) -> dict[str, bytes]:
    """A different random PNG for each name."""
    return {name: encoded(pixels(seed, **options)) for seed, name in enumerate(names)}


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.suffix[1:], "w")
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    """An array in the idx format with big-endian values of its own type."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_set(root: Path, train: int = 40, test: int = 10, side: int = 6, pack: bool = True) -> Path:
    """A folder of four files named as MNIST's are."""
    generator = np.random.default_rng(0)
    files = {}
    for part, count in (("train", train), ("t10k", test)):
        files[f"{part}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (count, side, side), np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return folder(root, {name + ".gz": gzip.compress(data) for name, data in files.items()} if pack else files)


def open_set(source: Path | str, **settings: object) -> DataSet:
    """Load with nothing kept aside unless `settings` say so."""
    return load(DataSettings(data=str(source), **{"validation": 0.0, "test": 0.0, **settings}))
