"""Stacked MNIST: which digits make a stack, what it is called, and that the set is the same each time."""

import gzip
from hashlib import md5

import numpy as np
import pytest

from data_helpers import idx_set, open_set
from nacre.data import published, stacked
from nacre.data.settings import DataSettings
from nacre.data.sources import find
from nacre.errors import DataError


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder of 40 training and 10 test digits that passes for MNIST's, and fewer stacks than of the real ones."""
    root = idx_set(tmp_path / "mnist")
    sums = {path.stem: md5(gzip.decompress(path.read_bytes())).hexdigest() for path in sorted(root.iterdir())}
    monkeypatch.setattr(published, "MNIST_LIKE", {"mnist": published.Published(sums, (), tuple("0123456789"))})
    monkeypatch.setattr(stacked, "TRAIN", 3000)
    monkeypatch.setattr(stacked, "TEST", 500)
    return root


def test_a_stack_is_the_three_digits_that_it_is_called_after(mnist):
    digits, found = open_set(f"mnist:{mnist}"), open_set(f"stacked-mnist:{mnist}")
    assert found.items.shape == (3500, 3, 6, 6)
    assert found.items.dtype == np.uint8
    assert (found.kind, found.mirror, found.source) == ("digits", False, f"stacked-mnist:{mnist}")
    triples = np.array([name.split("-") for name in found.names], int)
    triples[3000:] += 40  # test digits lie behind the training digits
    assert (found.items == digits.items[triples][:, :, 0]).all()
    spelled = ["".join(digits.classes[label] for label in digits.labels[triple]) for triple in triples]
    assert [found.classes[label] for label in found.labels] == spelled
    assert found.classes[:2] + found.classes[-1:] == ("000", "001", "999")
    assert len(found.classes) == 1000


def test_stacks_to_test_with_are_of_test_digits_alone(mnist):
    found = open_set(f"stacked-mnist:{mnist}", validation=0.1)
    assert len(found.rows("test")) == 500
    assert len(found.rows("train")) + len(found.rows("validation")) == 3000
    assert 200 < len(found.rows("validation")) < 400
    planes = {
        split: {p.tobytes() for p in found.items[found.rows(split)].reshape(-1, 36)} for split in ("train", "test")
    }
    assert len(planes["train"]) == 40
    assert len(planes["test"]) == 10
    assert not planes["train"] & planes["test"]


def test_digits_are_drawn_evenly_and_independently(mnist):
    found = open_set(f"stacked-mnist:{mnist}")
    triples = np.array([name.split("-") for name in found.names[:3000]], int)
    counts = np.array([np.bincount(channel, minlength=40) for channel in triples.T])
    assert (np.abs(counts - 75) < 5 * np.sqrt(75)).all()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(triples[:, one], triples[:, other])[0, 1]) < 0.08
    shares = np.bincount(found.labels[:3000], minlength=1000) / 3000
    kl = (shares[shares > 0] * np.log(1000 * shares[shares > 0])).sum()
    assert kl == pytest.approx(999 / 6000, rel=0.15)


def test_the_set_is_one_and_the_same_and_kept(mnist, tmp_path, monkeypatch):
    first = open_set(f"stacked-mnist:{mnist}")
    assert first.names[0] == "0-3-3"  # what NumPy's frozen generator draws among 40 from seed 0
    with monkeypatch.context() as never:
        never.setattr(stacked, "open_published", None)  # from the cache
        assert open_set(f"stacked-mnist:{mnist}").fingerprint == first.fingerprint
        seeded = open_set(f"stacked-mnist:{mnist}", split_seed=5, validation=0.1)
    assert (seeded.items == first.items).all()
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "other"))
    assert open_set(f"stacked-mnist:{mnist}").fingerprint == first.fingerprint


def test_real_stacks_are_mapped_not_held(mnist, monkeypatch):
    from nacre.data import cache

    monkeypatch.setattr(cache, "LARGEST_IN_MEMORY", 1 << 16)
    assert isinstance(open_set(f"stacked-mnist:{mnist}").items, np.memmap)
    assert (stacked.SEED, len(stacked.CLASSES)) == (0, 1000)


def test_other_sizes(mnist):
    assert open_set(f"stacked-mnist:{mnist}", image_size=8).shape == (3, 8, 8)
    assert open_set(f"stacked-mnist:{mnist}", channels=1).shape == (1, 6, 6)


def test_without_a_folder_it_is_of_the_usual_mnist(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("NACRE_DATA", str(tmp_path))
    assert find(DataSettings(data="stacked-mnist")).name == f"stacked-mnist:{mnist}"


def test_files_that_are_not_mnist_are_refused(mnist):
    (mnist / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="is not the published file of mnist"):
        open_set(f"stacked-mnist:{mnist}")
    with pytest.raises(DataError, match="did you mean stacked-mnist"):
        open_set("stackedmnist")
