"""Sets in many files: WebDataset's .tar shards and Hugging Face's .parquet files, read in place."""

import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_helpers import encoded, folder, open_set, pixels, tarred
from nacre.data import load, parquet, shards, webdataset
from nacre.data.settings import DataSettings
from nacre.errors import DataError


def sample(number, suffix="png", **beside):
    """The members of sample `number`, whose pixels are those of `pixels(number)`."""
    content = {"png": encoded(pixels(number)), "jpg": encoded(pixels(number), "JPEG")}[suffix]
    return {f"{number:04}.{suffix}": content, **{f"{number:04}.{kind}": text for kind, text in beside.items()}}


def shard_set(root, shards=3, each=4, **beside):
    """`shards` files of `each` samples, numbered throughout; `beside` maps a kind to a function of the number."""
    root.mkdir()
    for shard in range(shards):
        members = {}
        for number in range(shard * each, (shard + 1) * each):
            members |= sample(number, **{kind: text(number) for kind, text in beside.items()})
        tarred(root / f"train-{shard:04}.tar", members)
    return root


def made(tmp_path, members):
    """A folder of one shard, a.tar."""
    (tmp_path / "set").mkdir()
    tarred(tmp_path / "set" / "a.tar", members)
    return tmp_path / "set"


def planes(*numbers):
    return np.stack([np.moveaxis(pixels(number), 2, 0) for number in numbers])


def test_a_pattern_is_read_in_its_order(tmp_path):
    root = shard_set(tmp_path / "set", cls=lambda n: str(n % 3).encode(), txt=lambda n: f"pearl\n{n}".encode())
    found = open_set(root / "train-{0000..0002}.tar")
    assert (found.items == planes(*range(12))).all()
    assert found.labels.tolist() == [n % 3 for n in range(12)]
    assert found.classes == ("0", "1", "2")
    assert found.captions[5] == "pearl 5"
    assert found.names[5] == "train-0001.tar/0005.png"
    assert (found.kind, found.mirror, found.bad, found.notes) == ("photos", False, (), ())
    assert found.source == str(root / "train-{0000..0002}.tar")
    assert load(DataSettings(data=found.source, validation=0, test=0)).fingerprint == found.fingerprint


def test_a_folder_of_shards_equals_the_pattern(tmp_path):
    root = shard_set(tmp_path / "set")
    (root / "README.md").write_text("three shards")
    one, two = open_set(root), open_set(root / "train-{0000,0001,0002}.tar")
    assert one.fingerprint == two.fingerprint
    assert one.names == two.names
    assert one.mirror


def test_images_and_shards_in_one_folder(tmp_path):
    root = folder(shard_set(tmp_path / "set"), {"preview.png": encoded(pixels(0))})
    with pytest.raises(DataError, match=r"holds shards \(train-0000.tar …\) and beside them images \(preview.png …\)"):
        open_set(root)
    photos = folder(tmp_path / "photos", {f"{n}.png": encoded(pixels(n)) for n in range(3)})
    tarred(photos / "backup.tar", sample(0))
    found = open_set(photos)
    assert len(found) == 3
    assert found.notes == ("Not read, for images lie beside them: 1 .tar or .parquet files (backup.tar …).",)


def test_a_pattern_may_leave_shards_out(tmp_path):
    root = shard_set(tmp_path / "set")
    assert (open_set(root / "train-{0002..0002}.tar").items == planes(8, 9, 10, 11)).all()


def test_the_cache_of_shards_notices_a_change(tmp_path, monkeypatch):
    root = shard_set(tmp_path / "set")
    first = open_set(root)
    with monkeypatch.context() as patched:
        patched.setattr(webdataset.TarSource, "visit", None)
        assert open_set(root).fingerprint == first.fingerprint
    tarred(root / "train-0003.tar", sample(99))
    assert len(open_set(root)) == 13


def test_names_fix_the_split(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for number, name in enumerate(["train-0.tar", "val-0.tar", "test-0.tar"]):
        tarred(root / name, sample(number))
    assert dict(zip(open_set(root).names, open_set(root).split.tolist(), strict=True)) == {
        "test-0.tar/0002.png": 2,
        "train-0.tar/0000.png": 0,
        "val-0.tar/0001.png": 1,
    }


def test_labels_and_captions_in_json(tmp_path):
    said = [{"label": 7, "caption": "seven"}, {"label": 5, "caption": "five", "more": [1]}, {"label": 7}]
    root = shard_set(tmp_path / "set", 1, 3, json=lambda n: json.dumps(said[n]).encode())
    found = open_set(root)
    assert (found.labels.tolist(), found.classes) == ([1, 0, 1], ("5", "7"))
    assert found.captions == ("seven", "five", "")
    assert found.notes == ("1 of 3 images have no caption.",)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b'{"label": true}', b'{"label": "x"}', b"\xff", b"[" * 9999])
