"""A glance at samples while a model trains: a few numbers against fixed real items, each in a millisecond or so.

They are for following one run, not for comparing two: the items are few, and the space is a coarse one, in which noise and
fine strokes do not count and the kinds of items do. Images are made small, and what is left is put on its principal axes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nacre import seeds
from nacre.metrics import points

SMALL = 16
"""Pixels of an image's longer side, at most, for a glance."""

AXES = 32
"""Principal axes that are kept."""

KINDS = 32
"""Kinds of items, at most: k-means cells of the real ones."""

ONE_KIND = 0.1
"""Cells whose centres are nearer than this share of the data's spread are of one kind: a mode is not cut into pieces."""

MISSING = 0.2
"""A kind is lost where samples give it less than this share of what it has among real items."""

LEAST_OF_CLASS, LEAST_ITEMS = 0.02, 10
"""Share of the items that the rarest class has to have, so that ten of 512 samples are of it; and how many of them: a class
of fewer has no neighbourhood."""

NEIGHBORS = 5
"""Real items' balls reach to this neighbour, for coverage (Naeem et al. 2020)."""

DIRECTIONS = 64

FEW = 8
"""Held-out items under which there is nothing to compare with."""


class Reference:
    """Fixed real items that samples are held against.

    Args:
        train: (T, …) items that the model is trained on.
        held_out: (N, …) that it is not, `FEW` or more; `train` again where nothing was kept aside.
        labels: (T,) int64 of the training items, -1 where one is not known, if they have any: the samples' are then those
            of their nearest training items.
    """

    def __init__(self, train: Tensor, held_out: Tensor, labels: Tensor | None = None) -> None:
        small = [_small(each) for each in (train, held_out)]
        self.center = small[0].mean(0)
        self.axes = _axes(small[0] - self.center)
        self.train, self.held_out = ((each - self.center) @ self.axes for each in small)
        self.spread = _spread(self.train)
        self.centers = _cells(self.train.double(), min(KINDS, len(self.train) // 4 or 1))
        self.kind = _merged(self.centers, ONE_KIND * self.spread)
        self.expected = self._shares(self.train)
        self.labels = labels if labels is not None and _few_classes(labels) else None
        among = _apart(self.held_out, self.held_out)
        k = min(NEIGHBORS, len(self.held_out) - 1)
        self.radii = among.kthvalue(k + 1, dim=1).values
        self.among = among.fill_diagonal_(torch.inf)
        self.unseen = _apart(self.held_out, self.train).amin(1)
        flat = held_out.flatten(1)
        directions = seeds.noise(seeds.normal(flat.shape[1]), 0, "glance", rows=range(DIRECTIONS))
        self.directions = (directions / directions.norm(dim=1, keepdim=True)).T
        self.projected = (flat @ self.directions).sort(0).values
        self.scale = float((self.projected - self.projected.mean(0)).square().mean().sqrt()) or 1.0
        self.low, self.high, self.real = *_range(torch.cat([train, held_out])), held_out

    def place(self, samples: Tensor) -> Tensor:
        """Samples in the space of a glance: (M, …) ↦ (M, axes)."""
        return (_small(samples) - self.center) @ self.axes

    def shares(self, samples: Tensor) -> Tensor:
        """The share of samples in each kind: (M, …) ↦ (K,) float64."""
        return self._shares(self.place(samples))

    def bins(self, samples: Tensor) -> Tensor:
        """The share of samples in each class, told by the nearest training item, or in each kind without labels: float64."""
        if self.labels is None:
            return self.shares(samples)
        told = self.labels[_apart(self.place(samples), self.train).argmin(1)]
        return told[told >= 0].bincount(minlength=int(self.labels.max()) + 1).double() / max(1, len(told))

    def _shares(self, placed: Tensor) -> Tensor:
        kinds = self.kind[points.nearest_center(placed.double(), self.centers)]
        return kinds.bincount(minlength=int(self.kind.max()) + 1).double() / len(kinds)

    def lost(self, shares: Tensor) -> float:
        """The share of real items that are of kinds which samples hardly have."""
        return float(self.expected[shares < MISSING * self.expected].sum())

    def judge(self, samples: Tensor) -> dict[str, float]:
        """What a few samples (M, …) look like.

        Returns:
            lost: share of real items of kinds that samples hardly have; 0 for good samples, 1 - 1/kinds for one point.
            lost_classes: the same of the classes, where there are labels.
            diversity: spread of the samples over that of real items; 1 for good samples, 0 for one point.
            coverage: of held-out items' balls (Naeem et al. 2020); about .97 for good samples.
            nearest: median distance of samples to their nearest training item, over that of held-out items; 1 for good
                samples, 0 for copies.
            copies: share of samples nearer to a training item than 19 in 20 held-out items are; .05 for good samples.
            judge: accuracy with which 1-nearest-neighbour tells samples from held-out items, each left out in turn.
            distance: sliced Wasserstein distance, in standard deviations of the real items.
            outside: share of the samples' numbers that are beyond any real item's.
            unreached: share of the real items' numbers that are beyond any sample's.
            piled: share of the samples' numbers that are at the ends of their own range, less the same of real items.
        """
        placed = self.place(samples)
        to_real, (near, nearest) = _apart(self.held_out, placed), _apart(placed, self.train).min(1)
        count = min(len(placed), len(self.held_out))
        unseen = self.unseen.quantile(torch.tensor([0.05, 0.5]))
        return {
            "lost": self.lost(self.shares(samples)),
            **({} if self.labels is None else {"lost_classes": _lost_classes(self.labels, nearest)}),
            "diversity": _spread(placed) / (self.spread or 1.0),
            "coverage": float((to_real[:, :count].amin(1) < self.radii).double().mean()),
            "nearest": float(near.median() / unseen[1]) if unseen[1] > 0 else math.nan,
            "copies": float((near < unseen[0]).double().mean()),
            "judge": _one_neighbor(self.among[:count, :count], to_real[:count, :count], placed[:count]),
            "distance": self.distance(samples),
            **self.range(samples),
        }

    def distance(self, samples: Tensor) -> float:
        """Sliced Wasserstein distance in standard deviations of the real items."""
        own = (samples.flatten(1) @ self.directions).sort(0).values
        levels = (torch.arange(64) + 0.5) / 64
        return float((own.quantile(levels, 0) - self.projected.quantile(levels, 0)).abs().mean()) / self.scale

    def range(self, samples: Tensor) -> dict[str, float]:
        """How the samples' numbers lie to the range of the real ones, a channel or a dimension each for itself."""
        low, high = _range(samples)
        span, own = self.high - self.low, high - low
        slack = 0.05 * span if samples.ndim == 2 else 0.01 * span
        ours, theirs = _numbers(samples), _numbers(self.real)
        beyond = (ours < self.low - slack) | (ours > self.high + slack)
        missed = (theirs < low - slack) | (theirs > high + slack)
        piles = [
            (((x - at).abs() < 0.005 * width).double().mean(0)).sum()
            for x, width, ends in ((ours, own, (low, high)), (theirs, span, (self.low, self.high)))
            for at in ends
        ]
        channels = ours.shape[1]
        return {
            "outside": float(beyond.double().mean()),
            "unreached": float(missed.double().mean()),
            "piled": float(piles[0] + piles[1] - piles[2] - piles[3]) / channels,
        }


def _few_classes(labels: Tensor) -> bool:
    """Whether there are classes, and each is so frequent that some of a few hundred samples should be of it."""
    counts = labels[labels >= 0].bincount()
    return bool(len(counts) > 1 and counts[counts > 0].min() >= max(LEAST_ITEMS, LEAST_OF_CLASS * len(labels)))


def _lost_classes(labels: Tensor, nearest: Tensor) -> float:
    """The share of items of classes that hardly any of the items `nearest` is of."""
    known, got = labels[labels >= 0], labels[nearest]
    real = known.bincount().double() / len(known)
    shares = got[got >= 0].bincount(minlength=len(real)).double() / max(1, len(got))
    return float(real[shares < MISSING * real].sum())


def above(a: Tensor, b: Tensor) -> float:
    """P(a > b) + P(a = b)/2 for an a and a b drawn from two sets (N,) and (M,): 1/2 where they cannot be told apart."""
    own, others = a.double().sort().values, b.double()
    under, upto = (torch.searchsorted(own, others, right=right) for right in (False, True))
    return 1 - float((under + upto).double().mean()) / (2 * len(own))


def _small(items: Tensor) -> Tensor:
    """(N, …) float32 points; images of at most `SMALL` pixels."""
    items = items.float()
    if items.ndim == 4 and max(items.shape[2:]) > SMALL:
        height, width = (max(1, round(side * SMALL / max(items.shape[2:]))) for side in items.shape[2:])
        items = F.adaptive_avg_pool2d(items, (height, width))
    return items.flatten(1)


def _axes(centered: Tensor) -> Tensor:
    """(D, axes): the principal ones, all of them where there are few."""
    count, dims = centered.shape
    if dims <= AXES:
        return torch.eye(dims)
    wide = centered.double()
    if dims <= count:
        vectors = torch.linalg.eigh(wide.T @ wide).eigenvectors
    else:
        values, left = torch.linalg.eigh(wide @ wide.T)
        vectors = (wide.T @ left) / values.clamp(min=1e-12).sqrt()
    return vectors[:, -AXES:].flip(1).float()


def _cells(placed: Tensor, count: int) -> Tensor:
    """Centres of k-means from k-means++ (Arthur & Vassilvitskii 2007), which finds modes that lie apart: (K, D)."""
    generator = torch.Generator().manual_seed(0)
    chosen = [0]
    squared = (placed - placed[0]).square().sum(1)
    while len(chosen) < count and float(squared.max()) > 0:
        chosen.append(int(torch.multinomial(squared, 1, generator=generator)))
        squared = torch.minimum(squared, (placed - placed[chosen[-1]]).square().sum(1))
    centers = placed[chosen]
    for _ in range(10):
        labels = points.nearest_center(placed, centers)
        sums = torch.zeros_like(centers).index_add_(0, labels, placed)
        counts = labels.bincount(minlength=len(centers))[:, None]
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
    return centers


def _merged(centers: Tensor, near: float) -> Tensor:
    """The kind of each centre: the same for those that a chain of near ones joins. (K,) int64."""
    joined = _apart(centers, centers) <= near
    reach = torch.linalg.matrix_power(joined.double(), len(centers)) > 0
    return torch.unique(reach.double().argmax(1), return_inverse=True)[1]


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N, M), by the differences: out of a product of matrices, those of near points far from the origin are noise."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _spread(placed: Tensor) -> float:
    """Root of the total variance."""
    return float(placed.var(0, unbiased=False).sum().sqrt())


def _numbers(items: Tensor) -> Tensor:
    """A column for each channel of images, for each dimension of vectors."""
    return items.float().transpose(0, 1).flatten(1).T


def _range(items: Tensor) -> tuple[Tensor, Tensor]:
    numbers = _numbers(items)
    return numbers.amin(0), numbers.amax(0)


def _one_neighbor(among: Tensor, to_fake: Tensor, placed: Tensor) -> float:
    """The leave-one-out accuracy, ties between copies counting half."""
    own = _apart(placed, placed).fill_diagonal_(torch.inf)
    real = _nearer(among.amin(1), to_fake.amin(1))
    fake = _nearer(own.amin(1), to_fake.amin(0))
    return float(torch.cat([real, fake]).mean())


def _nearer(own: Tensor, other: Tensor) -> Tensor:
    return (own < other).double() + (own == other).double() / 2
