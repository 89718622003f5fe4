"""Features out of trained networks: what their layers see while they are asked for something."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from nacre.errors import CapabilityError
from nacre.protocols import Classifies, Discriminates, Encodes

Features: TypeAlias = Callable[[Tensor], list[Tensor]]
"""Items (N, *shape) ↦ activations (N, …), one tensor a layer."""

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)

VERBS = {
    "discriminator": ("realness", Discriminates),
    "classifier": ("classify", Classifies),
    "encoder": ("encode", Encodes),
}
"""Parts that have features, in the order in which they are preferred, and what makes a model use them."""


def features_of(model: nn.Module, part: str | None = None) -> Features:
    """What the layers of a model are given while it judges, classifies or encodes items; gradients flow through.

    Of every layer with weights but the first that is its input: convolutions' where there are several, otherwise all layers'.

    Args:
        model: in evaluation mode.
        part: "discriminator", "classifier" or "encoder"; by default the first of these that the model has.

    Raises:
        CapabilityError: the model has none.
    """
    able = [name for name, (_, protocol) in VERBS.items() if isinstance(model, protocol)]
    if not able or part not in (None, *able):
        has = f"has no {part}" if part else "has no discriminator, classifier or encoder"
        raise CapabilityError(f"{type(model).__name__} {has} to take features from; name a run that has.")
    look = seen_by(model, getattr(model, VERBS[part or able[0]][0]))

    def see(x: Tensor) -> list[Tensor]:
        inner = look(x)
        spatial = [each for each in inner if each.ndim == 4]
        return spatial if len(spatial) > 1 else inner or [x]

    return see


def seen_by(model: nn.Module, ask: Callable[[Tensor], object]) -> Features:
    """What each layer with weights but the first is given while `ask` is asked about items; gradients flow through.

    A judge of packs, or of every class in turn, may look at more rows than there are items: those layers are left out.
    """
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]

    def see(x: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []

        def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            seen.append(given[0])

        hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
        try:
            ask(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [each for each in seen[1:] if len(each) == len(x)]

    return see
