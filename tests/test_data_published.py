"""Published sets in their publishers' own files: MNIST and its like, CIFAR-10, binarized MNIST, the digits."""

import gzip
import io
import urllib.error
from hashlib import md5

import numpy as np
import pytest

from data_helpers import folder, idx, idx_set, open_set
from nacre.data import DataSettings, load, published
from nacre.errors import DataError


def test_digits():
    from sklearn.datasets import load_digits

    found, truth = load(DataSettings()), load_digits()
    assert found.shape == (1, 8, 8)
    assert (found.items[:, 0] == np.rint(truth.images * 255 / 16)).all()
    assert (found.labels == truth.target).all()
    assert found.classes == tuple("0123456789")
    assert (found.kind, found.mirror, found.source, found.names[17]) == ("digits", False, "digits", "17")


def test_digits_without_the_file_of_sklearn(monkeypatch):
    first = load(DataSettings())
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda _name: None)
    assert load(DataSettings()).fingerprint == first.fingerprint


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A set that passes for MNIST: its own checksums, and a network that serves it."""
    root = idx_set(tmp_path / "served")
    sums = {path.stem: md5(gzip.decompress(path.read_bytes())).hexdigest() for path in sorted(root.iterdir())}
    tiny = published.Published(sums, ("http://one/", "http://two/"), tuple("abcdefghij"))
    monkeypatch.setattr(published, "MNIST_LIKE", {"mnist": tiny})
    asked = []

    def serve(address, timeout):
        asked.append(address)
        if address.startswith("http://one/"):
            raise urllib.error.URLError("unreachable")
        return io.BytesIO((root / address.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr(published.urllib.request, "urlopen", serve)
    return root, asked


def test_published_set_is_downloaded_once_from_the_mirror_that_answers(tiny_mnist, tmp_path):
    _, asked = tiny_mnist
    found = open_set("mnist")
    assert found.classes == tuple("abcdefghij")
    assert (len(found), len(found.rows("test"))) == (50, 10)
    assert found.source == f"mnist:{tmp_path / 'cache' / 'mnist'}"
    assert len(asked) == 8
    assert open_set(found.source).fingerprint == found.fingerprint
    assert len(asked) == 8


def test_published_set_in_nacre_data(tiny_mnist, tmp_path, monkeypatch):
    root, asked = tiny_mnist
    root.rename(tmp_path / "mnist")
    monkeypatch.setenv("NACRE_DATA", str(tmp_path))
    assert open_set("mnist").source == f"mnist:{tmp_path / 'mnist'}"
    assert asked == []


def test_unpacked_files_with_a_dot_are_known(tiny_mnist, tmp_path):
    root, asked = tiny_mnist
    for path in root.iterdir():
        folder(tmp_path / "own", {path.stem.replace("-idx", ".idx"): gzip.decompress(path.read_bytes())})
    assert len(open_set(f"mnist:{tmp_path / 'own'}")) == 50
    assert asked == []


def test_a_file_that_is_not_the_published_one(tiny_mnist, tmp_path):
    root, _ = tiny_mnist
    other = root / "train-labels-idx1-ubyte.gz"
    other.write_bytes(gzip.compress(idx(np.zeros(40, np.uint8))))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz is not the published file of mnist .*idx:/"):
        open_set(f"mnist:{root}")
    assert len(open_set(f"idx:{root}")) == 50


def test_no_network(tiny_mnist, tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(published.urllib.request, "urlopen", fail)
    with pytest.raises(
        DataError, match=r"cannot be downloaded \(Name or service not known\): put t10k-images.*mnist:DIR\.$"
    ):
        open_set("mnist")
    assert not (tmp_path / "cache" / "mnist").exists()


def test_a_mirror_that_serves_something_else(tiny_mnist, monkeypatch):
    monkeypatch.setattr(published.urllib.request, "urlopen", lambda *_a, **_o: io.BytesIO(b"<html>not found</html>"))
    with pytest.raises(DataError, match="cannot be downloaded"):
        open_set("mnist")
    monkeypatch.setattr(published.urllib.request, "urlopen", lambda *_a, **_o: io.BytesIO(gzip.compress(b"other")))
    with pytest.raises(DataError, match="what came is not the published file"):
        open_set("mnist")


def cifar(labels, seed):
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    return images, b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))


def test_cifar10(tmp_path):
    (one, first), (two, second), (three, test) = cifar([3, 9, 0], 0), cifar([1, 1], 1), cifar([2], 2)
    classes = "airplane automobile bird cat deer dog frog horse ship truck"
    files = {"data_batch_1.bin": first, "data_batch_2.bin": second, "test_batch.bin": test}
    files["batches.meta.txt"] = classes.replace(" ", "\n").encode() + b"\n\n"
    root = folder(tmp_path / "cifar-10-batches-bin", files)
    for place in (root, tmp_path):
        found = open_set(f"cifar10:{place}", image_size=None)
        assert (found.items == np.concatenate([one, two, three])).all()
        assert found.split.tolist() == [0, 0, 0, 0, 0, 2]
        assert [found.classes[label] for label in found.labels] == ["cat", "truck", "airplane"] + ["automobile"] * 2 + [
            "bird"
        ]
        assert (found.kind, found.mirror) == ("photos", True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"data_batch_1": b"\x80\x02}"},
            "Python version, which is pickled and never opened .*: take the binary version",
        ),
        ({"readme": b""}, "holds no data_batch_1.bin"),
        ({"data_batch_1.bin": b"\0" * 3072}, "is damaged: 3,072 bytes are not a multiple of 3,073"),
        ({"data_batch_1.bin": b""}, "is damaged"),
        ({"data_batch_1.bin": b"\x0b" + b"\0" * 3072}, "holds the label 11"),
    ],
)
def test_bad_cifar10(files, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_set(f"cifar10:{folder(tmp_path / 'cifar', files)}")


def amat(images):
    return "".join(" ".join(map(str, image.ravel())) + " \n" for image in images).encode()


def test_binarized_mnist(tmp_path):
    images = np.random.default_rng(0).integers(0, 2, (9, 28, 28))
    parts = {"train": images[:4], "valid": images[4:7], "test": images[7:]}
    files = {f"binarized_mnist_{part}.amat": amat(some) for part, some in parts.items()}
    found = open_set(f"binarized-mnist:{folder(tmp_path / 'set', files)}")
    assert (found.items[:, 0] == images * 255).all()
    assert found.split.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    assert (found.kind, found.mirror, found.labels) == ("digits", False, None)
    assert len(open_set(tmp_path / "set" / "binarized_mnist_valid.amat")) == 3
    with pytest.raises(DataError, match="use binarized-mnist:"):
        open_set(tmp_path / "set")


@pytest.mark.parametrize(
    "content", [b"", b"0 1 0\n", b"0.5 " * 784 + b"\n", b"2 " * 784, b"0 " * 783 + b"\n", b"10" * 392 + b"\n"]
)
def test_bad_amat(content, tmp_path):
    (tmp_path / "x.amat").write_bytes(content)
    with pytest.raises(DataError, match="lines of 784 zeros and ones were expected"):
        open_set(tmp_path / "x.amat")


def test_amat_folder_without_files(tmp_path):
    with pytest.raises(DataError, match=r"none of the files of binarized MNIST: binarized_mnist_train\.amat"):
        open_set(f"binarized-mnist:{folder(tmp_path / 'set', {'a': b''})}")
