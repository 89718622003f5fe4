"""What a model's own judge sees in an item: the activations between its layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nacre.protocols import Discriminates

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def sight(model: nn.Module) -> Callable[[Tensor], list[Tensor]] | None:
    """The activations of the model's judge: (N, *shape) ↦ one (N, F) a layer, from the data on; None if it has no judge.

    They are what each layer with weights but the first is given while the model tells the realness of items, so that a judge
    of any make can be read. Gradients flow through them.
    """
    if not isinstance(model, Discriminates):
        return None
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]

    def see(x: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []

        def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            seen.append(given[0])

        hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
        try:
            model.realness(x)
        finally:
            for hook in hooks:
                hook.remove()
        # A judge of packs or of every class in turn may look at more rows than there are items.
        return [layer.flatten(1) for layer in seen[1:] if len(layer) == len(x)]

    return see


def difference(seen: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Squared difference of activations over the squares of the wanted ones, a mean over the layers: lists of (N, F) ↦ (N,)."""
    shares = [
        (one - other).square().mean(1) / other.square().mean(1).clamp(min=1e-8)
        for one, other in zip(seen, wanted, strict=True)
    ]
    return torch.stack(shares).mean(0)
