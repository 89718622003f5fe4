"""Folders and archives: conventions, captions, splits, links, damage."""

import io
import json
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_helpers import encoded, folder, open_set, pictures, pixels, tarred, zipped
from nacre.data import archives, folders, layout
from nacre.errors import DataError


def test_flat_folder(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["b.png", "a.png", "sub/c.png"])))
    assert found.names == ("a.png", "b.png", "sub/c.png")
    assert found.shape == (3, 8, 8)
    assert (found.items[1] == np.moveaxis(pixels(0), 2, 0)).all()
    assert (found.labels, found.classes, found.captions) == (None, (), None)
    assert found.kind == "photos"
    assert found.mirror
    assert found.source == str(tmp_path / "photos")


def test_class_folders(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["dog/a.png", "cat/b.png", "cat/deep/c.png"])))
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.labels.dtype == np.int64


def test_an_image_at_the_top_means_no_classes(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["dog/a.png", "cat/b.png", "c.png"])))
    assert found.labels is None
    assert found.notes == ("The folders cat, dog are no classes, for images lie beside them (c.png).",)
    names = ["train/dog/a.png", "train/cat/b.png", "train/c.png", "test/cat/d.png"]
    found = open_set(folder(tmp_path / "split", pictures(names)))
    assert (found.labels, found.split.tolist()) == (None, [2, 0, 0, 0])
    assert "lie beside them (train/c.png)" in found.notes[0]


def test_classes_of_one_character_are_digits(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["0/a.png", "1/b.png"])))
    assert (found.kind, found.mirror) == ("digits", False)
    assert "--mirror" in found.notes[0]
    assert open_set(tmp_path / "photos", mirror=True).mirror


def test_split_folders_win(tmp_path):
    names = ["train/cat/1.png", "train/dog/2.png", "Test/cat/3.png", "valid/dog/4.png"]
    found = open_set(folder(tmp_path / "photos", pictures(names)), validation=0.4, test=0.4)
    assert found.names == ("Test/cat/3.png", "train/cat/1.png", "train/dog/2.png", "valid/dog/4.png")
    assert found.split.tolist() == [2, 0, 0, 1]
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_a_folder_that_is_no_split_makes_them_classes(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["train/1.png", "plane/2.png"])))
    assert found.classes == ("plane", "train")
    assert found.notes == ("train is taken for a class and for no split, for there is plane beside it.",)


@pytest.mark.parametrize("stray", ["preview.png", "masks/1.png"])
def test_what_lies_beside_a_training_and_a_test_set_is_named(stray, tmp_path):
    names = ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png", stray]
    root = folder(tmp_path / "photos", pictures(names))
    with pytest.raises(DataError, match=f"holds test, train and beside them {stray.partition('/')[0]}, so that"):
        open_set(root)
    (root / stray).unlink()
    assert open_set(root).split.tolist() == [2, 2, 0, 0]


def test_shared_folders_are_stripped(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["x/y/cat/1.png", "x/y/dog/2.png"])))
    assert found.names == ("cat/1.png", "dog/2.png")
    assert found.classes == ("cat", "dog")


def test_junk_is_ignored(tmp_path):
    files = pictures(["a.png", ".hidden.png", "__MACOSX/a.png", ".git/b.png"])
    files |= {"Thumbs.db": b"x", "notes.md": b"x", "movie.mp4": b"x"}
    found = open_set(folder(tmp_path / "photos", files))
    assert found.names == ("a.png",)
    assert found.bad == ()


