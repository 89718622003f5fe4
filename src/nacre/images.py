"""Images as tensors: (N, C, H, W), float in [0, 1] at every public boundary, uint8 on disk and in data sets."""

import math

import numpy as np
import torch
from torch import Tensor


def to_float(batch: Tensor) -> Tensor:
    """uint8 images (0..255) to float32 in [0, 1]; a float tensor comes back as it is."""
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [0, 1], clipped to that range, to the nearest grey level (0..255)."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def mirror(batch: Tensor, chance: Tensor) -> Tensor:
    """Flip left and right the images whose `chance`, (N, 1) uniform, is under one half."""
    return torch.where(chance.view(-1, *[1] * (batch.ndim - 1)) < 0.5, batch.flip(-1), batch)


def dequantize(images: Tensor, chance: Tensor) -> Tensor:
    """Spread each of the 256 grey levels over its own interval: x ↦ (255 x + u) / 256, u uniform in [0, 1).

    A density on the result is a bound on the probability of the grey levels (Theis et al. 2016, section 3.1).
    """
    return (images * 255 + chance) / 256


def binarize(images: Tensor, chance: Tensor) -> Tensor:
    """Draw each pixel from a Bernoulli law with its grey value as the probability ("dynamic" binarization)."""
    return (chance < images).to(images.dtype)


def grid(images: Tensor, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Lay (N, C, H, W) images in [0, 1] out on one white page, row by row.

    Args:
        images: 1, 2 (grey and alpha), 3 or 4 channels.
        columns: images in a row; by default the page is about square.
        gap: pixels between two images.

    Returns:
        (height, width) or (height, width, C) uint8, for Pillow.
    """
    count, channels, height, width = images.shape
    columns = columns or min(count, max(1, math.ceil(math.sqrt(count * height / width))))
    lines = math.ceil(count / columns)
    page = np.full((lines * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for index, image in enumerate(to_uint8(images.detach().float().cpu()).permute(0, 2, 3, 1).numpy()):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        page[top : top + height, left : left + width] = image
    return page[:, :, 0] if channels == 1 else page
