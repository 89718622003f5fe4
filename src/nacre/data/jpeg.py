"""Plain JPEG files by simplejpeg, where it is installed: small ones in a third of the time that Pillow takes.

Both are libjpeg-turbo underneath. What is not plain (a turned picture, CMYK, damage, a very large one) is left to Pillow.
"""

import importlib
import importlib.util
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

START = b"\xff\xd8\xff"
HEAD = 1 << 16  # bytes, in which nearly every file says its size
MODES = {"YCbCr": "RGB", "Gray": "L"}
# Where a file may say that it is to be turned.
TURNING = (b"Exif\0\0", b"http://ns.adobe.com/xap/")
DAMAGE = (ValueError, KeyError)  # what simplejpeg raises; Pillow says it in words, or reads the file after all


def decoder() -> str:
    """What decodes plain JPEG files: "simplejpeg" or "Pillow"."""
    return "simplejpeg" if importlib.util.find_spec("simplejpeg") else "Pillow"


def plain_header(file: BinaryIO) -> tuple[tuple[int, int], str] | None:
    """((width, height) in pixels, Pillow mode) of a plain JPEG; otherwise None, and the file stands where it stood."""
    return _header(_content(file, HEAD))


def plain_pixels(file: BinaryIO, most: int) -> tuple[np.ndarray, str] | None:
    """The pixels, (H, W, 1 or 3) uint8, and the Pillow mode of a plain JPEG of at most `most` pixels; otherwise None,
    and the file stands where it stood."""
    content = _content(file, -1)
    header = _header(content)
    if header is None or header[0][0] * header[0][1] > most:
        return None
    try:
        return _simplejpeg().decode_jpeg(content, "GRAY" if header[1] == "L" else "RGB"), header[1]
    except DAMAGE:
        return None


def _content(file: BinaryIO, most: int) -> bytes:
    """The first `most` bytes (-1: all) of a file that starts as a JPEG, if simplejpeg is there to read them."""
    try:
        start = file.read(len(START))
        content = start + file.read(most) if start == START and _simplejpeg() else b""
        file.seek(0)
    except OSError:  # Pillow will meet it again
        return b""
    return content


def _header(content: bytes) -> tuple[tuple[int, int], str] | None:
    if not content or any(mark in content for mark in TURNING):
        return None
    try:
        height, width, space, _ = _simplejpeg().decode_jpeg_header(content)
    except DAMAGE:
        return None
    return ((width, height), MODES[space]) if space in MODES else None


@lru_cache(maxsize=1)
def _simplejpeg() -> Any:
    return importlib.import_module("simplejpeg") if decoder() == "simplejpeg" else None
