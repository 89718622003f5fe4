"""Distances of two sets of features: Fréchet (of which FID is one) and kernel (of which KID is one), in float64."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError, ShapeError
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, around, jackknife

DEGREE = 3
"""Of KID's polynomial kernel, (xᵀy/D + 1)³."""


@dataclass(frozen=True)
class Moments:
    """The number, mean and scatter of items: all that a Fréchet distance needs, gathered batch by batch or rank by rank.

    Attributes:
        count: items.
        mean: (D,) float64.
        scatter: (D, D) float64, Σ (x - mean)(x - mean)ᵀ.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, items: Tensor | np.ndarray) -> "Moments":
        """Of (N, …) items.

        Raises:
            ShapeError: there are none, or a value is no finite number.
        """
        values = points.items(items)
        mean = values.mean(0)
        centered = values - mean
        return cls(len(values), mean, centered.T @ centered)

    @classmethod
    def of_batches(cls, batches: Iterable[Tensor | np.ndarray]) -> "Moments":
        """Of all items of an iterable of batches, the same for every way to cut them.

        Raises:
            ShapeError: there are none, or a value is no finite number.
        """
        total: Moments | None = None
        for batch in batches:
            part = cls.of(batch)
            total = part if total is None else total + part
        if total is None:
            raise ShapeError("expected one or more batches, got none.")
        return total

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets together, without loss of digits (Chan, Golub & LeVeque 1979)."""
        count, shift = self.count + other.count, other.mean - self.mean
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        mean = self.mean + shift * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """(D, D), unbiased: over N - 1."""
        return self.scatter / (self.count - 1)


@dataclass(frozen=True)
class Frechet:
    """A Fréchet distance.

    Attributes:
        value: ‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), with the jackknife's interval. It is too large by about c/N: of two
            models, compare it at equal N, and with the floor at that N.
        means: its part ‖μ₁ - μ₂‖².
        covariances: the rest.
        n_real, n_fake: items.
        dim: D.
        caution: why the number should not be trusted, or "".
    """

    value: Estimate
    means: float
    covariances: float
    n_real: int
    n_fake: int
    dim: int
    caution: str


