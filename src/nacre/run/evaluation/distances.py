"""Rows of how far samples lie from real items, and of how they lie among them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nacre import images
from nacre.metrics import points, resizing
from nacre.metrics.distances import frechet_distance, kernel_distance
from nacre.metrics.diversity import diversity
from nacre.metrics.intervals import Estimate, jackknife
from nacre.metrics.manifolds import expected_coverage, manifolds
from nacre.metrics.sliced import sliced_wasserstein
from nacre.run.evaluation.rows import Better, Row, joined
from nacre.run.evaluation.subject import Subject

GROUP = "How near samples are to real items"

GROUPS = 10
"""Of the jackknife."""

SLICED_GROUPS, SLICED_SIDE = 5, 32
"""Of the sliced distance's jackknife; pixels of the longer side, to which larger images are brought for it."""


def frechet_rows(subject: Subject) -> Iterator[Row]:
    """The Fréchet distance."""

    def metric(real: Tensor, fake: Tensor) -> tuple[Estimate, str]:
        found = frechet_distance(real, fake, groups=GROUPS, seed=subject.seed)
        return found.value, found.caution

    yield _featured(subject, "Fréchet distance", metric, f"float64, jackknife over {GROUPS} groups")


def kernel_rows(subject: Subject) -> Iterator[Row]:
    """The kernel distance, which is unbiased: that of equal laws is zero on average."""

    def metric(real: Tensor, fake: Tensor) -> tuple[Estimate, str]:
        return kernel_distance(real, fake, groups=GROUPS, seed=subject.seed).value, ""

    kernel = "unbiased squared MMD of the whole sets, kernel (xᵀy/D + 1)³"
    yield _featured(subject, "Kernel distance", metric, f"{kernel}, jackknife over {GROUPS} groups")


def manifold_rows(subject: Subject) -> Iterator[Row]:
    """Precision, recall, density and coverage."""
    real, fake = subject.held_out_features, subject.sample_features
    found = manifolds(real, fake, groups=GROUPS, seed=subject.seed)
    floor = subject.floor(
        lambda a, b: manifolds(a, b, groups=GROUPS, seed=subject.seed), real, subject.stand_in_features
    )
    perfect = expected_coverage(found.n_real, found.n_fake, found.k)
    told = {
        "precision": ("Precision", "share of samples within a ball of a real item"),
        "recall": ("Recall", "share of real items within a ball of a sample"),
        "density": ("Density", "balls of real items that a sample lies in, over k; 1 for equal laws, more where samples crowd"),
        "coverage": ("Coverage", f"share of real items whose ball holds a sample; {perfect:.3f} expected for equal laws"),
    }  # fmt: skip
    for name, (title, words) in told.items():
        yield Row(
            title,
            getattr(found, name),
            getattr(floor.result, name),
            "floor" if name == "density" else "higher",
            f"{words}; balls reach to the {found.k}th neighbour; {subject.sizes} {subject.space}, jackknife over {GROUPS} "
            f"groups; {subject.floor_words}.",
            joined(found.caution, floor.caution, subject.caution),
            GROUP,
        )


def sliced_rows(subject: Subject) -> Iterator[Row]:
    """The sliced Wasserstein distance, of items as they are."""
    sets = [_reduced(each) for each in (subject.held_out, subject.samples, subject.stand_ins)]
    size = min(map(len, sets))

    def metric(real: Tensor, fake: Tensor) -> Estimate:
        count = min(len(real), len(fake))
        return jackknifed(
            lambda a, b: sliced_wasserstein(a, b, seed=subject.seed), real[:count], fake[:count], subject.seed
        )

    floor = subject.floor(metric, sets[0], sets[2])
    where = "on the numbers of an item"
    if subject.image:
        height, width = subject.dataset.shape[1:]
        reduced = max(height, width) > SLICED_SIDE
        where = f"on pixels in [0, 1]{f', images brought to {SLICED_SIDE} pixels' if reduced else ''}"
    yield Row(
        "Sliced Wasserstein distance",
        metric(sets[0][:size], sets[1][:size]),
        floor.result,
        "lower",
        f"mean over 256 random directions of the Wasserstein-1 distance, {subject.sizes} {where}, jackknife over "
        f"{SLICED_GROUPS} groups; {subject.floor_words}.",
        joined(floor.caution, subject.caution),
        GROUP,
    )


def diversity_rows(subject: Subject) -> Iterator[Row]:
    """How alike samples are to each other, beside how alike real items are."""
    if not subject.image:
        return
    found = diversity(subject.samples, seed=subject.seed)
    floor = diversity(subject.held_out, seed=subject.seed)
    yield Row(
        "Likeness of samples to each other (MS-SSIM)",
        found.similarity,
        floor.similarity,
        "floor",
        f"mean over {found.pairs:,} disjoint random pairs of {subject.count:,} samples (seed {subject.seed}), "
        f"{found.scales} scales, window {found.window}; floor: pairs of the {subject.split} items. More than the floor is "
        "collapse, less is noise.",
        subject.caution,
        GROUP,
    )


def jackknifed(statistic: Callable[[Tensor, Tensor], float], real: Tensor, fake: Tensor, seed: int) -> Estimate:
    """A statistic of two equally large sets with the jackknife's interval; the sets stay equally large."""
    groups = min(SLICED_GROUPS, len(real) // 2)
    order = [points.shuffled(points.items(each), seed) for each in (real, fake)]
    real, fake = (each[rows] for each, rows in zip((real, fake), order, strict=True))
    group = torch.arange(len(real)) % groups
    left_out = [statistic(real[group != g], fake[group != g]) for g in range(groups)]
    return jackknife(statistic(real, fake), torch.tensor(left_out, dtype=torch.float64), 2 * len(real), 0.0)


def _featured(
    subject: Subject,
    name: str,
    metric: Callable[[Tensor, Tensor], tuple[Estimate, str]],
    how: str,
    better: Better = "lower",
) -> Row:
    """A distance of features."""
    estimate, caution = metric(subject.held_out_features, subject.sample_features)
    floor = subject.floor(metric, subject.held_out_features, subject.stand_in_features)
    protocol = f"{subject.sizes} {subject.space}; {how}; {subject.floor_words}."
    return Row(
        name, estimate, floor.result[0], better, protocol, joined(caution, floor.caution, subject.caution), GROUP
    )


def _reduced(items: Tensor) -> Tensor:
    """Items as (N, D) float32, large images made smaller."""
    batch = images.to_float(items)
    if batch.ndim == 4:
        batch = resizing.smooth(batch, resizing.at_most((batch.shape[2], batch.shape[3]), SLICED_SIDE))
    return batch.flatten(1)
