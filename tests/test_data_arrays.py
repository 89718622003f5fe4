"""Sources that are arrays: idx, .npy and .npz."""

import gzip
import io
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from data_helpers import encoded, folder, idx, idx_set, open_set, pictures, pixels, tarred, zipped
from nacre.data import archives, cache, sources
from nacre.errors import ConfigError, DataError


def saved(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("pack", [True, False])
def test_idx_folder(pack, tmp_path):
    found = open_set(f"idx:{idx_set(tmp_path / 'set', pack=pack)}", validation=0.3)
    assert found.shape == (1, 6, 6)
    assert (found.split[40:] == 2).all()
    assert 0 < (found.split[:40] == 1).sum() < 40
    assert (found.split[:40] < 2).all()
    assert found.labels.tolist() == [n % 10 for n in range(40)] + list(range(10))
    assert (found.kind, found.mirror) == ("digits", False)
    assert found.source == f"idx:{tmp_path / 'set'}"


@pytest.mark.parametrize(
    ("code", "dtype", "values"),
    [
        (0x08, np.uint8, [0, 7, 255]),
        (0x09, np.int8, [0, 7, 127]),
        (0x0B, np.int16, [0, 7, 255]),
        (0x0C, np.int32, [0, 7, 255]),
        (0x0D, np.float32, [0.0, 7.0, 255.0]),
        (0x0E, np.float64, [0.0, 7.0, 255.0]),
    ],
)
def test_every_idx_type(code, dtype, values, tmp_path):
    array = np.tile(np.array(values, dtype)[:, None, None], (1, 4, 5))
    (tmp_path / "set.idx").write_bytes(idx(array, code))
    found = open_set(tmp_path / "set.idx")
    assert found.items.shape == (3, 1, 4, 5)
    assert found.items[:, 0, 0, 0].tolist() == [int(value) for value in values]


def test_idx_floats_between_0_and_1(tmp_path):
    (tmp_path / "x-idx3-ubyte").write_bytes(idx(np.array([0, 0.5, 1], np.float32).repeat(16).reshape(3, 4, 4), 0x0D))
    assert open_set(tmp_path / "x-idx3-ubyte").items[:, 0, 0, 0].tolist() == [0, 128, 255]


def test_idx_vectors(tmp_path):
    points = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    (tmp_path / "points.idx").write_bytes(idx(points, 0x0D))
    found = open_set(tmp_path / "points.idx")
    assert (found.items == points).all()
    assert found.kind == "vectors"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file: its first bytes are missing"),
        (b"\x89PNG\r\n", "is not an idx file: its first bytes are 89 50 4e 47"),
        (b"\0\0\x07\1" + b"\0" * 20, "is not an idx file"),
        (idx(np.zeros((3, 4, 4), np.uint8))[:-1], r"is damaged: it declares \(3, 4, 4\), 64 bytes, and has 63"),
        (idx(np.zeros((3, 4, 4), np.uint8)) + b"x", "is damaged"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "is damaged"),
        (gzip.compress(idx(np.zeros((3, 40, 40), np.uint8)))[:-9], "cannot be read"),
        (idx(np.zeros(9, np.uint8)), r"has the shape \(9,\); images \(N, H, W\)"),
        (idx(np.full((3, 4, 4), -1, np.int16), 0x0B), "run from -1 to -1; 0 to 1 or 0 to 255 was expected"),
        (idx(np.full((3, 4, 4), 300, np.int32), 0x0C), "run from 300 to 300"),
    ],
)
def test_bad_idx(content, message, tmp_path):
    (tmp_path / "set.idx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_set(tmp_path / "set.idx")


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.idx.gz", "x.zip", "x.tar.gz"])
def test_flipped_bytes_never_end_in_a_traceback(name, tmp_path):
    generator, path, array = np.random.default_rng(0), tmp_path / name, np.zeros((5, 8, 8), np.uint8)
    if name == "x.npz":
        np.savez_compressed(path, x=array, y=np.arange(5))
    elif name == "x.npy":
        np.save(path, array)
    elif name == "x.idx.gz":
        path.write_bytes(gzip.compress(idx(array)))
    else:
        (zipped if name == "x.zip" else tarred)(path, pictures(["a.png", "b.png", "metadata.jsonl"]))
    whole = path.read_bytes()
    for _ in range(60):
        spoilt = bytearray(whole)
        for place in generator.integers(0, min(300, len(whole)), 3):
            spoilt[place] = generator.integers(0, 256)
        path.write_bytes(spoilt)
        with suppress(DataError):
            open_set(path, max_bad=0.9)


def test_idx_bomb(tmp_path, monkeypatch):
    (tmp_path / "set.idx.gz").write_bytes(gzip.compress(bytes(1 << 22)))
    monkeypatch.setattr(archives, "BOMB_SIZE", 1 << 20)
    with pytest.raises(DataError, match="would grow from"):
        open_set(tmp_path / "set.idx.gz")


def test_idx_folder_that_is_no_set(tmp_path):
    folder(tmp_path / "set", {"a.txt": b""})
    with pytest.raises(DataError, match="holds no idx file of images"):
        open_set(f"idx:{tmp_path / 'set'}")
    images = idx(np.zeros((3, 4, 4), np.uint8))
    folder(tmp_path / "set", {"a-idx3-ubyte": images, "b-idx3-ubyte": images})
    with pytest.raises(DataError, match=r"several idx sets \(a-idx3-ubyte, b-idx3-ubyte\)"):
        open_set(f"idx:{tmp_path / 'set'}")
    with pytest.raises(DataError, match=r"holds a-idx3-ubyte and no images: use idx:"):
        open_set(tmp_path / "set")


def test_labels_of_the_wrong_number(tmp_path):
    files = {
        "train-images-idx3-ubyte": idx(np.zeros((3, 4, 4), np.uint8)),
        "train-labels-idx1-ubyte": idx(np.zeros(4, np.uint8)),
    }
    with pytest.raises(DataError, match=r"3 items and labels of shape \(4,\)"):
        open_set(f"idx:{folder(tmp_path / 'set', files)}")


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
def test_npy_layouts(layout, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 6, 3), np.uint8)
    array = {"NHW": images[:, :, :, 0], "NHWC": images, "NCHW": np.moveaxis(images, 3, 1)}[layout]
    found = open_set(saved(tmp_path / "x.npy", array))
    assert (found.items == (images[:, None, :, :, 0] if layout == "NHW" else np.moveaxis(images, 3, 1))).all()
    assert found.kind == ("digits" if layout == "NHW" else "photos")
    assert found.mirror == (layout != "NHW")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npy_floats(dtype, tmp_path):
    values = np.array([0, 0.25, 1], dtype).repeat(16).reshape(3, 4, 4)
    assert open_set(saved(tmp_path / "x.npy", values)).items[:, 0, 0, 0].tolist() == [0, 64, 255]
    assert open_set(saved(tmp_path / "x.npy", values * 255)).items[:, 0, 0, 0].tolist() == [0, 64, 255]


