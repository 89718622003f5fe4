"""Do samples copy the training set? They do where they lie nearer to it than new real items do."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, bootstrap, normal_tail

LEAST_IN_CELL = 10
"""Samples and held-out items that a cell must have, each, for the normal law of its U."""

NEAR = 0.25
"""Two training items are near-duplicates if they are nearer than this share of the median nearest distance."""


@dataclass(frozen=True)
class Memorization:
    """How near samples lie to the training set, against held-out items.

    Attributes:
        c_t: Meehan's statistic; under -3 samples copy, about 0 they are as new items are, over 3 they are farther off.
        z: c_t in its own standard deviations, those of an average over cells.
        p_value: one-sided, that samples as good as new items lie so near: Φ(z).
        ratio: median distance of samples to their nearest training items, over that of held-out items. Perfect samples
            have 1, copies 0, blurred or faulty ones more or less; NaN where held-out items are copies themselves.
        copies: share of samples nearer to the training set than 99 % of the held-out items are: .01 for perfect samples.
        cells: that were counted, of those there are.
        closest: (K, 2) int64, a sample and its training item, the closest pairs first.
        distances: (K,) float64, theirs.
        n, n_held_out, n_train: items.
        caution: why the numbers should not be trusted, or "".
    """

    c_t: float
    z: float
    p_value: float
    ratio: Estimate
    copies: float
    cells: tuple[int, int]
    closest: Tensor
    distances: Tensor
    n: int
    n_held_out: int
    n_train: int
    caution: str


def memorization(
    samples: Tensor | np.ndarray,
    held_out: Tensor | np.ndarray,
    train: Tensor | np.ndarray,
    *,
    cells: int | None = None,
    closest: int = 16,
    seed: int = 0,
) -> Memorization:
    """The data-copying test of Meehan, Chaudhuri & Dasgupta (2020): C_T = Σ_π P(π) Z_π / Σ_π P(π).

    Z_π is the standardized Mann-Whitney U of the distances of samples to their nearest training items against those of
    held-out items, in cell π of a k-means of the training set; P(π) is the share of held-out items in the cell. Cells with
    too few of either do not count. Distances are to the whole training set (the authors' code: to its part in the cell) and
    the variance of U is corrected for ties, without the code's continuity correction. Held-out items must be of the
    training set's law, and none of its items.

    Args:
        samples: (M, …), features or pixels.
        held_out: (N, …) real items that the model has not seen.
        train: (T, …), what it was trained on.
        cells: k-means cells; by default one for every 50 held-out items or samples, whichever are fewer, at most 20.
        closest: pairs to name.
        seed: of the cells and of the ratio's bootstrap; the order of the rows does not matter.

    Raises:
        ShapeError: a set is empty, the items differ in size, or a value is no finite number.
        ConfigError: fewer than one cell.
    """
    train, samples, held_out = points.alike(training=train, sampled=samples, unseen=held_out)
    count = cells if cells is not None else max(1, min(20, len(samples) // 50, len(held_out) // 50))
    if count < 1:
        raise ConfigError(f"cells must be 1 or more, got {count}.")
    (index, squared), (_, squared_held_out) = points.neighbors(samples, train), points.neighbors(held_out, train)
    near, near_held_out = squared[:, 0].sqrt(), squared_held_out[:, 0].sqrt()
    centers, _ = points.k_means(train, count, seed=seed)
    found = _cells(near, near_held_out, *(points.nearest_center(each, centers) for each in (samples, held_out)))
    weights, scores = found.T
    c_t = float(weights @ scores / weights.sum()) if len(found) else math.nan
    z = float(weights @ scores / weights.norm()) if len(found) else math.nan
    pairs = near.argsort(stable=True)[:closest]
    return Memorization(
        c_t=c_t,
        z=z,
        p_value=normal_tail(-z),
        ratio=bootstrap(_ratio, near, near_held_out, draws=500, seed=seed),
        copies=float((near < near_held_out.quantile(0.01)).double().mean()),
        cells=(len(found), len(centers)),
        closest=torch.stack([pairs, index[pairs, 0]], 1),
        distances=near[pairs],
        n=len(samples),
        n_held_out=len(held_out),
        n_train=len(train),
        caution=_caution(len(found), len(samples), len(held_out)),
    )


def _cells(near: Tensor, near_held_out: Tensor, cell: Tensor, cell_held_out: Tensor) -> Tensor:
    """(K, 2): share of the held-out items, and Z, of each cell that has enough of both."""
    found = []
    for number in range(int(cell.max()) + 1):
        own, new = near[cell == number], near_held_out[cell_held_out == number]
        if min(len(own), len(new)) >= LEAST_IN_CELL:
            found.append((len(new) / len(near_held_out), mann_whitney(own, new)))
    return torch.tensor(found, dtype=torch.float64).view(-1, 2)


def mann_whitney(a: Tensor, b: Tensor) -> float:
    """(U - nm/2) in standard deviations, U = #{a > b} + #{a = b}/2, ties taken into account (Mann & Whitney 1947)."""
    n, m = len(a), len(b)
    _, inverse, counts = np.unique(torch.cat([a, b]).numpy(), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse]
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    return (u - n * m / 2) / math.sqrt(variance) if variance > 0 else 0.0


def _ratio(near: Tensor, near_held_out: Tensor) -> float:
    """Of the medians."""
    return float(near.quantile(0.5) / near_held_out.quantile(0.5))


def _caution(cells: int, samples: int, held_out: int) -> str:
    if not cells:
        return (
            f"no cell has {LEAST_IN_CELL} samples and {LEAST_IN_CELL} held-out items ({samples:,} and {held_out:,} in all): "
            "take more, or fewer cells."
        )
    return ""


@dataclass(frozen=True)
class Duplicates:
    """Items of a set that come twice, or nearly.

    Attributes:
        exact: items that have an exact copy.
        near: items that have one nearer than `threshold`, exact copies counted in.
        threshold: `NEAR` of the median distance of an item that has no exact copy to its nearest other.
        pairs: (K, 2) int64, i < j, the closest pairs first.
        distances: (K,) float64, theirs.
        n: items that were looked at.
    """

    exact: int
    near: int
    threshold: float
    pairs: Tensor
    distances: Tensor
    n: int


def near_duplicates(
    train: Tensor | np.ndarray, *, near: float = NEAR, most: int = 100, probed: int | None = None, seed: int = 0
) -> Duplicates:
    """Items whose nearest other is far nearer than is usual: a model that copies them has not memorized them by itself.

    Args:
        train: (N, …), features or pixels, N ≥ 2.
        near: the share of the median nearest distance that is near.
        most: pairs to name.
        probed: items, drawn by the seed, whose nearest other of all is looked for; by default every one.
        seed: of that choice.

    Raises:
        ShapeError: there are fewer than two items, or a value is no finite number.
    """
    train = points.items(train, least=2)
    rows = torch.arange(len(train)) if probed is None else points.shuffled(train, seed)[:probed]
    other, distance = _nearest_other(train, rows)
    apart = distance[distance > 0]
    threshold = near * float(apart.quantile(0.5)) if len(apart) else 0.0
    is_near = (distance < threshold) | (distance == 0)
    own = is_near.nonzero()[:, 0]
    pairs = torch.stack([rows[own], other[own]], 1).sort(1).values
    pairs, first = _distinct(pairs)
    order = distance[own[first]].argsort(stable=True)[:most]
    return Duplicates(
        exact=int((distance == 0).sum()),
        near=int(is_near.sum()),
        threshold=threshold,
        pairs=pairs[order],
        distances=distance[own[first]][order],
        n=len(rows),
    )


def _nearest_other(train: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of some rows, the nearest other row, and its distance."""
    index, squared = points.neighbors(train[rows], train, count=2)
    # Where copies of an item come first, it may be itself that is missing.
    first = (index[:, 0] == rows).long()[:, None]
    return index.gather(1, first)[:, 0], squared.gather(1, first)[:, 0].sqrt()


def _distinct(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows, and where each is first."""
    rows, first = np.unique(pairs.numpy(), axis=0, return_index=True)
    return torch.from_numpy(rows), torch.from_numpy(first)
