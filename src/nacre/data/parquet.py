"""Images in .parquet files as Hugging Face has them: a column `image` of bytes, perhaps beside a label and a text."""

import importlib
import importlib.util
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nacre.data.archives import DAMAGE, sentence
from nacre.data.dataset import Listing
from nacre.data.decode import ImageFile, UnreadableError
from nacre.data.layout import few
from nacre.data.progress import bar
from nacre.data.shards import REMEDY, Samples, judged
from nacre.errors import DataError

IMAGE, LABEL, TEXT = ("image", "img"), ("label",), ("text", "caption")
NUMBER = "number"  # of a sample, which nacre writes beside it
IMAGES_AT_ONCE, ROWS_AT_ONCE = 32, 8192
BUFFER = 1 << 20  # bytes of a file that are read at once; without it pyarrow takes a whole row group


@dataclass(frozen=True)
class Columns:
    """What the columns of a set are called, the names of its classes if it tells, and a note on other columns."""

    image: str
    label: str | None
    text: str | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = field(compare=False)


@dataclass(frozen=True, eq=False)
class ParquetSource:
    """Images in a column of .parquet files.

    Args:
        paths: the files.
        starts: the number of each file's first row, and of all rows.
    """

    listing: Listing
    paths: Sequence[Path]
    starts: Sequence[int]
    column: str

    def visit(self, rows: Sequence[int]) -> Iterator[ImageFile]:
        """The images of `rows`. The files are read from the front, a few images at a time."""
        wanted = np.asarray(rows)
        for path, (start, stop) in zip(self.paths, pairwise(self.starts), strict=True):
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)] - start
            for content in _chosen(_contents(path, self.column) if len(here) else iter(()), here):
                yield ImageFile(partial(_opened, content))


def open_parquet(paths: Sequence[Path], root: Path, name: str, progress: bool) -> ParquetSource:
    """Read all but the images of .parquet files.

    Args:
        root: the folder that they are named from.
        name: what to call the source in an error.

    Raises:
        DataError: pyarrow is not installed, a file is damaged, or there is no column of images.
    """
    samples, starts = Samples(paths, root), [0]
    columns = _columns(paths[0])
    with bar(len(paths), "listing shards", "shard", progress) as shown:
        for number, path in enumerate(paths):
            if _columns(path) != columns:
                raise DataError(f"{path} has other columns than {paths[0]}; name files that belong together.")
            for row, (label, text) in enumerate(_said(path, columns)):
                samples.add(number, str(row), label, " ".join(text.split()) if text else "")
            starts.append(len(samples.names))
            shown.update()
    if not samples.names:
        raise DataError(f"{name} holds no image: its files have no rows.")
    listing = samples.listing(columns.classes).noting(*columns.notes)
    source = ParquetSource(listing, paths, starts, columns.image)
    return replace(source, listing=judged(source))


def _parquet(path: Path) -> Any:
    """The opened file."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(f"{path} needs pyarrow, which is not installed: pip install pyarrow")
    module = importlib.import_module("pyarrow.parquet")
    try:
        return module.ParquetFile(path, buffer_size=BUFFER)
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as a .parquet file: {sentence(error)}; {REMEDY}.") from error


def _columns(path: Path) -> Columns:
    with _parquet(path) as file:
        schema = file.schema_arrow
    image = next((name for name in IMAGE if name in schema.names and _holds_images(schema.field(name).type)), None)
    if image is None:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names) or '(none)'}; one called image, of bytes or of "
            "{bytes, path} as Hugging Face has it, was expected."
        )
    types = importlib.import_module("pyarrow").types
    kinds = {name: _plain(types, schema.field(name).type) for name in schema.names}
    texts = {name for name, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)}
    label = next((name for name in LABEL if name in texts or (name in kinds and types.is_integer(kinds[name]))), None)
    text = next((name for name in TEXT if name in texts), None)
    unused = [name for name in schema.names if name not in (image, label, text, NUMBER)]
    note = f"Not used: {few(unused)}; labels are whole numbers or texts in a column label, captions texts in text or caption."
    return Columns(image, label, text, _class_names(schema.metadata or {}, label), (note,) if unused else ())


def _holds_images(kind: Any) -> bool:
    types = importlib.import_module("pyarrow").types
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _plain(types: Any, kind: Any) -> Any:
    """The type of a column's values, also where it keeps each of them but once."""
    return kind.value_type if types.is_dictionary(kind) else kind


def _class_names(metadata: dict[bytes, bytes], label: str | None) -> tuple[str, ...]:
    """What Hugging Face's own note in the file calls the classes, if it has one."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _said(path: Path, columns: Columns) -> Iterator[tuple[int | str | None, str | None]]:
    """Label and text of each row."""
    names = [name for name in (columns.label, columns.text) if name]
    if not names:
        with _parquet(path) as file:
            count = file.metadata.num_rows
        yield from ((None, None) for _ in range(count))
        return
    for batch in _batches(path, names, ROWS_AT_ONCE):
        nothing = [None] * batch.num_rows
        labels, texts = (batch[name].to_pylist() if name else nothing for name in (columns.label, columns.text))
        yield from zip(labels, texts, strict=True)


def _contents(path: Path, column: str) -> Iterator[bytes | None]:
    """The bytes of each image in a file."""
    for batch in _batches(path, [column], IMAGES_AT_ONCE):
        values = batch[column]
        inner = values.field("bytes") if hasattr(values, "field") else values
        yield from (value.as_py() for value in inner)


def _batches(path: Path, names: list[str], rows: int) -> Iterator[Any]:
    with _parquet(path) as file:
        batches = file.iter_batches(rows, columns=names, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except DAMAGE as error:
                raise DataError(f"{path} is damaged: {sentence(error)}; {REMEDY}.") from error
            if batch is None:
                return
            yield batch


def _chosen(contents: Iterator[bytes | None], rows: np.ndarray) -> Iterator[bytes | None]:
    """Those of `contents` whose numbers are in `rows`, which ascend."""
    wanted = iter(rows.tolist())
    row = next(wanted, None)
    for number, content in enumerate(contents):
        if number == row:
            yield content
            row = next(wanted, None)


def _opened(content: bytes | None) -> BinaryIO:
    if content is None:
        raise UnreadableError("the row holds no bytes")
    return io.BytesIO(content)