def test_npy_of_zeros_and_ones(tmp_path):
    found = open_set(saved(tmp_path / "x.npy", np.eye(4, dtype=np.uint8)[None].repeat(3, 0)))
    assert found.items.max() == 255
    assert found.notes == ("All values lie between 0 and 1, so 1 was taken as white.",)
    assert open_set(saved(tmp_path / "b.npy", np.eye(4, dtype=bool)[None].repeat(3, 0))).items.max() == 255


def test_npy_with_transparency_is_laid_over_white(tmp_path):
    images = np.zeros((2, 5, 5, 4), np.uint8)
    images[1, :, :, 3] = 128
    found = open_set(saved(tmp_path / "x.npy", images))
    assert found.shape == (3, 5, 5)
    assert found.items[:, 0, 0, 0].tolist() == [255, 127]


def test_npy_resized_goes_through_the_cache(tmp_path):
    path = saved(tmp_path / "x.npy", np.stack([pixels(n, 12, 12) for n in range(5)]))
    found = open_set(path, image_size=6, channels=1)
    assert found.shape == (1, 6, 6)
    assert found.names == tuple("01234")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    assert open_set(path, image_size=6, channels=1).fingerprint == found.fingerprint


def test_an_array_larger_than_memory_goes_through_the_cache(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.npy", np.stack([pixels(n) for n in range(5)]))
    first = open_set(path)
    monkeypatch.setattr(sources, "LARGEST_UNCACHED", 100)
    monkeypatch.setattr(cache, "LARGEST_IN_MEMORY", 100)
    found = open_set(path)
    assert isinstance(found.items, np.memmap)
    assert found.fingerprint == first.fingerprint


@pytest.mark.parametrize("layout", ["NCHW", "NHW", "NHW1", "N1HW"])
def test_a_large_npy_in_the_right_layout_is_used_where_it_lies(layout, tmp_path, monkeypatch):
    images = np.stack([np.moveaxis(pixels(n), 2, 0) for n in range(9)])
    grey = images[:, 0]
    array = {"NCHW": images, "NHW": grey, "NHW1": grey[..., None], "N1HW": grey[:, None]}[layout]
    path = saved(tmp_path / "x.npy", np.ascontiguousarray(array))
    small = open_set(path, validation=0.3)
    monkeypatch.setattr(sources, "LARGEST_UNCACHED", 100)
    for turn in range(2):
        found = open_set(path, validation=0.3)
        assert isinstance(found.items, np.memmap)
        assert str(found.items.filename) == str(path)
        assert not found.items.flags.writeable
        assert (found.items == small.items).all()
        assert (found.fingerprint, found.names, found.kind) == (small.fingerprint, small.names, small.kind)
        assert list((tmp_path / "cache").glob("*.npy")) == []
        if turn == 0:  # the second time nothing is read but the record
            monkeypatch.setattr(sources, "digest", None)


def test_a_large_npy_that_changed_is_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_UNCACHED", 100)
    path = saved(tmp_path / "x.npy", np.zeros((9, 3, 8, 8), np.uint8) + 7)
    first = open_set(path)
    saved(path, np.zeros((8, 3, 8, 8), np.uint8) + 9)
    assert (len(open_set(path)), len(first)) == (8, 9)


@pytest.mark.parametrize("why", ["NHWC", "resized", "white", "fortran", "floats"])
def test_a_large_npy_that_must_be_changed_goes_through_the_cache(why, tmp_path, monkeypatch):
    images = np.stack([np.moveaxis(pixels(n), 2, 0) for n in range(5)])
    array = {
        "NHWC": np.ascontiguousarray(np.moveaxis(images, 1, 3)),
        "white": images // 128,
        "fortran": np.asfortranarray(images),
        "floats": images.astype(np.float32),
    }.get(why, images)
    monkeypatch.setattr(sources, "LARGEST_UNCACHED", 100)
    found = open_set(saved(tmp_path / "x.npy", array), image_size=4 if why == "resized" else None)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    if why != "resized":
        assert (found.items == (images // 128 * 255 if why == "white" else images)).all()


def test_npy_vectors(tmp_path):
    points = np.random.default_rng(0).standard_normal((20, 7))
    found = open_set(saved(tmp_path / "x.npy", points))
    assert found.items.dtype == np.float32
    assert (found.items == points.astype(np.float32)).all()
    assert (found.kind, found.shape, found.mirror) == ("vectors", (7,), False)
    assert not open_set(tmp_path / "x.npy", mirror=True).mirror
    with pytest.raises(ConfigError, match="holds points, not images: --image-size means nothing"):
        open_set(tmp_path / "x.npy", image_size=8)


def test_flat_images_are_vectors_with_a_note(tmp_path):
    found = open_set(saved(tmp_path / "x.npy", np.zeros((3, 784), np.uint8)))
    assert found.notes == ("Rows of 784 values are taken as vectors; save them as (N, 28, 28) to have images.",)


def with_nan():
    values = np.zeros((5, 3), np.float32)
    values[3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{"a": 1}], object), "holds Python objects, which nacre never unpickles; save it with numpy.savez"),
        (with_nan(), "Row 3 of .* holds NaN or infinity"),
        (np.full((3, 4, 4), np.inf), "Row 0 of .* holds NaN or infinity"),
        (np.full((3, 2), 1e300), r"up to 1e\+300, beyond 32-bit floats"),
        (np.zeros((480, 640, 3), np.uint8), "looks like one picture"),
        (np.zeros((5, 3, 9, 3), np.uint8), "where either 3 or 3 may be the channels"),
        (np.zeros((5, 7, 9, 7), np.uint8), r"has the shape \(5, 7, 9, 7\); images"),
        (np.zeros((5, 2, 2, 2, 3)), "images"),
        (np.zeros(5), "images"),
        (np.zeros((0, 8, 8)), "images"),
        (np.full((3, 4, 4), -0.5), "run from -0.5 to -0.5; 0 to 1 or 0 to 255 was expected"),
        (np.full((3, 4, 4), 65535, np.uint16), "run from 65535"),
        (np.array([["a"]]), "holds values of type <U1; numbers were expected"),
        (np.zeros((3, 2), complex), "complex128; numbers were expected"),
    ],
)
def test_arrays_that_cannot_be_meant(array, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_set(saved(tmp_path / "x.npy", array))


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_damaged_npy(content, tmp_path):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        open_set(tmp_path / "x.npy")


def test_shortened_npy(tmp_path):
    path = saved(tmp_path / "x.npy", np.zeros((9, 8, 8), np.uint8))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="is damaged"):
        open_set(path)


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("x", "y"), ("data", "labels"), ("arr_0", "y"), ("any", "y")]
)
def test_npz_names(images, labels, tmp_path):
    array = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    np.savez_compressed(tmp_path / "x.npz", **{images: array, labels: np.array([3, 5, 3, 5, 9, 9])})
    found = open_set(tmp_path / "x.npz")
    assert (found.items[:, 0] == array).all()
    assert found.classes == ("3", "5", "9")
    assert found.labels.tolist() == [0, 1, 0, 1, 2, 2]