def test_links_to_files_are_followed_and_to_folders_are_not(tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png"]))
    other = folder(tmp_path / "other", {"b.png": encoded(pixels(9))})
    (root / "b.png").symlink_to(other / "b.png")
    (root / "gone.png").symlink_to(other / "gone.png")
    (root / "circle").symlink_to(root)
    found = open_set(root, max_bad=0.5)
    assert found.names == ("a.png", "b.png")
    assert "1 linked folders were not followed." in found.notes
    assert [(file.name, file.reason) for file in found.bad] == [("gone.png", "No such file or directory")]
    folder(other, {"gone.png": encoded(pixels(8))})
    assert open_set(root).names == ("a.png", "b.png", "gone.png")


def test_captions_and_split_in_jsonl(tmp_path):
    files = pictures(["a.png", "b.png", "c.png", "d.png"])
    rows = [
        {"file_name": "a.png", "text": "a pearl", "split": "test"},
        {"file_name": "b.png", "text": "an oyster — ☃", "split": "train"},
        {"file_name": "c.png", "split": "validation"},
        {"file_name": "gone.png", "text": "nothing"},
    ]
    files["metadata.jsonl"] = "\n".join(map(json.dumps, rows)).encode() + b"\n\n"
    found = open_set(folder(tmp_path / "photos", files))
    assert found.captions == ("a pearl", "an oyster — ☃", "", "")
    assert found.split.tolist() == [2, 0, 1, 0]
    assert found.kind == "photos"
    assert not found.mirror
    assert found.notes == (
        "2 of 4 images have no caption (c.png, d.png).",
        "1 images named in the metadata are not there.",
    )


def test_a_caption_may_hold_what_ends_lines_elsewhere(tmp_path):
    rows = [{"file_name": "a.png", "text": "one\u2028two\x0bthree"}, {"file_name": "b.png", "text": " \t "}]
    files = pictures(["a.png", "b.png"])
    files["metadata.jsonl"] = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    found = open_set(folder(tmp_path / "photos", files))
    assert found.captions == ("one\u2028two\x0bthree", "")
    assert found.notes == ("1 of 2 images have no caption (b.png).",)


def test_captions_lie_in_metadata_and_beside_images_together(tmp_path):
    files = pictures(["a.png", "b.png", "c.png"])
    files["captions.csv"] = b"file_name,text\na.png,from the table\n"
    files |= {"a.txt": b"not this one", "b.txt": b"from\nbeside"}
    assert open_set(folder(tmp_path / "photos", files)).captions == ("from the table", "from beside", "")


def test_captions_that_are_all_blank_are_none_and_that_is_said(tmp_path):
    files = pictures(["a.png", "b.png", "c.png"]) | {"a.txt": b" \n", "metadata.csv": b"file_name,text\nb.png,  \n"}
    found = open_set(folder(tmp_path / "photos", files))
    assert found.captions is None
    assert found.notes == ("The captions of 2 images are blank, and no image has another.",)


def test_jsonl_names_are_relative_to_its_folder(tmp_path):
    files = pictures(["train/a.png", "test/a.png"])
    files["train/metadata.jsonl"] = b'{"file_name": "a.png", "text": "one"}'
    files["test/metadata.jsonl"] = b'{"file_name": "./a.png", "text": "two"}'
    found = open_set(folder(tmp_path / "photos", files))
    assert found.captions == ("two", "one")
    assert found.split.tolist() == [2, 0]


def test_captions_in_csv(tmp_path):
    files = pictures(["a.png", "b.png"])
    files["metadata.csv"] = b'\xef\xbb\xbffile_name,text\na.png,"one, two"\nb.png,three\n'
    assert open_set(folder(tmp_path / "photos", files)).captions == ("one, two", "three")


def test_captions_that_are_no_utf8_are_told_and_numbers_are_texts(tmp_path):
    files = pictures(["a.png", "b.png"]) | {"a.txt": b"gr\xfcn"}
    files["metadata.jsonl"] = b'{"file_name": "b.png", "text": 42}'
    found = open_set(folder(tmp_path / "photos", files))
    assert found.captions == ("gr\ufffdn", "42")
    assert "The captions of 1 images are no UTF-8 and have gaps (a.png)." in found.notes


def test_an_image_with_several_lines_keeps_the_last_and_is_told(tmp_path):
    files = pictures(["a.png", "b.png"])
    lines = [
        {"file_name": name, "text": text} for name, text in (("a.png", "one"), ("b.png", "two"), ("a.png", "three"))
    ]
    files["metadata.jsonl"] = "\n".join(map(json.dumps, lines)).encode()
    found = open_set(folder(tmp_path / "photos", files))
    assert found.captions == ("three", "two")
    assert "1 images stand in metadata.jsonl more than once, and the last line counts (a.png)." in found.notes


def test_labels_in_csv_are_numbered_in_their_order(tmp_path):
    files = pictures(["a.png", "b.png", "c.png", "d.png"])
    files["labels.csv"] = b"file_name,label,label_name\na.png,10,ten\nb.png,9.0,\nc.png,10,ten\nd.png,,\n"
    found = open_set(folder(tmp_path / "photos", files))
    assert (found.labels.tolist(), found.classes) == ([1, 0, 1, -1], ("9", "ten"))
    assert "1 of 4 items have no label." in found.notes


def test_labels_in_metadata_count_before_folders_and_beside_captions(tmp_path):
    files = pictures(["x/a.png", "y/b.png"])
    rows = ({"file_name": "x/a.png", "label": "dog", "text": "one"}, {"file_name": "y/b.png", "label": "cat"})
    files["metadata.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    files["labels.csv"] = b"file_name,label\ny/b.png,cow\n"
    found = open_set(folder(tmp_path / "photos", files))
    assert [found.classes[label] for label in found.labels] == ["dog", "cat"]
    assert "Labels are those of the metadata; the folders x, y are no classes." in found.notes
    assert found.captions == ("one", "")


def test_labels_told_otherwise_are_left_out_and_said_to_be(tmp_path):
    files = pictures(["x/a.png", "y/b.png"]) | {"labels.csv": b"id,breed\na,dog\n"}
    found = open_set(folder(tmp_path / "photos", files))
    assert found.classes == ("x", "y")
    assert "labels.csv is not read, for it has no columns file_name and label." in found.notes


@pytest.mark.parametrize("after", ["b.png,two\n", "b.png,two\n" * 20_000, 'b.png,"two"\n'])
def test_a_quote_left_open_in_csv_is_a_mistake_of_its_line(after, tmp_path):
    content = f'file_name,text\nb.png,"two\nlines"\na.png,"one\n{after}'
    root = folder(tmp_path / "photos", pictures(["a.png", "b.png"]) | {"metadata.csv": content.encode()})
    with pytest.raises(
        DataError, match=r"^Line 4 of metadata.csv in .* cannot be read as CSV .*; is a quote left open\?"
    ):
        open_set(root)


def test_captions_beside_images(tmp_path):
    files = pictures(["a.png", "b.png"]) | {"a.txt": b" a pearl\nin a shell\n", "README.txt": b"no caption"}
    assert open_set(folder(tmp_path / "photos", files)).captions == ("a pearl in a shell", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 2 of metadata.jsonl in .* is not a JSON object"),
        ("[1]", "Line 2 of .* is not a JSON object"),
        ('{"a":' * 99_999, "Line 2 of .* is not a JSON object"),
        ('{"text": "x"}', "Line 2 of .* has no file_name"),
        ('{"file_name": "a.png", "text": ["3"]}', "Line 2 of .* has a text that is not a text"),
        ('{"file_name": "a.png", "split": "exam"}', "Line 2 of .* has the split 'exam'; train, validation or test"),
    ],
)
def test_bad_metadata_names_the_line(line, message, tmp_path):
    content = '{"file_name": "a.png"}\n' + line
    root = folder(tmp_path / "photos", pictures(["a.png"]) | {"metadata.jsonl": content.encode()})
    with pytest.raises(DataError, match=message):
        open_set(root)


def test_images_of_one_small_size_are_kept_as_they_are(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["a.png", "b.png"], height=10, width=20)))
    assert found.shape == (3, 10, 20)
    assert found.notes == ()


