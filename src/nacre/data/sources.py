"""From the text after --data to a data set: which source is meant, whether it is decoded already, and its split."""

import difflib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from nacre.data import cache, folders, published
from nacre.data.archives import TAR_SUFFIXES, ZIP_SUFFIXES, opened_tar, opened_zip
from nacre.data.arrays import ArraySource, VectorSource, blocks, open_npy, open_npz
from nacre.data.build import build, choose_target
from nacre.data.dataset import DIGEST_SIZE, DataSet, Prepared, assemble, content_digest, digest
from nacre.data.decode import SUFFIXES
from nacre.data.folders import FileSource, file_stamp
from nacre.data.idx import NAME, is_idx, open_idx
from nacre.data.layout import is_image
from nacre.data.settings import DataSettings
from nacre.data.toys import TOYS, open_toy
from nacre.errors import ConfigError, DataError

Source = FileSource | ArraySource | VectorSource

LARGEST_UNCACHED = 1 << 30  # bytes
PREFIXES = ("mnist", "fashion-mnist", "idx", "cifar10", "binarized-mnist", "toy")
KNOWN = ("digits", "mnist", "fashion-mnist", *(f"toy:{name}" for name in TOYS), "idx:", "cifar10:", "binarized-mnist:")


@dataclass(frozen=True)
class Origin:
    """A source that was found but not opened.

    Args:
        name: its full name; finding this again gives the same source.
        stamp: changes when the source may have changed.
        open: lists what it holds.
    """

    name: str
    stamp: str
    open: Callable[[], AbstractContextManager[Source]]


def load(settings: DataSettings, *, progress: bool = False) -> DataSet:
    """Find, decode and split the images (or points) that `settings` names.

    Args:
        progress: show a bar on standard error when it takes more than two seconds and that is a terminal.

    Raises:
        DataError: the source is missing, empty, broken or not what it says it is.
        ConfigError: a setting that cannot be meant for this source.
    """
    return assemble(prepare(settings, progress=progress), settings)


def prepare(settings: DataSettings, *, progress: bool = False) -> Prepared:
    """What `load` does before the split; see there."""
    try:
        origin = find(settings, progress=progress)
        key = cache.key(origin.name, settings)
        found = cache.find(origin.name, key, origin.stamp)
        if found:
            return found
        with origin.open() as source:
            if isinstance(source, VectorSource):
                return _points(origin.name, source, settings)
            if isinstance(source, ArraySource) and _is_ready(source, settings):
                return _as_it_is(origin.name, source)
            fill = partial(build, source, origin.name, settings, progress=progress)
            return cache.store(origin.name, key, origin.stamp, fill)
    except OSError as error:
        raise DataError(f"{error.filename or settings.data} cannot be read: {error.strerror or error}.") from error


def find(settings: DataSettings, *, progress: bool = False) -> Origin:
    """Which source `settings.data` means.

    Raises:
        DataError: none that exists; the message names the nearest that does.
    """
    prefix, colon, rest = settings.data.partition(":")
    if settings.data == "digits":
        return Origin("digits", "", _opening(published.open_digits))
    if prefix in published.MNIST_LIKE:
        return _published(prefix, _path(rest) if rest else published.usual_folder(prefix), progress)
    if prefix == "toy" and rest in TOYS:
        return Origin(settings.data, "", _opening(open_toy, rest, settings.split_seed))
    if colon and prefix in PREFIXES and prefix != "toy":
        return _prefixed(prefix, _path(rest))
    path = _path(settings.data)
    if not settings.data or not path.exists():
        raise DataError(_unknown(settings.data))
    return _at(path)


def _opening(opener: Callable[..., Source], *what: object) -> Callable[[], AbstractContextManager[Source]]:
    """`opener`, which leaves no file open, as what an `Origin` asks for."""
    return lambda: nullcontext(opener(*what))


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _published(name: str, folder: Path, progress: bool) -> Origin:
    stamp = file_stamp(*published.published_files(name, folder))
    return Origin(f"{name}:{folder}", stamp, _opening(published.open_published, name, folder, progress))


def _prefixed(prefix: str, path: Path) -> Origin:
    if not path.exists():
        raise DataError(f"{path} does not exist; {prefix}: must be followed by {_MEANT[prefix]}.")
    inside = sorted((*path.glob("*"), *path.glob(f"{published.CIFAR_FOLDER}/*")))
    files = [path] if path.is_file() else [file for file in inside if file.is_file()]
    opener = {"idx": open_idx, "cifar10": published.open_cifar10, "binarized-mnist": published.open_amat}[prefix]
    return Origin(f"{prefix}:{path}", file_stamp(*files), _opening(opener, path))