def test_npz_labels_may_be_texts(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 4, 4), np.uint8), y=np.array(["dog", "cat", "dog"])[:, None])
    found = open_set(tmp_path / "x.npz")
    assert (found.classes, found.labels.tolist()) == (("cat", "dog"), [1, 0, 1])


@pytest.mark.parametrize("labels", [[7, -1, 3, -1], [7.0, np.nan, 3.0, -1.0], ["7", "", "3", ""]])
def test_npz_labels_of_some_are_not_known(labels, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 4, 4), np.uint8), y=np.array(labels))
    found = open_set(tmp_path / "x.npz")
    assert (found.classes, found.labels.tolist()) == (("3", "7"), [1, -1, 0, -1])
    assert "2 of 4 items have no label." in found.notes


def test_npz_labels_that_are_all_unknown_are_none(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.full(2, -1))
    found = open_set(tmp_path / "x.npz")
    assert (found.labels, found.classes) == (None, ())
    assert "2 of 2 items have no label." in found.notes


def test_npz_with_train_and_test(tmp_path):
    arrays = {"x_train": np.zeros((6, 4, 4), np.uint8), "x_test": np.ones((2, 4, 4), np.uint8) * 9}
    np.savez(tmp_path / "x.npz", **arrays, y_train=np.arange(6), y_test=np.arange(2))
    found = open_set(tmp_path / "x.npz")
    assert found.split.tolist() == [0] * 6 + [2] * 2
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]


