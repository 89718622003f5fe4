"""How well a model translates between two kinds of images: its score on items kept aside, and pictures."""

from collections.abc import Iterator

import torch
from torch import Tensor

from nacre.engine import sampling
from nacre.engine.validate import Score
from nacre.metrics.sliced import sliced_wasserstein
from nacre.protocols import Translates

ON_A_PAGE = 16
"""Images of each side on a page of translations."""


def judged(model: Translates, a: Tensor, b: Tensor, paired: bool) -> Score:
    """A score on held-out images: the error against the true counterparts, or without these a distance of distributions.

    Args:
        a, b: (N, C, H, W) and (M, C', H, W) in [0, 1], of either side; N = M if paired.
        paired: whether row i of one belongs to row i of the other.
    """
    made = {direction: translated(model, a if direction == "a2b" else b, direction) for direction in model.directions}
    if paired:
        errors = [(made["a2b"].double() - b.double()).abs().mean().item()]
        return Score("mean absolute error of translations", errors[0], False, len(a))
    real = {"a2b": b, "b2a": a}
    apart = [sliced_wasserstein(made[direction], real[direction]) for direction in model.directions]
    name = "sliced Wasserstein distance of translations, mean of the directions"
    return Score(name, sum(apart) / len(apart), False, len(a) + len(b))


def rows(model: Translates, a: Tensor, b: Tensor) -> Iterator[tuple[str, Tensor]]:
    """By direction, images and their translations in turn; in a model that also goes back, the way back third.

    Args:
        a, b: some images of either side, float.
    """
    for direction in model.directions:
        x = (a if direction == "a2b" else b)[:ON_A_PAGE]
        if not len(x):
            continue
        shown = [x, translated(model, x, direction)]
        back = {"a2b": "b2a", "b2a": "a2b"}[direction]
        if back in model.directions:
            shown.append(translated(model, shown[1], back))
        channels = max(each.shape[1] for each in shown)
        yield direction, torch.stack([each.expand(-1, channels, -1, -1) for each in shown], 1).flatten(0, 1)


def translated(model: Translates, x: Tensor, direction: str) -> Tensor:
    """Images of one side as the other's, in chunks, on the CPU."""
    return sampling.apply(lambda part: model.translate(part, direction), x, model, chunk=32)  # type: ignore[arg-type]
