"""From the text after --data to a data set: which source is meant, whether it is decoded already, and its split."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from nacre.data import build, cache, folders, published, shards, sides
from nacre.data.archives import TAR_SUFFIXES, ZIP_SUFFIXES, opened_tar, opened_zip
from nacre.data.arrays import ArraySource, VectorSource, blocks, open_npy, open_npz
from nacre.data.build import Record, choose_target
from nacre.data.dataset import DIGEST_SIZE, DataSet, Prepared, assemble, content_digest, digest
from nacre.data.decode import SUFFIXES
from nacre.data.folders import file_stamp
from nacre.data.idx import NAME, is_idx, open_idx
from nacre.data.layout import is_image
from nacre.data.parquet import open_parquet
from nacre.data.progress import bar
from nacre.data.settings import DataSettings
from nacre.data.stacked import open_stacked
from nacre.data.toys import TOYS, open_toy
from nacre.data.webdataset import open_tars, says_more
from nacre.errors import ConfigError, DataError

Source = build.Source | VectorSource

LARGEST_UNCACHED = 1 << 30  # bytes
PREFIXES = ("mnist", "fashion-mnist", "idx", "cifar10", "binarized-mnist", "toy")
NAMED = ("digits", "mnist", "fashion-mnist", "stacked-mnist")
KNOWN = (*NAMED, *(f"toy:{name}" for name in TOYS), "idx:", "cifar10:", "binarized-mnist:")


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
    return together(prepare_sides(settings, progress=progress))


def together(found: Sequence[tuple[Prepared, DataSettings]]) -> DataSet:
    """The set that the prepared sides make, or the only one."""
    sets = [assemble(prepared, settings) for prepared, settings in found]
    return sides.joined(*sets) if len(sets) > 1 else sets[0]


def prepare_sides(settings: DataSettings, *, progress: bool = False) -> list[tuple[Prepared, DataSettings]]:
    """What `load` does before the split of each side, the second at the size of the first; and the settings of each."""
    one, other = sides.named(settings)
    found = [(prepare(one, progress=progress), one)]
    if other is not None:
        shape = found[0][0].items.shape
        of_same_size = replace(other, image_size=(shape[2], shape[3]) if len(shape) == 4 else None)
        found.append((prepare(of_same_size, progress=progress), of_same_size))
    return found


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
            if isinstance(source, ArraySource) and _has_target_shape(source, settings):
                if source.images.size <= LARGEST_UNCACHED:
                    return _as_it_is(origin.name, source)
                if (planes := source.in_place()) is not None:
                    record = _record(source, planes, progress)
                    return cache.store_in_place(origin.name, key, origin.stamp, planes, record)
            fill = partial(build.build, source, origin.name, settings, progress=progress)
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
    if prefix == "stacked-mnist":
        return _stacked(_path(rest) if rest else published.usual_folder("mnist"), progress)
    if prefix == "toy" and rest in TOYS:
        return Origin(settings.data, str(settings.split_seed), _opening(open_toy, rest, settings.split_seed))
    if colon and prefix in PREFIXES and prefix != "toy":
        return _prefixed(prefix, _path(rest))
    path = _path(settings.data)
    if (side := sides.side_of(path)) is not None:
        return _side(path, *side)
    if "{" in settings.data and not path.exists():
        return _sharded(path, shards.expand(path), path.parent, progress)
    if not settings.data or not path.exists():
        raise DataError(_unknown(settings.data))
    return _at(path, progress)


def _opening(opener: Callable[..., Source], *what: object) -> Callable[[], AbstractContextManager[Source]]:
    """`opener`, which leaves no file open, as what an `Origin` asks for."""
    return lambda: nullcontext(opener(*what))


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _published(name: str, folder: Path, progress: bool) -> Origin:
    stamp = file_stamp(*published.published_files(name, folder))
    return Origin(f"{name}:{folder}", stamp, _opening(published.open_published, name, folder, progress))


def _stacked(folder: Path, progress: bool) -> Origin:
    stamp = file_stamp(*published.published_files("mnist", folder))
    return Origin(f"stacked-mnist:{folder}", stamp, _opening(open_stacked, folder, progress))


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


def _sharded(path: Path, paths: Sequence[Path], root: Path, progress: bool) -> Origin:
    """The shards that `path` means, which are of one kind; they are named from the folder `root`."""
    opener = open_tars if paths[0].suffix == ".tar" else open_parquet
    return Origin(str(path), file_stamp(*paths), _opening(opener, paths, root, str(path), progress))


def _side(path: Path, folder: Path, side: str) -> Origin:
    """One side of a folder that holds two."""
    found, places = sides.of_side(folders.scan(folder), side)
    if not any(map(is_image, found.paths)):
        raise DataError(f"{folder / f'train{side}'} holds no image; each side needs some to train on.")
    return Origin(str(path), found.stamp, _opening(folders.open_folder, folder, found, places))


def _at(path: Path, progress: bool) -> Origin:
    """The source that lies at an existing path, judged by its name."""
    if path.is_dir():
        found = folders.scan(path)
        if not any(map(is_image, found.paths)):
            if paths := shards.inside(path):
                return _sharded(path, paths, path, progress)
            _refuse_arrays(path)
        if found.shards:
            found = _beside_shards(path, found)
        return Origin(str(path), found.stamp, _opening(folders.open_folder, path, found))
    if path.suffix == ".parquet":
        return _sharded(path, [path], path.parent, progress)
    name = path.name.lower()
    for suffixes, opened in _ARCHIVES.items():
        if name.endswith(suffixes):
            return Origin(str(path), file_stamp(path), partial(opened, path, progress))
    opener = open_idx if is_idx(path) else _ARRAYS.get(path.suffix.lower())
    if opener:
        return Origin(str(path), file_stamp(path), _opening(opener, path))
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path} is one image; name the folder that holds many.")
    raise DataError(f"{path} is no source that nacre knows; {_EXPECTED}.")


def _zip(path: Path, progress: bool) -> AbstractContextManager[Source]:
    return opened_zip(path)


def _tar(path: Path, progress: bool) -> AbstractContextManager[Source]:
    """A folder of images in an archive, or a shard that stands alone."""
    if says_more(path):
        return nullcontext(open_tars([path], path.parent, str(path), progress))
    return opened_tar(path)


def _beside_shards(path: Path, found: folders.Scan) -> folders.Scan:
    """A folder's images, with a note on the shards beside them. Raises DataError if these may be the set."""
    images, count = [name for name in found.paths if is_image(name)], len(found.shards)
    if len(images) <= count:
        raise DataError(
            f"{path} holds shards ({found.shards[0]} …) and beside them images ({images[0]} …); move the images elsewhere."
        )
    note = f"Not read, for images lie beside them: {count} .tar or .parquet files ({found.shards[0]} …)."
    return replace(found, notes=(*found.notes, note))


