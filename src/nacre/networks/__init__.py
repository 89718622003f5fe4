"""Backbones by shape: `encoder(shape, outputs)` and `decoder(inputs, shape)` choose one, or take its name."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import nn

from nacre.errors import ConfigError
from nacre.networks.dcgan import dcgan_decoder, dcgan_encoder
from nacre.networks.mlp import mlp, mlp_decoder, mlp_encoder

Shape: TypeAlias = tuple[int, ...]
"""(C, H, W) for images, (D,) for vectors."""

Norm: TypeAlias = Literal["batch", "none"]
Kind: TypeAlias = Literal["auto", "mlp", "conv"]

__all__ = ["Kind", "Norm", "Shape", "decoder", "encoder", "is_image", "kind_for", "mlp"]


def is_image(shape: Shape) -> bool:
    """Whether items of `shape` are images; the alternative is vectors."""
    return len(shape) == 3


def kind_for(shape: Shape, kind: Kind = "auto", smallest: int = 16) -> Literal["mlp", "conv"]:
    """The backbone for items of `shape`: convolutions for images of `smallest` pixels and more, otherwise an MLP.

    Raises:
        ConfigError: convolutions were asked for where there is nothing to convolve over.
    """
    if kind == "conv" and (not is_image(shape) or min(shape[1:]) < 4):
        raise ConfigError(f"network 'conv' needs images of at least 4×4 pixels, got items of shape {shape}; use 'mlp'.")
    if kind != "auto":
        return kind
    return "conv" if is_image(shape) and min(shape[1:]) >= smallest else "mlp"


def encoder(
    shape: Shape,
    outputs: int,
    *,
    kind: Kind = "auto",
    width: int = 64,
    hidden: tuple[int, ...] = (512, 512),
    norm: Norm = "batch",
    activation: Callable[[], nn.Module] = nn.ReLU,
    bias: bool = True,
) -> nn.Module:
    """A network from items of `shape` to `outputs` numbers: (N, *shape) ↦ (N, outputs).

    Args:
        kind: "mlp", "conv" (strided convolutions), or by shape.
        width: channels after the first convolution.
        hidden: sizes of the MLP's hidden layers.
        norm: what stands between the convolutions; "none" for a critic under a gradient penalty.
        activation: of the MLP; the convolutional network uses LeakyReLU(.2).
        bias: of the last layer; a critic of which only differences count has none.
    """
    if kind_for(shape, kind) == "conv":
        return dcgan_encoder(shape, outputs, width=width, norm=norm, bias=bias)
    return mlp_encoder(math.prod(shape), outputs, hidden=hidden, activation=activation, bias=bias)


def decoder(
    inputs: int,
    shape: Shape,
    *,
    kind: Kind = "auto",
    width: int = 64,
    hidden: tuple[int, ...] = (512, 512),
    norm: Norm = "batch",
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Module:
    """A network from `inputs` numbers to items of `shape`, without an output activation: (N, inputs) ↦ (N, *shape)."""
    if kind_for(shape, kind) == "conv":
        return dcgan_decoder(inputs, shape, width=width, norm=norm)
    return mlp_decoder(inputs, shape, hidden=hidden, activation=activation)
