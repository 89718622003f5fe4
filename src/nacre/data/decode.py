"""One image file to pixels, and pixels to the size that a model wants. Nothing here is random."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from nacre.data import jpeg
from nacre.data.settings import Fit

MOST_PIXELS = 64_000_000
MANY_PIXELS = 16_000_000

# EPS and its like are left out: Pillow reads them by running a program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "JPEG2000", "TGA", "ICO")
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
        ".avifs",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".tga",
        ".ico",
        ".heic",
        ".heif",
        ".hif",
    ]
)
HEIC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"])
GREY_MODES = frozenset(["1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"])

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_one_large_picture = threading.Lock()


class UnreadableError(Exception):
    """A file that cannot be used; the message is the reason."""


class HeicError(UnreadableError):
    """A HEIC file, and no pillow-heif to read it."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before it is decoded: upright (width, height) in pixels, and its Pillow mode."""

    size: tuple[int, int]
    mode: str

    @property
    def grey(self) -> bool:
        return self.mode in GREY_MODES


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels, (H, W, 1 or 3) uint8, and the file's Pillow mode before they were made so."""

    pixels: np.ndarray
    mode: str
    animated: bool = False


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image file, perhaps inside another file: `open` gives its bytes or raises UnreadableError."""

    open: Callable[[], BinaryIO]

    def header(self) -> Header:
        """What it says about itself; see `read_header`."""
        with self.open() as file:
            return read_header(file)

    def picture(self) -> Picture:
        """Its pixels; see `read_picture`."""
        with self.open() as file:
            return read_picture(file)


@dataclass(frozen=True)
class Target:
    """The one shape that every picture of a set is brought to, and how."""

    height: int
    width: int
    channels: int
    fit: Fit

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


def read_header(file: BinaryIO) -> Header:
    """The size and mode of an image file, without decoding it.

    Raises:
        UnreadableError: it is no picture, or one of more than 64 megapixels.
    """
    if plain := jpeg.plain_header(file):
        return Header(_bounded(*plain[0]), plain[1])
    with _opened(file) as image:
        width, height = image.size
        # A TIFF's size is upright already.
        turned = image.format != "TIFF" and "exif" in image.info and _orientation(image) >= 5
        return Header((height, width) if turned else (width, height), image.mode)


def read_picture(file: BinaryIO) -> Picture:
    """Decode an image file: upright, its first frame, 8 bits a channel, transparency over white.

    Raises:
        UnreadableError: it is no picture, is cut short, or has more than 64 megapixels.
    """
    if plain := jpeg.plain_pixels(file, MANY_PIXELS):
        return Picture(*plain)
    with _opened(file) as image, _turn(image):
        mode = image.mode
        image.load()
        pixels = _upright(image, _pixels(image))
        # The second picture of an MPO is a preview or a gain map, not a frame.
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        return Picture(pixels, mode, animated)


def read_alpha(file: BinaryIO) -> np.ndarray | None:
    """The alpha channel of an image file, upright: (H, W) uint8, 0 where it is transparent; None if it has none.

    Raises:
        UnreadableError: as for `read_picture`.
    """
    with _opened(file) as image, _turn(image):
        image.load()
        if not image.has_transparency_data:
            return None
        return _upright(image, _array(image.convert("RGBA").getchannel("A")))[:, :, 0]


def fitted(pixels: np.ndarray, target: Target) -> np.ndarray:
    """Bring (H, W, 1 or 3) uint8 pixels to `target`: Lanczos with antialiasing, so that no detail turns to noise.

    Returns:
        (channels, height, width) uint8.
    """
    height, width, channels = pixels.shape
    if (height, width) == (target.height, target.width) and channels == target.channels:
        return np.moveaxis(pixels, 2, 0)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    if channels > target.channels:
        image = image.convert("L")
    planes = np.moveaxis(_array(_resized(image, target)), 2, 0)
    return np.broadcast_to(planes, target.shape)


def white_level(low: float, high: float) -> float | None:
    """Which value is white in an array whose values run from `low` to `high`: 1, 255, or None if neither can be meant."""
    if low < 0 or high > 255:
        return None
    return 1.0 if high <= 1 else 255.0


def grey_levels(values: np.ndarray, white: float) -> np.ndarray:
    """Numbers from 0 to `white` to the nearest of 0..255, as uint8."""
    if values.dtype == np.uint8 and white == 255:
        return values
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)


def can_read_heic() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    try:
        start = file.read(64)
        file.seek(0)
        with Image.open(file, formats=_formats_for(start)) as image:
            _bounded(*image.size)
            yield image
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError("not an image") from None
    except Image.DecompressionBombError:
        raise UnreadableError("declares more than 64 megapixels") from None
    except Exception as error:  # damaged files make decoders raise anything at all
        raise UnreadableError(_reason(error)) from error


def _bounded(width: int, height: int) -> tuple[int, int]:
    if width * height > MOST_PIXELS:
        raise UnreadableError(f"declares {width}x{height} pixels, more than 64 megapixels")
    return width, height


def _formats_for(start: bytes) -> tuple[str, ...]:
    if not start:
        raise UnreadableError("the file is empty")
    brands = {start[place : place + 4] for place in range(8, min(len(start), 64), 4)}
    if start[4:8] != b"ftyp" or b"avif" in brands or not brands & HEIC_BRANDS:
        return _formats()
    if not can_read_heic():
        raise HeicError("HEIC needs pillow-heif")
    return _heic_formats()


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@lru_cache(maxsize=1)
def _heic_formats() -> tuple[str, ...]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text and len(text) < 120 else f"damaged ({type(error).__name__})"


def _turn(image: Image.Image) -> "threading.Lock | nullcontext[None]":
    """Let only one thread at a time hold a very large picture, which bounds the memory that decoding takes."""
    width, height = image.size
    return _one_large_picture if width * height > MANY_PIXELS else nullcontext()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return 1


def _upright(image: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, C) of an image, turned as its EXIF block says."""
    turn = UPRIGHT.get(_orientation(image))
    if turn is None:
        return pixels
    return _array(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).transpose(turn))


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _from_16_bits(np.asarray(image))[:, :, None]
    if image.mode == "F":
        return _from_floats(np.asarray(image))[:, :, None]
    grey = image.mode in GREY_MODES
    if image.has_transparency_data:
        image = _over_white(image)
    return _array(image.convert("L" if grey else "RGB"))


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255, rounded: 65535 / 255 = 257."""
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise UnreadableError(f"holds integers from {wide.min()} to {wide.max()}, beyond 16 bits")
    return ((wide + 128) // 257).astype(np.uint8)


def _from_floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    white = white_level(low, high) if np.isfinite(values).all() else None
    if white is None:
        raise UnreadableError(f"holds floats from {low:g} to {high:g}, neither 0 to 1 nor 0 to 255")
    return grey_levels(values, white)


def _over_white(image: Image.Image) -> Image.Image:
    # By way of LA, which is how Pillow reads the transparent grey level of an L or 1-bit image.
    see_through = image.convert("LA" if image.mode in GREY_MODES else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), see_through).convert("RGB")


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).reshape(image.height, image.width, -1)


def _resized(image: Image.Image, target: Target) -> Image.Image:
    size = target.width, target.height
    if image.size == size:
        return image
    if target.fit == "pad":
        return _letterboxed(image, size)
    box = _centre(image.size, size) if target.fit == "crop" else None
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def _centre(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest central part of `size` that has the aspect ratio of `wanted`: (left, top, right, bottom)."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    width, height = wanted[0] * scale, wanted[1] * scale
    left, top = (
        max(0.0, (size[0] - width) / 2),
        max(0.0, (size[1] - height) / 2),
    )  # rounding may leave less than nothing
    return left, top, min(left + width, size[0]), min(top + height, size[1])


def _letterboxed(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    page = Image.new(image.mode, size, "white")
    corner = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    page.paste(image.resize(inner, Image.Resampling.LANCZOS), corner)
    return page
