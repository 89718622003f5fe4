"""Splits by content, and the cache of decoded images."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from data_helpers import encoded, folder, open_set, pictures, pixels
from nacre.data import DataSettings, build, cache, decode, load
from nacre.errors import ConfigError, DataError

SHARES = {"validation": 0.2, "test": 0.3}


def splits(data):
    return dict(zip(data.names, data.split.tolist(), strict=True))


def test_shares_are_about_right():
    found = load(DataSettings(validation=0.2, test=0.1))
    counts = [len(found.rows(split)) for split in ("train", "validation", "test")]
    assert sum(counts) == 1797
    # Binomial: within four standard deviations.
    assert counts[1] == pytest.approx(0.2 * 1797, abs=4 * (1797 * 0.2 * 0.8) ** 0.5)
    assert counts[2] == pytest.approx(0.1 * 1797, abs=4 * (1797 * 0.1 * 0.9) ** 0.5)
    assert found.rows("test").dtype == np.int64


def test_the_seed_decides():
    one, two = load(DataSettings()), load(DataSettings(split_seed=1))
    assert (one.split == load(DataSettings()).split).all()
    assert (one.split != two.split).any()
    assert one.fingerprint != two.fingerprint


def test_growing_one_share_moves_nobody_back():
    small, large = load(DataSettings(validation=0.1)), load(DataSettings(validation=0.2))
    assert (large.split[small.split == 1] == 1).all()
    assert ((small.split == 2) == (large.split == 2)).all()


def test_adding_images_moves_nobody(tmp_path):
    files = pictures([f"{n}.png" for n in range(60)])
    before = splits(open_set(folder(tmp_path / "photos", dict(list(files.items())[:40])), **SHARES))
    after = splits(open_set(folder(tmp_path / "photos", files), **SHARES))
    assert len(after) == 60
    assert before.items() <= after.items()


def test_duplicates_never_straddle(tmp_path):
    files = pictures([f"{n}.png" for n in range(30)])
    copies = {f"copy/{name}": content for name, content in files.items()}
    # The same pixels in another format, and grey pixels stored as colour.
    copies |= {f"bmp/{n}.bmp": encoded(pixels(n), "BMP") for n in range(30)}
    found = splits(open_set(folder(tmp_path / "photos", files | copies), **SHARES))
    for n in range(30):
        assert found[f"{n}.png"] == found[f"copy/{n}.png"] == found[f"bmp/{n}.bmp"]


def test_grey_copies_in_colour_do_not_straddle(tmp_path):
    files = {}
    for n in range(30):
        grey = pixels(n, channels=1)
        files |= {f"{n}.png": encoded(grey), f"{n}-rgb.png": encoded(np.stack([grey] * 3, 2))}
    found = splits(open_set(folder(tmp_path / "photos", files), **SHARES))
    assert all(found[f"{n}.png"] == found[f"{n}-rgb.png"] for n in range(30))


@pytest.mark.parametrize("settings", [{"image_size": 4}, {"channels": 1}, {"image_size": 16, "fit": "pad"}])
def test_the_split_ignores_how_images_are_brought_to_size(settings, tmp_path):
    root = folder(tmp_path / "photos", pictures([f"{n}.png" for n in range(40)]))
    assert splits(open_set(root, **SHARES)) == splits(open_set(root, **SHARES, **settings))


def test_array_and_folder_agree(tmp_path):
    images = np.stack([pixels(n) for n in range(40)])
    np.save(tmp_path / "images.npy", images)
    root = folder(tmp_path / "photos", pictures([f"{n:02}.png" for n in range(40)]))
    one, two = open_set(root, **SHARES), open_set(tmp_path / "images.npy", **SHARES)
    assert (one.split == two.split).all()
    assert one.fingerprint == two.fingerprint


def test_fixed_splits_that_share_images_are_noted(tmp_path):
    files = pictures(["train/a.png", "train/b.png", "test/c.png"])
    files["test/d.png"] = files["train/a.png"]
    found = open_set(folder(tmp_path / "photos", files))
    assert found.notes == ("1 items kept aside repeat the exact pixels of one to train on.",)


def test_progress_is_silent_where_nobody_looks(tmp_path, capsys):
    root = folder(tmp_path / "photos", pictures(["a.png"]))
    load(DataSettings(data=str(root), validation=0, test=0), progress=True)
    assert capsys.readouterr() == ("", "")


def test_empty_splits_are_noted(tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png"]))
    assert open_set(root, test=0.001).notes == ("With 1 items, none happens to be kept aside for test.",)
    assert open_set(root).notes == ()


def test_nothing_left_to_train_on(tmp_path):
    root = folder(tmp_path / "photos", pictures(["test/a.png", "test/b.png"]))
    with pytest.raises(DataError, match=r"All 2 items of .* are kept aside"):
        open_set(root)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, "nothing is left to train on"),
        ({"validation": -0.1}, "--validation is a share between 0 and 1"),
        ({"max_bad": 2}, "--max-bad is a share"),
        ({"split_seed": -1}, "--split-seed must be 0 to"),
        ({"channels": 4}, "--channels must be 1"),
        ({"fit": "stretch"}, "--fit must be crop, pad or squash"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataSettings(**settings)


def no_decoding(monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "_opened", refuse)


def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch):
    files = pictures(["cat/a.png", "dog/b.png", "dog/c.png"])
    files |= {"metadata.jsonl": b'{"file_name": "cat/a.png", "text": "caf\xc3\xa9", "split": "test"}', "dog/x.png": b""}
    root = folder(tmp_path / "photos", files)
    first = open_set(root, max_bad=0.5)
    no_decoding(monkeypatch)
    again = open_set(root, max_bad=0.5)
    assert vars(again).keys() == vars(first).keys()
    for name, value in vars(first).items():
        assert np.array_equal(getattr(again, name), value), name
    with pytest.raises(DataError, match="--max-bad"):
        open_set(root)


def test_splitting_anew_decodes_nothing(tmp_path, monkeypatch):
    root = folder(tmp_path / "photos", pictures([f"{n}.png" for n in range(30)]))
    first = open_set(root, **SHARES)
    no_decoding(monkeypatch)
    assert (open_set(root, **SHARES, split_seed=3, mirror=False).split != first.split).any()


@pytest.mark.parametrize("change", ["content", "size", "touch", "add", "remove", "rename", "caption"])
def test_a_changed_folder_is_decoded_again(change, tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png", "b.png"]) | {"a.txt": b"one"})
    first = open_set(root)
    if change == "content":
        status = (root / "a.png").stat()
        (root / "a.png").write_bytes(encoded(pixels(50)))
        os.utime(root / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "size":  # with the time of before
        status = (root / "a.png").stat()
        (root / "a.png").write_bytes(encoded(pixels(50, 9, 9)))
        os.utime(root / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "rename":
        (root / "a.png").rename(root / "z.png")
    elif change == "touch":
        os.utime(root / "a.png", ns=(0, 0))
    elif change == "add":
        folder(root, {"c.png": encoded(pixels(51))})
    elif change == "remove":
        (root / "b.png").unlink()
    else:
        folder(root, {"a.txt": b"two words"})
    second = open_set(root)
    assert (second.fingerprint == first.fingerprint) == (change == "touch")
    assert (second.names == first.names) == (change in ("content", "size", "touch", "caption"))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_other_settings_are_kept_apart(tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png"]))
    assert open_set(root).shape == (3, 8, 8)
    assert open_set(root, image_size=4).shape == (3, 4, 4)
    assert open_set(root, image_size=4, channels=1).shape == (1, 4, 4)
    assert open_set(root).shape == (3, 8, 8)


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def wrong_shape(path):
    np.save(path, np.zeros((4, 3, 4, 16), np.uint8))


def another_name(path):
    path.write_bytes(path.read_bytes().replace(b"a.png", b"z.png"))


@pytest.mark.parametrize(
    ("pattern", "spoil"),
    [
        ("*.npy", halved),
        ("*.record", halved),
        ("*.npy", wrong_shape),
        ("*.record", another_name),
        ("*.npy", lambda path: path.unlink()),
        ("*.record", lambda path: path.write_text("[]")),
        ("*.npy", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    ],
)
def test_a_damaged_cache_is_rebuilt(pattern, spoil, tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png", "b.png", "c.png", "d.png"]))
    first = open_set(root)
    (path,) = (tmp_path / "cache").glob(pattern)
    spoil(path)
    second = open_set(root)
    assert (second.items == first.items).all()
    assert (second.fingerprint, second.names) == (first.fingerprint, first.names)


def test_large_sets_are_mapped_and_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LARGEST_IN_MEMORY", 100)
    found = open_set(folder(tmp_path / "photos", pictures(["a.png"])))
    assert isinstance(found.items, np.memmap)
    assert not found.items.flags.writeable


@pytest.mark.parametrize("blocked", ["folder", "disk"])
def test_a_cache_that_cannot_be_written_is_only_noted(blocked, tmp_path, monkeypatch):
    if blocked == "folder":
        (tmp_path / "cache").write_text("a file where the folder should be")
    else:
        monkeypatch.setattr(cache.np, "savez", full_disk)
    root = folder(tmp_path / "photos", pictures(["a.png", "b.png"]))
    found = open_set(root)
    assert (found.items[1] == np.moveaxis(pixels(1), 2, 0)).all()
    assert "NACRE_CACHE names another" in found.notes[0]
    # `copy`: the mapping outlives the nameless file.
    assert found.items.copy().shape == (2, 3, 8, 8)


def full_disk(*_arguments, **_named):
    raise OSError(28, "No space left on device")


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    root = folder(tmp_path / "photos", pictures(["a.png", "b.png"]))

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build, "fitted", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_set(root)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(open_set(root)) == 2


def test_what_a_killed_builder_left_is_removed_after_a_day(tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png"]))
    name = cache.key(str(root), DataSettings(validation=0, test=0))
    old, new = (
        folder(tmp_path / "cache", {f".{name}-x.npy.{age}": b""}) / f".{name}-x.npy.{age}" for age in ("old", "new")
    )
    os.utime(old, (0, 0))
    open_set(root)
    assert new.exists()
    assert not old.exists()


def test_two_builders_at_once(tmp_path):
    root = folder(tmp_path / "photos", pictures([f"{n}.png" for n in range(50)]))
    found = []
    threads = [threading.Thread(target=lambda: found.append(open_set(root).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert open_set(root).fingerprint == found[0]


def test_a_new_decoder_makes_a_new_entry(monkeypatch):
    keys = [cache.key("x", DataSettings())]
    monkeypatch.setattr(cache, "can_read_heic", lambda: True)
    keys.append(cache.key("x", DataSettings()))
    monkeypatch.setattr(cache.jpeg, "decoder", lambda: "another")
    keys.append(cache.key("x", DataSettings()))
    assert len(set(keys)) == 3


def test_a_record_with_flipped_bytes_is_never_believed(tmp_path):
    files = pictures(["cat/a.png", "dog/b.png"])
    files["metadata.jsonl"] = b'{"file_name": "cat/a.png", "text": "caf\xc3\xa9 \\ud800 \\u0000", "split": "test"}'
    root = folder(tmp_path / "photos", files)
    first = open_set(root)
    (path,) = (tmp_path / "cache").glob("*.record")
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        spoilt = bytearray(whole)
        spoilt[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        path.write_bytes(spoilt)
        again = open_set(root)
        assert (again.fingerprint, again.names, again.captions) == (first.fingerprint, first.names, first.captions)
        assert path.read_bytes() == whole


def test_bad_files_found_while_decoding_leave_no_gap(tmp_path):
    # The header of a truncated file is whole, so that it is found out late.
    files = {f"{n:02}.png": encoded(Image.new("L", (40, 40), n * 5)) for n in range(40)}
    for n in (0, 7, 39):
        files[f"{n:02}.png"] = encoded(pixels(n, 40, 40, 1))[:900]
    found = open_set(folder(tmp_path / "photos", files), max_bad=0.1)
    assert [file.name for file in found.bad] == ["00.png", "07.png", "39.png"]
    assert found.items[:, 0, 0, 0].tolist() == [int(name[:2]) * 5 for name in found.names]
    assert len(found) == 37
