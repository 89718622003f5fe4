"""Decode a whole source into one array on disk, in parallel and in bounded memory."""

import os
import warnings
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

from nacre.data.dataset import DIGEST_SIZE, BadFile, Listing, content_digest, digest, refuse_too_many_bad
from nacre.data.decode import Header, HeicError, Picture, Target, UnreadableError, fitted
from nacre.data.progress import bar
from nacre.data.settings import DataSettings
from nacre.errors import DataError

LARGEST_UNSCALED, USUAL_SIZE = 128, 64
# Pillow lets other threads run while it decodes and resizes. For small images that is too short to gain anything
# (measured: two threads took 1.3 times as long as one at 64x64), and more threads than this only take memory. Processes
# gain nothing over threads: at 500x500 two were as fast as two threads, at 64x64 they took 1.4 times as long as one.
THREADS = min(8, os.cpu_count() or 1)
WORTH_A_THREAD = 1 << 16  # pixels

R = TypeVar("R")
T = TypeVar("T")


class Image(Protocol):
    """An image that is not decoded yet. Any thread may ask, and what is asked may raise UnreadableError."""

    def header(self) -> Header: ...
    def picture(self) -> Picture: ...


class Source(Protocol):
    """Images that are visited in order, as often as need be: those of `rows`, which ascend."""

    @property
    def listing(self) -> Listing: ...
    def visit(self, rows: Sequence[int]) -> Iterator[Image]: ...


@dataclass(frozen=True, eq=False)
class Record:
    """All of a prepared source but its items: see `dataset.Prepared`."""

    shape: tuple[int, ...]
    listing: Listing
    digests: bytes
    sizes: dict[str, int]
    modes: dict[str, int]
    content: str


@dataclass(frozen=True, eq=False)
class Decoded:
    """One image: its pixels in the target shape, and what is remembered of the original."""

    item: np.ndarray
    digest: bytes
    size: str
    mode: str
    animated: bool


def _indices() -> "array[int]":
    return array("q")


@dataclass(eq=False)
class _Tally:
    """What is known of a source while it is being decoded; a few bytes an image, for there may be millions."""

    rows: "array[int]" = field(default_factory=_indices)
    digests: bytearray = field(default_factory=bytearray)
    sizes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    bad: list[BadFile] = field(default_factory=list)
    heic: int = 0
    animated: int = 0

    def refuse(self, name: str, error: UnreadableError) -> None:
        if isinstance(error, HeicError):
            self.heic += 1
        else:
            self.bad.append(BadFile(name, str(error)))

    def add(self, row: int, image: Decoded) -> None:
        self.rows.append(row)
        self.digests += image.digest
        self.sizes[image.size] += 1
        self.modes[image.mode] += 1
        self.animated += image.animated

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.heic:
            notes.append(_about_heic(self.heic) + ".")
        if self.animated:
            notes.append(f"{self.animated} animated or many-page images: the first frame of each is used.")
        return tuple(notes)


def build(source: Source, name: str, settings: DataSettings, file: BinaryIO, *, progress: bool) -> Record:
    """Decode every image of `source` into `file`, an array in NumPy's .npy format.

    Args:
        name: what to call the source in an error.
        file: empty, writable and seekable.
        progress: show a bar on standard error if it takes more than two seconds and that is a terminal.

    Raises:
        DataError: nothing can be read, or too little.
    """
    # Pillow warns about files that are odd but readable. The filter is set once, here: it is not a thread's own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tally = _Tally()
        rows, headers = _examine(source, tally, progress)
        bad = (*source.listing.bad, *tally.bad)
        if not rows and tally.heic and not bad:
            raise DataError(f"{name} holds no other images; {_about_heic(tally.heic)}.")
        refuse_too_many_bad(bad, len(rows), settings.max_bad, name)
        target, note = choose_target(headers, settings)
        images = _decoded(source, rows, target, _are_large(headers))
        content = _write(images, source.listing.names, target, tally, file, bar(len(rows), *_DECODING, progress))
    listing = source.listing.keep(np.array(tally.rows, np.int64)).noting(*note, *tally.notes())
    bad = tuple(sorted((*source.listing.bad, *tally.bad), key=lambda file: file.name))
    return Record(
        shape=(len(tally.rows), *target.shape),
        listing=listing.finding(bad),
        digests=bytes(tally.digests),
        sizes=dict(tally.sizes.most_common()),
        modes=dict(tally.modes.most_common()),
        content=content,
    )


