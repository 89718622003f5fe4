"""The residual networks of WGAN-GP (Gulrajani et al. 2017, appendix, CIFAR-10) for images of any size.

Pre-activation blocks of two 3×3 convolutions with ReLU. The decoder doubles the image from a grid whose shorter side is
at most 4: nearest neighbours before a block's first convolution. The encoder halves it one time less, by mean pooling
after a block's second convolution; its first block has no activation in front, and two blocks without pooling end it.
At 32×32 this is the paper's table, 4 → 32 and 32 → 8. Odd sizes are rounded up on the way down, and the same sizes are
met again on the way up.

The authors' code (`gan_cifar_resnet.py`) is followed in where a block doubles and pools, and in the initial weights.
Three things are not theirs. Convolutions have no bias where it would change nothing: in front of a batch norm, and in
shortcuts, whose block adds one already. Images over 32 pixels have fewer channels at the sizes above. And an encoder to
more than one number reads its whole last grid, for a mean over it forgets where things are.

The critic has no norm, as in the authors' CIFAR-10 networks, or the layer norm of their others.

Doubling and pooling are folded into the 3×3 convolution beside them. Each pair becomes one 4×4 convolution of stride 2,
with 4 products for each pixel of the larger image instead of 9. The parameters stay those of the 3×3 convolution.
"""

import math
from itertools import pairwise
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from nacre.networks.dcgan import norms, pyramid

FULL = 32
"""Up to this many pixels all sizes have the same number of channels; above, half of it at each doubling."""

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, "UpConv", "ConvDown", "Grid")


def resnet_encoder(
    shape: tuple[int, ...], outputs: int, *, width: int = 64, norm: str = "batch", bias: bool = True
) -> nn.Sequential:
    """The paper's critic, which has no norm, or with batch norm any encoder: (N, C, H, W) ↦ (N, outputs)."""
    sizes = pyramid(shape)
    sizes = sizes[: max(len(sizes) - 1, 2)]
    channels = [channels_at(size, width) for size in sizes]
    last = channels[-1]
    layers: list[nn.Module] = [down_block(shape[0], channels[0], channels[1], norm, first=True)]
    layers += [down_block(before, before, after, norm) for before, after in pairwise(channels[1:])]
    layers += [block(last, norm), block(last, norm), *activated(last, norm)]
    pool = [nn.AdaptiveAvgPool2d(1)] if outputs == 1 else []
    cells = 1 if pool else math.prod(sizes[-1])
    layers += [*pool, nn.Flatten(), glorot(nn.Linear(cells * last, outputs, bias=bias))]
    return nn.Sequential(*layers)


def resnet_decoder(inputs: int, shape: tuple[int, ...], *, width: int = 64, norm: str = "batch") -> nn.Sequential:
    """The paper's generator without its tanh: (N, inputs) ↦ (N, C, H, W)."""
    sizes = pyramid(shape)[::-1]
    channels = [channels_at(size, width) for size in sizes]
    layers: list[nn.Module] = [glorot(Grid(inputs, channels[0], sizes[0]))]
    for (before, after), size in zip(pairwise(channels), sizes[1:], strict=True):
        layers += [up_block(before, after, (size[0] % 2, size[1] % 2), norm)]
    layers += [*activated(channels[-1], norm), glorot(nn.Conv2d(channels[-1], shape[0], 3, padding=1))]
    return nn.Sequential(*layers)


