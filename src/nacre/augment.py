"""Differentiable augmentation (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training").

A discriminator that only ever sees augmented images, real and generated alike, cannot learn a small data set by heart;
and as gradients flow through the augmentation, the generator learns to make images, not augmented ones. Each operation
is a pure function of images (N, C, H, W) in [-1, 1] and of numbers in [0, 1), of which each image has its own. Ranges and
order are those of the authors' policy "color,translation,cutout". At one half, color and translation change nothing.
"""

import torch
from torch import Tensor

NUMBERS = 7
"""Uniform numbers that one image's augmentation takes: three of its color, two of its translation, two of its cutout."""

PLACES = 4
"""Of them, those of translation and cutout."""

SHIFT = 1 / 8
"""An image is moved by up to this share of its size."""

CUT = 1 / 2
"""Sides of the rectangle that is cut out, as shares of the image's."""


def diff_augment(images: Tensor, noise: Tensor) -> Tensor:
    """Color, translation and cutout, with gradients to the images.

    Args:
        images: (N, C, H, W) in [-1, 1].
        noise: (N, 7) uniform in [0, 1), float32 at least: in bfloat16 some would be 1, a place past the last.
    """
    colored = color(images, noise[:, :3].to(images.dtype))
    return cutout(translation(colored, noise[:, 3:5]), noise[:, 5:])


def moved_and_cut(images: Tensor, noise: Tensor) -> Tensor:
    """Translation and cutout alone, for images whose colours a judge is told of; the noise is (N, 4)."""
    return cutout(translation(images, noise[:, :2]), noise[:, 2:])


def color(images: Tensor, noise: Tensor) -> Tensor:
    """Brightness by up to ±½, saturation by 0 to 2, contrast by ½ to 3/2; the noise is (N, 3)."""
    brightness, saturation, contrast = noise.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def translation(images: Tensor, noise: Tensor) -> Tensor:
    """Whole pixels down and to the right, up to ±1/8 of the size, zeros moving in; the noise is (N, 2)."""
    down, right = (
        _shift(size, share, images.dtype) for size, share in zip(images.shape[2:], noise.unbind(1), strict=True)
    )
    # Sums with one term each: the gradient is as exact, and comes in the same order on every device.
    with torch.autocast(images.device.type, enabled=False):
        return down @ images @ right.transpose(2, 3)


def cutout(images: Tensor, noise: Tensor) -> Tensor:
    """Zeros in a rectangle of half the size, wherever its centre falls in the image; the noise is (N, 2)."""
    rows, columns = (_inside(size, share) for size, share in zip(images.shape[2:], noise.unbind(1), strict=True))
    return images.masked_fill(rows.view(-1, 1, images.shape[2], 1) & columns.view(-1, 1, 1, images.shape[3]), 0)


def _shift(size: int, noise: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices that move vectors of `size` numbers: (N,) ↦ (N, 1, size, size)."""
    most = int(size * SHIFT + 0.5)
    shift = (noise * (2 * most + 1)).floor() - most
    at = torch.arange(size, device=noise.device)
    return (at.view(-1, 1) - at == shift.view(-1, 1, 1, 1)).to(dtype)


def _inside(size: int, noise: Tensor) -> Tensor:
    """Which of `size` places lie in a piece of half the length, its centre anywhere: (N,) ↦ (N, size) of booleans."""
    length = int(size * CUT + 0.5)
    first = (noise * (size + 1 - length % 2)).floor().view(-1, 1) - length // 2
    at = torch.arange(size, device=noise.device)
    return (at >= first) & (at < first + length)
