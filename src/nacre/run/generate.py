"""Samples by the million: shards that are written whole, gone on with after a stop, and the same on any machine."""

import csv
import importlib.util
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import numpy as np
from PIL import Image
from torch import Tensor

from nacre import __version__, files, images
from nacre.data.progress import bar
from nacre.errors import ConfigError, RunError
from nacre.networks import is_image

Form: TypeAlias = Literal["parquet", "webdataset", "npz", "png"]

SUFFIX = {"parquet": ".parquet", "webdataset": ".tar", "npz": ".npz", "png": ""}

A_SHARD = 10_000
"""Samples in a shard where their number is not given."""

AT_ONCE = 1024
"""Samples in memory at a time."""

NOTE = "samples.json"
"""What the samples in a folder are."""

Drawn: TypeAlias = tuple[Tensor, Tensor | None]
"""Items (N, *shape), and labels (N,) if they have any."""


@dataclass(frozen=True)
class Piece:
    """Some consecutive samples: the first one's number, stored items (N, …) and labels (N,)."""

    first: int
    items: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Generated:
    """What was done: of `shards`, how many were `made` now and how many were `kept`, for they were there."""

    shards: int
    made: int
    kept: int


def generate(
    draw: Callable[[range], Drawn],
    count: int,
    out: Path,
    *,
    form: Form = "parquet",
    shards: int | None = None,
    only: int | None = None,
    classes: tuple[str, ...] = (),
    facts: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Generated:
    """Write samples number 0 to `count` - 1 in shards, in which consecutive numbers lie together.

    A shard is a function of what `draw` gives for its own numbers, so that it can be made alone. It appears whole or not at
    all, and one that is there is not made again.

    Args:
        draw: numbers ↦ the samples of these numbers.
        out: folder of the shards; made if absent.
        form: "parquet" and "webdataset" hold PNGs beside labels, as `--data` and Hugging Face's `datasets` read them; "npz"
            arrays, "png" a folder of single files for each shard, with a labels.csv of a conditional model. Vectors are
            numbers in all of them but "png".
        shards: K; by default one for each 10,000 samples.
        only: k from 0 to K - 1, for shard k alone.
        classes: names of the labels.
        facts: what the samples are of. A folder that holds others is not added to.
        progress: show a bar.

    Raises:
        ConfigError: no such number of shards, a form that is not available, or a folder with other samples.
        RunError: the folder cannot be written.
    """
    total = -(-count // A_SHARD) if shards is None else shards
    if not 1 <= total <= count:
        raise ConfigError(f"{count} samples go into 1 to {max(1, count)} shards, got {total}.")
    if not (only is None or 0 <= only < total):
        raise ConfigError(f"there is no shard {only} of {total}; they count from 0.")
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("parquet needs pyarrow, which is not installed: pip install pyarrow")
    note = {"nacre": __version__, "count": count, "shards": total, "format": form, **(facts or {})}
    made, chosen = 0, range(total) if only is None else [only]
    fresh = not (out / NOTE).exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        _note(out / NOTE, note)
        with bar(sum(len(numbers_of(k, total, count)) for k in chosen), "sampling", "sample", progress) as shown:
            for k in chosen:
                path, numbers = out / f"samples-{k:05d}-of-{total:05d}{SUFFIX[form]}", numbers_of(k, total, count)
                if path.exists():
                    shown.update(len(numbers))
                    continue
                _write(path, form, _pieces(draw, numbers, shown.update), classes)
                made += 1
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); what was finished stays there.") from None
    finally:
        # A command that failed before its first shard leaves no word that would refuse the next one.
        if fresh and out.is_dir() and not any(out.glob("*samples-*")):
            (out / NOTE).unlink(missing_ok=True)
    return Generated(total, made, len(chosen) - made)


def numbers_of(k: int, total: int, count: int) -> range:
    """The samples of shard k: of `count` an equal share, to within one."""
    return range(k * count // total, (k + 1) * count // total)


def _note(path: Path, note: Mapping[str, Any]) -> None:
    """Write down what a folder holds, or see that it is the same."""
    told = json.dumps(note, indent=1, default=str) + "\n"
    if not path.exists():
        if any(path.parent.glob("sample-*.png")):
            raise ConfigError(f"{path.parent} holds single samples already; take another --out for shards.")
        return files.write_text(path, told)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    before = before if isinstance(before, dict) else {}
    other = [name for name, value in json.loads(told).items() if before.get(name) != value]
    if other:
        asked = json.loads(told)
        both = "; ".join(f"{name} {before.get(name)} there, {asked[name]} asked for" for name in other)
        raise ConfigError(
            f"{path.parent} holds other samples than these ({both}); take another --out, or delete that folder."
        )
    return None


def _pieces(draw: Callable[[range], Drawn], numbers: range, tell: Callable[[int], Any]) -> Iterator[Piece]:
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        rows = range(first, min(first + AT_ONCE, numbers.stop))
        items, labels = draw(rows)
        stored = images.to_uint8(items) if is_image(tuple(items.shape[1:])) else items
        yield Piece(first, stored.numpy(), None if labels is None else labels.numpy())
        tell(len(rows))


def _write(path: Path, form: Form, pieces: Iterator[Piece], classes: tuple[str, ...]) -> None:
    if form == "png":
        return _folder(path, pieces, classes)
    writers: dict[str, Callable[[Path, Iterator[Piece]], None]] = {
        "parquet": partial(_parquet, classes=classes),
        "webdataset": _tar,
        "npz": _npz,
    }
    with files.whole_file(path) as aside:
        writers[form](aside, pieces)
    return None


def _parquet(path: Path, pieces: Iterator[Piece], classes: tuple[str, ...]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for piece in pieces:
            columns: dict[str, Any] = {
                "number": pa.array(range(piece.first, piece.first + len(piece.items)), pa.int64())
            }
            if is_image(piece.items.shape[1:]):
                kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                cells = [{"bytes": png(image), "path": None} for image in piece.items]
                columns["image"] = pa.array(cells, kind)
            else:
                columns["x"] = pa.FixedSizeListArray.from_arrays(piece.items.ravel(), piece.items.shape[1])
            if piece.labels is not None:
                columns["label"] = pa.array(piece.labels, pa.int64())
            table = pa.table(columns).replace_schema_metadata(_features(piece, classes))
            writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _features(piece: Piece, classes: tuple[str, ...]) -> dict[str, str]:
    """Hugging Face's note on what the columns are."""
    features: dict[str, Any] = {"number": {"dtype": "int64", "_type": "Value"}}
    if is_image(piece.items.shape[1:]):
        features["image"] = {"_type": "Image"}
    else:
        cell = {"dtype": "float32", "_type": "Value"}
        features["x"] = {"feature": cell, "length": piece.items.shape[1], "_type": "Sequence"}
    if piece.labels is not None:
        features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _tar(path: Path, pieces: Iterator[Piece]) -> None:
    with tarfile.open(path, "w") as archive:
        for piece in pieces:
            for index, item in enumerate(piece.items):
                name = f"{piece.first + index:09d}"
                _member(archive, *((f"{name}.png", png(item)) if item.ndim == 3 else (f"{name}.npy", _npy(item))))
                if piece.labels is not None:
                    _member(archive, f"{name}.cls", str(piece.labels[index]).encode())


def _member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _npz(path: Path, pieces: Iterator[Piece]) -> None:
    gathered = list(pieces)
    items = np.concatenate([piece.items for piece in gathered])
    arrays = {"images" if is_image(items.shape[1:]) else "x": items}
    arrays["numbers"] = gathered[0].first + np.arange(len(items))
    if gathered[0].labels is not None:
        arrays["labels"] = np.concatenate([piece.labels for piece in gathered if piece.labels is not None])
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _folder(path: Path, pieces: Iterator[Piece], classes: tuple[str, ...]) -> None:
    """Single files, and labels.csv where there are labels: not synced one by one, which would take longer than to make them."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")  # a number of a process may come again in another container
    aside.mkdir()
    labels: list[tuple[str, int, str]] = []
    try:
        for piece in pieces:
            if not is_image(piece.items.shape[1:]):
                raise ConfigError("vectors are no PNGs; take --format npz, parquet or webdataset.")
            for index, image in enumerate(piece.items):
                name = f"{piece.first + index:09d}.png"
                (aside / name).write_bytes(png(image))
                if piece.labels is not None:
                    number = int(piece.labels[index])
                    labels.append((name, number, classes[number] if classes else str(number)))
        if labels:
            with (aside / "labels.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("file_name", "label", "label_name"), *labels])
        os.rename(aside, path)
        files.sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def png(image: np.ndarray) -> bytes:
    """(C, H, W) uint8 as a PNG."""
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _npy(item: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, item)
    return buffer.getvalue()
