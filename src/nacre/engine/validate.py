"""One number for "how good is it now", on items kept aside: it chooses the best checkpoint and is never trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre import images, seeds
from nacre.engine import sampling
from nacre.engine.ranks import ALONE, Ranks
from nacre.metrics.sliced import sliced_wasserstein
from nacre.protocols import Classifies, LogLikelihood, Reconstructs, Samples, device_of

MOST, LEAST = 2000, 200
"""Held-out items that a validation looks at, and how many at least …"""

SAMPLES = 10_000
"""… where the bound takes several samples of each, and so many of all."""


@dataclass(frozen=True)
class Score:
    """A validation result.

    Attributes:
        name: what was measured, protocol included.
        value: the number.
        higher_is_better: which way is up.
        count: held-out items it was measured on.
    """

    name: str
    value: float
    higher_is_better: bool
    count: int

    def __str__(self) -> str:
        return f"{self.name} on {self.count:,} held-out items: {self.value:.5g}"

    def beats(self, value: float) -> bool:
        """Whether this score is better than `value`."""
        return self.value > value if self.higher_is_better else self.value < value


def score_of(state: Mapping[str, Any]) -> Score | None:
    """How a checkpoint was judged; None if it was not, or is of before that was kept."""
    found = state.get("score")
    return Score(**found) if found else None


def validate(
    model: nn.Module, items: np.ndarray, rows: np.ndarray, ranks: Ranks = ALONE, labels: np.ndarray | None = None
) -> Score | None:
    """Judge a model by the best means that its capabilities allow; None if nothing was kept aside or nothing applies.

    The accuracy of a classifier comes first, where held-out labels are known; then a likelihood (bound), which judges samples
    and reconstructions alike; then the distance of samples, also of models that reconstruct as well, for a reconstruction
    error says nothing of samples; and last that error. A generator's own loss is never used: it says how the game stands,
    not how good the samples are. Each rank does its part of the work and has the whole answer.
    """
    known = rows[labels[rows] >= 0] if labels is not None else rows[:0]
    if isinstance(model, Classifies) and labels is not None and len(known) > 1:
        return _accuracy(model, items, spread(known, MOST), labels, ranks)
    rows = spread(rows, min(MOST, max(LEAST, SAMPLES // int(getattr(model, "k_eval", 1)))))
    count, part = len(rows), ranks.part(len(rows))
    if count < 2:
        return None
    if isinstance(model, LogLikelihood):
        bounds = sampling.log_likelihood(model, floats(items, rows, part), first=part.start)
        value = _whole(bounds, count, model, ranks).mean().item()
        return Score(f"{model.likelihood_name}, nats", value, True, count)
    if isinstance(model, Samples):
        samples = sampling.sample(model, len(part), first=part.start).cpu()
        distance = sliced_wasserstein(_whole(samples, count, model, ranks), floats(items, rows, range(count)))
        return Score("sliced Wasserstein distance of samples", distance, False, count)
    if isinstance(model, Reconstructs):
        held_out = floats(items, rows, part)
        errors = (sampling.apply(model.reconstruct, held_out, model).double() - held_out.double()).square()
        value = _whole(errors.flatten(1).mean(1), count, model, ranks).mean().item()
        return Score("reconstruction error (mean squared, a number)", value, False, count)
    return None


def _accuracy(model: nn.Module, items: np.ndarray, rows: np.ndarray, labels: np.ndarray, ranks: Ranks) -> Score:
    """The share of items whose likeliest class is their own."""
    part = ranks.part(len(rows))
    chances = sampling.apply(model.classify, floats(items, rows, part), model)  # type: ignore[arg-type]
    right = chances.argmax(1) == torch.from_numpy(labels[rows[part.start : part.stop]])
    return Score("accuracy", _whole(right.double(), len(rows), model, ranks).mean().item(), True, len(rows))


def spread(rows: np.ndarray, most: int, *, shuffle: bool = False) -> np.ndarray:
    """At most so many rows, drawn from all of them, for a folder's images come class by class; always the same ones.

    Args:
        rows: to choose from.
        most: to choose.
        shuffle: put them in random order even if all are taken, so that the first few are such a choice as well.
    """
    return rows[seeds.permutation(0, 0, len(rows))[:most]] if shuffle or len(rows) > most else rows


def floats(items: np.ndarray, rows: np.ndarray, part: range) -> Tensor:
    """Some of the rows of the data as a float tensor."""
    chosen = rows[part.start : part.stop]
    return images.to_float(torch.from_numpy(np.ascontiguousarray(items[chosen])))


def _whole(part: Tensor, count: int, model: nn.Module, ranks: Ranks) -> Tensor:
    """All ranks' parts of a result, on the CPU."""
    return part.cpu() if ranks.size == 1 else ranks.gather(part.to(device_of(model)), count).cpu()
