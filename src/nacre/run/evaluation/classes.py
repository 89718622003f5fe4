"""Rows of what samples show: modes that are known, and classes that a referee tells."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nacre import images
from nacre.data.toys import MIXTURES, Mixture
from nacre.engine import sampling
from nacre.metrics import classifiers, points
from nacre.metrics.class_modes import class_modes, stacked_classes
from nacre.metrics.intervals import Estimate, jackknife, mean, share
from nacre.metrics.modes import HIGH_QUALITY, modes
from nacre.protocols import Samples
from nacre.run.evaluation.rows import Better, Row, joined
from nacre.run.evaluation.subject import Subject

GROUP = "What samples show"

GROUPS = 10
"""Of the jackknife."""

SURE = 0.9
"""Accuracy of the referee under which a caution comes with what it tells."""

STACKED = 1_000
"""Modes of stacked MNIST."""


def mode_rows(subject: Subject) -> Iterator[Row]:
    """How samples cover the modes of a mixture whose modes are known."""
    head, _, name = subject.dataset.source.partition(":")
    if head != "toy" or name not in MIXTURES:
        return
    mixture = MIXTURES[name]
    found, floor = (_modes(each, mixture, subject.seed) for each in (subject.samples, subject.stand_ins))
    rule = f"high quality is within {HIGH_QUALITY:g} standard deviations of a mode"
    told: dict[str, tuple[str, str, Better]] = {
        "captured": ("Modes captured", f"of {len(mixture.centers)}, by one sample of high quality or more; {rule}", "higher"),
        "high_quality": ("Samples of high quality", rule, "higher"),
        "reverse_kl": ("Modes: reverse KL, nats", "of the modes' shares among samples of high quality from equal ones", "lower"),
        "spread": ("Modes: spread", "median distance to the nearest mode over the mixture's own; under 1 is too narrow", "floor"),
    }  # fmt: skip
    for part, (title, words, better) in told.items():
        protocol = f"{words}; {subject.count:,} samples (seed {subject.seed}), jackknife over {GROUPS} groups; "
        yield Row(title, found[part], floor[part], better, protocol + f"{subject.floor_words}.", subject.caution, GROUP)


def _modes(samples: Tensor, mixture: Mixture, seed: int) -> Mapping[str, Estimate]:
    """What `modes` says, with intervals."""
    whole = modes(samples.numpy(), mixture.centers, mixture.sigma)
    group = points.groups(points.items(samples), GROUPS, seed)
    parts = [modes(samples[group != g].numpy(), mixture.centers, mixture.sigma) for g in range(GROUPS)]

    def estimate(name: str, most: float) -> Estimate:
        left_out = torch.tensor([float(getattr(part, name)) for part in parts], dtype=torch.float64)
        return jackknife(float(getattr(whole, name)), left_out, len(samples), 0.0, most)

    limits = {"captured": float(len(mixture.centers)), "reverse_kl": float("inf"), "spread": float("inf")}
    estimates = {name: estimate(name, most) for name, most in limits.items()}
    return estimates | {"high_quality": share(whole.high_quality * len(samples), len(samples))}


def class_rows(subject: Subject) -> Iterator[Row]:
    """How samples cover the classes of labelled images, and how sure a referee is of them."""
    if subject.stacked:
        yield from _stacked_rows(subject)
    if subject.referee is None:
        return
    made, real = (subject.referee.probabilities(each) for each in (subject.samples, subject.stand_ins))
    count = subject.referee.classes
    right = subject.referee.card.accuracy
    judge = f"by the referee {subject.referee.name}" + ("" if right is None else f" (test accuracy {right:.2%})")
    protocol = f"{subject.count:,} samples (seed {subject.seed}) {judge}; {subject.floor_words}."
    found, floor = (class_modes(each.argmax(1), count, seed=subject.seed) for each in (made, real))
    wrong = "" if right is None or right >= SURE else f"The referee is right on {right:.0%} of real items only."
    caution = joined(found.caution, wrong, subject.caution)
    captured, floor_captured = (_captured(each.argmax(1), count, subject.seed) for each in (made, real))
    words = f"of {count}, each by one sample or more, {protocol}"
    yield Row("Classes captured", captured, floor_captured, "higher", words, caution, GROUP)
    words = f"KL of the samples' classes from equal shares, {protocol}"
    yield Row("Classes: KL from uniform, nats", found.kl, floor.kl, "lower", words, caution, GROUP)
    sure, floor_sure = (mean(each.amax(1)) for each in (made, real))
    words = f"mean probability of the likeliest class, {protocol} Noise may have all of it."
    yield Row("Referee's confidence", sure, floor_sure, "higher", words, caution, GROUP)
    yield from _asked_rows(subject, made, judge)


def _stacked_rows(subject: Subject) -> Iterator[Row]:
    """Of stacked MNIST: the thousand modes, each plane told by the pinned classifier of single digits."""
    judge = classifiers.pinned("mnist")
    network: Any = judge.network
    sets = (subject.samples.cpu(), subject.stand_ins)
    told = [stacked_classes(network.logits, images.to_float(each)) for each in sets]
    found, floor = (class_modes(each, STACKED, seed=subject.seed) for each in told)
    captured, floor_captured = (_captured(each, STACKED, subject.seed) for each in told)
    protocol = (
        f"{subject.count:,} samples (seed {subject.seed}) by {judge.name}, plane by plane; {subject.floor_words}."
    )
    caution = joined(found.caution, subject.caution)
    words = f"of {STACKED:,}, each by one sample or more, {protocol}"
    yield Row("Classes captured", captured, floor_captured, "higher", words, caution, GROUP)
    words = f"KL of the samples' classes from equal shares, {protocol}"
    yield Row("Classes: KL from uniform, nats", found.kl, floor.kl, "lower", words, caution, GROUP)


def _asked_rows(subject: Subject, told: Tensor, judge: str) -> Iterator[Row]:
    """Of a conditional model: whether samples are of the class that was asked for."""
    module = subject.model.module
    if not isinstance(module, Samples) or "label" not in module.prior or subject.referee is None:
        return
    if getattr(module, "classes", 0) != subject.referee.classes:
        return
    asked = sampling.labels_of(module, range(subject.count), subject.seed)
    right = int((told.argmax(1) == asked).sum())
    labels = subject.labels(subject.held_out_rows)
    known = None if labels is None else torch.from_numpy(labels) >= 0
    floor = None
    if known is not None and labels is not None and known.any():
        of_real = subject.referee.probabilities(subject.held_out[known]).argmax(1)
        floor = share(int((of_real == torch.from_numpy(labels)[known]).sum()), int(known.sum()))
    words = (
        f"share of {subject.count:,} samples told to be of the class that was asked for, {judge}; floor: real items."
    )
    yield Row(
        "Samples of the class asked for", share(right, subject.count), floor, "higher", words, subject.caution, GROUP
    )


def _captured(labels: Tensor, classes: int, seed: int) -> Estimate:
    """Classes that any label names, with the jackknife's interval."""
    group = points.groups(labels[:, None].double(), GROUPS, seed)
    left_out = [float(len(set(labels[group != g].tolist()))) for g in range(GROUPS)]
    whole = float(len(set(labels.tolist())))
    return jackknife(whole, torch.tensor(left_out, dtype=torch.float64), len(labels), 0.0, float(classes))
