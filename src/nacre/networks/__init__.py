"""Backbones by shape: `encoder(shape, outputs)` and `decoder(inputs, shape)` choose one, or take its name."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import nn

from nacre.errors import ConfigError
from nacre.networks.dcgan import dcgan_decoder, dcgan_encoder
from nacre.networks.mlp import ACTIVATIONS, Activation, TiedDecoder, mlp, mlp_decoder, mlp_encoder
from nacre.networks.resnet import resnet_decoder, resnet_encoder

Shape: TypeAlias = tuple[int, ...]
"""(C, H, W) for images, (D,) for vectors."""

Norm: TypeAlias = Literal["batch", "layer", "none"]
Kind: TypeAlias = Literal["auto", "mlp", "conv", "resnet"]

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Kind",
    "Norm",
    "Shape",
    "TiedDecoder",
    "decoder",
    "encoder",
    "has_batch_norm",
    "is_image",
    "kind_for",
    "memory_format",
    "mlp",
]


def is_image(shape: Shape) -> bool:
    """Whether items of `shape` are images; the alternative is vectors."""
    return len(shape) == 3


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network's output for one item depends on the others in the batch while it is trained."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """How images lie in memory while a model trains: channels last, which convolutions like best, except for one thing.

    On a CPU torch (2.13) takes an instance norm, forwards and back, 13 to 32 times as long in bfloat16 and 2.5 to 7 times in
    float32 if channels are last (a Xeon, 16 to 64 pixels, 1 and 4 images); convolutions do not gain what that costs.
    """
    norms = (module for module in model.modules() if isinstance(module, nn.GroupNorm))
    slow = device.type == "cpu" and any(1 < norm.num_groups == norm.num_channels for norm in norms)
    return torch.contiguous_format if slow else torch.channels_last


def kind_for(shape: Shape, kind: Kind = "auto", smallest: int = 16) -> Literal["mlp", "conv", "resnet"]:
    """The backbone for items of `shape`: convolutions for images of `smallest` pixels and more, otherwise an MLP.

    Raises:
        ConfigError: convolutions were asked for where there is nothing to convolve over.
    """
    if kind in ("conv", "resnet") and (not is_image(shape) or min(shape[1:]) < 4):
        raise ConfigError(
            f"network '{kind}' needs images of at least 4×4 pixels, got items of shape {shape}; use 'mlp'."
        )
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
        kind: "mlp", "conv" (strided convolutions), "resnet" (residual blocks), or by shape.
        width: channels after the first convolution; of a resnet, at all sizes up to 32 pixels.
        hidden: sizes of the MLP's hidden layers.
        norm: what stands between the convolutions; "layer" or "none" for a critic under a gradient penalty.
        activation: of the MLP; the convolutional network uses LeakyReLU(.2), the residual one ReLU.
        bias: of the last layer; a critic of which only differences count has none.
    """
    chosen = kind_for(shape, kind)
    if chosen == "conv":
        return dcgan_encoder(shape, outputs, width=width, norm=norm, bias=bias)
    if chosen == "resnet":
        return resnet_encoder(shape, outputs, width=width, norm=norm, bias=bias)
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
    chosen = kind_for(shape, kind)
    if chosen == "conv":
        return dcgan_decoder(inputs, shape, width=width, norm=norm)
    if chosen == "resnet":
        return resnet_decoder(inputs, shape, width=width, norm=norm)
    return mlp_decoder(inputs, shape, hidden=hidden, activation=activation)
