"""Samples in .tar files as WebDataset has them: members that share their name up to its first dot belong together."""

import io
import json
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nacre.data.archives import DAMAGE, LARGEST_MEMBER, leads_out, reading
from nacre.data.dataset import BadFile, Listing
from nacre.data.decode import ImageFile, UnreadableError
from nacre.data.layout import is_junk, printable
from nacre.data.progress import bar
from nacre.data.shards import REMEDY, Samples, judged
from nacre.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("cls", "txt", "json")
LARGEST_TEXT = 1 << 20  # bytes


@dataclass(frozen=True, eq=False)
class TarSource:
    """Images at known places in uncompressed .tar files.

    Args:
        paths: the files.
        shards: (N,) int32, in which of them each image lies.
        places: (N, 2) int64, its first byte there and how many it has.
    """

    listing: Listing
    paths: Sequence[Path]
    shards: np.ndarray
    places: np.ndarray

    def visit(self, rows: Sequence[int]) -> Iterator[ImageFile]:
        """The images of `rows`, none of them read yet."""
        return (ImageFile(partial(self._read, row)) for row in rows)

    def _read(self, row: int) -> BinaryIO:
        start, size = self.places[row].tolist()
        if size > LARGEST_MEMBER:
            raise UnreadableError(f"larger than {LARGEST_MEMBER >> 20} MiB")
        try:
            with self.paths[self.shards[row]].open("rb", buffering=0) as file:
                file.seek(start)
                return io.BytesIO(file.read(size))
        except OSError as error:
            raise UnreadableError(error.strerror or "cannot be read") from error


def open_tars(paths: Sequence[Path], root: Path, name: str, progress: bool) -> TarSource:
    """Look through .tar files, reading what is not an image.

    Args:
        root: the folder that they are named from.
        name: what to call the source in an error.

    Raises:
        DataError: one is damaged or compressed, or none holds an image.
    """
    samples, places = Samples(paths, root), array("q")
    with bar(len(paths), "listing shards", "shard", progress) as shown:
        for number, path in enumerate(paths):
            with reading(path, REMEDY):
                for group in _groups(path):
                    _take(group, number, samples, places)
            shown.update()
    if not samples.names:
        why = (
            f"{samples.bad[0].name} ({samples.bad[0].reason})" if samples.bad else "no member is a .jpg, .png or .webp"
        )
        raise DataError(f"{name} holds no image that can be used: {why}.")
    where = np.array(places, np.int64).reshape(-1, 2)
    source = TarSource(samples.listing(), paths, np.array(samples.shards, np.int32), where)
    return replace(source, listing=judged(source))


def says_more(path: Path) -> bool:
    """Whether a .tar has a label or a caption beside some image as WebDataset has them, in its .cls or .json."""
    try:
        for group in _groups(path):
            said = _said(group.texts.get("json", b""))
            if group.image and (
                "cls" in group.texts or isinstance(said.get("caption"), str) or _label({}, said) is not None
            ):
                return True
    except DAMAGE:  # also what is compressed
        pass
    return False


@dataclass(eq=False)
class _Group:
    """Members that share `key`: the first image, and the texts by their kind."""

    key: str
    image: tarfile.TarInfo | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


def _groups(path: Path) -> Iterator[_Group]:
    group = _Group("")
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for info in _members(archive):
            folder, slash, base = info.name.removeprefix("./").rpartition("/")
            stem, _, kind = base.partition(".")
            if folder + slash + stem != group.key:
                yield group
                group = _Group(folder + slash + stem)
            kind = kind.lower()
            if kind in IMAGES and group.image is None:
                group.image = info
            elif kind in TEXTS:
                text = archive.extractfile(info)
                group.texts[kind] = text.read(LARGEST_TEXT) if text else b""
        yield group
        _refuse_garbage(file, archive.offset)


def _members(archive: Any) -> Iterator[tarfile.TarInfo]:
    """The plain files in an archive, one after another."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # it would remember a kilobyte of each
        parts = info.name.removeprefix("./").split("/")
        if info.isreg() and not info.issparse() and not any(is_junk(part) for part in parts if part != ".."):
            yield info


def _refuse_garbage(file: BinaryIO, end: int) -> None:
    # To tarfile, a header that is garbage is the end of an archive.
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if 0 < len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it is cut short at byte {end + len(block):,}")
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"what lies at byte {end:,} is no header of a file")


def _take(group: _Group, shard: int, samples: Samples, places: "array[int]") -> None:
    if group.image is None:
        return
    sample = printable(group.image.name.removeprefix("./"))
    try:
        if leads_out(sample):
            raise UnreadableError("its path leads out of the archive")
        said = _said(group.texts.get("json", b""))
        label = _label(group.texts, said)
        caption = group.texts.get("txt", said.get("caption", ""))
    except UnreadableError as error:
        samples.bad.append(BadFile(samples.name(shard, sample), str(error)))
        return
    text = caption.decode("utf-8-sig", "replace") if isinstance(caption, bytes) else caption
    samples.add(shard, sample, label, " ".join(text.split()) if isinstance(text, str) else "")
    places.extend((group.image.offset_data, group.image.size))


def _said(content: bytes) -> Mapping[str, object]:
    """The object in a .json member; empty if it is none, for these may say anything."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _label(texts: Mapping[str, bytes], said: Mapping[str, object]) -> int | None:
    label = said.get("label")
    try:
        number = int(texts["cls"][:64]) if "cls" in texts else label
    except ValueError:
        raise UnreadableError("its .cls is not a whole number") from None
    return number if isinstance(number, int) and not isinstance(number, bool) else None
