"""Pages of images with words under them, and films."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nacre import files, images
from nacre.engine.pictures import SMALLEST_CELL, page
from nacre.errors import ConfigError, RunError
from nacre.networks import is_image

GAP, LINE = 4, 14
"""Pixels between images, and of a line of words."""

FILM = 256
"""Images of a film are enlarged by whole factors towards this many pixels."""

LONGEST = 5_000
"""Frames of a film, which are in memory together: a gigabyte."""


def enlarged(items: Tensor, towards: int) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] as (N, height, width, 1 or 3) uint8, small ones enlarged by a whole factor."""
    factor = max(1, towards // max(items.shape[2:]))
    large = items.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return images.to_uint8(large.detach().float().cpu()).permute(0, 2, 3, 1).numpy()


def captioned(items: Tensor, captions: Sequence[str], columns: int) -> np.ndarray:
    """Images (N, C, H, W) row by row, a caption under each: (height, width, 3) uint8.

    A row whose captions are all empty has no line for them; one that has a single caption gives it the whole line.
    """
    cells = enlarged(items, SMALLEST_CELL)
    count, height, width = cells.shape[:3]
    lines = [captions[start : start + columns] for start in range(0, count, columns)]
    heights = [GAP + height + (LINE if any(line) else 0) for line in lines]
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), sum(heights) + GAP), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(), GAP
    for number, (line, tall) in enumerate(zip(lines, heights, strict=True)):
        for column, caption in enumerate(line):
            left = GAP + column * (width + GAP)
            cell = cells[number * columns + column]
            sheet.paste(Image.fromarray(cell.squeeze(2) if cell.shape[2] == 1 else cell), (left, top))
            room = sheet.width - 2 * GAP if sum(map(bool, line)) == 1 else width
            words = _shortened(caption, room, font)
            middle = left + (width - font.getlength(words)) / 2
            inside = min(max(middle, GAP), sheet.width - GAP - font.getlength(words))
            draw.text((inside, top + height + 1), words, fill=(70, 70, 70), font=font)
        top += tall
    return np.asarray(sheet)


def check_film(frames: int) -> None:
    """Raise ConfigError for more frames than a film has."""
    if frames > LONGEST:
        raise ConfigError(f"a film has {LONGEST:,} frames at most, got {frames:,}; take fewer --frames.")


def film(out: Path, items: Tensor, fps: int) -> None:
    """Images or vectors (N, …) one after the other as a .gif that repeats, or a .mp4 where ffmpeg is installed.

    Raises:
        ConfigError: a .mp4, and there is no ffmpeg; or fewer than one frame a second.
        RunError: ffmpeg failed.
    """
    if fps < 1:
        raise ConfigError(f"--fps must be 1 or more, got {fps}.")
    frames = (
        enlarged(items, FILM) if is_image(tuple(items.shape[1:])) else np.stack([page(item[None]) for item in items])
    )
    if frames.ndim == 4 and frames.shape[3] == 1:
        frames = frames[..., 0]
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".gif":
        first, *others = (Image.fromarray(frame) for frame in frames)
        with files.whole_file(out) as aside:
            first.save(aside, format="GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    else:
        _mp4(out, frames, fps)


def _mp4(out: Path, frames: np.ndarray, fps: int) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise ConfigError(f"{out} needs ffmpeg, which is not installed; take a .gif.")
    height, width = frames.shape[1:3]
    pixels = "rgb24" if frames.ndim == 4 else "gray"
    # Sides of yuv420p, which every player knows, are even.
    command = [program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}"]
    command += ["-r", str(fps), "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-f", "mp4"]
    with files.whole_file(out) as aside:
        done = subprocess.run([*command, str(aside)], input=np.ascontiguousarray(frames).tobytes(), capture_output=True)
        if done.returncode:
            reason = " ".join(done.stderr.decode(errors="replace").split())[-200:]
            raise RunError(f"ffmpeg could not write {out} ({reason}); take a .gif.")


def _shortened(words: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The end of a text that is too long to stand under an image: of a path, the file's name; a sign before it stays."""
    if font.getlength(words) <= width:
        return words
    sign, rest = (words[:2], words[2:]) if words[:2] in ("+ ", "- ") else ("", words)
    while rest and font.getlength(f"{sign}…{rest}") > width:
        rest = rest[1:]
    return f"{sign}…{rest}"
