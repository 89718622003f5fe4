"""What a person names on the command line: image files, folders, data sources, and samples by their numbers."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nacre import images
from nacre.data import DataSettings
from nacre.data.dataset import BadFile, Prepared, left_out
from nacre.data.decode import GREY_MODES, SUFFIXES, Target, UnreadableError, fitted, read_picture
from nacre.data.settings import Fit
from nacre.data.sources import prepare
from nacre.errors import ConfigError, DataError, ShapeError
from nacre.networks import is_image
from nacre.pretrained import Pretrained

logger = logging.getLogger("nacre")

FITTED: dict[Fit, str] = {
    "crop": "cut at the centre to that shape",
    "pad": "with white borders where the shape is another",
    "squash": "whatever the shape",
}

MANY = 2**48
"""Samples of a seed."""


@dataclass(frozen=True)
class Given:
    """Items as a model takes them.

    Attributes:
        items: (N, *shape) float.
        names: N.
    """

    items: Tensor
    names: list[str]


def fit_of(model: Pretrained) -> Fit:
    """How the images that a model was trained on were brought to its size."""
    fit: Fit = model.facts.get("fit", "crop")
    return fit


def given(words: Sequence[str], model: Pretrained, *, most: int | None = None) -> Given:
    """Items that are named by words: image files, folders and archives of images, arrays.

    Images of another size, or in colour for a model of grey ones, are brought to the model's, and a note says so.

    Args:
        words: paths or data sources.
        model: whose items they are to be like.
        most: of one word's items, so many at equal distances.

    Raises:
        DataError: a file that is missing or no image.
        ShapeError: vectors of another size.
        ConfigError: an image for a model of vectors.
    """
    parts = each(words, model, most=most)
    return Given(torch.cat([part.items for part in parts]), [name for part in parts for name in part.names])


def each(words: Sequence[str], model: Pretrained, *, most: int | None = None) -> list[Given]:
    """As `given`, word by word, with one note for all."""
    found = [one(word, model, most=most) for word in words]
    tell(
        model,
        sum(len(part.items) for part, _, _ in found),
        sum(number for _, number, _ in found),
        sum(number for _, _, number in found),
    )
    return [part for part, _, _ in found]


def tell(model: Pretrained, count: int, resized: int, recoloured: int, bad: Sequence[BadFile] = ()) -> None:
    """A note on what became of `count` images on their way to a model's size and channels, and on files that are left out."""
    told = []
    if resized:
        size = f"{model.shape[2]}x{model.shape[1]}, {FITTED[fit_of(model)]}"
        told.append(f"{resized} of {count} images were of another size, and made {size}")
    if recoloured:
        told.append(f"{recoloured} of {count} images were stored in colour, and made grey")
    if bad:
        told.append(left_out(bad))
    if told:
        logger.info(f"{'; '.join(told)}.")


def one(word: str, model: Pretrained, *, most: int | None = None) -> tuple[Given, int, int]:
    """What one word names, and how many of its images were of another size, and of other channels that a file had."""
    path, shape = Path(word).expanduser(), model.shape
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        if not is_image(shape):
            raise ConfigError(f"the model is of vectors of {shape[0]} numbers, and {word} is an image; name a .npy.")
        return _picture(path, shape, fit_of(model))
    settings = DataSettings(
        data=word,
        image_size=(shape[1], shape[2]) if is_image(shape) else None,
        fit=fit_of(model),
        channels=shape[0] if shape[0] in (1, 3) and is_image(shape) else None,  # type: ignore[arg-type]
        validation=0.0,
        test=0.0,
        max_bad=1.0,
    )
    prepared = prepare(settings, progress=True)
    tell(model, 0, 0, 0, prepared.listing.bad)
    if tuple(prepared.items.shape[1:]) != tuple(shape):
        raise ShapeError(f"the model takes items of shape {tuple(shape)}, and {word} has {prepared.items.shape[1:]}.")
    rows = np.arange(len(prepared.items))
    if most is not None and len(rows) > most:
        rows = np.linspace(0, len(rows) - 1, most).round().astype(np.int64)
    items = images.to_float(torch.from_numpy(np.ascontiguousarray(prepared.items[rows])))
    resized, recoloured = changed(prepared, shape) if is_image(shape) else (0, 0)
    names = [f"{word.rstrip('/')}/{prepared.listing.names[row]}" for row in rows]
    return Given(items, names), min(resized, len(rows)), min(recoloured, len(rows))


def changed(prepared: Prepared, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many images of a source were of another size than a model's, and how many in colour for a model of grey ones."""
    size = f"{shape[2]}x{shape[1]}"
    resized = sum(count for name, count in prepared.sizes.items() if name != size)
    coloured = sum(count for mode, count in prepared.modes.items() if mode not in GREY_MODES)
    return resized, coloured if shape[0] == 1 else 0


def numbers(word: str) -> list[int] | None:
    """The numbers of samples that a word lists, as "3,17,42"; None if it is something else.

    Raises:
        ConfigError: some of a list's parts are numbers, and some are not; or one is too large.
    """
    parts = [part.strip() for part in word.split(",")]
    odd = [part for part in parts if not re.fullmatch(r"\d+", part)]
    if not odd:
        if beyond := [part for part in parts if int(part) >= MANY]:
            raise ConfigError(f"samples are numbered from 0 to {MANY - 1:,}; got {beyond[0]}.")
        return [int(part) for part in parts]
    if 1 < len(parts) != len(odd) and not Path(word).exists():
        raise ConfigError(f"samples are listed by their numbers, as 3,17,42; '{odd[0]}' in '{word}' is none.")
    return None


def _picture(path: Path, shape: tuple[int, ...], fit: Fit) -> tuple[Given, int, int]:
    try:
        with path.open("rb") as file:
            picture = read_picture(file)
    except (OSError, UnreadableError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}).") from None
    channels, height, width = shape
    pixels = fitted(picture.pixels, Target(height, width, channels, fit))
    item = images.to_float(torch.from_numpy(np.array(pixels)))[None]
    # A grey picture is a coloured one without loss, and no news.
    return (
        Given(item, [str(path)]),
        int(picture.pixels.shape[:2] != (height, width)),
        int(picture.pixels.shape[2] > channels),
    )