@pytest.mark.parametrize(("sizes", "why"), [((20, 30), "differ in size"), ((129, 129), "are 129x129")])
def test_other_images_are_brought_to_64(sizes, why, tmp_path):
    files = {f"{size}-{n}.png": encoded(pixels(n, size, size)) for n, size in enumerate(sizes)}
    found = open_set(folder(tmp_path / "photos", files))
    assert found.shape == (3, 64, 64)
    assert found.notes == (f"64x64 was chosen because the images {why}; --image-size changes it.",)


def test_channels_follow_the_images(tmp_path):
    grey = folder(tmp_path / "grey", pictures(["a.png", "b.png"], channels=1))
    assert open_set(grey).shape == (1, 8, 8)
    assert open_set(grey, channels=3).shape == (3, 8, 8)
    mixed = folder(grey, {"c.png": encoded(pixels(5))})
    assert open_set(mixed).shape == (3, 8, 8)
    assert open_set(mixed, channels=1).shape == (1, 8, 8)


def test_sizes_are_those_after_turning_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {"a.jpg": encoded(pixels(0, 8, 16), "JPEG"), "b.jpg": encoded(pixels(1, 16, 8), "JPEG", exif=exif)}
    assert open_set(folder(tmp_path / "photos", files)).shape == (3, 8, 16)


