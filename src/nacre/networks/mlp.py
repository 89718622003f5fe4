"""Multilayer perceptrons."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation: TypeAlias = Literal["relu", "tanh", "sigmoid", "elu", "linear"]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "linear": nn.Identity,
}
"""Activations by name."""


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


class TiedDecoder(nn.Module):
    """An MLP backwards, with its weights transposed and biases of its own: (N, outputs) ↦ (N, *shape).

    Args:
        layers: the linear layers of the encoder, from the data to the code; they stay the encoder's.
        shape: shape of an item.
        activation: between the layers.
    """

    def __init__(self, layers: list[nn.Linear], shape: tuple[int, ...], activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = tuple(layers[::-1])  # no ModuleList: the weights would be the decoder's as well
        self.shape, self.activation = shape, activation()
        self.biases = nn.ParameterList([torch.zeros(layer.in_features) for layer in self.layers])

    def forward(self, z: Tensor) -> Tensor:
        for index, (layer, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            z = F.linear(self.activation(z) if index else z, layer.weight.t(), bias)
        return z.reshape(-1, *self.shape)