_MEANT = {
    "idx": "an idx file or a folder of them",
    "cifar10": "the folder of CIFAR-10's binary version",
    "binarized-mnist": "the folder of the .amat files",
}


def _at(path: Path) -> Origin:
    """The source that lies at an existing path, judged by its name."""
    if path.is_dir():
        found = folders.scan(path)
        _refuse_arrays(path, found)
        return Origin(str(path), found.stamp, _opening(folders.open_folder, path, found))
    name = path.name.lower()
    for suffixes, opened in _ARCHIVES.items():
        if name.endswith(suffixes):
            return Origin(str(path), file_stamp(path), partial(opened, path))
    opener = open_idx if is_idx(path) else _ARRAYS.get(path.suffix.lower())
    if opener:
        return Origin(str(path), file_stamp(path), _opening(opener, path))
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path} is one image; name the folder that holds many.")
    raise DataError(f"{path} is no source that nacre knows; {_EXPECTED}.")


_ARCHIVES: Mapping[tuple[str, ...], Callable[[Path], AbstractContextManager[Source]]]
_ARCHIVES = {ZIP_SUFFIXES: opened_zip, TAR_SUFFIXES: opened_tar}
_ARRAYS: Mapping[str, Callable[[Path], Source]]
_ARRAYS = {".npy": open_npy, ".npz": open_npz, ".amat": published.open_amat}
_EXPECTED = "a folder of images, a .zip, .tar, .npy, .npz, .amat or idx file was expected"


def _refuse_arrays(path: Path, found: folders.Scan) -> None:
    """Tell how to name a folder that holds no images but arrays that nacre knows."""
    if any(map(is_image, found.files)):
        return
    for file in sorted(path.iterdir()):
        prefix = next((prefix for prefix, pattern in _ARRAY_FOLDERS.items() if pattern.search(file.name.lower())), None)
        if prefix:
            raise DataError(f"{path} holds {file.name} and no images: use {prefix}:{path}.")
        if file.suffix.lower() in _ARRAYS:
            raise DataError(f"{path} holds {file.name} and no images: name that file.")


_ARRAY_FOLDERS = {
    "cifar10": re.compile(r"^data_batch_\d"),
    "binarized-mnist": re.compile(r"\.amat$"),
    "idx": NAME,
}


def _unknown(text: str) -> str:
    path = _path(text)
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(text, KNOWN, 1) or difflib.get_close_matches(text and path.name, beside, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; {_EXPECTED}, or one of {', '.join(KNOWN)}."
    return f"There is no file, folder or source called {text!r}{hint}"


def _points(name: str, source: VectorSource, settings: DataSettings) -> Prepared:
    if settings.image_size or settings.channels:
        flag = "--image-size" if settings.image_size else "--channels"
        raise ConfigError(f"{name} holds points, not images: {flag} means nothing there.")
    return _prepared(name, source.points, source, b"".join(map(digest, source.points)), {}, {})


def _is_ready(source: ArraySource, settings: DataSettings) -> bool:
    """Whether the images need no resizing and fit into memory as they are."""
    target, _ = choose_target([source.header(0)], settings)
    count, height, width, channels = source.images.shape
    same = (height, width, min(channels, 3)) == (target.height, target.width, target.channels)
    return same and count * height * width * channels <= LARGEST_UNCACHED


def _as_it_is(name: str, source: ArraySource) -> Prepared:
    count, height, width, channels = source.images.shape
    items = np.empty((count, min(channels, 3), height, width), np.uint8)
    digests: list[bytes] = []
    for start, stop in blocks(count):
        block = source.block(start, stop)
        items[start:stop] = np.moveaxis(block, 3, 1)
        digests += map(digest, block)
    header = source.header(0)
    size = f"{header.size[0]}x{header.size[1]}"
    return _prepared(name, items, source, b"".join(digests), {size: count}, {header.mode: count})


def _prepared(
    name: str,
    items: np.ndarray,
    source: ArraySource | VectorSource,
    digests: bytes,
    sizes: dict[str, int],
    modes: dict[str, int],
) -> Prepared:
    state = blake2b(np.ascontiguousarray(items).data, digest_size=DIGEST_SIZE)
    content = content_digest(state, items.shape, items.dtype.str)
    return Prepared(name, items, source.listing, digests, sizes, modes, content)