_ARCHIVES: Mapping[tuple[str, ...], Callable[[Path, bool], AbstractContextManager[Source]]]
_ARCHIVES = {ZIP_SUFFIXES: _zip, TAR_SUFFIXES: _tar}
_ARRAYS: Mapping[str, Callable[[Path], Source]]
_ARRAYS = {".npy": open_npy, ".npz": open_npz, ".amat": published.open_amat}
_EXPECTED = "a folder of images, a .zip, .tar, .parquet, .npy, .npz, .amat or idx file was expected"


def _refuse_arrays(path: Path) -> None:
    """Tell how to name a folder that holds no images but arrays that nacre knows."""
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
    points, state = np.ascontiguousarray(source.points), blake2b(digest_size=DIGEST_SIZE)
    state.update(points.data)
    digests = b"".join(map(digest, points))
    content = content_digest(state, points.shape, points.dtype.str)
    return Prepared(name, points, source.listing, digests, {}, {}, content)


def _has_target_shape(source: ArraySource, settings: DataSettings) -> bool:
    target, _ = choose_target([source.header()], settings)
    _, height, width, channels = source.images.shape
    return (height, width, min(channels, 3)) == (target.height, target.width, target.channels)


def _as_it_is(name: str, source: ArraySource) -> Prepared:
    count, height, width, channels = source.images.shape
    items = np.empty((count, min(channels, 3), height, width), np.uint8)
    for start, stop in blocks(count):
        items[start:stop] = np.moveaxis(source.block(start, stop), 3, 1)
    return cache.prepared(name, items, _record(source, items, progress=False))


def _record(source: ArraySource, items: np.ndarray, progress: bool) -> Record:
    """What is to be known of images (N, 1 or 3, H, W) that need no resizing, in one pass and bounded memory."""
    state, digests = blake2b(digest_size=DIGEST_SIZE), bytearray()
    with bar(len(items), "looking at images", "image", progress) as shown:
        for start, stop in blocks(len(items)):
            state.update(items[start:stop].data)
            for image in np.moveaxis(items[start:stop], 1, 3):
                digests += digest(image)
            shown.update(stop - start)
    header, count = source.header(), len(items)
    size = f"{header.size[0]}x{header.size[1]}"
    content = content_digest(state, items.shape, items.dtype.str)
    return Record(items.shape, source.listing, bytes(digests), {size: count}, {header.mode: count}, content)