def test_json_that_says_something_else_is_ignored(text, tmp_path):
    found = open_set(shard_set(tmp_path / "set", 1, 2, json=lambda _: text))
    assert (found.labels, found.captions, found.notes) == (None, None, ())


@pytest.mark.parametrize("name", ["a.tar", "test-0000.tar"])
def test_a_shard_alone_is_read_as_its_folder_is(name, tmp_path):
    (tmp_path / "set").mkdir()
    members = sample(0, cls=b"5", txt=b"five") | sample(1, cls=b"3", txt=b"three")
    path = tarred(tmp_path / "set" / name, members)
    one, both = open_set(path), open_set(tmp_path / "set")
    assert (one.classes, one.captions, one.fingerprint) == (("3", "5"), ("five", "three"), both.fingerprint)
    said = open_set(tarred(tmp_path / "b.tar", sample(0, json=b'{"caption": "x"}')))
    assert said.captions == ("x",)


def test_an_archive_of_class_folders_is_no_shard(tmp_path):
    members = {"cat/0.png": encoded(pixels(0)), "cat/0.json": b'{"boxes": []}', "dog/1.png": encoded(pixels(1))}
    assert open_set(tarred(tmp_path / "a.tar", members)).classes == ("cat", "dog")


def test_some_samples_may_have_no_label(tmp_path):
    found = open_set(made(tmp_path, sample(0, cls=b"3") | sample(1) | sample(2, cls=b"-1") | sample(3, cls=b"5")))
    assert (found.labels.tolist(), found.classes) == ([0, -1, -1, 1], ("3", "5"))
    assert found.notes == ("2 of 4 items have no label.",)


def test_a_bad_label_or_image_is_a_bad_file(tmp_path):
    members = sample(0, cls=b"3\n") | sample(1, cls=b"cat") | sample(2, cls=b"4") | {"0003.jpg": b"no image"}
    found = open_set(made(tmp_path, members), max_bad=0.9)
    assert [(file.name, file.reason) for file in found.bad] == [
        ("a.tar/0001.png", "its .cls is not a whole number"),
        ("a.tar/0003.jpg", "not an image"),
    ]
    assert (found.items == planes(0, 2)).all()


def test_nothing_else_in_a_shard_is_touched(tmp_path):
    members = {
        "0000.pyd": pickle.dumps({"a": 1}),
        **sample(0),
        "0000.mask.png": encoded(pixels(50)),
        "0000.pickle": b"x",
        "._0001.png": b"x",
        "../0002.png": encoded(pixels(51)),
        "dir.v1/0003.PNG": encoded(pixels(3)),
        "0004.txt": b"a caption without an image",
    }
    found = open_set(made(tmp_path, members), max_bad=0.5)
    assert found.names == ("a.tar/0000.png", "a.tar/dir.v1/0003.PNG")
    assert (found.items == planes(0, 3)).all()
    assert [file.reason for file in found.bad] == ["its path leads out of the archive"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "set"]


def test_links_and_sparse_members_are_ignored(tmp_path):
    root = made(tmp_path, sample(0))
    with tarfile.open(root / "a.tar", "a") as archive:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"link{number}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert open_set(root).names == ("a.tar/0000.png",)


def test_long_names(tmp_path):
    name = "d" * 90 + "/" + "n" * 150 + ".png"
    found = open_set(made(tmp_path, {name: encoded(pixels(4))}))
    assert found.names == (f"a.tar/{name}",)
    assert (found.items == planes(4)).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:1300], "cut short"),
        (lambda _: b"no archive", "cannot be read as an archive"),
        (lambda content: content[:1024] + b"garbage!" * 64 + content[1536:], "at byte 1,024 is no header"),
    ],
)
def test_damaged_shards(spoil, message, tmp_path):
    root = made(tmp_path, sample(0) | sample(1) | sample(2))
    (root / "a.tar").write_bytes(spoil((root / "a.tar").read_bytes()))
    with pytest.raises(DataError, match=f"a.tar cannot be read.*{message}" if "byte" in message else message):
        open_set(root)


