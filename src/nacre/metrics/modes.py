"""How well samples cover the modes of a known mixture in the plane.

The rules are VEEGAN's (Srivastava et al. 2017, section 4.1, and its code): a sample is of high quality within three standard
deviations of the mode nearest to it; a mode is captured if it is the nearest to a sample of high quality. The spread is
ours: high quality alone rewards samples that are too concentrated.
"""

import math
from dataclasses import dataclass

import numpy as np

HIGH_QUALITY = 3.0
"""Standard deviations; 98.89 % of the mixture's own samples are so near."""

MEDIAN_RADIUS = math.sqrt(2 * math.log(2))
"""Median distance from the centre of a standard normal in the plane, 1.1774."""


@dataclass(frozen=True)
class Modes:
    """What the samples cover.

    Attributes:
        captured: modes with at least one sample of high quality.
        of: modes in all.
        high_quality: share of samples within `HIGH_QUALITY` standard deviations of a mode, in [0, 1].
        reverse_kl: KL(shares of the modes among samples of high quality || uniform) in nats; a perfect sampler has about
            (modes - 1) / (2 N).
        spread: median over samples of their distance to the nearest mode, as a multiple of the mixture's own.
        spreads: the same of each mode that is the nearest to any sample, smallest and largest.
    """

    captured: int
    of: int
    high_quality: float
    reverse_kl: float
    spread: float
    spreads: tuple[float, float]


def modes(samples: np.ndarray, centers: np.ndarray, sigma: float) -> Modes:
    """Judge samples of a mixture of equal round Gaussians.

    Args:
        samples: (N, 2).
        centers: (K, 2).
        sigma: standard deviation of each Gaussian along either axis.
    """
    distances = np.linalg.norm(samples[:, None].astype(np.float64) - centers, axis=2) / sigma
    nearest, radius = distances.argmin(1), distances.min(1)
    good = radius < HIGH_QUALITY
    counts = np.bincount(nearest[good], minlength=len(centers))
    shares = counts[counts > 0] / max(1, counts.sum())
    each = [float(np.median(radius[nearest == mode])) / MEDIAN_RADIUS for mode in np.unique(nearest)]
    return Modes(
        captured=int((counts > 0).sum()),
        of=len(centers),
        high_quality=float(good.mean()),
        reverse_kl=float((shares * np.log(shares * len(centers))).sum()) if len(shares) else math.inf,
        spread=float(np.median(radius)) / MEDIAN_RADIUS,
        spreads=(min(each), max(each)),
    )
