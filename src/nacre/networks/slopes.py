"""The slope of a piecewise linear network, as a chain of matrix products instead of a second backward pass."""

import torch
from torch import Tensor, nn


def has_chain(network: nn.Sequential) -> bool:
    """Whether a network is linear layers with a ReLU or leaky ReLU between them, after a flattening at most."""
    layers = list(network)[1:] if len(network) and isinstance(network[0], nn.Flatten) else list(network)
    linear, kinked = layers[::2], layers[1::2]
    return (
        len(linear) == len(kinked) + 1
        and all(type(layer) is nn.Linear for layer in linear)
        and all(_flat_slope(layer) is not None for layer in kinked)
    )


def by_chain(network: nn.Sequential, x: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Outputs of a network that `has_chain`, and the slope of one of them at each item: (N, …) ↦ (N, outputs), (N, …).

    Where f(x) = W_L a(W_{L-1} … a(W_1 x)), ∇f = w_Lᵀ A_{L-1} W_{L-1} … A_1 W_1, the A diagonal with the activations'
    derivatives: constants almost everywhere, so that the slope's own gradient goes to the weights alone. Autograd's second
    backward pass gives the same and takes longer.

    Args:
        x: (N, …).
        chosen: (N,) int64, the output whose slope is wanted; by default the first.
    """
    hidden, weights, kinks = x.detach(), [], []
    for layer in network:
        hidden = layer(hidden)
        if isinstance(layer, nn.Linear):
            weights.append(layer.weight)
        elif not isinstance(layer, nn.Flatten):
            flat = _flat_slope(layer)
            kinks.append(torch.where(hidden.detach() > 0, hidden.new_ones(()), hidden.new_full((), flat or 0.0)))
    last = weights.pop()
    slope = last[:1].expand(len(x), -1) if chosen is None else last[chosen]
    for weight, kink in zip(reversed(weights), reversed(kinks), strict=True):
        slope = (slope * kink) @ weight
    return hidden, slope.view_as(x)


def _flat_slope(layer: nn.Module) -> float | None:
    """The derivative of an activation under zero, if it is 1 above and keeps the sign, by which the two are told apart."""
    if isinstance(layer, nn.ReLU):
        return 0.0
    return layer.negative_slope if isinstance(layer, nn.LeakyReLU) and layer.negative_slope >= 0 else None