def test_empty_folder(tmp_path):
    root = folder(tmp_path / "photos", {"notes.md": b"x"})
    with pytest.raises(DataError, match=r"photos holds no image: files named \.jpg, \.png"):
        open_set(root)


def test_nothing_but_bad_files(tmp_path):
    root = folder(tmp_path / "photos", {"a.png": b"", "b.png": b"text"})
    with pytest.raises(DataError, match=r"2 of 2 files .*a.png \(the file is empty\); b.png \(not an image\); mend"):
        open_set(root, max_bad=1.0)


HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 40


def test_heic_is_not_counted_as_bad(tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png"]) | {"b.heic": HEIC, "c.jpg": HEIC})
    found = open_set(root)
    assert found.bad == ()
    assert found.notes == ("2 HEIC files skipped; with pillow-heif (pip install pillow-heif) they are read.",)


def test_nothing_but_heic(tmp_path):
    root = folder(tmp_path / "photos", {"b.heic": HEIC})
    with pytest.raises(
        DataError,
        match=r"no other images; 1 HEIC file skipped; with pillow-heif \(pip install pillow-heif\) they are read\.$",
    ):
        open_set(root)


def test_animations_are_noted(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = open_set(folder(tmp_path / "photos", {"a.gif": moving}))
    assert found.notes == ("1 animated or many-page images: the first frame of each is used.",)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    root = folder(tmp_path / "photos", pictures(["a.png", "b.png"]))
    (root / "b.png").chmod(0)
    if (root / "b.png").stat().st_uid == 0:
        monkeypatch.setattr(folders, "open", refusing("b.png"), raising=False)
    found = open_set(root, max_bad=0.5)
    assert [(file.name, file.reason) for file in found.bad] == [("b.png", "Permission denied")]


def refusing(name):
    def opened(path, mode):
        if path.endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return open(path, mode)

    return opened


ARCHIVED = ["top/train/cat/1.png", "top/train/dog/2.png", "top/test/cat/3.png"]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_archives_equal_the_folder(suffix, tmp_path):
    files = pictures(ARCHIVED) | {"top/metadata.jsonl": b'{"file_name": "train/cat/1.png", "text": "a cat"}'}
    path = (zipped if suffix == "zip" else tarred)(tmp_path / f"set.{suffix}", dict(reversed(files.items())))
    found, plain = open_set(path), open_set(folder(tmp_path / "plain", files))
    assert found.fingerprint == plain.fingerprint
    assert found.names == plain.names == ("test/cat/3.png", "train/cat/1.png", "train/dog/2.png")
    assert found.captions == ("", "a cat", "")
    assert found.split.tolist() == [2, 0, 0]
    assert (found.items == plain.items).all()


@pytest.mark.parametrize("make", [zipped, tarred])
def test_paths_out_of_an_archive_are_refused_and_named(make, tmp_path):
    names = ["a.png", "b.png", "../evil.png", "/abs.png", "x/../../up.png", "C:\\win.png"]
    found = open_set(make(tmp_path / ("set." + make.__name__[:3]), pictures(names)), max_bad=1.0)
    assert found.names == ("a.png", "b.png")
    assert {file.reason for file in found.bad} == {"its path leads out of the archive"}
    assert len(found.bad) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "set." + make.__name__[:3]]


def test_links_in_archives_are_ignored(tmp_path):
    path = tarred(tmp_path / "set.tar", pictures(["a.png"]))
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"link{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert open_set(path).names == ("a.png",)
    path = zipped(tmp_path / "set.zip", pictures(["a.png"]))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert open_set(path).names == ("a.png",)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz"])
def test_damaged_archives(suffix, tmp_path):
    path = (zipped if suffix == "zip" else tarred)(
        tmp_path / f"set.{suffix}", pictures([f"{n}.png" for n in range(20)])
    )
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cannot be read as an archive: .*; download it again"):
        open_set(path)
    path.write_bytes(b"no archive at all, but text")
    with pytest.raises(DataError, match=r"cannot be read as an archive"):
        open_set(path)


def test_a_damaged_member_is_a_bad_file(tmp_path):
    path = zipped(tmp_path / "set.zip", pictures(["a.png", "b.png"]))
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    found = open_set(path, max_bad=0.5)
    assert [file.name for file in found.bad] == ["a.png"]


def test_a_member_too_large_is_a_bad_file(tmp_path, monkeypatch):
    path = zipped(tmp_path / "set.zip", pictures(["a.png"]) | {"b.png": encoded(pixels(0, 100, 100))})
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1 << 13)
    assert open_set(path, max_bad=0.5).bad[0].name == "b.png"


