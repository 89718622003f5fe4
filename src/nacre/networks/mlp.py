"""Multilayer perceptrons."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import nn


def mlp(sizes: tuple[int, ...], activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between them: (N, sizes[0]) ↦ (N, sizes[-1]).

    `bias` is the last layer's.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=bias))


def mlp_encoder(
    inputs: int, outputs: int, *, hidden: tuple[int, ...], activation: Callable[[], nn.Module], bias: bool
) -> nn.Sequential:
    """Items of any shape with `inputs` numbers, flattened: (N, …) ↦ (N, outputs)."""
    return nn.Sequential(nn.Flatten(), *mlp((inputs, *hidden, outputs), activation, bias))


def mlp_decoder(
    inputs: int, shape: tuple[int, ...], *, hidden: tuple[int, ...], activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """(N, inputs) ↦ (N, *shape); the hidden sizes are listed from the code outwards."""
    return nn.Sequential(*mlp((inputs, *hidden, math.prod(shape)), activation), nn.Unflatten(1, shape))
