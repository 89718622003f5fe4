"""Published sets in their publishers' own files: MNIST and Fashion-MNIST, CIFAR-10, binarized MNIST, the small digits."""

import gzip
import importlib.util
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

import numpy as np

from nacre.data.archives import DAMAGE
from nacre.data.arrays import ArraySource, Part, VectorSource, source_of
from nacre.data.cache import cache_folder
from nacre.data.dataset import UNSAID
from nacre.data.idx import parse_idx, unpacked
from nacre.data.progress import bar
from nacre.errors import DataError
from nacre.files import whole_file

TIMEOUT = 30  # seconds
LARGEST_DOWNLOAD = 1 << 26  # bytes

CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_RECORD, CIFAR_SIDE = 3073, 32
AMAT_WIDTH = 784
AMAT_SPLITS = {"train": UNSAID, "valid": 1, "test": 2}


@dataclass(frozen=True)
class Published:
    """Four idx files: `files` gives the MD5 of each when unpacked, `mirrors` the places of the packed ones."""

    files: Mapping[str, str]
    mirrors: tuple[str, ...]
    classes: tuple[str, ...]


# The MD5 sums are those of the unpacked contents of the published .gz files (for MNIST f68b3c2d…, d53e105e…, 9fb629c4…
# and ec29112d…; for Fashion-MNIST 8d4fb7e6…, 25c81989…, bef4ecab… and bb300cfd…), so that packed or not is all one.
MNIST_LIKE: Mapping[str, Published] = {
    "mnist": Published(
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        tuple("0123456789"),
    ),
    "fashion-mnist": Published(
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}


def usual_folder(name: str) -> Path:
    """Where a published set lies when the user names no folder: $NACRE_DATA/<name>, otherwise in the cache."""
    chosen = os.environ.get("NACRE_DATA")
    if chosen and (folder := Path(chosen).expanduser() / name).is_dir():
        return folder
    return cache_folder() / name


def open_published(name: str, folder: Path, progress: bool) -> ArraySource | VectorSource:
    """MNIST or Fashion-MNIST, checked against the published checksums, and downloaded into `folder` where absent.

    Raises:
        DataError: a file is not the published one, or is absent and cannot be downloaded.
    """
    published = MNIST_LIKE[name]
    arrays = {}
    with bar(len(published.files), f"fetching {name}", "file", progress) as shown:
        for file in published.files:
            arrays[file.split("-idx")[0]] = _checked(name, folder, file)
            shown.update()
    parts = [
        Part(arrays[f"{part}-images"], arrays[f"{part}-labels"], split)
        for part, split in (("train", UNSAID), ("t10k", 2))
    ]
    return source_of(parts, f"{name}:{folder}", "digits", published.classes)


def published_files(name: str, folder: Path) -> list[Path]:
    """The files of a published set that are there."""
    return [path for file in MNIST_LIKE[name].files if (path := _present(folder, file))]


def open_cifar10(folder: Path) -> ArraySource | VectorSource:
    """CIFAR-10 in its binary version: records of one label byte and 3 × 32 × 32 bytes, planes of red, green and blue.

    Raises:
        DataError: the files are absent, damaged or of the pickled version.
    """
    inner = folder / CIFAR_FOLDER
    folder = inner if inner.is_dir() else folder
    training = sorted(folder.glob("data_batch_*.bin"))
    if not training:
        raise DataError(_no_cifar(folder))
    parts = [_cifar_part(path, UNSAID) for path in training]
    test = folder / "test_batch.bin"
    if test.is_file():
        parts.append(_cifar_part(test, 2))
    named = folder / "batches.meta.txt"
    classes = tuple(named.read_text(encoding="utf-8", errors="replace").split()) if named.is_file() else ()
    return source_of(parts, f"cifar10:{folder}", "photos", classes if len(classes) == 10 else ())


def open_amat(path: Path) -> ArraySource | VectorSource:
    """Binarized MNIST as Larochelle published it: binarized_mnist_{train,valid,test}.amat, or one such file.

    Raises:
        DataError: no such file, or a line that is not 784 zeros and ones.
    """
    if path.is_file():
        return source_of([Part(_amat(path), None)], str(path), "digits")
    files = {path / f"binarized_mnist_{word}.amat": split for word, split in AMAT_SPLITS.items()}
    present = {file: split for file, split in files.items() if file.is_file()}
    if not present:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{path} holds none of the files of binarized MNIST: {names}.")
    parts = [Part(_amat(file), None, split) for file, split in present.items()]
    return source_of(parts, f"binarized-mnist:{path}", "digits")


def open_digits() -> ArraySource | VectorSource:
    """scikit-learn's 1,797 digits of 8x8 pixels, 0..16 brought to 0..255."""
    table = _digits_table()
    levels = np.rint(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return source_of([Part(levels, table[:, 64].astype(np.int64))], "digits", "digits")


def _present(folder: Path, file: str) -> Path | None:
    # Some unpack to "train-images.idx3-ubyte".
    names = (file, file.replace("-idx", ".idx"))
    candidates = [folder / (name + suffix) for name in names for suffix in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _checked(name: str, folder: Path, file: str) -> np.ndarray:
    path = _present(folder, file) or _download(name, folder, file)
    content = unpacked(path)
    if _md5(content) != MNIST_LIKE[name].files[file]:
        raise DataError(
            f"{path} is not the published file of {name} (its MD5 differs): "
            f"remove it to have it downloaded again, or read the folder as it is with idx:{folder}."
        )
    return parse_idx(content, path)


def _download(name: str, folder: Path, file: str) -> Path:
    path = folder / f"{file}.gz"
    reason = "no mirror"
    for mirror in MNIST_LIKE[name].mirrors:
        try:
            with urllib.request.urlopen(mirror + path.name, timeout=TIMEOUT) as answer:
                packed = answer.read(LARGEST_DOWNLOAD)
            if _md5(gzip.decompress(packed)) == MNIST_LIKE[name].files[file]:
                return _write(path, packed)
            reason = "what came is not the published file"
        except DAMAGE as error:
            reason = str(getattr(error, "reason", error))
    names = ", ".join(f"{each}.gz" for each in MNIST_LIKE[name].files)
    raise DataError(
        f"{path.name} of {name} is not in {folder} and cannot be downloaded ({reason}): put {names} "
        f"there, or name their folder with {name}:DIR."
    )


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}).") from error
    return path


def _md5(content: bytes) -> str:
    return md5(content, usedforsecurity=False).hexdigest()


def _no_cifar(folder: Path) -> str:
    if (folder / "data_batch_1").is_file() or (folder / "cifar-10-batches-py").is_dir():
        return (
            f"{folder} holds CIFAR-10's Python version, which is pickled and never opened by nacre: "
            "take the binary version, cifar-10-binary.tar.gz."
        )
    return f"{folder} holds no data_batch_1.bin: unpack CIFAR-10's binary version there."


def _cifar_part(path: Path, split: int) -> Part:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if len(content) == 0 or len(content) % CIFAR_RECORD:
        raise DataError(f"{path} is damaged: {len(content):,} bytes are not a multiple of {CIFAR_RECORD:,}.")
    records = content.reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise DataError(f"{path} is no batch of CIFAR-10: it holds the label {records[:, 0].max()}.")
    return Part(records[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE), records[:, 0].astype(np.int64), split)


def _amat(path: Path) -> np.ndarray:
    text = np.frombuffer(path.read_bytes(), np.uint8)
    is_digit = (text == ord("0")) | (text == ord("1"))
    digits = text[is_digit] - ord("0")
    lines = int((text == ord("\n")).sum()) + int(len(text) > 0 and text[-1] != ord("\n"))
    is_clean = np.isin(text[~is_digit], list(b" \r\n")).all() and not (is_digit[1:] & is_digit[:-1]).any()
    if not is_clean or len(digits) == 0 or len(digits) != lines * AMAT_WIDTH:
        raise DataError(f"{path} is not binarized MNIST: lines of {AMAT_WIDTH} zeros and ones were expected.")
    return digits.reshape(lines, 28, 28) * np.uint8(255)


def _digits_table() -> np.ndarray:
    """(1797, 65): the pixels and the label. scikit-learn's file is read without scikit-learn, whose import takes a
    second, where it lies in its usual place."""
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else None
    if path and path.is_file():
        with gzip.open(path, "rt", encoding="ascii") as file:
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.concatenate([digits.data, digits.target[:, None]], 1)
