"""Image files in a .zip or .tar, read in place: nothing is extracted and no path of an archive is ever written to."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from nacre.data.dataset import BadFile
from nacre.data.decode import UnreadableError
from nacre.data.folders import FileSource, source_of
from nacre.data.layout import is_junk, matters
from nacre.errors import DataError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

LARGEST_MEMBER = 1 << 28  # bytes
LARGEST_IN_MEMORY = 1 << 27  # bytes
BOMB_SIZE, BOMB_RATIO = 1 << 30, 200

# What damage makes Python's and NumPy's readers raise; an encrypted member raises RuntimeError.
DAMAGE = (
    OSError, EOFError, ValueError, RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, tarfile.TarError,
    zlib.error, lzma.LZMAError,
)  # fmt: skip


@contextmanager
def opened_zip(path: Path) -> Iterator[FileSource]:
    """The images of a .zip, for as long as it is open. Links in it are ignored.

    Raises:
        DataError: it is damaged, holds no image, or metadata that cannot be understood.
    """
    with ExitStack() as held:
        with reading(path):
            archive = held.enter_context(zipfile.ZipFile(path))
        members = {info.filename.replace("\\", "/"): info for info in archive.infolist() if _is_file(info)}
        files, bad = _safe(members)

        def read(name: str) -> BinaryIO:
            info = members[name]
            return _whole(lambda: archive.open(info), info.file_size)

        yield source_of(files, read, str(path), bad)


@contextmanager
def opened_tar(path: Path) -> Iterator[FileSource]:
    """The images of a .tar, compressed or not, for as long as it is open. Links and devices in it are ignored.

    Raises:
        DataError: it is damaged, holds no image, or metadata that cannot be understood.
    """
    with ExitStack() as held:
        with reading(path):
            file = held.enter_context(_uncompressed(path))
            archive = held.enter_context(tarfile.open(fileobj=file, mode="r:"))
            members = {info.name.removeprefix("./"): info for info in archive.getmembers() if info.isreg()}
        files, bad = _safe(members)
        one_at_a_time = threading.Lock()

        def read(name: str) -> BinaryIO:
            info = members[name]
            with one_at_a_time:
                return _whole(lambda: archive.extractfile(info) or io.BytesIO(), info.size)

        yield source_of(files, read, str(path), bad)


@contextmanager
def reading(path: Path, remedy: str = "download it again") -> Iterator[None]:
    """Raise DataError where an archive turns out to be damaged; `remedy` is what can be done about it."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as an archive: {sentence(error)}; {remedy}.") from error


def leads_out(name: str) -> bool:
    """Whether the path of a member would leave the archive if it were unpacked."""
    return name.startswith("/") or ".." in name.split("/") or name[1:2] == ":"


def sentence(error: Exception) -> str:
    """What went wrong, short and on one line."""
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__


def refuse_bomb(path: Path, packed: int, unpacked: int) -> None:
    """Raise DataError when `packed` bytes claim to hold so many that it must be a mistake or an attack."""
    if unpacked > BOMB_SIZE and unpacked > BOMB_RATIO * packed:
        raise DataError(f"{path} would grow from {packed:,} to {unpacked:,} bytes or more, which no data set does.")


def _is_file(info: zipfile.ZipInfo) -> bool:
    return not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)


def _safe(members: Iterable[str]) -> tuple[tuple[str, ...], tuple[BadFile, ...]]:
    """The members that matter, sorted; and those whose path would leave the archive."""
    names = [name for name in sorted(members) if matters(name)]
    outside = {name for name in names if leads_out(name)}
    files = [name for name in names if name not in outside and not any(map(is_junk, name.split("/")))]
    return tuple(files), tuple(BadFile(name, "its path leads out of the archive") for name in sorted(outside))


def _whole(open_member: Callable[[], IO[bytes]], size: int) -> BinaryIO:
    if size > LARGEST_MEMBER:
        raise UnreadableError(f"larger than {LARGEST_MEMBER >> 20} MiB")
    try:
        with open_member() as member:
            return io.BytesIO(member.read(LARGEST_MEMBER))
    except DAMAGE as error:
        raise UnreadableError(sentence(error)) from error


@contextmanager
def _uncompressed(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a tar; a compressed one is unpacked into a nameless temporary file, so that any member is near."""
    openers: dict[bytes, type[gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]]
    openers = {b"\x1f\x8b": gzip.GzipFile, b"BZ": bz2.BZ2File, b"\xfd7": lzma.LZMAFile}
    with path.open("rb") as file:
        opener = openers.get(file.read(2))
        file.seek(0)
        if opener is None:
            yield file
            return
    with tempfile.SpooledTemporaryFile(max_size=LARGEST_IN_MEMORY) as unpacked:
        packed = path.stat().st_size
        with opener(path) as compressed:
            while block := compressed.read(1 << 20):
                with _room(path):
                    unpacked.write(block)
                refuse_bomb(path, packed, unpacked.tell())
        with _room(path):
            unpacked.seek(0)
        yield unpacked


@contextmanager
def _room(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = tempfile.tempdir or "the temporary folder"
        raise DataError(
            f"{path} cannot be unpacked: no room in {where} ({error.strerror or error}); TMPDIR names another."
        ) from error
