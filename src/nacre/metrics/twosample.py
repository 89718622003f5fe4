"""Two-sample tests: can anybody tell samples from real items? In Nash equilibrium nobody can: accuracy is one half.

The judge must be independent: a GAN's own discriminator says one half when it has lost, and also when it never learned.
Three are named here and in `judges`: the nearest neighbour (`nearest_neighbor_test`), logistic regression on features and a
small convolutional network on pixels (`classifier_test`). `equilibrium` puts a judge's word and the discriminator's together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.errors import ConfigError, ShapeError
from nacre.metrics import points
from nacre.metrics.intervals import LEVEL, Estimate, around, cut, normal_quantile, normal_tail, share

HELD_OUT = 2_000
"""Items that a classifier is tested on, at least: its 95 % threshold is then .5184."""

OWN_TOLERANCE = 0.02
"""How far from one half a discriminator in equilibrium may be."""

Judge = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(training items, labels (N,) float64 with 1 for real, test items, seed) to logits (M,) that a test item is real."""


@dataclass(frozen=True)
class NearestNeighbor:
    """What the leave-one-out 1-NN classifier says.

    Attributes:
        accuracy: share of all items whose nearest other item is of their own set; among ties, the share that is. Over its
            expectation: the sets differ. Under it: fakes lie nearer to real items than these to each other, as copies do.
            Its interval is as wide as for equal laws.
        real, fake: the same of real items and of fakes; the set that crowds, as a collapsed one does, has the higher one.
            Their intervals are Wilson's, as if neighbours were independent.
        expected: of `accuracy`, where the laws are equal; one half but for counting oneself out.
        z: of the accuracy, by the exact mean and variance over all ways to hand out the labels.
        p_value: one-sided, that equal laws are told apart so well; by the normal law of z.
        p_copies: one-sided, that equal laws are told apart so badly.
        n_real, n_fake: items.
    """

    accuracy: Estimate
    real: Estimate
    fake: Estimate
    expected: float
    z: float
    p_value: float
    p_copies: float
    n_real: int
    n_fake: int


def nearest_neighbor_test(real: Tensor | np.ndarray, fake: Tensor | np.ndarray) -> NearestNeighbor:
    """The leave-one-out nearest-neighbour test (Lopez-Paz & Oquab 2017, section 2; Xu et al. 2018).

    Its p-value is that of Schilling (1986) and Henze (1988) for one neighbour: given the items, labels are exchangeable
    where the laws are equal. Items that neighbour each other make the binomial law, which is often quoted, wrong.

    Args:
        real: (N, …), N ≥ 2.
        fake: (M, …), M ≥ 2; as many as real ones, or the accuracy's expectation is far from one half.

    Raises:
        ShapeError: a set has fewer than two items, the items differ in size, or a value is no finite number.
    """
    real, fake = points.alike(real=real, fake=fake, least=2)
    n, m = len(real), len(fake)
    graph = _nearest(torch.cat([real, fake]), n)
    own = [float(graph.sizes[label] @ graph.seen(label)) for label in (0, 1)]
    mean, deviation = _permuted(graph, n, m)
    excess = own[0] + own[1] - mean
    z, se = excess / deviation if deviation > 0 else 0.0, deviation / (n + m)
    accuracy, half = sum(own) / (n + m), normal_quantile(0.5 + LEVEL / 2) * se
    return NearestNeighbor(
        accuracy=cut(Estimate(accuracy, se, accuracy - half, accuracy + half, n + m), 0.0, 1.0),
        real=share(own[0], n),
        fake=share(own[1], m),
        expected=mean / (n + m),
        z=z,
        p_value=normal_tail(z),
        p_copies=normal_tail(-z),
        n_real=n,
        n_fake=m,
    )


