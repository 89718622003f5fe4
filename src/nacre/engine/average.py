"""The exponential moving average of the weights: what samples and results come from."""

import copy

import torch
from torch import Tensor, nn

from nacre import schedules
from nacre.networks import adversarial


class Average:
    """A copy of the model whose weights trail the model's.

    Floating-point buffers (a batch norm's running statistics) are averaged by the same rule, so that they fit the
    averaged weights; counters are copied. The singular vectors of spectral norms are neither: the mean of vectors that turn
    is too short, so they follow the averaged weights by power iterations of their own. With a decay of 0 the model itself is
    the average.

    Args:
        model: what is trained.
        decay: share of the old average that a step keeps, in the long run (see `schedules.average_decay`).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False) if decay else model
        pairs = list(zip(tensors(self.model), tensors(model), strict=True)) if decay else []
        self.spectral = list(adversarial.spectral_norms(self.model)) if decay else []
        vectors = {id(each) for _, norm in self.spectral for each in norm.buffers()}
        pairs = [pair for pair in pairs if id(pair[0]) not in vectors]
        self.moving = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights that step `step` has led to."""
        if self.moving:
            old, new = map(list, zip(*self.moving, strict=True))
            torch._foreach_lerp_(old, new, 1 - schedules.average_decay(self.decay, step))
            for layer, norm in self.spectral:
                norm.iterate(layer.original)
        for mine, theirs in self.copied:
            mine.copy_(theirs)


def tensors(model: nn.Module) -> list[Tensor]:
    """Parameters, detached, and buffers."""
    return [*(p.detach() for p in model.parameters()), *model.buffers()]