def frechet_distance(
    real: Tensor | np.ndarray, fake: Tensor | np.ndarray, *, groups: int = 10, seed: int = 0
) -> Frechet:
    """The Fréchet distance of two sets of features, each taken for Gaussian (Dowson & Landau 1982; Heusel et al. 2017).

    Args:
        real: (N, …), N ≥ 2.
        fake: (M, …), M ≥ 2.
        groups: of the jackknife, each costing as much as the distance; 0 for no interval.
        seed: of the groups.

    Raises:
        ShapeError: a set has fewer than two items, the items differ in size, or a value is no finite number.
    """
    real, fake = points.alike(real=real, fake=fake, least=2)
    groups = min(groups, len(real) // 2, len(fake) // 2)
    if groups < 2:
        return frechet_of_moments(Moments.of(real), Moments.of(fake))
    parts = [_parts(each, points.groups(each, groups, seed), groups) for each in (real, fake)]
    left_out = [sum(_terms(*(_sum(each, without=g) for each in parts))) for g in range(groups)]
    whole = frechet_of_moments(*map(_sum, parts))
    without = torch.tensor(left_out, dtype=torch.float64)
    return replace(whole, value=jackknife(whole.value.value, without, whole.value.n, least=0.0))


def frechet_of_moments(real: Moments, fake: Moments) -> Frechet:
    """As `frechet_distance`, of moments that were gathered elsewhere: without an interval.

    Raises:
        ShapeError: a set has fewer than two items, or the items differ in size.
    """
    if min(real.count, fake.count) < 2:
        raise ShapeError(f"a covariance needs two items at least, got {real.count} real and {fake.count} fake ones.")
    if real.mean.shape != fake.mean.shape:
        raise ShapeError(f"real items hold {len(real.mean)} numbers each and fake ones {len(fake.mean)}.")
    means, covariances = _terms(real, fake)
    dim, count = len(real.mean), min(real.count, fake.count)
    caution = ""
    if count <= dim:
        caution = (
            f"{count:,} items cannot fill the covariance of {dim:,} features: the distance is mostly an effect of N; "
            f"take more than {dim:,} items."
        )
    value = Estimate(means + covariances, math.nan, math.nan, math.nan, real.count + fake.count)
    return Frechet(value, means, covariances, real.count, fake.count, dim, caution)


def _terms(real: Moments, fake: Moments) -> tuple[float, float]:
    """‖μ₁ - μ₂‖² and Tr(Σ₁ + Σ₂) - 2 Tr (R₁ Σ₂ R₁)^½, where R₁² = Σ₁.

    The eigenvalues of the symmetric product R₁ Σ₂ R₁ = (R₂ R₁)ᵀ (R₂ R₁) are the squares of the singular values of R₂ R₁.
    These are right to the last digits even where a covariance is singular; `sqrtm` of Σ₁ Σ₂ (FID's code) is then complex.
    """
    product = _root(fake.covariance) @ _root(real.covariance)
    both = torch.linalg.svdvals(product).sum()
    trace = real.covariance.trace() + fake.covariance.trace()
    return float((real.mean - fake.mean).square().sum()), float(trace - 2 * both)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix; eigenvalues that rounding made negative are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _parts(values: Tensor, group: Tensor, groups: int) -> list[Moments]:
    return [Moments.of(values[group == number]) for number in range(groups)]


def _sum(parts: list[Moments], without: int = -1) -> Moments:
    first, *others = (part for number, part in enumerate(parts) if number != without)
    return sum(others, first)


@dataclass(frozen=True)
class Kernel:
    """A kernel distance: unbiased, so that it may be negative, and zero on average for equal laws.

    Attributes:
        value: the squared maximum mean discrepancy.
        n_real, n_fake: items.
        dim: D.
        subsets, subset_size: over which it was averaged; 0 where it is of the whole sets.
    """

    value: Estimate
    n_real: int
    n_fake: int
    dim: int
    subsets: int = 0
    subset_size: int = 0


def kernel_distance(real: Tensor | np.ndarray, fake: Tensor | np.ndarray, *, groups: int = 10, seed: int = 0) -> Kernel:
    """The squared MMD of two whole sets under the kernel (xᵀy/D + 1)³, by its unbiased U-statistic.

    Gretton et al. (2012, eq. 3), with the kernel of Bińkowski et al. (2018, section 4); the interval is the jackknife's,
    which costs nothing, since the sums over the kernel's matrix are kept by pair of groups.

    Args:
        real: (N, …), N ≥ 4.
        fake: (M, …), M ≥ 4.
        groups: of the jackknife; 0 for no interval.
        seed: of the groups.

    Raises:
        ShapeError: a set has fewer than four items, the items differ in size, or a value is no finite number.
    """
    real, fake = points.alike(real=real, fake=fake, least=4)
    groups = max(1, min(groups, len(real) // 2, len(fake) // 2))
    group, other = points.groups(real, groups, seed), points.groups(fake, groups, seed)
    sums = [
        _kernel_sums(real, real, group, group, groups),
        _kernel_sums(fake, fake, other, other, groups),
        _kernel_sums(real, fake, group, other, groups),
    ]
    sizes = [group.bincount(minlength=groups).double(), other.bincount(minlength=groups).double()]
    everything = torch.ones(groups, dtype=torch.float64)
    each = range(groups if groups > 1 else 0)
    left_out = [_u_statistic(sums, sizes, everything.index_fill(0, torch.tensor(g), 0)) for g in each]
    without = torch.tensor(left_out, dtype=torch.float64)
    estimate = jackknife(_u_statistic(sums, sizes, everything), without, len(real) + len(fake))
    return Kernel(estimate, len(real), len(fake), real.shape[1])


def kernel_distance_by_subsets(
    real: Tensor | np.ndarray, fake: Tensor | np.ndarray, *, subsets: int = 100, size: int = 1_000, seed: int = 0
) -> Kernel:
    """KID as it is published: the mean of `kernel_distance` over random subsets of either set (Bińkowski et al. 2018).

    What is published as ± is the standard deviation over subsets, or that over √subsets: the one is not the error of a
    mean, and the other takes subsets that share items for independent. The s.e. here is √(v b/n + sd²/subsets) with
    v = sd²/(1 - b/n), for subsets of b among n items, those of the smaller set (Politis & Romano 1994); none where b = n.

    Args:
        real: (N, …).
        fake: (M, …).
        subsets: how many.
        size: items of each; where a set has fewer, as many as it has.
        seed: of the subsets.

    Raises:
        ShapeError: a set has fewer than four items, the items differ in size, or a value is no finite number.
        ConfigError: fewer than two subsets, or of fewer than two items.
    """
    real, fake = points.alike(real=real, fake=fake, least=4)
    if subsets < 2 or size < 2:
        raise ConfigError(f"expected two or more subsets of two or more items, got {subsets} of {size}.")
    size = min(size, len(real), len(fake))
    generator = torch.Generator().manual_seed(seed)
    orders = [points.shuffled(each, seed) for each in (real, fake)]
    values = torch.empty(subsets, dtype=torch.float64)
    ones, sizes = torch.ones(1, dtype=torch.float64), torch.full((1,), float(size), dtype=torch.float64)
    group = torch.zeros(size, dtype=torch.int64)
    for number in range(subsets):
        a, b = (
            each[order[torch.randperm(len(each), generator=generator)[:size]]]
            for each, order in zip((real, fake), orders, strict=True)
        )
        sums = [_kernel_sums(one, two, group, group, 1) for one, two in ((a, a), (b, b), (a, b))]
        values[number] = _u_statistic(sums, [sizes, sizes], ones)
    part, variance = size / min(len(real), len(fake)), float(values.var())
    se = math.sqrt(variance * (part / (1 - part) + 1 / subsets)) if part < 1 else math.nan
    estimate = around(float(values.mean()), se, subsets - 1, len(real) + len(fake))
    return Kernel(estimate, len(real), len(fake), real.shape[1], subsets, size)


def _kernel_sums(a: Tensor, b: Tensor, group: Tensor, other: Tensor, groups: int) -> Tensor:
    """Σ k(x, y) by group of x and of y: (G, G); of one set with itself, without the pairs of an item and itself."""
    sums = torch.zeros(groups, groups, dtype=torch.float64)
    membership = torch.nn.functional.one_hot(other, groups).double()
    for rows in points.row_blocks(len(a), len(b)):
        kernel = _polynomial(a[rows] @ b.T, a.shape[1])
        if a is b:
            kernel[torch.arange(len(rows)), rows] = 0
        sums.index_add_(0, group[rows], kernel @ membership)
    return sums


def _polynomial(products: Tensor, dim: int) -> Tensor:
    return (products / dim + 1) ** DEGREE


def _u_statistic(sums: list[Tensor], sizes: list[Tensor], kept: Tensor) -> float:
    """The unbiased squared MMD of the groups where `kept` (G,) is one, from sums by pair of groups and sizes of groups."""
    n, m = (float(size @ kept) for size in sizes)
    within_real, within_fake, across = (float(kept @ each @ kept) for each in sums)
    return within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across / (n * m)
