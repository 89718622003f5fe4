"""What a model's own judge sees in an item: the activations between its layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nacre.editing.features import seen_by
from nacre.protocols import Discriminates


def sight(model: nn.Module) -> Callable[[Tensor], list[Tensor]] | None:
    """The activations of the model's judge: (N, *shape) ↦ one (N, F) a layer, from the data on; None if it has no judge.

    They are what each layer with weights but the first is given while the model tells the realness of items, so that a judge
    of any make can be read. Gradients flow through them.
    """
    if not isinstance(model, Discriminates):
        return None
    look = seen_by(model, model.realness)
    return lambda x: [layer.flatten(1) for layer in look(x)]


def difference(seen: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Squared difference of activations over the squares of the wanted ones, a mean over the layers: lists of (N, F) ↦ (N,)."""
    shares = [
        (one - other).square().mean(1) / other.square().mean(1).clamp(min=1e-8)
        for one, other in zip(seen, wanted, strict=True)
    ]
    return torch.stack(shares).mean(0)