@pytest.mark.parametrize(("length", "why"), [(1300, "it is cut short at byte 1,300"), (1600, "unexpected end of data")])
def test_one_truncated_shard_of_several_is_named_with_what_to_do(length, why, tmp_path):
    for name in ("train-0000", "train-0001"):
        tarred(tmp_path / f"{name}.tar", sample(0) | sample(1))
    broken = tmp_path / "train-0001.tar"
    broken.write_bytes(broken.read_bytes()[:length])
    told = rf"train-0001\.tar cannot be read .*: {why}; download this shard again, or leave it out\.$"
    with pytest.raises(DataError, match=told):
        open_set(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{0000..0004}.tar", r"2 of the 5 files that .* names are not there: .*train-0003.tar first"),
        ("train-{0002..0000}.tar", r"\{0002..0000\} in .* is no range of files"),
        ("train-{0..999999999}.tar", "is no range of files"),
        ("train-{x}.tar", r"\{x\} in .*is no range of files; one such as \{0000..0009\} was expected"),
        ("{a,b}.zip", "names 2 files; only .tar and .parquet files are read as shards"),
    ],
)
def test_patterns_that_cannot_be_meant(pattern, message, tmp_path):
    root = shard_set(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        open_set(root / pattern)


def test_several_braces(tmp_path):
    folder(tmp_path, {f"{a}-{n}.tar": b"" for a in "ab" for n in (8, 9, 10)})
    found = shards.expand(tmp_path / "{a,b}-{8..10}.tar")
    assert [path.name for path in found] == ["a-8.tar", "a-9.tar", "a-10.tar", "b-8.tar", "b-9.tar", "b-10.tar"]


def test_a_folder_whose_name_has_braces_is_a_folder(tmp_path):
    assert open_set(folder(tmp_path / "a{1..2}", {"a.png": encoded(pixels(0))})).names == ("a.png",)


def test_shards_without_images(tmp_path):
    with pytest.raises(DataError, match="holds no image that can be used: no member is a"):
        open_set(made(tmp_path, {"a.cls": b"1"}))


def test_two_kinds_of_shards(tmp_path):
    root = made(tmp_path, sample(0))
    (root / "b.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds \.tar and \.parquet files; name one kind"):
        open_set(root)


def test_grey_shards_are_taken_as_digits(tmp_path):
    found = open_set(made(tmp_path, {"0.png": b"text", "1.png": encoded(pixels(1, channels=1))}), max_bad=0.5)
    assert (found.kind, found.mirror) == ("digits", False)
    assert found.notes == ("The images are grey, so mirror images are not made; --mirror changes that.",)


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def written(arrow, path, columns, metadata=None, **options):
    table = arrow[0].table(columns)
    path.parent.mkdir(exist_ok=True)
    arrow[1].write_table(table.replace_schema_metadata(metadata), path, **options)
    return path


def structs(*numbers):
    return [{"bytes": encoded(pixels(number)), "path": f"{number}.png"} for number in numbers]


def test_parquet_as_hugging_face_has_it(arrow, tmp_path):
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {"image": structs(0, 1, 2), "label": [1, 0, 1], "text": ["a", " b\nc", None]}
    path = written(arrow, tmp_path / "x.parquet", columns, {"huggingface": json.dumps(names)})
    found = open_set(path)
    assert (found.items == planes(0, 1, 2)).all()
    assert (found.labels.tolist(), found.classes) == ([1, 0, 1], ("cat", "dog"))
    assert found.captions == ("a", "b c", "")
    assert found.names == ("x.parquet/0", "x.parquet/1", "x.parquet/2")
    assert found.source == str(path)


@pytest.mark.parametrize("kept_once", [False, True])
def test_parquet_with_texts_for_labels(kept_once, arrow, tmp_path):
    columns = {"label": ["dog", None, "cat"], "caption": ["a", "b", "a"]}
    if kept_once:
        columns = {name: arrow[0].array(values).dictionary_encode() for name, values in columns.items()}
    found = open_set(written(arrow, tmp_path / "x.parquet", {"image": structs(0, 1, 2), **columns}))
    assert (found.labels.tolist(), found.classes) == ([1, -1, 0], ("cat", "dog"))
    assert found.captions == ("a", "b", "a")
    assert found.notes == ("1 of 3 items have no label.",)


def test_parquet_says_which_columns_are_not_used(arrow, tmp_path):
    columns = {"image": structs(0, 1), "label": [0.5, 1.5], "id": [3, 4]}
    found = open_set(written(arrow, tmp_path / "x.parquet", columns))
    assert found.labels is None
    assert found.notes[0].startswith("Not used: label, id; labels are whole numbers or texts")


def test_parquet_of_plain_bytes_without_labels(arrow, tmp_path):
    path = written(arrow, tmp_path / "x.parquet", {"image": [encoded(pixels(n)) for n in range(3)]})
    found = open_set(path)
    assert (found.items == planes(0, 1, 2)).all()
    assert (found.labels, found.captions, found.notes) == (None, None, ())


def test_a_folder_of_parquet_files(arrow, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for part, numbers in {
        "train-00000": range(50),
        "train-00001": range(50, 110),
        "test-00000": range(110, 130),
    }.items():
        columns = {"image": structs(*numbers), "label": [n % 10 for n in numbers]}
        written(arrow, root / "data" / f"{part}-of-2.parquet", columns, row_group_size=7)
    found = open_set(root)
    assert (found.items == planes(*range(110, 130), *range(110))).all()
    assert found.split.tolist() == [2] * 20 + [0] * 110
    assert found.classes == tuple("0123456789")
    assert open_set(root / "data" / "train-{00000..00001}-of-2.parquet").items.shape == (110, 3, 8, 8)


def test_rows_without_an_image_leave_no_gap(arrow, tmp_path):
    images = structs(*range(40))
    images[0], images[7]["bytes"], images[39]["bytes"] = None, None, encoded(pixels(1, 40, 40))[:900]
    found = open_set(written(arrow, tmp_path / "x.parquet", {"image": images}), max_bad=0.5)
    assert [file.name for file in found.bad] == ["x.parquet/0", "x.parquet/39", "x.parquet/7"]
    assert found.bad[0].reason == "the row holds no bytes"
    assert found.names == tuple(f"x.parquet/{n}" for n in range(40) if n not in (0, 7, 39))
    assert len(found) == 37


def test_parquet_and_shards_and_folder_agree(arrow, tmp_path):
    images = {f"{n:04}.png": encoded(pixels(n)) for n in range(20)}
    ways = [
        open_set(folder(tmp_path / "photos", images), validation=0.3),
        open_set(made(tmp_path, images), validation=0.3),
        open_set(written(arrow, tmp_path / "x.parquet", {"image": structs(*range(20))}), validation=0.3),
    ]
    assert len({way.fingerprint for way in ways}) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"]}, r"has the columns picture; one called image, of bytes or of \{bytes, path\}"),
        ({"image": ["text"]}, "has the columns image; one called image, of bytes"),
        ({"image": [{"path": "a.png"}]}, "one called image, of bytes"),
        ({"image": [None]}, "one called image, of bytes"),
    ],
)
def test_parquet_without_images(columns, message, arrow, tmp_path):
    with pytest.raises(DataError, match=message):
        open_set(written(arrow, tmp_path / "x.parquet", columns))


