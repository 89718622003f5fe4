"""What is said about a source, for people and for programs; the sheet of images."""

import json

import numpy as np
import pytest
import torch

from data_helpers import encoded, folder, open_set, pictures, pixels
from nacre.data import DataSettings, contact_sheet, describe, load
from nacre.errors import DataError


@pytest.fixture
def photos(tmp_path):
    files = pictures(["cat/a.png", "cat/b.png", "dog/c.png"])
    files |= {"dog/copy.png": files["cat/a.png"], "dog/grey.png": encoded(pixels(7, 20, 10, 1)), "dog/x.png": b"text"}
    files["metadata.jsonl"] = b'{"file_name": "cat/a.png", "text": "a cat"}'
    return folder(tmp_path / "photos", files)


def test_description(photos):
    found = describe(DataSettings(data=str(photos), max_bad=0.5, validation=0, test=0))
    assert (found.count, found.shape, found.kind) == (5, (3, 64, 64), "photos")
    assert found.splits == {"train": 5, "validation": 0, "test": 0}
    assert found.classes == {"cat": 2, "dog": 3}
    assert found.sizes == {"8x8": 4, "10x20": 1}
    assert list(found.modes.items()) == [("RGB", 4), ("L", 1)]
    assert (found.duplicates, found.duplicate_groups) == (1, (("cat/a.png", "dog/copy.png"),))
    assert found.captions == 1
    assert [file.name for file in found.bad] == ["dog/x.png"]


def test_description_for_programs(photos):
    found = json.loads(json.dumps(describe(DataSettings(data=str(photos), max_bad=0.5)).as_dict()))
    assert found["schema_version"] == 1
    assert found["count"] == 5
    assert found["shape"] == [3, 64, 64]
    assert found["classes"] == {"cat": 2, "dog": 3}
    assert found["bad"] == [{"name": "dog/x.png", "reason": "not an image"}]


def test_description_for_people(photos):
    text = describe(DataSettings(data=str(photos), max_bad=0.5)).as_text()
    for part in ("5 images, 64x64 colour", "cat 2, dog 3", "8x8 4, 10x20 1", "dog/x.png: not an image", "--image-size"):
        assert part in text
    assert "points of 2 coordinates" in describe(DataSettings(data="toy:ring8")).as_text()


def test_items_without_a_label_are_counted_apart():
    found = describe(DataSettings(data="digits", labelled=100))
    assert sum(found.classes.values()) + found.unlabelled == found.count
    assert found.unlabelled > 1000
    assert f"unlabelled   {found.unlabelled:,}" in found.as_text()
    assert "unlabelled" not in describe(DataSettings(data="digits")).as_text()


def test_both_sides_are_described(tmp_path):
    root = folder(tmp_path / "two", pictures(["trainA/a.png", "trainA/b.png", "trainB/a.png", "testB/c.png"]))
    found = describe(settings := DataSettings(data=str(root), validation=0, test=0))
    assert (found.count, found.classes, found.other.count, found.other.splits["test"]) == (2, {}, 2, 1)
    assert found.fingerprint == load(settings).fingerprint
    assert "\nside B\n" in found.as_text()
    named = DataSettings(data=str(root / "trainA"), data_b=str(root / "trainB"), validation=0, test=0)
    assert json.loads(json.dumps(describe(named).as_dict()))["other"]["count"] == 1


def test_long_lists_are_cut(tmp_path):
    root = folder(
        tmp_path / "photos", pictures([f"{n:02}/a.png" for n in range(30)]) | {f"{n}.png": b"" for n in range(30)}
    )
    text = describe(DataSettings(data=str(root), max_bad=0.6)).as_text()
    assert "… and 10 more" in text


def test_programs_are_told_all_of_a_long_list(tmp_path):
    sizes = {f"{width}x8": 1 for width in range(30, 0, -1)}
    files = {f"{width}.png": encoded(pixels(width, 8, width)) for width in range(1, 31)}
    files |= {f"copy-{name}": content for name, content in files.items()}
    found = describe(DataSettings(data=str(folder(tmp_path / "photos", files))))
    told = json.loads(json.dumps(found.as_dict()))
    assert told["sizes"] == dict.fromkeys(sizes, 2)
    assert len(told["duplicate_groups"]) == told["duplicates"] == 30
    text = found.as_text()
    assert ", … 10 more" in text
    assert "… and 10 more" in text


def test_contact_sheet(photos):
    data = open_set(photos, max_bad=0.5)
    sheet = contact_sheet(data, 3)
    assert sheet.dtype == torch.float32
    assert (sheet * 255).round().numpy().astype(np.uint8).tolist() == data.items[:3].tolist()
    assert len(contact_sheet(data)) == 5
    digits = load(DataSettings())
    assert not torch.equal(contact_sheet(digits, 9), contact_sheet(digits, 9, seed=1))
    assert torch.equal(contact_sheet(digits, 9, seed=1), contact_sheet(digits, 9, seed=1))


def test_points_have_no_sheet():
    with pytest.raises(DataError, match="holds points, not images"):
        contact_sheet(load(DataSettings(data="toy:ring8")))
