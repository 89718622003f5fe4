"""JPEG files by simplejpeg: the pixels of Pillow, and what is not plain is left to Pillow."""

import io

import numpy as np
import pytest
from PIL import Image, features

from data_helpers import encoded, folder, open_set, pixels
from nacre.data import decode, jpeg
from nacre.data.decode import UnreadableError, read_header, read_picture

pytest.importorskip("simplejpeg")


@pytest.fixture
def pillow(monkeypatch):
    """What Pillow alone makes of the bytes of a file: size, mode and pixels."""

    def read(content):
        with monkeypatch.context() as patched:
            patched.setattr(jpeg, "_simplejpeg", lambda: None)
            header, picture = read_header(io.BytesIO(content)), read_picture(io.BytesIO(content))
        return header, picture.mode, picture.pixels

    return read


def quick(content):
    header, picture = read_header(io.BytesIO(content)), read_picture(io.BytesIO(content))
    return header, picture.mode, picture.pixels


def smooth(seed, height=45, width=61, channels=3):
    """A picture more like a photo than noise is."""
    small = Image.fromarray(pixels(seed, 6, 7, channels))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "options", [{}, {"quality": 40}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_files_have_the_pixels_that_pillow_gives_them(options, channels, pillow, monkeypatch):
    content = encoded(smooth(0, channels=channels), "JPEG", **options)
    header, mode, expected = pillow(content)
    monkeypatch.setattr(decode.Image, "open", None)
    found = quick(content)
    assert found[:2] == (header, mode)
    assert found[2].shape == expected.shape
    # Equal where both use one version of libjpeg-turbo, and within rounding otherwise.
    assert np.abs(found[2].astype(int) - expected).max() <= 2


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


UNUSUAL = {
    "turned": encoded(smooth(1), "JPEG", exif=turned(6)),
    "mirrored": encoded(smooth(1), "JPEG", exif=turned(2)),
    "upright by EXIF": encoded(smooth(1), "JPEG", exif=turned(1)),
    "grey and turned": encoded(smooth(1, channels=1), "JPEG", exif=turned(8)),
    "damaged EXIF": encoded(smooth(1), "JPEG", exif=b"Exif\0\0garbage"),
    "turned by XMP": encoded(smooth(1), "JPEG", xmp=b'http://ns.adobe.com/xap/ <x tiff:Orientation="6"/>'),
    "CMYK": encoded(Image.fromarray(smooth(1)).convert("CMYK"), "JPEG"),
    "RGB": encoded(smooth(1), "JPEG", keep_rgb=True),
    "junk behind": encoded(smooth(1), "JPEG") + b"\xff\xd8\xffjunk",
    "a long head": encoded(smooth(1), "JPEG", icc_profile=bytes(200_000), comment=b"x" * 60_000),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_unusual_files_come_out_as_by_pillow(what, pillow):
    header, mode, expected = pillow(UNUSUAL[what])
    found = quick(UNUSUAL[what])
    assert found[:2] == (header, mode)
    assert found[2].shape == expected.shape
    assert np.abs(found[2].astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_jpeg_is_upright_in_a_set(orientation, tmp_path):
    upright = smooth(2, 40, 60)
    stored = np.rot90(upright, 1 if orientation == 6 else 2)
    content = encoded(np.ascontiguousarray(stored), "JPEG", quality=95, exif=turned(orientation))
    found = open_set(folder(tmp_path / "photos", {"a.jpg": content}))
    assert found.shape == (3, 40, 60)
    assert np.abs(np.moveaxis(found.items[0], 0, 2).astype(int) - upright).mean() < 3


def test_damage_is_told_as_by_pillow(pillow):
    content = encoded(pixels(0, 64, 64), "JPEG")
    with pytest.raises(UnreadableError, match="truncated"):
        read_picture(io.BytesIO(content[:1500]))
    generator = np.random.default_rng(0)
    for _ in range(60):
        spoilt = bytearray(content)
        for place in generator.integers(2, len(content), 3):
            spoilt[place] = generator.integers(256)
        try:
            expected = pillow(bytes(spoilt))[2].shape
        except UnreadableError:
            continue
        assert quick(bytes(spoilt))[2].shape == expected


def test_bombs_are_refused():
    content = bytearray(encoded(pixels(0, 64, 64), "JPEG"))
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    for read in (read_header, read_picture):
        with pytest.raises(UnreadableError, match="more than 64 megapixels"):
            read(io.BytesIO(bytes(content)))


def test_sets_are_equal_with_and_without(tmp_path, monkeypatch):
    # Only where both are the same library underneath; elsewhere pixels differ by rounding, and so do splits.
    if np.abs(quick(PROBE)[2].astype(int) - np.asarray(Image.open(io.BytesIO(PROBE)))).max():
        pytest.skip(f"libjpeg-turbo {features.version('libjpeg_turbo')} of Pillow rounds otherwise")
    root = folder(tmp_path / "photos", {f"{n}.jpg": encoded(smooth(n), "JPEG") for n in range(20)})
    one = open_set(root, validation=0.3)
    monkeypatch.setattr(jpeg, "decoder", lambda: "Pillow")
    monkeypatch.setattr(jpeg, "_simplejpeg", lambda: None)
    assert open_set(root, validation=0.3).fingerprint == one.fingerprint
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


PROBE = encoded(smooth(0, 200, 200), "JPEG")