def test_parquet_files_that_do_not_fit_together(arrow, tmp_path):
    written(arrow, tmp_path / "set" / "a.parquet", {"image": structs(0), "label": [1]})
    written(arrow, tmp_path / "set" / "b.parquet", {"image": structs(1)})
    with pytest.raises(DataError, match=r"b.parquet has other columns than .*a.parquet"):
        open_set(tmp_path / "set")


def test_damaged_parquet(arrow, tmp_path):
    path = written(arrow, tmp_path / "x.parquet", {"image": structs(*range(50))})
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:4] + bytes(3000) + whole[3004:]):
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=r"x.parquet (cannot be read|is damaged).*; download this shard again, or leave"
        ):
            open_set(path)


def test_without_pyarrow_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setattr(parquet.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DataError, match=r"x.parquet needs pyarrow, .*: pip install pyarrow$"):
        open_set(tmp_path / "x.parquet")


def test_classes_that_are_not_named_are_numbered_anew(arrow, tmp_path):
    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    for labels, numbers, classes in (
        ([7, 1], [1, 0], ("1", "7")),
        ([-1, 1], [-1, 1], ("cat", "dog")),
        ([None, 0], [-1, 0], ("cat", "dog")),
    ):
        columns = {"image": structs(0, 1), "label": labels}
        found = open_set(written(arrow, tmp_path / "x.parquet", columns, {"huggingface": json.dumps(names)}))
        assert (found.labels.tolist(), found.classes) == (numbers, classes)


def test_large_photos_of_shards_are_decoded_in_order(tmp_path):
    members = {f"{n:03}.png": encoded(Image.new("L", (300, 300), n)) for n in range(60)}
    found = open_set(made(tmp_path, members), image_size=4)
    assert found.items[:, 0, 0, 0].tolist() == list(range(60))


def test_a_member_is_read_where_it_lies(tmp_path):
    root = made(tmp_path, sample(0) | sample(1))
    source = webdataset.open_tars([root / "a.tar"], root, "x", progress=False)
    (image,) = source.visit([1])
    with image.open() as file:
        assert file.read() == encoded(pixels(1))
    (root / "a.tar").unlink()
    with pytest.raises(Exception, match="No such file"):
        image.header()
