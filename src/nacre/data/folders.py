"""Image files in a folder: listed by one walk that opens none of them, and read one by one."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from nacre.data.dataset import BadFile, Listing
from nacre.data.decode import ImageFile, UnreadableError
from nacre.data.layout import SHARDS, arrange, is_image, is_junk, matters
from nacre.errors import DataError

RUN_FILES = {"config.yaml", "log.jsonl"}
"""What tells a run of nacre from other folders."""

LARGEST_TEXT = 1 << 28  # bytes


@dataclass(frozen=True)
class Scan:
    """The files of a folder that matter.

    Args:
        lines: sorted; of each file its path with "/" relative to the folder, its size and time, with a zero byte between.
        notes: sentences for the user.
        shards: other files, which may hold images themselves.
    """

    lines: list[str]
    notes: tuple[str, ...]
    shards: tuple[str, ...] = ()

    @property
    def paths(self) -> Iterator[str]:
        """The sorted paths; made as they are asked for, since a cache that is up to date needs none."""
        return (line[: line.index("\0")] for line in self.lines)

    @cached_property
    def stamp(self) -> str:
        """Changes when a file is added, removed, renamed, resized or touched."""
        return _stamp(self.lines)


@dataclass(frozen=True)
class FileSource:
    """Images in files: `listing` says what is known of them, `read` opens the one at a path or raises UnreadableError."""

    listing: Listing
    paths: tuple[str, ...]
    read: Callable[[str], BinaryIO]

    def visit(self, rows: Sequence[int]) -> Iterator[ImageFile]:
        """The images of `rows`, none of them open yet."""
        return (ImageFile(partial(self.read, self.paths[row])) for row in rows)


def scan(root: Path) -> Scan:
    """Walk a folder. Links to files are followed, links to folders are not: they may lead in circles.

    Raises:
        DataError: the folder cannot be listed.
    """
    lines: list[str] = []
    shards: list[str] = []
    linked = runs = 0
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        entries = _entries(root / folder)
        if folder and entries.keys() >= RUN_FILES:  # what a model drew is no data
            runs += 1
            continue
        for name, entry in entries.items():
            if matters(name) and entry.is_file():
                lines.append(_line(folder + name, entry.stat()))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(folder + name + "/")
            elif entry.is_dir():
                linked += 1
            elif is_image(name) and entry.is_symlink():  # to nothing: a bad file like others
                lines.append(_line(folder + name, entry.stat(follow_symlinks=False)))
            elif name.endswith(SHARDS) and entry.is_file():
                shards.append(folder + name)
    lines.sort()
    counted = {"linked folders were not followed": linked, "runs of nacre inside were left out": runs}
    return Scan(lines, tuple(f"{count} {what}." for what, count in counted.items() if count), tuple(sorted(shards)))


def file_stamp(*paths: Path) -> str:
    """Changes when one of these files is resized or touched."""
    return _stamp([_line(str(path), path.stat()) for path in paths])


def open_folder(root: Path, found: Scan, places: Mapping[str, str] = MappingProxyType({})) -> FileSource:
    """List the images of a scanned folder.

    Args:
        root: the folder.
        found: what lies in it.
        places: where a file really lies, if `found` calls it otherwise.

    Raises:
        DataError: it holds no image, or metadata that cannot be understood.
    """

    def read(path: str) -> BinaryIO:
        try:
            return open(f"{root}/{places.get(path, path)}", "rb")
        except OSError as error:
            raise UnreadableError(error.strerror or "cannot be opened") from error

    source = source_of(tuple(found.paths), read, str(root))
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


def _entries(folder: Path) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries if not is_junk(entry.name)}
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error


def _line(path: str, status: os.stat_result) -> str:
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _stamp(lines: list[str]) -> str:
    return blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