def test_a_compressed_bomb(tmp_path, monkeypatch):
    path = tarred(tmp_path / "set.tar.gz", pictures(["a.png"]) | {"zeros.png": bytes(1 << 22)})
    monkeypatch.setattr(archives, "BOMB_SIZE", 1 << 20)
    with pytest.raises(DataError, match=r"would grow from [\d,]+ to [\d,]+ bytes or more"):
        open_set(path)


def test_no_room_to_unpack_an_archive_is_not_its_fault(tmp_path, monkeypatch):
    path = tarred(tmp_path / "set.tar.gz", pictures(["a.png"]))

    def full(**_):
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr(archives.tempfile, "SpooledTemporaryFile", full)
    monkeypatch.setattr(archives.tempfile, "tempdir", "/small")
    with pytest.raises(DataError, match=r"cannot be unpacked: no room in /small \(No space left on device\); TMPDIR"):
        open_set(path)


def test_an_archive_without_images(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        open_set(zipped(tmp_path / "set.zip", {"a.csv": b"1"}))


def test_cifar_batches_in_a_folder_point_to_cifar10(tmp_path):
    root = folder(tmp_path / "cifar", {"data_batch_1.bin": b"", "readme.txt": b""})
    with pytest.raises(DataError, match=r"holds data_batch_1.bin and no images: use cifar10:/"):
        open_set(root)


def test_a_text_that_is_no_utf8(tmp_path):
    found = open_set(folder(tmp_path / "photos", pictures(["a.png"]) | {"a.txt": b"caf\xe9"}))
    assert found.captions == ("caf\ufffd",)


def test_names_that_are_no_utf8(tmp_path):
    root = folder(tmp_path / "photos", pictures(["a.png"]))
    (root / "caf\udce9.png").write_bytes(encoded(pixels(3)))
    for _ in range(2):
        assert open_set(root).names == ("a.png", "caf\ufffd.png")


def test_layout_reads_only_what_it_needs():
    paths, listing = layout.arrange(("a/1.png", "b/2.png", "readme.txt"), lambda path: io.StringIO(path).read(), "x")
    assert paths == ("a/1.png", "b/2.png")
    assert listing.captions is None
