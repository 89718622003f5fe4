"""The conventions of an image folder, wherever it lies: class folders, split folders, labels and captions."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import dirname, join, normpath, splitext

import numpy as np

from nacre.data.dataset import UNSAID, BadFile, Kind, Listing, about_unlabelled, numbered
from nacre.data.decode import SUFFIXES
from nacre.errors import DataError

SPLIT_NAMES: Mapping[str, int] = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2,
}  # fmt: skip
SHARDS = (".tar", ".parquet")
LABELS = "labels.csv"
METADATA = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv", LABELS)

NAMED = 5
"""Images without a caption, or files that are out of place, that are named."""

_WHOLE = re.compile(r"-?\d{1,18}")

_SHARD = re.compile(r".*-\d{5}-of-\d{5}")
"""What a folder is called that nacre filled with some of its samples."""

_NO_IMAGE = "no image: files named .jpg, .png, .webp, .gif, .bmp, .tif and the like are looked for"

ReadText = Callable[[str], str]


@dataclass(frozen=True)
class Remark:
    """What a metadata file says about one image."""

    text: str | None = None
    split: int = UNSAID
    label: str = ""
    label_name: str = ""

    def and_then(self, other: "Remark") -> "Remark":
        """Both together; where both say something, the other counts."""
        return Remark(
            self.text if other.text is None else other.text,
            self.split if other.split == UNSAID else other.split,
            other.label or self.label,
            other.label_name or self.label_name,
        )


def is_junk(part: str) -> bool:
    """Whether a file or folder of this name is left by a system and no part of the data."""
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")


def printable(path: str) -> str:
    """A path that can be printed: bytes of its name that are no UTF-8 become question marks."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def matters(path: str) -> bool:
    """Whether a file can be an image or say something about one, judged by its name."""
    return is_image(path) or path.endswith((".txt", *METADATA))


def is_image(path: str) -> bool:
    """Whether a file is named like an image."""
    return path[path.rfind(".") :].lower() in SUFFIXES


def arrange(
    files: Sequence[str], read_text: ReadText, source: str, bad: tuple[BadFile, ...] = ()
) -> tuple[tuple[str, ...], Listing]:
    """Find the images among `files` and what their places and the metadata say about them.

    Args:
        files: sorted paths with "/", relative to the source.
        read_text: the text of one of `files`.
        source: what to call the source in an error.
        bad: files that were refused before.

    Returns:
        The paths of the images, and their listing (named without folders that all of them share).

    Raises:
        DataError: no image, or metadata that cannot be understood.
    """
    paths = tuple(path for path in files if is_image(path))
    if not paths:
        why = f"no image that can be used: {bad[0].name} ({bad[0].reason})" if bad else _NO_IMAGE
        raise DataError(f"{source} holds {why}.")
    names = tuple(printable(path) for path in _without_shared_folders(paths))
    bad = tuple(BadFile(printable(file.name), file.reason) for file in bad)
    _refuse_strays(names, source)
    fixed, inner = _split_folders(names)
    remarks, unread = _metadata(files, read_text, source)
    labels, classes, unlabelled = _told_classes(paths, remarks)
    of_folders = _class_folders(inner)
    if not classes:
        labels, classes = of_folders
    elif of_folders[1]:
        unlabelled += (f"Labels are those of the metadata; the folders {few(of_folders[1])} are no classes.",)
    captions = _captions(paths, files, remarks, read_text)
    kind, notes = _kind(classes, captions is not None)
    notes = _about_folders(names, inner) + notes + unlabelled + unread
    notes += _gaps(paths, captions, len(remarks.keys() - set(paths)))
    if captions is None and (blank := _told(paths, files, remarks)):
        notes += (f"The captions of {blank} images are blank, and no image has another.",)
    return paths, Listing(names, kind, labels, classes, captions, _with_remarks(fixed, paths, remarks), notes, bad)


def _without_shared_folders(paths: tuple[str, ...]) -> tuple[str, ...]:
    while True:
        tops = {path.split("/", 1)[0] if "/" in path else "" for path in paths}
        top = tops.pop()
        if tops or not top or top.lower() in SPLIT_NAMES:
            return paths
        paths = tuple(path.split("/", 1)[1] for path in paths)