def channels_at(size: tuple[int, int], width: int) -> int:
    """Channels of images of (height, width) `size`: `width` up to `FULL` pixels, half at each doubling above."""
    doublings = ((min(size) - 1) // FULL).bit_length()
    return max(width >> doublings, 1)


class Block(nn.Module):
    """A residual block: x ↦ shortcut(x) + branch(x)."""

    def __init__(self, branch: list[nn.Module], shortcut: list[nn.Module]) -> None:
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(*branch), nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def block(channels: int, norm: str) -> Block:
    """(N, channels, H, W) ↦ (N, channels, H, W)."""
    first, second = (he(nn.Conv2d(channels, channels, 3, padding=1, bias=norm != "batch")) for _ in range(2))
    return Block([*activated(channels, norm), first, *activated(channels, norm), second], [])


def up_block(inputs: int, outputs: int, crop: tuple[int, int], norm: str) -> Block:
    """(N, inputs, H, W) ↦ (N, outputs, 2 H - crop, 2 W - crop)."""
    doubling = he(UpConv(inputs, outputs, crop, bias=norm != "batch"))
    wide = he(nn.Conv2d(outputs, outputs, 3, padding=1, bias=norm != "batch"))
    # A 1×1 convolution and a repetition of pixels commute; in this order the convolution has a quarter to do.
    shortcut = [glorot(nn.Conv2d(inputs, outputs, 1, bias=False)), Double(crop)]
    return Block([*activated(inputs, norm), doubling, *activated(outputs, norm), wide], shortcut)


def down_block(inputs: int, hidden: int, outputs: int, norm: str, first: bool = False) -> Block:
    """(N, inputs, H, W) ↦ (N, outputs, ⌈H / 2⌉, ⌈W / 2⌉); the first one begins with images, which no ReLU should cut."""
    wide = he(nn.Conv2d(inputs, hidden, 3, padding=1, bias=norm != "batch"))
    halving = he(ConvDown(hidden, outputs, bias=norm != "batch"))
    # A 1×1 convolution and a mean commute, too.
    shortcut = [Halve(), glorot(nn.Conv2d(inputs, outputs, 1, bias=False))]
    return Block([*([] if first else activated(inputs, norm)), wide, *activated(hidden, norm), halving], shortcut)


def activated(channels: int, norm: str) -> list[nn.Module]:
    """What stands in front of a convolution."""
    return [*norms(norm, channels), nn.ReLU()]


class Grid(nn.Linear):
    """A linear layer onto an image of (height, width) `size`: (N, inputs) ↦ (N, channels, height, width)."""

    def __init__(self, inputs: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, channels * math.prod(size))
        self.grid = (*size, channels)

    def forward(self, x: Tensor) -> Tensor:
        # Channels last in memory: the convolutions that follow are faster so.
        return super().forward(x).view(-1, *self.grid).permute(0, 3, 1, 2)


class UpConv(nn.Conv2d):
    """Nearest neighbours doubled, then a 3×3 convolution: (N, inputs, H, W) ↦ (N, outputs, 2 H - crop, 2 W - crop).

    Computed as one transposed 4×4 convolution of stride 2, which is the same number, borders included: each tap of the
    3×3 kernel reads a pixel that two rows and two columns share, so the taps that read the same one are added.

    Args:
        crop: rows and columns, 0 or 1, left out at the top and at the left of the result.
    """

    def __init__(self, inputs: int, outputs: int, crop: tuple[int, int] = (0, 0), bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        # A transposed convolution turns its kernel around.
        kernel = boxed(self.weight.flip(2, 3)).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, 2, (1 + self.crop[0], 1 + self.crop[1]), self.crop)


class ConvDown(nn.Conv2d):
    """A 3×3 convolution, then means over 2×2: (N, inputs, H, W) ↦ (N, outputs, ⌈H / 2⌉, ⌈W / 2⌉).

    Computed as one 4×4 convolution of stride 2, which is the same number, borders included. An odd size is first made
    even by zeros at the top or at the left.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = boxed(self.weight) / 4
        return F.conv2d(x, kernel, self.bias, 2, (1 + x.shape[2] % 2, 1 + x.shape[3] % 2))


class Double(nn.Module):
    """Nearest neighbours: (N, C, H, W) ↦ (N, C, 2 H - crop, 2 W - crop), cropped as by `UpConv`."""

    def __init__(self, crop: tuple[int, int]) -> None:
        super().__init__()
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2)[:, :, self.crop[0] :, self.crop[1] :]


class Halve(nn.Module):
    """Means over 2×2: (N, C, H, W) ↦ (N, C, ⌈H / 2⌉, ⌈W / 2⌉), with zeros where `ConvDown` has them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2, padding=(x.shape[2] % 2, x.shape[3] % 2))


def boxed(kernel: Tensor) -> Tensor:
    """A kernel convolved with the 2×2 box of ones: (…, 3, 3) ↦ (…, 4, 4)."""
    padded = F.pad(kernel, (1, 1, 1, 1))
    rows = padded[..., 1:, :] + padded[..., :-1, :]
    return rows[..., 1:] + rows[..., :-1]


def he(layer: Layer) -> Layer:
    """Weights uniform with variance 4 / (fan in + fan out), biases zero: the code's `he_init`, inside blocks."""
    return initialised(layer, math.sqrt(2))


def glorot(layer: Layer) -> Layer:
    """Weights uniform with variance 2 / (fan in + fan out), biases zero: shortcuts, first and last layer in the code."""
    return initialised(layer, 1.0)


def initialised(layer: Layer, gain: float) -> Layer:
    """Glorot and Bengio's uniform weights times a gain."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