@pytest.mark.parametrize("name", ["captions", "captions_train"])
def test_npz_with_captions_of_the_training_set(name, tmp_path):
    arrays = {"x_train": np.zeros((2, 4, 4), np.uint8), "x_test": np.ones((1, 4, 4), np.uint8) * 9}
    np.savez(tmp_path / "x.npz", **arrays, **{name: np.array(["a", "b"]), "weights": np.zeros(2)})
    found = open_set(tmp_path / "x.npz")
    assert found.captions == ("a", "b", "")
    assert found.notes == ("Not used: the arrays weights.",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((2, 4, 4)), "b": np.zeros((2, 4, 4))}, "holds a, b; an array called images, x or data"),
        ({"x": np.zeros((2, 4, 4)), "y": np.zeros(3)}, r"2 items and labels of shape \(3,\)"),
        ({"x": np.array([None])}, "holds Python objects, which nacre never unpickles"),
        ({"x_train": np.zeros((2, 4, 4)), "x_test": np.zeros((2, 5, 5))}, "do not fit together"),
    ],
)
def test_npz_that_cannot_be_meant(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_set(tmp_path / "x.npz")


def test_npz_that_declares_more_than_it_holds(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match=r"x.npy has 128 bytes and declares 64000000000128"):
        open_set(tmp_path / "x.npz")


def test_npz_bomb(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 64, 64), np.uint8))
    monkeypatch.setattr(archives, "BOMB_SIZE", 1 << 20)
    with pytest.raises(DataError, match="would grow from"):
        open_set(tmp_path / "x.npz")


@pytest.mark.parametrize("content", [b"", b"text", zipfile.BadZipFile.__name__.encode()])
def test_damaged_npz(content, tmp_path):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as a .npz file"):
        open_set(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("minst", r"no file, folder or source called 'minst'; did you mean mnist\?"),
        ("toy:ring", r"did you mean toy:ring8\?"),
        ("photoz", r"did you mean photos\?"),
        ("", "no file, folder or source called ''; a folder of images"),
        ("qqqqqqqq", "a folder of images, a .zip, .* was expected, or one of digits, mnist"),
        ("idx:nowhere", "nowhere does not exist; idx: must be followed by an idx file or a folder of them"),
        ("cifar10:nowhere", "must be followed by the folder of CIFAR-10's binary version"),
        ("photos/a.png", "is one image; name the folder that holds many"),
        ("notes.md", "is no source that nacre knows; a folder of images"),
    ],
)
def test_unknown_sources(source, message, tmp_path):
    folder(tmp_path, {"photos/a.png": encoded(pixels(0)), "notes.md": b""})
    with pytest.raises(DataError, match=message):
        open_set(source)


def test_a_source_is_resolved(tmp_path, monkeypatch):
    folder(tmp_path, {"photos/a.png": encoded(pixels(0))})
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("photos", "./photos/", "~/photos", str(tmp_path / "photos")):
        assert open_set(text).source == str(tmp_path / "photos")
