"""Precision, recall, density and coverage: how samples lie among real items, by balls that reach to a k-th neighbour.

Precision and recall are those of Kynkäänniemi et al. (2019, eq. 1), density and coverage those of Naeem et al. (2020,
eqs. 3 to 5), in the features that are handed over. The paper of the former counts a point on the edge of a ball as inside
(≤), its code and that of the latter do not (<); the code is followed.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, jackknife, jackknifed_share

NEIGHBORS = 5

LEAST = 1_000
"""Items under which a caution comes with the numbers."""


@dataclass(frozen=True)
class Manifolds:
    """What each of the four says; the intervals are those of the jackknife over groups of both sets,
    Wilson's where a share is 0 or 1 in all of them.

    Attributes:
        precision: share of fakes within the ball of some real item: do samples look real?
        recall: share of real items within the ball of some fake: do samples look like all of them?
        density: real balls that a fake lies in, over k, on average; 1 for equal laws, more where samples crowd.
        coverage: share of real items whose own ball holds a fake; `expected_coverage` for equal laws.
        k: a ball reaches to the k-th nearest other item of its own set.
        n_real, n_fake: items. All four depend on them: compare at equal numbers only.
        caution: why the numbers should not be trusted, or "".
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    k: int
    n_real: int
    n_fake: int
    caution: str


def manifolds(
    real: Tensor | np.ndarray, fake: Tensor | np.ndarray, *, k: int = NEIGHBORS, groups: int = 10, seed: int = 0
) -> Manifolds:
    """Precision, recall, density and coverage of fake items against real ones, exactly, in bounded memory.

    Args:
        real: (N, …), features or pixels.
        fake: (M, …).
        k: neighbours that a ball reaches to; 3 in Kynkäänniemi et al., 5 in Naeem et al.
        groups: of the jackknife; 0 for no intervals.
        seed: of the groups.

    Raises:
        ConfigError: k is not from 1 to one under the number of items of either set.
        ShapeError: the sets do not hold items of the same size, or not numbers.
    """
    real, fake = points.alike(real=real, fake=fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ConfigError(
            f"the k-th neighbour must have a k from 1 to one under the number of items, got k = {k} "
            f"for {len(real):,} real and {len(fake):,} fake ones."
        )
    groups = groups if groups > 1 else 0
    real_balls, fake_balls = _balls(real, k, groups, seed), _balls(fake, k, groups, seed)
    holding, covered, recalled = _counts(real_balls, fake_balls)
    inside = (holding > 0).sum(1) / fake_balls.sizes
    recall = recalled.sum(1) / real_balls.sizes
    density = holding.sum(1) / (k * fake_balls.sizes)
    coverage = covered.sum(1) / real_balls.sizes
    return Manifolds(
        precision=jackknifed_share(float(inside[0]), inside[1:], len(fake)),
        recall=jackknifed_share(float(recall[0]), recall[1:], len(real)),
        density=jackknife(float(density[0]), density[1:], len(fake), 0.0),
        coverage=jackknifed_share(float(coverage[0]), coverage[1:], len(real)),
        k=k,
        n_real=len(real),
        n_fake=len(fake),
        caution=_caution(len(real), len(fake)),
    )


def expected_coverage(n_real: int, n_fake: int, k: int = NEIGHBORS) -> float:
    """Coverage of real items by as good ones: 1 - Π_{i<k} (N - 1 - i)/(N + M - 1 - i), in whatever space.

    A real item is not covered if its k nearest among the N + M - 1 others, exchangeable where the laws are equal, are real.
    """
    return 1 - math.prod((n_real - 1 - i) / (n_real + n_fake - 1 - i) for i in range(k))


class _Balls(NamedTuple):
    """A set of items and the balls around them. Row 0 of a tensor is of the whole set, row 1 + g of it without group g.

    Attributes:
        centers: (N, D).
        squared: (1 + G, N), squared radii.
        kept: (1 + G, N), which items there are.
        sizes: (1 + G,) float64, how many.
    """

    centers: Tensor
    squared: Tensor
    kept: Tensor
    sizes: Tensor


def _balls(centers: Tensor, k: int, groups: int, seed: int) -> _Balls:
    group = points.groups(centers, groups, seed)
    kept = torch.stack([group != row - 1 for row in range(1 + groups)])
    spare = k + 3 if groups else 0  # neighbours that may be left out with their group
    index, squared = points.neighbors(centers, count=min(k + spare, len(centers) - 1))
    places = (kept[:, index].cumsum(2) < k).sum(2).clamp(max=index.shape[1] - 1)
    return _Balls(centers, squared.gather(1, places.T).T, kept, kept.sum(1).double())


def _counts(real: _Balls, fake: _Balls) -> tuple[Tensor, Tensor, Tensor]:
    """Real balls that hold each fake (1 + G, M), real balls that hold one, and real items in a ball of a fake (1 + G, N)."""
    holding = torch.zeros(fake.kept.shape, dtype=torch.int64)
    covered, recalled = torch.zeros(real.kept.shape, dtype=torch.bool), torch.zeros(real.kept.shape, dtype=torch.bool)
    for block in points.distance_blocks(real.centers, fake.centers):
        i, j, squared = _near(block, real, fake, real.squared[:, block.rows, None])
        for row in range(len(holding)):
            inside = (squared < real.squared[row, i]) & real.kept[row, i] & fake.kept[row, j]
            holding[row] += j[inside].bincount(minlength=holding.shape[1])
            covered[row, i[inside]] = True
        i, j, squared = _near(block, real, fake, fake.squared[:, None])
        for row in range(len(holding)):
            inside = (squared < fake.squared[row, j]) & real.kept[row, i] & fake.kept[row, j]
            recalled[row, i[inside]] = True
    return holding, covered, recalled


def _near(block: points.Block, real: _Balls, fake: _Balls, radii: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of a real item and a fake nearer than the largest radius, and their squared distances, exact near the first.

    Args:
        radii: (1 + G, B, 1) of the block's real balls or (1 + G, 1, M) of the fake ones.
    """
    i, j = (block.squared < radii.amax(0) + block.slack).nonzero(as_tuple=True)
    rows, squared = block.rows[i], block.squared[i, j]
    tie = (squared - radii[0].expand_as(block.squared)[i, j]).abs() <= block.slack[i, 0]
    squared[tie] = points.between(real.centers, fake.centers, rows[tie], j[tie])
    return rows, j, squared


def _caution(n_real: int, n_fake: int) -> str:
    if n_real != n_fake:
        return (
            f"{n_real:,} real items against {n_fake:,} fakes: all four depend on both numbers, so take as many of each."
        )
    if n_real < LEAST:
        return (
            f"{n_real:,} items are few: balls are wide, and blurred or repeated samples pass; take {LEAST:,} or more."
        )
    return ""
