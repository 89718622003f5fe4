"""Multi-scale structural similarity (MS-SSIM), and how alike samples are to each other by it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre import images
from nacre.errors import ConfigError, ShapeError
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, mean

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, the finest first (Wang et al. 2003, section 3.2)."""

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
"""Stabilizers (K₁L)² and (K₂L)² for values in [0, 1] (Wang et al. 2004)."""

PAIRS = 256
"""Pairs of images compared at a time."""


@dataclass(frozen=True)
class Diversity:
    """How alike the images of a set are.

    Attributes:
        similarity: MS-SSIM of two images of the set on average; the lower, the more diverse. Compare it with that of real
            images of the same size: less diverse than these is collapse, more so is noise.
        pairs: disjoint random pairs that it is the mean over, so that its t interval holds.
        scales: how many were used; 5 from 176 pixels on, fewer for smaller images.
        window: pixels across the Gaussian window; `WINDOW` unless the images are smaller.
    """

    similarity: Estimate
    pairs: int
    scales: int
    window: int


def diversity(items: Tensor | np.ndarray, *, pairs: int = 1_000, seed: int = 0) -> Diversity:
    """Mean MS-SSIM over random pairs of images (Odena et al. 2017, section 4.2, who take 100 pairs within each class).

    Args:
        items: (N, C, H, W) images, uint8 or in [0, 1], N ≥ 4; one class, if classes should not count as diversity.
        pairs: at most; an image is in one pair only, so N/2 are the most there are.
        seed: of the pairs; the order of the images does not matter.

    Raises:
        ShapeError: there are fewer than four images, or they are no images.
        ConfigError: fewer than two pairs were asked for.
    """
    if pairs < 2:
        raise ConfigError(f"pairs must be 2 or more, got {pairs}.")
    batch = _images(items)
    order = points.shuffled(points.items(batch, least=4), seed)
    count = min(pairs, len(batch) // 2)
    values = ms_ssim(batch[order[:count]], batch[order[count : 2 * count]])
    scales, window = _scales(batch)
    return Diversity(mean(values), count, scales, window)


def ms_ssim(one: Tensor | np.ndarray, other: Tensor | np.ndarray) -> Tensor:
    """MS-SSIM of pairs of images: Π_j cs_j^{w_j} · ssim_M^{w_M} (Wang, Simoncelli & Bovik 2003, eq. 7), in float64.

    Luminance counts at the coarsest scale alone, within the mean over windows (the authors' code; the paper has a product of
    two means). The window is Gaussian, σ = 1.5 and 11 pixels across, without padding; a
    scale halves the image by the mean of 2×2 pixels. Five scales need 176 pixels: smaller images take as many as keep the
    coarsest at least as large as the window, with weights that are brought to sum to one (28 pixels: two scales; under 11:
    one, with the largest odd window that fits). A contrast-structure term under zero counts as zero, since no real power
    of it exists. Of colour images, the channels' values are averaged.

    Args:
        one, other: (N, C, H, W), uint8 or in [0, 1].

    Returns:
        (N,) float64, 1 for equal images.

    Raises:
        ShapeError: the images have different shapes, or are no images.
    """
    a, b = _pairs(one, other)
    scales, window = _scales(a)
    return torch.cat([_ms_ssim(x, y, scales, window) for x, y in zip(_parts(a), _parts(b), strict=True)])


def ssim(one: Tensor | np.ndarray, other: Tensor | np.ndarray) -> Tensor:
    """Structural similarity of pairs of images at their own size: the mean over windows and channels (Wang et al. 2004, eq. 13).

    Args:
        one, other: images as for `ms_ssim`.

    Returns:
        (N,) float64 in [-1, 1], 1 for equal images.

    Raises:
        ShapeError: the images have different shapes, or are no images.
    """
    a, b = _pairs(one, other)
    window = _scales(a)[1]
    return torch.cat([_ssim(x, y, window) for x, y in zip(_parts(a), _parts(b), strict=True)])


def _pairs(one: Tensor | np.ndarray, other: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    a, b = _images(one), _images(other)
    if a.shape != b.shape:
        raise ShapeError(f"expected pairs of images of one shape, got {tuple(a.shape)} and {tuple(b.shape)}.")
    return a, b


def _ssim(a: Tensor, b: Tensor, window: int) -> Tensor:
    luminance, structure = _ssim_parts(images.to_float(a).double(), images.to_float(b).double(), window)
    return (luminance * structure).flatten(1).mean(1)


def _parts(batch: Tensor) -> tuple[Tensor, ...]:
    return batch.tensor_split(max(1, -(-len(batch) // PAIRS)))


def _ms_ssim(a: Tensor, b: Tensor, scales: int, window: int) -> Tensor:
    a, b = images.to_float(a).double(), images.to_float(b).double()
    weights = torch.tensor(WEIGHTS[:scales], dtype=torch.float64)
    similarity = torch.ones(a.shape[:2], dtype=torch.float64)
    for scale, weight in enumerate(weights / weights.sum()):
        luminance, structure = _ssim_parts(a, b, window)
        term = luminance * structure if scale == scales - 1 else structure
        similarity = similarity * term.flatten(2).mean(2).clamp(min=0) ** weight
        a, b = F.avg_pool2d(a, 2) if scale < scales - 1 else a, F.avg_pool2d(b, 2) if scale < scales - 1 else b
    return similarity.mean(1)


def _ssim_parts(a: Tensor, b: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure of every window: Wang et al. (2004, eqs. 6 and 12, with C₃ = C₂/2)."""
    mean_a, mean_b = _blur(a, window), _blur(b, window)
    var_a, var_b = _blur(a * a, window) - mean_a**2, _blur(b * b, window) - mean_b**2
    covariance = _blur(a * b, window) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (var_a + var_b + C2)


def _blur(batch: Tensor, window: int) -> Tensor:
    """Convolve (N, C, H, W) with the Gaussian window, where it fits."""
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = batch.flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(flat, kernel), kernel.mT)
    return blurred.view(*batch.shape[:2], *blurred.shape[2:])


def _scales(batch: Tensor) -> tuple[int, int]:
    """How many scales images allow, and the window."""
    smallest = min(batch.shape[2:])
    window = min(WINDOW, smallest - 1 + smallest % 2)
    scales = 1
    while scales < len(WEIGHTS) and smallest // 2**scales >= WINDOW:
        scales += 1
    return scales, window


def _images(items: Tensor | np.ndarray) -> Tensor:
    batch = torch.as_tensor(items).detach().cpu()
    if batch.ndim != 4:
        raise ShapeError(f"structural similarity is of images (N, C, H, W), got {tuple(batch.shape)}.")
    return batch
