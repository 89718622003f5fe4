"""One number for "how good is it now", on items kept aside: it chooses the best checkpoint and is never trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nacre import images
from nacre.engine import sampling
from nacre.metrics.sliced import sliced_wasserstein
from nacre.protocols import LogLikelihood, Reconstructs, Samples

MOST = 2000
"""Held-out items that a validation looks at."""


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


def validate(model: nn.Module, items: np.ndarray, rows: np.ndarray) -> Score | None:
    """Judge a model by the best means that its capabilities allow; None if nothing was kept aside or nothing applies.

    A likelihood (bound) comes before a reconstruction error, and that before the distance of samples. A generator's
    own loss is never used: it says how the game stands, not how good the samples are.
    """
    if len(rows) < 2:
        return None
    held_out = images.to_float(torch.from_numpy(np.ascontiguousarray(items[rows[:MOST]])))
    if isinstance(model, LogLikelihood):
        value = sampling.log_likelihood(model, held_out).mean().item()
        return Score(f"{model.likelihood_name}, nats", value, True, len(held_out))
    if isinstance(model, Reconstructs):
        reconstructed = sampling.apply(model.reconstruct, held_out, model)
        return Score(
            "reconstruction error (mean squared, a number)", _mse(reconstructed, held_out), False, len(held_out)
        )
    if isinstance(model, Samples):
        distance = sliced_wasserstein(sampling.sample(model, len(held_out)).cpu(), held_out)
        return Score("sliced Wasserstein distance of samples", distance, False, len(held_out))
    return None


def _mse(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).square().mean().item()
