"""Densities in the plane whose every property is known: the ring, the grid and the Swiss roll.

Ring and grid are those of VEEGAN (Srivastava et al. 2017, 1705.07761) with the parameters of PacGAN's code; the Swiss
roll is that of WGAN-GP's toy script (1704.00028). The pearls, which are images, have a file of their own.
"""

from dataclasses import dataclass

import numpy as np

from nacre.data import pearls
from nacre.data.arrays import ArraySource, VectorSource
from nacre.data.dataset import Listing

COUNT = 100_000
SWISSROLL_NOISE, SWISSROLL_SCALE = 0.25, 7.5


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equal round Gaussians: `centers` (K, 2) float64, each with standard deviation `sigma` along either axis."""

    centers: np.ndarray
    sigma: float

    def sample(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`count` points, equally many from each mode (one more from the first if it does not divide).

        Returns:
            (count, 2) float32 and the (count,) int64 index of each point's mode.
        """
        modes = np.arange(count) % len(self.centers)
        points = self.centers[modes] + self.sigma * generator.standard_normal((count, 2))
        return points.astype(np.float32), modes.astype(np.int64)


def ring(count: int, radius: float, sigma: float) -> Mixture:
    """`count` modes evenly on a circle around the origin."""
    # arange, not linspace: its end point would be the first mode again.
    angles = 2 * np.pi * np.arange(count) / count
    return Mixture(radius * np.stack([np.cos(angles), np.sin(angles)], 1), sigma)


def grid(side: int, spacing: float, sigma: float) -> Mixture:
    """side × side modes on a square grid around the origin."""
    line = spacing * (np.arange(side) - (side - 1) / 2)
    return Mixture(np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2), sigma)


MIXTURES = {"ring8": ring(8, 1.0, 0.01), "grid25": grid(5, 2.0, 0.05)}
TOYS = (*MIXTURES, "swissroll", "pearls")


def swissroll(count: int, generator: np.random.RandomState) -> np.ndarray:
    """Two of the three coordinates of scikit-learn's `make_swiss_roll(noise=.25)`, divided by 7.5.

    The numbers are drawn in scikit-learn's order: equal generators give equal points, without its import of a second.

    Returns:
        (count, 2) float32.
    """
    turn = 1.5 * np.pi * (1 + 2 * generator.uniform(size=count))
    height = 21 * generator.uniform(size=count)
    roll = np.stack([turn * np.cos(turn), height, turn * np.sin(turn)])
    roll += SWISSROLL_NOISE * generator.standard_normal(size=(3, count))
    return (roll[[0, 2]].T / SWISSROLL_SCALE).astype(np.float32)


def open_toy(name: str, seed: int) -> VectorSource | ArraySource:
    """`COUNT` points of the toy density `name`, drawn from `seed`; labels are modes, where there are modes.

    Of "pearls", `pearls.COUNT` images, each with its radius and squareness as its caption.
    """
    if name == "pearls":
        images, parameters = pearls.pearls(pearls.COUNT, np.random.default_rng(seed))
        captions = tuple(f"radius {radius:.4f}, squareness {square:.4f}" for radius, square in parameters)
        listing = Listing(tuple(map(str, range(pearls.COUNT))), "digits", captions=captions)
        return ArraySource(listing, images[..., None])
    names = tuple(map(str, range(COUNT)))
    if name == "swissroll":
        return VectorSource(Listing(names, "vectors"), swissroll(COUNT, np.random.RandomState(seed)))
    mixture = MIXTURES[name]
    points, modes = mixture.sample(COUNT, np.random.default_rng(seed))
    classes = tuple(f"({x:.3g}, {y:.3g})" for x, y in mixture.centers.round(6) + 0.0)
    return VectorSource(Listing(names, "vectors", modes, classes), points)