class _Graph(NamedTuple):
    """Which items are nearest to which, by place: copies share one, so that a thousand of them are no million of ties.

    Attributes:
        sizes: (2, U) float64, real items and fakes at each place.
        i, j: (P,), the items at place i are nearest to those at place j, each of these by `weight`: one over all of them.
            Items that have a copy are nearest to their copies: i = j.
        weight: (P,) float64.
    """

    sizes: Tensor
    i: Tensor
    j: Tensor
    weight: Tensor

    def sum_at(self, places: Tensor, values: Tensor) -> Tensor:
        """Sums of (P,) values by place: (U,)."""
        return torch.zeros(self.sizes.shape[1], dtype=torch.float64).index_add_(0, places, values)

    def seen(self, label: int) -> Tensor:
        """Share of the nearest of an item of set `label` at each place that are of its own set: (U,)."""
        return self.sum_at(self.i, self.weight * (self.sizes[label, self.j] - (self.i == self.j).double()))


def _nearest(pooled: Tensor, n: int) -> _Graph:
    """The graph of the nearest neighbours of n real items and the fakes that follow them."""
    first, place = points.places(pooled)
    labels = (torch.arange(len(pooled)) >= n).long()
    sizes = torch.zeros(2, len(first), dtype=torch.float64).index_put_(
        (labels, place), torch.tensor(1.0).double(), True
    )
    counts = sizes.sum(0)
    copied = (counts > 1).nonzero()[:, 0]
    i, j = _ties(pooled[first], counts == 1) if len(first) > 1 else (copied[:0], copied[:0])
    i, j = torch.cat([i, copied]), torch.cat([j, copied])
    graph = _Graph(sizes, i, j, counts[j] - (i == j).double())
    return graph._replace(weight=1 / graph.sum_at(i, graph.weight)[i])


