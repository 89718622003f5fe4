"""Rows of whether samples copy the training set, and of whether that repeats itself."""

import math
from collections.abc import Iterator

from nacre.metrics.intervals import LEVEL, Estimate, normal_quantile, share
from nacre.metrics.memorization import Memorization, memorization, near_duplicates
from nacre.run.evaluation.rows import Row, joined
from nacre.run.evaluation.subject import LEAST, Subject

GROUP = "Does it copy the training set?"

PROBED = 10_000
"""Training items, at most, whose nearest other is looked for."""


def copying_rows(subject: Subject, pairs: list[Memorization]) -> Iterator[Row]:
    """How near samples lie to training items, against held-out items; the closest pairs are noted in `pairs`."""
    if not subject.own:
        return
    train, held_out = subject.train_features, subject.held_out_features
    found = memorization(subject.sample_features, held_out, train, seed=subject.seed)
    pairs.append(found)
    floor = None
    if len(subject.unseen_rows) >= LEAST:
        unseen = subject.features(subject.items(subject.unseen_rows))
        floor = memorization(unseen, held_out, train, seed=subject.seed)
    protocol = (
        f"{subject.sizes} and {found.n_train:,} training items {subject.space}, {found.cells[0]} of {found.cells[1]} cells"
        + (f"; floor: {floor.n:,} validation items in the samples' place" if floor else "")
    )
    caution = joined(found.caution, floor.caution if floor else "", subject.caution)
    yield Row(
        "Copying: C_T",
        _c_t(found),
        _c_t(floor) if floor else None,
        "floor",
        f"Meehan et al. 2020: under -3 samples copy, about 0 they are as new items are, over 3 they are farther off; "
        f"p = {found.p_value:.2g} that new items lie so near; {protocol}.",
        caution,
        GROUP,
    )
    yield Row(
        "Distance to the nearest training item, ratio",
        found.ratio,
        floor.ratio if floor else None,
        "floor",
        f"median of samples over that of held-out items, bootstrap; copies have 0; {protocol}.",
        caution,
        GROUP,
    )
    yield Row(
        "Samples nearer than 99 % of held-out items",
        _share(found),
        _share(floor) if floor else None,
        "lower",
        f"share of samples whose nearest training item is so near, .01 of perfect ones; {protocol}.",
        caution,
        GROUP,
    )


def duplicate_rows(subject: Subject) -> Iterator[Row]:
    """Training items whose nearest other is far nearer than is usual."""
    if not subject.own:
        return
    found = near_duplicates(subject.train_features, probed=PROBED, seed=subject.seed)
    yield Row(
        "Near duplicates within the training set",
        share(found.near, found.n),
        None,
        "lower",
        f"share of {found.n:,} training items with another of all {len(subject.train_rows):,} nearer than a quarter of the "
        f"median nearest distance, {found.exact:,} of them at distance zero; {subject.space}.",
        "",
        GROUP,
    )


def _c_t(found: Memorization) -> Estimate:
    """C_T with the standard deviation that it has where samples are as good as new items."""
    se = abs(found.c_t / found.z) if found.z and math.isfinite(found.z) else math.nan
    half = normal_quantile(0.5 + LEVEL / 2) * se
    return Estimate(found.c_t, se, found.c_t - half, found.c_t + half, found.n)


def _share(found: Memorization) -> Estimate:
    return share(found.copies * found.n, found.n)