def choose_target(headers: Collection[Header], settings: DataSettings) -> tuple[Target, tuple[str, ...]]:
    """The shape that images with these headers are brought to, and a note if it is not what the user would expect."""
    channels = settings.channels or (1 if all(header.grey for header in headers) else 3)
    if settings.size:
        return Target(*settings.size, channels, settings.fit), ()
    sizes = {header.size for header in headers}
    width, height = sizes.pop()
    if not sizes and max(width, height) <= LARGEST_UNSCALED:
        return Target(height, width, channels, settings.fit), ()
    why = "differ in size" if sizes else f"are {width}x{height}"
    note = f"{USUAL_SIZE}x{USUAL_SIZE} was chosen because the images {why}; --image-size changes it."
    return Target(USUAL_SIZE, USUAL_SIZE, channels, settings.fit), (note,)


def _examine(source: Source, tally: _Tally, progress: bool) -> "tuple[array[int], Counter[Header]]":
    """The rows of the images that have a header, and how many there are of each."""
    names = source.listing.names
    rows, headers = _indices(), Counter[Header]()
    images = zip(range(len(names)), source.visit(range(len(names))), strict=True)
    with bar(len(names), "looking at images", "image", progress) as shown:
        for row, header in map(_attempt(_header), images):
            shown.update()
            if isinstance(header, UnreadableError):
                tally.refuse(names[row], header)
            else:
                rows.append(row)
                headers[header] += 1
    return rows, headers


def _header(image: Image) -> Header:
    return image.header()


def _are_large(headers: Counter[Header]) -> bool:
    pixels = sum(header.size[0] * header.size[1] * count for header, count in headers.items())
    return pixels > WORTH_A_THREAD * headers.total()


def _decoded(
    source: Source, rows: Sequence[int], target: Target, large: bool
) -> Iterator[tuple[int, Decoded | UnreadableError]]:
    """The images of `rows` in the target shape, in order."""

    def decode(image: Image) -> Decoded:
        picture = image.picture()
        height, width, _ = picture.pixels.shape
        item = np.ascontiguousarray(fitted(picture.pixels, target))
        return Decoded(item, digest(picture.pixels), f"{width}x{height}", picture.mode, picture.animated)

    images = zip(rows, source.visit(rows), strict=True)
    return _in_parallel(_attempt(decode), images) if large else map(_attempt(decode), images)


def _write(
    images: Iterator[tuple[int, Decoded | UnreadableError]],
    names: Sequence[str],
    target: Target,
    tally: _Tally,
    file: BinaryIO,
    progress: Any,
) -> str:
    """Write decoded images into `file`, in order; the digest of the items comes back."""
    _write_header(file, 0, target)
    state = blake2b(digest_size=DIGEST_SIZE)
    with progress as shown:
        for row, image in images:
            shown.update()
            if isinstance(image, UnreadableError):
                tally.refuse(names[row], image)
            else:
                tally.add(row, image)
                state.update(image.item.data)
                file.write(image.item.data)
    file.seek(0)
    _write_header(file, len(tally.rows), target)
    return content_digest(state, (len(tally.rows), *target.shape), "|u1")


_DECODING = "decoding images", "image"


def _write_header(file: BinaryIO, count: int, target: Target) -> None:
    # NumPy leaves room for the first axis to grow, so that this header is equally long for any count.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *target.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _attempt(work: Callable[[T], R]) -> Callable[[tuple[int, T]], tuple[int, R | UnreadableError]]:
    """`work` on what has a number, with that number beside the result, and a file's failure as a result."""

    def attempt(numbered: tuple[int, T]) -> tuple[int, R | UnreadableError]:
        number, given = numbered
        try:
            return number, work(given)
        except UnreadableError as error:
            return number, error

    return attempt


def _in_parallel(work: Callable[[T], R], inputs: Iterable[T]) -> Iterator[R]:
    """`work` on each input by a pool of threads, in order, at most two a thread ahead of who asks."""
    pool = ThreadPoolExecutor(THREADS)
    waiting: deque[Future[R]] = deque()
    try:
        for given in inputs:
            waiting.append(pool.submit(work, given))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # What is under way is let finish, and nothing else is begun: Ctrl-C is answered soon.
        pool.shutdown(cancel_futures=True)


def _about_heic(count: int) -> str:
    return (
        f"{count} HEIC file{'s' if count > 1 else ''} skipped; with pillow-heif (pip install pillow-heif) they are read"
    )
