"""The tree of generators and the judges of StackGAN-v2 (Zhang et al. 2018), for images of any size.

The authors' code (`model.py`) is followed: gated linear units, nearest neighbours and 3×3 convolutions, batch norm. What is
told at every pixel is convolved once for the inner pixels and once for each side and corner, which gives the same numbers.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.networks import Shape
from nacre.networks.dcgan import dcgan_encoder, pyramid
from nacre.networks.resnet import Grid, UpConv

SMALLEST = 16
"""Pixels of the shorter side of the first image, at least."""

MOST = 3
"""Images of growing size, in the paper."""


def scale_shapes(shape: Shape, scales: int | None = None) -> list[Shape]:
    """Shapes of the images that are made, the smallest first; by default up to three, none under 16 pixels."""
    sizes = pyramid(shape)
    fitting = [size for size in sizes if min(size) >= SMALLEST][:MOST] or sizes[:1]
    chosen = fitting if scales is None else sizes[:scales]
    return [(shape[0], *size) for size in reversed(chosen)]


class Gated(nn.Module):
    """Half of the channels, times the sigmoid of the others: (N, 2 C, …) ↦ (N, C, …). Dauphin et al. 2017."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=1)
        return value * torch.sigmoid(gate)


class Beside(nn.Conv2d):
    """A 3×3 convolution of features beside a code: (N, channels, H, W) and (N, told) ↦ (N, outputs, H, W), H, W ≥ 2.

    It is the convolution of both, the code standing at every pixel; yet all inner pixels hear the same of the code, and so do
    those of a side, so that its part is computed for nine pixels only.
    """

    def __init__(self, channels: int, told: int, outputs: int) -> None:
        super().__init__(channels + told, outputs, 3, padding=1, bias=False)
        self.channels = channels

    def forward(self, features: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        own, said = self.weight[:, : self.channels], self.weight[:, self.channels :]
        nine = F.conv2d(code[:, :, None, None].expand(-1, -1, 3, 3), said, padding=1)
        height, width = features.shape[2:]
        columns = spread(nine, 2, height)
        return F.conv2d(features, own, padding=1) + spread(columns, 3, width)


def spread(nine: Tensor, side: int, size: int) -> Tensor:
    """Three numbers along a side to `size`, the one in the middle repeated."""
    first, middle, last = (nine.narrow(side, at, 1) for at in range(3))
    shape = [-1, -1, -1, -1]
    shape[side] = size - 2
    return torch.cat([first, middle.expand(shape), last], side)


class Told(nn.Sequential):
    """Layers of which the first one is `Beside`: features and a code ↦ the last one's answer."""

    def forward(self, features: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        first, *others = self
        features = first(features, code)
        for layer in others:
            features = layer(features)
        return features


class Residual(nn.Module):
    """x + two 3×3 convolutions, the first one gated: (N, C, H, W) ↦ the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = [nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(2 * channels), Gated()]
        second = [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
        self.branch = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Tree(nn.Module):
    """A code ↦ images of growing size, each from the features of the one before.

    Args:
        inputs: size of the code.
        shapes: of the images, the smallest first.
        width: channels at the full size; twice as many at each halving, 16 times at most.
        blocks: residual blocks at each size after the first.
    """

    def __init__(self, inputs: int, shapes: list[Shape], *, width: int, blocks: int) -> None:
        super().__init__()
        sizes = pyramid(shapes[-1])[::-1]
        channels = [width * min(2 ** (len(sizes) - 1 - level), 16) for level in range(len(sizes))]
        self.first = len(sizes) - len(shapes)
        grid = Grid(inputs, 2 * channels[0], sizes[0])
        self.root = nn.Sequential(grid, nn.BatchNorm2d(2 * channels[0]), Gated())
        grow = [up(before, after, size) for (before, after), size in zip(pairwise(channels), sizes[1:], strict=True)]
        self.grow = nn.ModuleList(grow)
        at = range(self.first, len(sizes) - 1)
        self.joined = nn.ModuleList(join(channels[level], inputs, blocks) for level in at)
        self.heads = nn.ModuleList(
            nn.Conv2d(channels[level], shapes[0][0], 3, padding=1) for level in (*at, len(sizes) - 1)
        )
        self.apply(initialise)

    def forward(self, code: Tensor) -> list[Tensor]:
        """(N, inputs) ↦ (N, C, H, W) in [0, 1] of each size, the smallest first."""
        features, made = self.root(code), []
        for level in range(len(self.grow) + 1):
            if level >= self.first:
                made.append((torch.tanh(self.heads[level - self.first](features)) + 1) / 2)
            if level == len(self.grow):
                break
            if level >= self.first:
                features = self.joined[level - self.first](features, code)
            features = self.grow[level](features)
        return made


def up(inputs: int, outputs: int, size: tuple[int, int]) -> nn.Sequential:
    """Twice as large, to `size`."""
    doubling = UpConv(inputs, 2 * outputs, (size[0] % 2, size[1] % 2), bias=False)
    return nn.Sequential(doubling, nn.BatchNorm2d(2 * outputs), Gated())


def join(channels: int, told: int, blocks: int) -> Told:
    """Features and the code at every pixel ↦ features."""
    mixed = [Beside(channels, told, 2 * channels), nn.BatchNorm2d(2 * channels), Gated()]
    return Told(*mixed, *(Residual(channels) for _ in range(blocks)))


class ScaleJudge(nn.Module):
    """The judge of one size, with a head for images alone and one for images with their text.

    Args:
        shape: of the images.
        told: size of the text's code; 0 for no text.
        width: channels of the first layer.
    """

    def __init__(self, shape: Shape, told: int, *, width: int) -> None:
        super().__init__()
        sizes = pyramid(shape)
        *layers, last, _ = dcgan_encoder(shape, 1, width=width)
        self.body = nn.Sequential(*layers)
        channels = int(last.in_channels)  # type: ignore[arg-type]
        self.alone = nn.Conv2d(channels, 1, sizes[-1])
        self.mixed = None
        if told:
            mix = Beside(channels, told, channels)
            self.mixed = Told(mix, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2), nn.Conv2d(channels, 1, sizes[-1]))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images in [0, 1]: (N, C, H, W) ↦ (N, channels, h, w)."""
        features: Tensor = self.body(2 * x - 1)
        return features

    def image(self, features: Tensor) -> Tensor:
        """The logit of an image being real: (N,)."""
        return self.alone(features).flatten()

    def pair(self, features: Tensor, text: Tensor) -> Tensor:
        """The logit of an image being real and of its text: (N,)."""
        assert self.mixed is not None
        logits: Tensor = self.mixed(features, text).flatten()
        return logits


def smaller(x: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """An image at each size, by means over areas: (N, C, H, W) ↦ one a shape, the last as it is."""
    return [x if shape[1:] == x.shape[2:] else F.interpolate(x, size=shape[1:], mode="area") for shape in shapes]


def initialise(module: nn.Module) -> None:
    """Orthogonal weights and zero biases, scales of norms from N(1, .02): the authors' `weights_init`."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def color_distance(small: Tensor, large: Tensor) -> Tensor:
    """Of two sizes of images: ‖μ - μ'‖² + 5 ‖Σ - Σ'‖², μ and Σ of an image's pixels; the smaller one is the model. Eq. 10."""
    (mean, covariance), (wanted, spread) = moments(large), moments(small.detach())
    return F.mse_loss(mean, wanted) + 5 * F.mse_loss(covariance, spread)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the colours of an image, in [-1, 1]: (N, C, H, W) ↦ (N, C) and (N, C, C)."""
    pixels = 2 * x.flatten(2) - 1
    mean = pixels.mean(2)
    centered = pixels - mean.unsqueeze(2)
    return mean, centered @ centered.transpose(1, 2) / pixels.shape[2]
