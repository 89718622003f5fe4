"""How well a model translates between two kinds of images: its score on items kept aside, and pictures."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nacre import images
from nacre.engine import pictures, sampling
from nacre.engine.validate import Score
from nacre.metrics.sliced import sliced_wasserstein
from nacre.protocols import Translates

ON_A_PAGE = 16
"""Images of each side on a page of translations."""

MOST = 500
"""Held-out images of each side that a score is of."""

BACK = {"a2b": "b2a", "b2a": "a2b"}


def judged(model: Translates, a: np.ndarray, b: np.ndarray, paired: bool) -> Score | None:
    """A score on held-out images: the error against the true counterparts, or without these a distance of distributions.

    Args:
        a, b: (N, C, H, W) and (M, C', H, W) uint8, of either side; N = M if paired.
        paired: whether row i of one belongs to row i of the other.

    Returns:
        None if a side has fewer than two.
    """
    count = min(len(a), len(b))
    if count < 2:
        return None
    sides = {"a2b": images.to_float(torch.from_numpy(a)), "b2a": images.to_float(torch.from_numpy(b))}
    made = {direction: translated(model, sides[direction], direction) for direction in model.directions}
    if paired:
        error = (made["a2b"].double() - sides["b2a"].double()).abs().mean().item()
        return Score("mean absolute error of translations", error, False, len(a))
    # Of as many of either side: quantiles are compared one by one.
    apart = [sliced_wasserstein(made[each][:count], sides[BACK[each]][:count]) for each in model.directions]
    name = "sliced Wasserstein distance of translations, mean of the directions"
    return Score(name, sum(apart) / len(apart), False, 2 * count)


def pages(model: Translates, a: Tensor, b: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """For each direction a page of images and their translations; where the model goes back as well, the way back third.

    Args:
        a, b: some images of either side, float.
    """
    for direction in model.directions:
        x = (a if direction == "a2b" else b)[:ON_A_PAGE]
        if not len(x):
            continue
        shown = [x, translated(model, x, direction)]
        if BACK[direction] in model.directions:
            shown.append(translated(model, shown[1], BACK[direction]))
        channels = max(each.shape[1] for each in shown)
        row = torch.stack([each.expand(-1, channels, -1, -1) for each in shown], 1)
        yield direction, pictures.page(row.flatten(0, 1), columns=4 * len(shown))


def translated(model: Translates, x: Tensor, direction: str) -> Tensor:
    """Images of one side as the other's, in chunks, on the CPU."""
    return sampling.apply(lambda part: model.translate(part, direction), x, model, chunk=32)  # type: ignore[arg-type]
