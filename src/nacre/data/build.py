"""Decode a whole source into one array on disk, in parallel and in bounded memory."""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from nacre.data.dataset import DIGEST_SIZE, BadFile, Listing, content_digest, digest, refuse_too_many_bad
from nacre.data.decode import Header, HeicError, Picture, Target, UnreadableError, fitted
from nacre.data.progress import bar
from nacre.data.settings import DataSettings
from nacre.errors import DataError

LARGEST_UNSCALED, USUAL_SIZE = 128, 64
# Pillow lets other threads run while it decodes and resizes. For small images that is too short to gain anything
# (measured: two threads took 1.3 times as long as one at 64x64), and more threads than this only take memory.
THREADS = min(8, os.cpu_count() or 1)
WORTH_A_THREAD = 1 << 16  # pixels

R = TypeVar("R")


class Source(Protocol):
    """Images that can be asked for one by one, from several threads."""

    @property
    def listing(self) -> Listing: ...
    def header(self, index: int) -> Header: ...
    def picture(self, index: int) -> Picture: ...


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

    index: int
    item: np.ndarray
    digest: bytes
    size: str
    mode: str
    animated: bool


@dataclass(eq=False)
class _Tally:
    """What is known of a source while it is being decoded."""

    rows: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
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

    def add(self, image: Decoded) -> None:
        self.rows.append(image.index)
        self.digests.append(image.digest)
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
        headers = _examine(source, tally, progress)
        bad = (*source.listing.bad, *tally.bad)
        if not headers and tally.heic and not bad:
            raise DataError(f"{name} holds no other images; {_about_heic(tally.heic)}.")
        refuse_too_many_bad(bad, len(headers), settings.max_bad, name)
        target, note = choose_target(list(headers.values()), settings)
        content = _write(source, headers, target, tally, file, progress)
    listing = source.listing.keep(tally.rows).noting(*note, *tally.notes())
    bad = tuple(sorted((*source.listing.bad, *tally.bad), key=lambda file: file.name))
    return Record(
        shape=(len(tally.rows), *target.shape),
        listing=listing.finding(bad),
        digests=b"".join(tally.digests),
        sizes=dict(tally.sizes.most_common()),
        modes=dict(tally.modes.most_common()),
        content=content,
    )


def choose_target(headers: list[Header], settings: DataSettings) -> tuple[Target, tuple[str, ...]]:
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


def _examine(source: Source, tally: _Tally, progress: bool) -> dict[int, Header]:
    """The headers of the images that have one, by index."""
    names = source.listing.names
    found = {}
    with bar(len(names), "looking at images", "image", progress) as shown:
        for index, header in map(_attempt(source.header), range(len(names))):
            shown.update()
            if isinstance(header, UnreadableError):
                tally.refuse(names[index], header)
            else:
                found[index] = header
    return found


def _write(
    source: Source, headers: dict[int, Header], target: Target, tally: _Tally, file: BinaryIO, progress: bool
) -> str:
    """Decode the images that have `headers` into `file`, in order; the digest of the items comes back."""

    def decoded(index: int) -> Decoded:
        picture = source.picture(index)
        height, width, _ = picture.pixels.shape
        item = np.ascontiguousarray(fitted(picture.pixels, target))
        return Decoded(index, item, digest(picture.pixels), f"{width}x{height}", picture.mode, picture.animated)

    pixels = sum(width * height for width, height in (header.size for header in headers.values()))
    large = pixels > WORTH_A_THREAD * len(headers)
    images = _in_parallel(_attempt(decoded), headers) if large else map(_attempt(decoded), headers)
    _write_header(file, 0, target)
    state = blake2b(digest_size=DIGEST_SIZE)
    with bar(len(headers), "decoding images", "image", progress) as shown:
        for index, image in images:
            shown.update()
            if isinstance(image, UnreadableError):
                tally.refuse(source.listing.names[index], image)
            else:
                tally.add(image)
                state.update(image.item.data)
                file.write(image.item.data)
    file.seek(0)
    _write_header(file, len(tally.rows), target)
    return content_digest(state, (len(tally.rows), *target.shape), "|u1")


def _write_header(file: BinaryIO, count: int, target: Target) -> None:
    # NumPy leaves room for the first axis to grow, so that this header is equally long for any count.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *target.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _attempt(work: Callable[[int], R]) -> Callable[[int], tuple[int, R | UnreadableError]]:
    """`work` with its index beside the result, and a file's failure as a result."""

    def attempt(index: int) -> tuple[int, R | UnreadableError]:
        try:
            return index, work(index)
        except UnreadableError as error:
            return index, error

    return attempt


def _in_parallel(work: Callable[[int], R], indices: Iterable[int]) -> Iterator[R]:
    """`work` on each index by a pool of threads, in order, at most two images a thread ahead of who asks."""
    pool = ThreadPoolExecutor(THREADS)
    waiting: deque[Future[R]] = deque()
    try:
        for index in indices:
            waiting.append(pool.submit(work, index))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # What is under way is let finish, and nothing else is begun: Ctrl-C is answered soon.
        pool.shutdown(cancel_futures=True)


def _about_heic(count: int) -> str:
    return f"{count} HEIC file{'s' if count > 1 else ''} skipped: pip install 'nacre[heic]' reads {'them' if count > 1 else 'it'}"
