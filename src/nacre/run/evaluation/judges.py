"""Rows of whether anybody can tell samples from real items, and whether a game has reached its equilibrium."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre import images
from nacre.metrics import judges, points, resizing
from nacre.metrics.extractors import LONGEST
from nacre.metrics.intervals import Estimate, share
from nacre.metrics.twosample import (
    Classifier,
    Judge,
    NearestNeighbor,
    classifier_test,
    equilibrium,
    nearest_neighbor_test,
)
from nacre.protocols import Discriminates
from nacre.run.evaluation.rows import Row, joined
from nacre.run.evaluation.subject import Subject

GROUP = "Can a judge tell samples from real items?"

SPLITS, FLOOR_SPLITS = 5, 2

LARGE = 32
"""Pixels of the longer side; over these, the network's judging is dear."""

NETWORK_ITEMS, NETWORK_ITEMS_LARGE = 4_000, 2_000
"""Items of either set that the network is trained and tested on, half and half."""


@dataclass(frozen=True)
class Heard:
    """What an independent judge says: its name, its accuracy, and the number of test items that makes it certain."""

    name: str
    accuracy: float
    n: int


def judge_rows(subject: Subject, heard: list[Heard]) -> Iterator[Row]:
    """The three judges, whose words are noted in `heard`."""
    yield from _neighbor_rows(subject, heard)
    real, fake, spare = subject.held_out_features, subject.sample_features, subject.stand_in_features
    yield from _classifier_rows(
        subject, heard, "logistic regression", judges.logistic, (real, fake, spare), subject.space
    )
    if subject.image:
        sets, where = _for_network(subject)
        yield from _classifier_rows(subject, heard, "convolutional network", judges.convolutional, sets, where)


def _neighbor_rows(subject: Subject, heard: list[Heard]) -> Iterator[Row]:
    found = nearest_neighbor_test(subject.held_out_features, subject.sample_features)
    floor = subject.floor(nearest_neighbor_test, subject.held_out_features, subject.stand_in_features)
    accuracy = found.accuracy
    # The labels' permutations leave more room than coins would: as many items as would be as certain.
    n = int(1 / (2 * accuracy.se) ** 2) if accuracy.se > 0 else found.n_real + found.n_fake
    heard.append(Heard("the nearest neighbour", accuracy.value - found.expected + 0.5, n))
    yield Row(
        "Nearest neighbour: accuracy",
        accuracy,
        _neighbor(floor.result),
        "floor",
        f"leave-one-out 1-NN, {subject.sizes} {subject.space}; .5 where nobody can tell, under it where samples are copies of "
        f"real items; real items {found.real.value:.3f}, samples {found.fake.value:.3f}; p = {found.p_value:.2g} by the "
        f"permutations of the labels; {subject.floor_words}.",
        joined(floor.caution, subject.caution),
        GROUP,
    )


def _neighbor(found: NearestNeighbor) -> Estimate:
    return found.accuracy


def _classifier_rows(
    subject: Subject,
    heard: list[Heard],
    name: str,
    judge: Judge,
    sets: tuple[Tensor, Tensor, Tensor],
    where: str,
) -> Iterator[Row]:
    real, fake, spare = sets
    found = classifier_test(real, fake, judge, splits=SPLITS, seed=subject.seed)
    floor = subject.floor(
        lambda a, b: classifier_test(a, b, judge, splits=FLOOR_SPLITS, seed=subject.seed), real, spare
    )
    heard.append(Heard(name, found.accuracy.value, found.n_test))
    told = {
        "accuracy": (
            "accuracy",
            f"{found.threshold:.4f} is passed by 5 % of judges of equal laws; p = {found.p_value:.2g}",
        ),
        "auc": ("AUC", "chance that a real item gets the higher score"),
        "jsd_bound": ("bound on the JSD, nats", "max(0, log 2 - held-out cross-entropy), log 2 = .693 at most"),
    }
    for part, (title, words) in told.items():
        yield Row(
            f"{name[0].upper()}{name[1:]}: {title}",
            getattr(found, part),
            getattr(floor.result, part),
            "lower",
            f"{words}; trained on one half and tested on the other, {found.n_test:,} items, mean over {SPLITS} random "
            f"stratified halves of {len(fake):,} samples (seed {subject.seed}) and {len(real):,} {subject.split} items {where}; "
            f"{subject.floor_words}, {FLOOR_SPLITS} halves.",
            joined(_classifier(found), floor.caution, subject.caution),
            GROUP,
        )


