"""Translating image files: any size, in tiles where they are large, animations frame by frame."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from nacre import files, images
from nacre.data.decode import SUFFIXES, Target, UnreadableError, fitted, read_picture
from nacre.errors import ConfigError, DataError
from nacre.pretrained import Pretrained

TILE = 512
"""Pixels of a side up to which an image is translated whole."""

OVERLAP = 4
"""Tiles share a quarter of their side with their neighbours, over which one fades into the next."""


PAUSE = 100
"""Milliseconds of a frame that does not say how long it stays."""


class Motion(NamedTuple):
    """How the frames of an animation follow each other.

    Attributes:
        pauses: milliseconds that each stays.
        loop: how often it begins again, 0 for ever; None where the file does not say.
    """

    pauses: list[int]
    loop: int | None


@dataclass(frozen=True)
class Translated:
    """A file that was written.

    Attributes:
        source, out: where from, where to.
        size: (width, height) in pixels, of both.
        frames: of an animation; 1 for an image.
        tiles: that a frame was translated in.
        recoloured: whether it was stored in colour, and made grey for a model of grey images.
    """

    source: Path
    out: Path
    size: tuple[int, int]
    frames: int
    tiles: int
    recoloured: bool


def sources(path: Path) -> list[Path]:
    """The image files that a path means: itself, or those in a folder, sorted.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if not found:
        raise DataError(f"there is no image at {path}; name an image file or a folder of them.")
    return found


def translate_file(model: Pretrained, source: Path, out: Path, direction: str, tile: int = TILE) -> Translated:
    """Translate an image file, or each frame of an animation (GIF, WebP, APNG), at its own size.

    Args:
        model: that translates.
        source: of any format that training reads.
        out: PNG for an image, GIF for an animation.
        direction: one of the model's.
        tile: pixels of a side above which it is translated in tiles.

    Raises:
        DataError: it cannot be read.
        ConfigError: it is an animation, and `out` is no .gif.
    """
    channels = model.channels(direction)
    frames, motion = _frames(source)
    if motion is not None and out.suffix.lower() != ".gif":
        raise ConfigError(f"{source} is an animation of {len(frames)} frames; give --out a .gif, got {out}.")
    done = []
    tiles = 1
    for pixels in frames:
        height, width, _ = pixels.shape
        item = fitted(pixels, Target(height, width, channels, "squash"))
        x = images.to_float(torch.from_numpy(item.copy()))[None]
        output, tiles = tiled(lambda part: model.translate(part, direction), x, tile)
        done.append(images.grid(output, gap=0))
    _write(out, done, motion)
    size = done[0].shape[1], done[0].shape[0]
    return Translated(source, out, size, len(done), tiles, recoloured=frames[0].shape[2] > channels)


def tiled(translate: Callable[[Tensor], Tensor], x: Tensor, tile: int) -> tuple[Tensor, int]:
    """Translate (1, C, H, W) whole if no side is longer than `tile`, otherwise in tiles that fade into each other.

    Instance norm sees a tile and not the image, so that tiles may differ in tone from the whole.

    Returns:
        (1, C', H, W), and the number of tiles.
    """
    height, width = x.shape[2:]
    if max(height, width) <= tile:
        return translate(x), 1
    places = [(top, left) for top in _starts(height, tile) for left in _starts(width, tile)]
    total, weight = None, torch.zeros(1, 1, height, width)
    for top, left in places:
        part = x[:, :, top : top + tile, left : left + tile]
        output, fade = translate(part), _fade(part.shape[2], part.shape[3])
        total = torch.zeros(1, output.shape[1], height, width) if total is None else total
        total[:, :, top : top + tile, left : left + tile] += output * fade
        weight[:, :, top : top + tile, left : left + tile] += fade
    assert total is not None
    return total / weight, len(places)


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin: evenly, an `OVERLAP`th of a tile shared at least."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // (tile - tile // OVERLAP)) + 1
    return [round(number * (length - tile) / (count - 1)) for number in range(count)]


def _fade(height: int, width: int) -> Tensor:
    """Weights that fall towards the edges and are never zero: (1, 1, height, width)."""
    sides = [
        torch.minimum(torch.arange(n) + 1, n - torch.arange(n)).clamp(max=max(1, n // OVERLAP)) for n in (height, width)
    ]
    return (sides[0][:, None] * sides[1][None]).float()[None, None]


def animated(source: Path) -> bool:
    """Whether a file holds more than one frame; not where it cannot be read."""
    try:
        with Image.open(source) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _frames(source: Path) -> tuple[list[np.ndarray], Motion | None]:
    """The frames (H, W, C) of a file, and how they follow each other; None for an image."""
    try:
        if animated(source):
            with Image.open(source) as image:
                frames, pauses, loop = [], [], image.info.get("loop")
                for frame in ImageSequence.Iterator(image):
                    frames.append(np.asarray(frame.convert("RGB")))
                    pauses.append(int(frame.info.get("duration", 0)) or PAUSE)
                return frames, Motion(pauses, loop)
        with source.open("rb") as file:
            return [read_picture(file).pixels], None
    except (UnreadableError, OSError) as error:
        raise DataError(f"{source} cannot be read: {error}.") from None


def _write(out: Path, frames: list[np.ndarray], motion: Motion | None) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(frame) for frame in frames)
    with files.whole_file(out) as aside:
        if motion is None:
            first.save(aside, format="GIF" if out.suffix.lower() == ".gif" else "PNG")
        else:
            # A GIF that says nothing of loops plays once.
            loops = {} if motion.loop is None else {"loop": motion.loop}
            first.save(aside, format="GIF", save_all=True, append_images=others, duration=motion.pauses, **loops)
