"""Image files in a folder: listed by one walk that opens none of them, and read one by one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from nacre.data.dataset import BadFile, Listing
from nacre.data.decode import Header, Picture, UnreadableError, read_header, read_picture
from nacre.data.layout import arrange, is_junk, matters
from nacre.errors import DataError

RUN_FILES = {"config.yaml", "log.jsonl"}
"""What tells a run of nacre from other folders."""

LARGEST_TEXT = 1 << 28  # bytes


@dataclass(frozen=True)
class Scan:
    """The files of a folder that matter.

    Args:
        files: sorted paths with "/", relative to the folder.
        stamp: changes when a file is added, removed, resized or touched.
        notes: sentences for the user.
    """

    files: tuple[str, ...]
    stamp: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FileSource:
    """Images in files: `listing` says what is known of them, `read` opens the one at a path or raises UnreadableError."""

    listing: Listing
    paths: tuple[str, ...]
    read: Callable[[str], BinaryIO]

    def header(self, index: int) -> Header:
        """What image `index` says about itself."""
        with self.read(self.paths[index]) as file:
            return read_header(file)

    def picture(self, index: int) -> Picture:
        """The decoded image `index`."""
        with self.read(self.paths[index]) as file:
            return read_picture(file)


def scan(root: Path) -> Scan:
    """Walk a folder. Links to files are followed, links to folders are not: they may lead in circles.

    Raises:
        DataError: the folder cannot be listed.
    """
    found: list[tuple[str, int, int]] = []
    linked = runs = 0
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        entries = _entries(root / folder)
        if folder and {entry.name for entry in entries} >= RUN_FILES:  # what a model drew is no data
            runs += 1
            continue
        for entry in entries:
            if matters(entry.name) and entry.is_file():
                status = entry.stat()
                found.append((folder + entry.name, status.st_size, status.st_mtime_ns))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(folder + entry.name + "/")
            elif entry.is_dir():
                linked += 1
    found.sort()
    counted = {"linked folders were not followed": linked, "runs of nacre inside were left out": runs}
    notes = tuple(f"{count} {what}." for what, count in counted.items() if count)
    return Scan(tuple([path for path, _, _ in found]), _stamp(found), notes)


def file_stamp(*paths: Path) -> str:
    """Changes when one of these files is resized or touched."""
    return _stamp([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths])


def open_folder(root: Path, found: Scan) -> FileSource:
    """List the images of a scanned folder.

    Raises:
        DataError: it holds no image, or metadata that cannot be understood.
    """

    def read(path: str) -> BinaryIO:
        try:
            return (root / path).open("rb")
        except OSError as error:
            raise UnreadableError(error.strerror or "cannot be opened") from error

    source = source_of(found.files, read, str(root))
    return FileSource(source.listing.noting(*found.notes), source.paths, read)


def source_of(
    files: tuple[str, ...], read: Callable[[str], BinaryIO], name: str, bad: tuple[BadFile, ...] = ()
) -> FileSource:
    """The images among `files`, which `read` opens.

    Args:
        files: sorted paths with "/".
        name: what to call the source in an error.
        bad: files that were refused before.

    Raises:
        DataError: no image, or metadata that cannot be understood.
    """

    def read_text(path: str) -> str:
        with _said(path, name), read(path) as file:
            return file.read(LARGEST_TEXT).decode("utf-8-sig", "replace")

    paths, listing = arrange(files, read_text, name, bad)
    return FileSource(listing, paths, read)


@contextmanager
def _said(path: str, source: str) -> Iterator[None]:
    try:
        yield
    except UnreadableError as error:
        raise DataError(f"{path} in {source} cannot be read: {error}.") from error


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_junk(entry.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error


def _stamp(found: list[tuple[str, int, int]]) -> str:
    text = "\n".join([f"{path}\0{size}\0{time}" for path, size, time in found])
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