def _ties(distinct: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Each of the wanted of distinct points with each other point that is nearest to it: indices (P,), (P,)."""
    pairs = []
    _, least = points.neighbors(distinct)
    for rows, squared, slack in points.distance_blocks(distinct, distinct):
        squared[torch.arange(len(rows)), rows] = torch.inf
        i, j = ((squared <= least[rows] + slack) & wanted[rows, None]).nonzero(as_tuple=True)
        tied = points.between(distinct, distinct, rows[i], j) == least[rows[i], 0]
        pairs.append((rows[i][tied], j[tied]))
    i, j = (torch.cat(each) for each in zip(*pairs, strict=True))
    return i, j


def _permuted(graph: _Graph, n: int, m: int) -> tuple[float, float]:
    """Mean and deviation of the number of items nearest to their own, over all ways to deal n and m labels out.

    With w_ab the weight of item b for a, A = w_ab + w_ba of an edge, S = Σ A, Q = Σ A² and R the sum over items of the
    squared sums of their edges: two edges are the same (Q), share an item (R - 2Q) or share none (S² - R + Q). The label
    is then one for 2 items, for 3, or for 2 and for 2, of which the chances are known.
    """
    total, sizes, same = n + m, graph.sizes.sum(0), graph.i == graph.j
    low, high = torch.minimum(graph.i, graph.j), torch.maximum(graph.i, graph.j)
    _, first, edge = np.unique((low * len(sizes) + high).numpy(), return_index=True, return_inverse=True)
    a = torch.from_numpy(edge).bincount(graph.weight * (1 + same))
    number = torch.where(same, sizes[low] * (sizes[low] - 1) / 2, sizes[low] * sizes[high])[first]
    degrees = 1 + graph.sum_at(graph.j, graph.weight * (sizes[graph.i] - same.double()))
    s, q, r = float(total), float(number @ a.square()), float(sizes @ degrees.square())
    two = (_falling(n, 2) + _falling(m, 2)) / _falling(total, 2)
    three = (_falling(n, 3) + _falling(m, 3)) / _falling(total, 3)
    pairs = (_falling(n, 4) + _falling(m, 4) + 2 * _falling(n, 2) * _falling(m, 2)) / _falling(total, 4)
    variance = two * q + three * (r - 2 * q) + pairs * (s * s - r + q) - (two * s) ** 2
    return two * s, math.sqrt(max(0.0, variance))


def _falling(count: int, factors: int) -> int:
    return math.prod(range(count, count - factors, -1))


@dataclass(frozen=True)
class Classifier:
    """What a trained classifier says of items that it has not seen.

    Attributes:
        accuracy: share told right, over `splits` random halves; the interval is Wilson's, of one half.
        auc: chance that a real item gets a higher score than a fake.
        jsd_bound: max(0, log 2 - held-out cross-entropy), nats: a lower bound on the Jensen-Shannon divergence, log 2 at
            most. Where the interval starts over zero, the sets differ.
        p_value: one-sided, that a judge of equal laws is so accurate: 1 - Φ((accuracy - ½) 2 √n_test).
        threshold: accuracy that such a judge passes with a chance of 5 %.
        n_test: items that each split tests on, both sets together.
        splits: how many halves.
        caution: why the numbers should not be trusted, or "".
    """

    accuracy: Estimate
    auc: Estimate
    jsd_bound: Estimate
    p_value: float
    threshold: float
    n_test: int
    splits: int
    caution: str


def classifier_test(
    real: Tensor | np.ndarray, fake: Tensor | np.ndarray, judge: Judge, *, splits: int = 5, seed: int = 0
) -> Classifier:
    """The classifier two-sample test (Lopez-Paz & Oquab 2017), averaged over random stratified halves.

    As many items of either set are taken, at random; half of each trains the judge, the other half tests it. Splits share
    items, so that the mean over them is no more certain than `summary` says.

    Args:
        real: (N, …), features or pixels as the judge wants them.
        fake: (M, …).
        judge: one of `judges`, or any other of its type.
        splits: random halves, 1 or more.
        seed: of the halves, and of the judge with the number of the split.

    Raises:
        ShapeError: a set has fewer than four items, the items differ in size, or a value is no finite number.
    """
    if splits < 1:
        raise ConfigError(f"splits must be 1 or more, got {splits}.")
    flat = points.alike(real=real, fake=fake, least=4)
    sets, orders = [torch.as_tensor(each) for each in (real, fake)], [points.shuffled(each, seed) for each in flat]
    half = min(len(real), len(fake)) // 2
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat_interleave(half)
    generator = torch.Generator().manual_seed(seed)
    logits = []
    for split in range(splits):
        chosen = [order[torch.randperm(len(order), generator=generator)[: 2 * half]] for order in orders]
        train, test = (torch.cat([s[c[part]] for s, c in zip(sets, chosen, strict=True)]) for part in _halves(half))
        logits.append(judge(train, labels, test, seed + split).double())
    return summary([(each[:half], each[half:]) for each in logits])


def _halves(half: int) -> tuple[slice, slice]:
    return slice(half), slice(half, None)


def summary(scores: Sequence[tuple[Tensor, Tensor]]) -> Classifier:
    """What held-out logits say: of real items (N,) and of fakes (M,), by split.

    The null law of an accuracy is N(½, 1/(4 n_test)); the mean over splits of one law, however much they depend on each
    other, varies no more than one of them, so that its p-value and intervals are at worst too cautious.
    """
    if not scores or any(min(map(len, pair)) < 2 for pair in scores):
        raise ShapeError("expected the scores of two or more real items and as many fakes, of one or more splits.")
    count = min(len(real) + len(fake) for real, fake in scores)
    accuracy = _average([_accuracy(*pair) for pair in scores])
    return Classifier(
        accuracy=share(accuracy * count, count),
        auc=cut(_pooled([_auc(*pair) for pair in scores], count), 0.0, 1.0),
        jsd_bound=_pooled([_jsd_bound(*pair) for pair in scores], count, least=0.0),
        p_value=normal_tail((accuracy - 0.5) * 2 * math.sqrt(count)),
        threshold=threshold(count),
        n_test=count,
        splits=len(scores),
        caution="" if count >= HELD_OUT else f"tested on {count:,} items; small differences need {HELD_OUT:,} or more.",
    )


def threshold(n_test: int) -> float:
    """The accuracy that a judge of equal laws passes with a chance of 1 - `LEVEL`: .5184 of 2,000 items."""
    return 0.5 + normal_quantile(LEVEL) / (2 * math.sqrt(n_test))


def _accuracy(real: Tensor, fake: Tensor) -> float:
    """Both sets count alike; a logit of zero is half right."""
    right = [
        ((sign * logits > 0).double() + (logits == 0).double() / 2).mean() for sign, logits in ((1, real), (-1, fake))
    ]
    return float(sum(right)) / 2


def _auc(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """The area under the curve and its variance (DeLong et al. 1988)."""
    over_fakes, over_reals = _below(real, fake), 1 - _below(fake, real)
    variance = over_fakes.var() / len(real) + over_reals.var() / len(fake)
    return float(over_fakes.mean()), float(variance)


def _below(scores: Tensor, others: Tensor) -> Tensor:
    """The share of `others` under each score, ties half: (N,) float64."""
    ordered = others.sort().values
    left, right = (torch.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (left + right).double() / (2 * len(others))


def _jsd_bound(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """log 2 + (E log D(x) + E log (1 - D(x'))) / 2 and its variance: Goodfellow et al. (2014, eq. 4 to 6), halved."""
    real, fake = F.logsigmoid(real), F.logsigmoid(-fake)
    variance = (real.var() / len(real) + fake.var() / len(fake)) / 4
    return math.log(2) + float(real.mean() + fake.mean()) / 2, float(variance)


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _pooled(parts: Sequence[tuple[float, float]], n: int, least: float = -math.inf) -> Estimate:
    """The mean over splits, as uncertain as one; nothing is under `least`."""
    value, variance = (_average(each) for each in zip(*parts, strict=True))
    return cut(around(value, math.sqrt(variance), n - 2, n), least)


@dataclass(frozen=True)
class Equilibrium:
    """Whether a game has ended where nobody can tell.

    Attributes:
        reached: all that was asked for holds.
        reason: a sentence with the numbers that decided.
    """

    reached: bool
    reason: str


def equilibrium(own_accuracy: float, judges: Sequence[tuple[str, float, int]]) -> Equilibrium:
    """The Nash equilibrium of a GAN, claimed only on two words.

    The game's own discriminator must score .50 ± .02 on held-out real items and new samples, and every independent judge must
    stay under its 95 % threshold: a discriminator that never learned also scores one half, but a judge is not fooled.

    Args:
        own_accuracy: of the game's discriminator on held-out items, in [0, 1].
        judges: of each its name, its accuracy, and the number of items that it was tested on. Fewer than `HELD_OUT` prove
            nothing for an equilibrium, and against it all the same where the judge passes the threshold of so few.
    """
    heard = [judge for judge in judges if judge[2] >= HELD_OUT]
    told = [judge for judge in judges if judge[2] > 0 and judge[1] >= threshold(judge[2])]
    if not heard and not told:
        most = max((n for _, _, n in judges), default=0)
        return Equilibrium(False, f"no independent judge was tested on {HELD_OUT:,} items or more (most: {most:,}).")
    if told:
        name, accuracy, n = max(told, key=lambda judge: judge[1] - threshold(judge[2]))
        return Equilibrium(
            False,
            f"{name} tells samples from real items: accuracy {accuracy:.4f}, threshold {threshold(n):.4f} of {n:,}.",
        )
    if abs(own_accuracy - 0.5) > OWN_TOLERANCE + 1e-12:
        return Equilibrium(False, f"the discriminator scores {own_accuracy:.3f} on held-out items, not .50 ± .02.")
    words = ", ".join(f"{name} {accuracy:.4f} < {threshold(n):.4f}" for name, accuracy, n in heard)
    return Equilibrium(
        True, f"the discriminator scores {own_accuracy:.3f} on held-out items, and judges cannot tell ({words})."
    )