def _split_folders(names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Top folders that are all called train, test and so on fix the split; the names inside them come back."""
    tops = [name.split("/", 1)[0].lower() if "/" in name else "" for name in names]
    if not set(tops) <= SPLIT_NAMES.keys():
        return None, names
    return np.array([SPLIT_NAMES[top] for top in tops], np.int8), tuple(name.split("/", 1)[1] for name in names)


def _refuse_strays(names: tuple[str, ...], source: str) -> None:
    """Raise DataError if something lies beside a training and a test set, which would dissolve them unnoticed."""
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    splits = sorted(top for top in tops if top.lower() in SPLIT_NAMES)
    strays = sorted(tops.difference(splits)) + [name for name in names if "/" not in name]
    numbers = {SPLIT_NAMES[top.lower()] for top in splits}
    if strays and 0 in numbers and len(numbers) > 1:
        raise DataError(
            f"{source} holds {few(splits)} and beside them {few(strays)}, so that these would be no splits; move what lies "
            "beside them elsewhere, or name one of the folders."
        )


def _about_folders(names: tuple[str, ...], inner: tuple[str, ...]) -> tuple[str, ...]:
    """A note if folders are no classes, or a split is none, because of what lies beside them."""
    places = sorted({dirname(name) for name in inner if "/" in name})
    loose = [name for name, inside in zip(names, inner, strict=True) if "/" not in inside]
    if len(places) > 1 and loose:
        return (f"The folders {few(places)} are no classes, for images lie beside them ({few(loose)}).",)
    tops = sorted({place.split("/", 1)[0] for place in places})
    splits = [top for top in tops if top.lower() in SPLIT_NAMES]
    if splits and len(tops) > 1 and names == inner:
        others = [top for top in tops if top not in splits]
        return (f"{few(splits)} is taken for a class and for no split, for there is {few(others)} beside it.",)
    return ()


def few(names: Sequence[str]) -> str:
    """The first of some names, fit to be printed."""
    return ", ".join(map(printable, names[:NAMED])) + (" …" if len(names) > NAMED else "")


def _class_folders(names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """At least two folders and no image beside them: each folder is a class, whatever lies inside it, but for shards."""
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    classes = tuple(sorted(set(tops)))
    if len(classes) < 2 or "" in classes or all(map(_SHARD.fullmatch, classes)):
        return None, ()
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[top] for top in tops], np.int64), classes


def _told_classes(
    paths: tuple[str, ...], remarks: Mapping[str, Remark]
) -> tuple[np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """The labels that the metadata give, what each is called (by its `label_name` if there is one), and notes."""
    said = [remarks[path].label if path in remarks else "" for path in paths]
    if not any(said):
        return None, (), ()
    whole = all(_WHOLE.fullmatch(label) for label in said if label)
    known = [int(label) if label else UNSAID for label in said] if whole else said
    labels, classes = numbered(np.array(known))
    if not classes:
        return None, (), ()
    named = [(label, remarks[path]) for label, path in zip(known, paths, strict=True) if path in remarks]
    names = {str(label): remark.label_name for label, remark in named if remark.label_name}
    return labels, tuple(names.get(each, each) for each in classes), about_unlabelled(labels)


def _metadata(files: Sequence[str], read_text: ReadText, source: str) -> tuple[dict[str, Remark], tuple[str, ...]]:
    """What is said about images by their paths, and notes: on a file of labels that says it otherwise, and on images that one
    file names again, of which the last line counts.
    """
    remarks: dict[str, Remark] = {}
    notes: tuple[str, ...] = ()
    for path in files:
        name = PurePosixPath(path).name
        if name not in METADATA:
            continue
        text = read_text(path)
        if name == LABELS and not {"file_name", "label"} <= set(next(csv.reader([text.partition("\n")[0]]), [])):
            notes += (f"{path} is not read, for it has no columns file_name and label.",)
            continue
        rows = _jsonl if name.endswith(".jsonl") else _csv
        said: dict[str, Remark] = {}
        again: set[str] = set()
        for image, remark in rows(text, dirname(path), f"{path} in {source}"):
            again |= {image} & said.keys()
            said[image] = remark
        if again:
            notes += (
                f"{len(again)} images stand in {path} more than once, and the last line counts ({few(sorted(again))}).",
            )
        remarks |= {image: remarks.get(image, Remark()).and_then(remark) for image, remark in said.items()}
    return remarks, notes


def _jsonl(text: str, folder: str, where: str) -> Iterator[tuple[str, Remark]]:
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold other characters that end lines
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of {where} is not a JSON object.")
        yield _remark(row, folder, f"Line {number} of {where}")


def _csv(text: str, folder: str, where: str) -> Iterator[tuple[str, Remark]]:
    rows, line = csv.DictReader(io.StringIO(text), strict=True), 2
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DataError(f"Line {line} of {where} cannot be read as CSV ({error}); is a quote left open?") from None
        if row is None:
            return
        yield _remark(row, folder, f"Line {line} of {where}")
        line = rows.line_num + 1


def _remark(row: Mapping[str | None, object], folder: str, where: str) -> tuple[str, Remark]:
    name, text, split = row.get("file_name"), row.get("text"), row.get("split")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no file_name.")
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = str(text)
    if text is not None and not isinstance(text, str):
        raise DataError(f"{where} has a text that is not a text.")
    known = SPLIT_NAMES.get(str(split).lower(), UNSAID) if split else UNSAID
    if split and known == UNSAID:
        raise DataError(f"{where} has the split {split!r}; train, validation or test was expected.")
    said = Remark(text, known, _label(row.get("label")), _label(row.get("label_name")))
    return normpath(join(folder, name)), said


def _label(value: object) -> str:
    """A label as text; "" for none, and for what can be none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    text = str(value).strip().removesuffix(".0")  # whole numbers beside gaps, as pandas writes them
    return "" if text.lower() == "nan" else text


def _captions(
    paths: tuple[str, ...], files: Sequence[str], remarks: Mapping[str, Remark], read_text: ReadText
) -> tuple[str, ...] | None:
    """The captions: an image's from the metadata or, if it has none there, from a .txt beside it; "" where there is none."""
    found = {path: text for path in paths if path in remarks and (text := remarks[path].text) and text.strip()}
    texts = {path for path in files if path.endswith(".txt")}
    beside = {path: splitext(path)[0] + ".txt" for path in paths if path not in found}
    found |= {path: text for path, place in beside.items() if place in texts and (text := _one_line(read_text(place)))}
    return tuple(found.get(path) or "" for path in paths) if found else None


def _told(paths: tuple[str, ...], files: Sequence[str], remarks: Mapping[str, Remark]) -> int:
    """How many images have a place for a caption, in the metadata or in a .txt beside them, whatever it holds."""
    texts = {splitext(path)[0] for path in files if path.endswith(".txt")}
    return sum(splitext(path)[0] in texts or (path in remarks and remarks[path].text is not None) for path in paths)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _gaps(paths: tuple[str, ...], captions: tuple[str, ...] | None, missing: int) -> tuple[str, ...]:
    bare = [path for path, caption in zip(paths, captions or (), strict=False) if not caption]
    notes: tuple[str, ...] = (f"{len(bare)} of {len(paths)} images have no caption ({few(bare)}).",) if bare else ()
    if broken := [path for path, caption in zip(paths, captions or (), strict=False) if "\ufffd" in caption]:
        notes += (f"The captions of {len(broken)} images are no UTF-8 and have gaps ({few(broken)}).",)
    return notes + ((f"{missing} images named in the metadata are not there.",) if missing else ())


def _with_remarks(fixed: np.ndarray | None, paths: tuple[str, ...], remarks: Mapping[str, Remark]) -> np.ndarray | None:
    said = np.array([remarks[path].split if path in remarks else UNSAID for path in paths], np.int8)
    if (said == UNSAID).all():
        return fixed
    return said if fixed is None else np.where(said == UNSAID, fixed, said)


def _kind(classes: tuple[str, ...], captioned: bool) -> tuple[Kind, tuple[str, ...]]:
    if captioned or not classes or any(len(name) > 1 for name in classes):
        return "photos", ()
    return "digits", ("The classes are single characters, so mirror images are not made; --mirror changes that.",)
