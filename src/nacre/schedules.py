"""Pure functions of the step: factors on the learning rate and in losses. There is no scheduler object to save or to lose."""

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor  # the command line reads this file and has no time for torch

Schedule: TypeAlias = Literal["constant", "linear", "cosine", "flat-linear"]


def factor(schedule: "Schedule | None", step: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate at `step` of `steps`: a linear warm-up, then the schedule down to zero.

    Args:
        schedule: "constant", or None, stays at 1; "linear" and "cosine" fall from 1 to 0 after the warm-up; "flat-linear"
            stays at 1 for half of what is left and falls linearly to 0 in the other half (Zhu et al. 2017).
        step: from 0.
        steps: length of the run.
        warmup: steps of linear warm-up, 0 for none.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "linear":
        return max(0.0, 1 - done)
    if schedule == "flat-linear":
        return min(1.0, max(0.0, 2 - 2 * done))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return 1.0


def average_decay(decay: float, step: int) -> float:
    """The decay of the weights' moving average at `step`: short memory at first, `decay` in the long run.

    min(decay, (1 + t) / (10 + t)), so that an average started at step 0 soon forgets the initial weights.
    """
    return min(decay, (1 + step) / (10 + step))


def kl_weight(index: "Tensor", warmup: int) -> "Tensor | float":
    """The factor on a VAE's KL at step `index`: from 0 to 1 in `warmup` steps, then 1. Sønderby et al. 2016.

    Args:
        index: the step from 0, a 0-d tensor.
        warmup: steps; 0 for a factor of 1 from the start.
    """
    return (index / warmup).clamp(max=1.0) if warmup else 1.0


def annealed(index: "Tensor", first: float, last: float, steps: int) -> "Tensor | float":
    """A weight at step `index`: from `first` to `last` along half a cosine in `steps` steps, then `last`.

    Args:
        index: the step from 0, a 0-d tensor.
        first: at step 0.
        last: from step `steps` on.
        steps: 0 for a weight that is `first` always.
    """
    if not steps:
        return first
    done = (index / steps).clamp(max=1.0)
    return last + (first - last) * 0.5 * (1 + (math.pi * done).cos())
