"""One image file to pixels: modes, bit depths, orientation, transparency, damage, and the way to one size."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_helpers import encoded, folder, open_set, pictures, pixels, tarred, zipped
from nacre.data import decode
from nacre.data.decode import Target, UnreadableError, fitted, read_header, read_picture
from nacre.errors import DataError


def read(content):
    return read_picture(io.BytesIO(content))


def test_grey_and_colour_come_back_exactly():
    grey, colour = pixels(0, 5, 7, 1), pixels(1, 5, 7)
    assert (read(encoded(grey)).pixels[:, :, 0] == grey).all()
    assert (read(encoded(colour)).pixels == colour).all()


def test_header_tells_size_and_greyness_without_decoding():
    header = read_header(io.BytesIO(encoded(pixels(0, 5, 7, 1))))
    assert (header.size, header.mode, header.grey) == ((7, 5), "L", True)
    assert not read_header(io.BytesIO(encoded(pixels(0)))).grey


def test_transparent_pixels_become_white():
    values = np.zeros((2, 2, 4), np.uint8)
    values[0, 0] = 10, 20, 30, 255
    values[0, 1] = 0, 0, 0, 0
    values[1, 0] = 0, 0, 0, 128
    found = read(encoded(values)).pixels
    assert found[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    assert found[1, 0].tolist() == [127, 127, 127]


def test_grey_with_alpha_stays_grey():
    image = Image.merge("LA", [Image.new("L", (2, 1), 40), Image.fromarray(np.array([[255, 0]], np.uint8))])
    assert read(encoded(image)).pixels[:, :, 0].tolist() == [[40, 255]]
    assert read(encoded(image)).pixels.shape == (1, 2, 1)


def test_palette_and_its_transparent_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.putpixel((1, 0), 1)
    assert read(encoded(image)).pixels[0].tolist() == [[200, 10, 10], [10, 200, 10]]
    assert read(encoded(image, transparency=1)).pixels[0].tolist() == [[200, 10, 10], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_single_transparent_colour_in_a_png(mode):
    image = Image.new(mode, (2, 1), "black")
    image.putpixel((1, 0), 255 if mode == "L" else (1, 2, 3))
    found = read(encoded(image, transparency=0 if mode == "L" else (1, 2, 3))).pixels
    assert (found[0, 0 if mode == "L" else 1] == 255).all()


def test_one_bit():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read(encoded(image)).pixels[:, :, 0].tolist() == [[0, 255]]


def test_cmyk_jpeg():
    found = read(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).pixels[4, 4].astype(int)
    assert found.tolist() == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_become_rgb(mode):
    assert read(encoded(Image.new(mode, (8, 8)), "TIFF")).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(form):
    values = np.array([[0, 128, 129, 257, 32768, 65534, 65535]], np.uint16)
    found = read(encoded(Image.fromarray(values), form)).pixels[0, :, 0]
    assert found.tolist() == np.rint(values[0] / 257).astype(int).tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_sixteen_bit_pgm():
    content = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32768, 65535)
    assert read(content).pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("values", "expected"), [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 7.0, 255.0], [0, 7, 255])])
def test_float_tiff(values, expected):
    content = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert read(content).pixels[0, :, 0].tolist() == expected


def test_float_tiff_of_no_known_range_is_bad():
    with pytest.raises(UnreadableError, match=r"floats from -1 to 1"):
        read(encoded(Image.fromarray(np.array([[-1, 1]], np.float32)), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "channels"), [("PNG", 3), ("PNG", 1), ("TIFF", 3)])
def test_exif_orientation_is_undone_exactly(orientation, form, channels):
    upright = pixels(3, 4, 6, channels)
    # What a camera stores so that undoing the orientation shows `upright`.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(np.ascontiguousarray(stored), form, exif=exif)
    found = read(content).pixels
    assert (found.squeeze() == upright).all()
    assert read_header(io.BytesIO(content)).size == (6, 4)


def test_damaged_exif_does_not_spoil_the_picture():
    image = pixels(0)
    assert (read(encoded(image, exif=b"Exif\0\0garbage")).pixels == image).all()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    found = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.animated
    assert found.pixels[0, 0].tolist() == [255, 0, 0]
    assert not read(encoded(frames[0], "GIF")).animated


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, I am text", "not an image"),
        (encoded(pixels(0, 64, 64), "JPEG")[:1500], "truncated"),
        (encoded(pixels(0, 64, 64))[:-4000], "truncated"),
        (encoded(pixels(0, 64, 64), "WEBP", lossless=True)[:-2000], "[a-z]"),
        (encoded(pixels(0, 64, 64), "BMP")[:-2000], "truncated"),
        (encoded(pixels(0, 64, 64), "TIFF")[:2000], "[a-z]"),
        (encoded(Image.fromarray(pixels(0, 64, 64, 1)), "GIF")[:-2000], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
    ids=["empty", "text", "jpeg", "png", "webp", "bmp", "tiff", "gif", "eps"],
)
def test_what_cannot_be_read_says_why(content, reason):
    with pytest.raises(UnreadableError, match=reason):
        read(content)


def bomb(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8001, 8000), (12_000, 10_000), (60_000, 60_000)])
def test_bombs_are_refused_by_their_header(size, recwarn):
    with pytest.raises(UnreadableError, match="more than 64 megapixels"):
        read_header(io.BytesIO(bomb(*size)))


def test_heic_without_its_reader_is_told_apart():
    content = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 40
    with pytest.raises(decode.HeicError):
        read(content)


def test_avif_is_read_where_pillow_can():
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert read(encoded(Image.new("RGB", (16, 16), "red"), "AVIF")).pixels.shape == (16, 16, 3)


def test_resizing_is_antialiased():
    # Stripes one pixel wide: without antialiasing they would come out black or white.
    stripes = np.tile(np.array([[0], [255]], np.uint8), (32, 64))[:, :, None]
    found = fitted(stripes, Target(8, 8, 1, "crop"))
    assert abs(found.astype(int) - 127).max() < 10


def test_crop_keeps_the_centre():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (fitted(wide, Target(10, 10, 3, "crop")) == 200).all()
    assert (fitted(wide.swapaxes(0, 1), Target(10, 10, 3, "crop")) == 200).all()


@pytest.mark.parametrize(
    ("height", "width", "wanted"), [(225, 225, (28, 28)), (500, 500, (120, 120)), (20, 59, (33, 47))]
)
def test_a_crop_whose_numbers_round_stays_within_the_image(height, width, wanted):
    assert (fitted(np.full((height, width, 3), 90, np.uint8), Target(*wanted, 3, "crop")) == 90).all()


def test_crop_equals_resizing_then_cutting():
    picture = pixels(5, 40, 80)
    whole = np.asarray(Image.fromarray(picture).resize((40, 20), Image.Resampling.LANCZOS))
    assert (fitted(picture, Target(20, 20, 3, "crop")) == np.moveaxis(whole[:, 10:30], 2, 0)).all()


def test_pad_adds_white_and_squash_none():
    wide = np.full((10, 20, 1), 60, np.uint8)
    padded = fitted(wide, Target(16, 16, 1, "pad"))[0]
    assert (padded[:4] == 255).all()
    assert (padded[12:] == 255).all()
    assert (padded[4:12] == 60).all()
    assert (fitted(wide, Target(16, 16, 1, "squash")) == 60).all()


def test_channels_are_converted():
    colour = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    assert (fitted(colour, Target(4, 4, 1, "crop")) == 76).all()
    assert fitted(np.full((4, 4, 1), 9, np.uint8), Target(4, 4, 3, "crop")).tolist() == np.full((3, 4, 4), 9).tolist()


def test_pillow_warnings_do_not_leak(tmp_path):
    # A palette with transparency as bytes, and corrupt EXIF: both make Pillow warn.
    image = Image.new("P", (8, 8))
    image.putpalette([200, 10, 10, 10, 200, 10])
    root = folder(tmp_path / "photos", pictures(["b.png", "c.png"]))
    folder(
        root,
        {
            "a.png": encoded(image, transparency=b"\x00\xff"),
            "d.jpg": encoded(pixels(7), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        },
    )
    assert len(open_set(root)) == 4


@pytest.mark.parametrize("size", [3, 2049, 0, -1])
def test_sizes_have_bounds(size):
    with pytest.raises(Exception, match="4 to 2048"):
        open_set("digits", image_size=size)


@pytest.mark.parametrize("make", [folder, zipped, tarred])
def test_many_photos_are_decoded_in_parallel_and_in_order(make, tmp_path):
    files = {f"{number:03}.png": encoded(np.full((300, 300), number, np.uint8)) for number in range(100)}
    suffix = {folder: "", zipped: ".zip", tarred: ".tar"}[make]
    found = open_set(make(tmp_path / f"photos{suffix}", files), image_size=4)
    assert found.items[:, 0, 0, 0].tolist() == list(range(100))
    assert found.names == tuple(files)


def test_too_many_bad_files_in_one_sentence(tmp_path):
    root = folder(tmp_path / "photos", pictures([f"{n}.png" for n in range(9)]) | {"x.png": b"text"})
    with pytest.raises(
        DataError, match=r"1 of 10 files .* \(10%\) cannot be read: x.png \(not an image\); .*--max-bad"
    ):
        open_set(root)
    found = open_set(root, max_bad=0.1)
    assert len(found) == 9
    assert [(file.name, file.reason) for file in found.bad] == [("x.png", "not an image")]


def test_files_that_all_fail_late(tmp_path):
    root = folder(tmp_path / "photos", {"a.png": encoded(pixels(0, 64, 64))[:-4000]})
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 1 files .* cannot be read: a.png \(.*truncated"):
            open_set(root, max_bad=1)
