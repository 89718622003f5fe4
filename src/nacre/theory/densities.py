"""Densities on the line and in the plane whose every property is known, in float64."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtr

from nacre.data.toys import MIXTURES
from nacre.errors import ConfigError

FENCES = np.array([0.0, 1.5, 4.0, 9.0])
"""Standard deviations from a Gaussian's mean at which panels of a quadrature meet; what lies beyond is under 1e-18."""


class Density(Protocol):
    """A density over `dim` dimensions."""

    @property
    def dim(self) -> int: ...

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p(x) in nats, -inf outside of the support: (N, dim) ↦ (N,)."""
        ...

    def edges(self, axis: int) -> np.ndarray:
        """Coordinates between which the density is smooth, from one end of its mass to the other, ascending."""
        ...

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, dim)."""
        ...


class OnTheLine(Density, Protocol):
    """A density over one dimension, with its distribution function."""

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """P(X ≤ x): (N,) ↦ (N,)."""
        ...


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A mixture of round Gaussians.

    Attributes:
        means: (K, D), D being 1 or 2.
        stds: (K,) positive, along every axis.
        weights: (K,) positive, of sum 1.
    """

    means: np.ndarray
    stds: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        """Refuse what is no density.

        Raises:
            ConfigError: sizes that do not fit together, or values that no density has.
        """
        count = len(self.means)
        if self.means.ndim != 2 or not self.stds.shape == self.weights.shape == (count,):
            raise ConfigError(
                f"a mixture takes means (K, D), and of standard deviations and weights (K,); got {self.means.shape}, "
                f"{self.stds.shape} and {self.weights.shape}."
            )
        if not ((self.stds > 0).all() and (self.weights > 0).all() and abs(self.weights.sum() - 1) < 1e-9):
            raise ConfigError("a mixture takes positive standard deviations, and positive weights of sum 1.")

    @property
    def dim(self) -> int:
        return int(self.means.shape[1])

    def log_density(self, x: np.ndarray) -> np.ndarray:
        scale = np.log(self.weights) - self.dim * (np.log(self.stds) + np.log(2 * np.pi) / 2)
        distance = sum(np.square(x[:, axis, None] - self.means[:, axis]) for axis in range(self.dim))
        each = scale - distance / (2 * np.square(self.stds))
        largest = each.max(1)
        return largest + np.log(np.exp(each - largest[:, None]).sum(1))

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """P(X ≤ x) on the line: (N,) ↦ (N,)."""
        return ndtr((x[:, None] - self.means[:, 0]) / self.stds) @ self.weights

    def edges(self, axis: int) -> np.ndarray:
        offsets = np.concatenate([-FENCES[:0:-1], FENCES])
        return np.unique(self.means[:, axis, None] + self.stds[:, None] * offsets)

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        modes = generator.choice(len(self.means), count, p=self.weights)
        return self.means[modes] + self.stds[modes, None] * generator.standard_normal((count, self.dim))

    def seen_through(self, width: float) -> "Gaussians":
        """The density of x + `width` ε, ε standard normal: this one as a round Gaussian kernel blurs it."""
        return Gaussians(self.means, np.hypot(self.stds, width), self.weights)


@dataclass(frozen=True)
class Uniform:
    """The uniform density on an interval: what has a support with an end.

    Attributes:
        low, high: its ends.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an interval without length. Raises ConfigError."""
        if not self.low < self.high:
            raise ConfigError(f"an interval's low end must be below its high end, got {self.low:g} and {self.high:g}.")

    @property
    def dim(self) -> int:
        return 1

    def log_density(self, x: np.ndarray) -> np.ndarray:
        inside = (x[:, 0] >= self.low) & (x[:, 0] < self.high)
        return np.where(inside, -np.log(self.high - self.low), -np.inf)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """P(X ≤ x): (N,) ↦ (N,)."""
        return np.clip((x - self.low) / (self.high - self.low), 0, 1)

    def edges(self, axis: int) -> np.ndarray:
        return np.array([self.low, self.high])

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        return generator.uniform(self.low, self.high, (count, 1))


def normal(mean: float | tuple[float, ...] = 0.0, std: float = 1.0) -> Gaussians:
    """One round Gaussian, over as many dimensions as the mean has."""
    return Gaussians(np.atleast_2d(np.asarray(mean, np.float64)), np.array([float(std)]), np.ones(1))


def toy(name: str) -> Gaussians:
    """The density of the data source `toy:NAME`, where it is known: "ring8" or "grid25".

    Raises:
        ConfigError: it is not known.
    """
    if name not in MIXTURES:
        raise ConfigError(f"the density of '{name}' is not known; take one of {', '.join(MIXTURES)}.")
    mixture = MIXTURES[name]
    count = len(mixture.centers)
    return Gaussians(mixture.centers, np.full(count, mixture.sigma), np.full(count, 1 / count))