def _classifier(found: Classifier) -> str:
    return found.caution[:1].upper() + found.caution[1:]


def _for_network(subject: Subject) -> tuple[tuple[Tensor, Tensor, Tensor], str]:
    """Some items of each set at a size that a small network can see, and what was done to them."""
    height, width = subject.dataset.shape[1:]
    large = max(height, width) > LARGE
    count = NETWORK_ITEMS_LARGE if large else NETWORK_ITEMS
    size = resizing.at_most((height, width), LONGEST)

    def some(items: Tensor) -> Tensor:
        chosen = items[points.shuffled(points.items(items), subject.seed)[:count]]
        return chosen if size == (height, width) else resizing.smooth(images.to_float(chosen), size)

    where = "on pixels of 256 levels" + ("" if size == (height, width) else f", brought to {size[0]}×{size[1]}")
    return (some(subject.held_out), some(subject.samples), some(subject.stand_ins)), where


def own_rows(subject: Subject, heard: list[Heard]) -> Iterator[tuple[Row, str]]:
    """The model's own discriminator, and the verdict on the game."""
    module = subject.model.module
    if not isinstance(module, Discriminates):
        return
    real, fake, spare = (
        subject.model.realness(images.to_float(each), batch_size=subject.batch_size).double()
        for each in (subject.held_out, subject.samples, subject.stand_ins)
    )
    logistic = bool(getattr(module, "logistic", False))
    how = "D(x) over one half is taken for real" if logistic else "over the threshold that parts the first halves best"
    accuracy, n = _accuracy(real, fake, logistic)
    floor, n_floor = _accuracy(real, spare, logistic)
    row = Row(
        "Its own discriminator: accuracy",
        share(accuracy * n, n),
        share(floor * n_floor, n_floor),
        "floor",
        f"{subject.sizes}; {how}. One half is equilibrium only if independent judges cannot tell either; "
        f"{subject.floor_words}.",
        subject.caution,
        GROUP,
    )
    verdict = equilibrium(accuracy, [(each.name, each.accuracy, each.n) for each in heard])
    reached = "Nash equilibrium: yes" if verdict.reached else "No Nash equilibrium"
    yield row, f"{reached}: {verdict.reason}"


def _accuracy(real: Tensor, fake: Tensor, logistic: bool) -> tuple[float, int]:
    """Share told right, both sets alike, and of how many: of logits over zero; of others, on the second halves."""
    level = torch.zeros((), dtype=torch.float64)
    if not logistic:
        # A folder's items come class by class: halves in that order would be of other classes.
        real, fake = (each[points.shuffled(each[:, None], seed)] for seed, each in enumerate((real, fake)))
        half = min(len(real), len(fake)) // 2
        level = _threshold(real[:half], fake[:half])
        real, fake = real[half:], fake[half:]
    right = [
        ((sign * (each - level) > 0).double() + (each == level) / 2).mean() for sign, each in ((1, real), (-1, fake))
    ]
    return float(sum(right)) / 2, len(real) + len(fake)


def _threshold(real: Tensor, fake: Tensor) -> Tensor:
    """The level over which most of the real items and fewest of the fakes lie."""
    levels = torch.cat([real, fake]).sort().values
    over = [1 - torch.searchsorted(each.sort().values, levels, right=True) / len(each) for each in (real, fake)]
    return levels[int((over[0] - over[1]).argmax())]
