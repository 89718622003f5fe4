"""What a metric says of real items against other real items, as many as there are samples: its floor.

No number of a sample means anything without it. Fréchet distances grow as N shrinks, coverage of perfect samples is under
one, and two parts of a data set may differ by themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ShapeError
from nacre.metrics import points

Result = TypeVar("Result")


@dataclass(frozen=True)
class Floor(Generic[Result]):
    """A metric of real against real.

    Attributes:
        result: what the metric says.
        n_real, n_fake: items that stood for the real ones and for samples.
        caution: how these numbers differ from those of the samples' own evaluation, or "".
    """

    result: Result
    n_real: int
    n_fake: int
    caution: str


def floor(
    metric: Callable[[Tensor, Tensor], Result],
    real: Tensor | np.ndarray,
    count: int,
    *,
    spare: Tensor | np.ndarray | None = None,
    seed: int = 0,
) -> Floor[Result]:
    """A metric of real items against `count` others, which stand for perfect samples.

    Args:
        metric: of (real, fake).
        real: (N, …), what samples are held against.
        count: samples that the metric is taken of.
        spare: (S, …) real items that are not among `real`, of which `count` at random stand for samples. Without, or where
            there are fewer, the perfect samples are taken out of `real`: half of it where `count` is more than that, which
            makes the floor one of fewer items; the caution says so.
        seed: of who is chosen; the order of the rows does not matter.

    Raises:
        ShapeError: there are fewer than two real items.
    """
    real = torch.as_tensor(real)
    if spare is not None and len(spare) >= count:
        others = torch.as_tensor(spare)
        chosen = others[points.shuffled(points.items(others), seed)[:count]]
        return Floor(metric(real, chosen), len(real), count, "")
    if len(real) < 2:
        raise ShapeError(f"a floor needs two real items at least, got {len(real)}.")
    order = points.shuffled(points.items(real), seed)
    taken = min(count, len(real) // 2)
    chosen, rest = real[order[:taken]], real[order[taken:]]
    return Floor(
        metric(rest, chosen),
        len(rest),
        taken,
        f"of {len(rest):,} real items against {taken:,}, not {len(real):,} against {count:,}: an upper bound of a distance.",
    )
