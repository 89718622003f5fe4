"""Networks from images to images: the residual translator of CycleGAN, the U-Net of pix2pix, and the judge of patches.

Layers stand in the order of the authors' PyTorch code (Zhu et al. 2017, Isola et al. 2017), whose weights therefore load
into these (`nacre convert`). Biases in front of a norm, which would change nothing, are left out. Images are [-1, 1]
inside and [0, 1] outside.
"""

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.errors import ConfigError
from nacre.networks import Shape, is_image

TranslatorKind: TypeAlias = Literal["resnet", "unet"]
Upsampling: TypeAlias = Literal["deconvolution", "resize"]

SPREAD = 0.02
"""Standard deviation of initial weights, in the papers."""

DEEPEST = 8
"""Halvings of the U-Net for 256 pixels, as in the paper."""


class Translator(nn.Module):
    """A network between two kinds of images of any size: (N, C, H, W) in [0, 1] ↦ (N, C', H, W) in [0, 1].

    Sizes that the network cannot halve evenly are padded below and on the right by repetition, and cut again.

    Args:
        network: of images in [-1, 1]; its last layer is a tanh.
        multiple: of height and width that it takes.
        least: height and width that it takes, smaller ones being padded to it.
    """

    def __init__(self, network: nn.Module, multiple: int, least: int = 0) -> None:
        super().__init__()
        self.model, self.multiple, self.least = network, multiple, least

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        below, beside = (max(-size % self.multiple, self.least - size) for size in (height, width))
        padded = F.pad(2 * x - 1, (0, beside, 0, below), mode="replicate")
        output: Tensor = self.model(padded)
        return (output[:, :, :height, :width] + 1) / 2


def translator(
    inputs: int,
    outputs: int,
    shape: Shape,
    *,
    kind: TranslatorKind = "resnet",
    width: int = 64,
    blocks: int | None = None,
    depth: int | None = None,
    upsampling: Upsampling = "deconvolution",
) -> Translator:
    """The translator of a kind.

    Args:
        inputs, outputs: channels.
        shape: of the images that it is trained on; it takes any other size as well.
        kind: "resnet" or "unet".
        width: channels of its first layer.
        blocks: residual blocks of "resnet"; by default 6 for images under 256 pixels and 9 from there on, as in the paper.
        depth: halvings of "unet"; by default down to two pixels of the shorter side, eight at most.
        upsampling: how it doubles sizes (`doubling`).

    Raises:
        ConfigError: a number was given that is the other kind's.
    """
    if kind == "unet" and blocks is not None:
        raise ConfigError(f"blocks are those of network 'resnet', and a 'unet' has none; got {blocks}. Leave it out.")
    if kind == "resnet" and depth is not None:
        raise ConfigError(f"depth is that of network 'unet', and a 'resnet' has none; got {depth}. Leave it out.")
    if kind == "unet":
        depth = depth or halvings(shape)
        return Translator(unet(inputs, outputs, depth, width, upsampling).apply(initialise), 2**depth)
    if blocks is None:
        blocks = 6 if min(shape[1:]) < 256 else 9
    # A quarter of the size has to be two pixels at least, which are mirrored at the border and normed.
    return Translator(residual(inputs, outputs, blocks, width, upsampling).apply(initialise), 4, 8)


def residual(inputs: int, outputs: int, blocks: int, width: int, upsampling: Upsampling) -> nn.Sequential:
    """c7s1-w, d2w, d4w, R4w × blocks, u2w, uw, c7s1-C: Zhu et al. 2017, appendix 7.2, after Johnson et al. 2016."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7, bias=False), *normed(width)]
    for channels in (width, 2 * width):
        layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False), *normed(2 * channels)]
    layers += [ResidualBlock(4 * width) for _ in range(blocks)]
    for channels in (4 * width, 2 * width):
        layers += [doubling(channels, channels // 2, upsampling, kernel=3), *normed(channels // 2)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh())


def doubling(inputs: int, outputs: int, upsampling: Upsampling, *, kernel: int, bias: bool = False) -> nn.Module:
    """A layer that doubles height and width: (N, inputs, H, W) ↦ (N, outputs, 2 H, 2 W).

    "deconvolution" is the papers' transposed convolution, whose strides leave dots; "resize" repeats each pixel and convolves
    with 3×3, which leaves none (Odena et al. 2016, "Deconvolution and checkerboard artifacts"), for more time at the larger size.
    """
    if upsampling == "deconvolution":
        return nn.ConvTranspose2d(inputs, outputs, kernel, 2, 1, output_padding=kernel % 2, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.ReplicationPad2d(1), nn.Conv2d(inputs, outputs, 3, bias=bias))


class ResidualBlock(nn.Module):
    """x + two 3×3 convolutions with instance norm, ReLU between them, edges reflected: (N, C, H, W) ↦ the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, bias=False) for _ in range(2))
        before = [nn.ReflectionPad2d(1), first, *normed(channels), nn.ReflectionPad2d(1)]
        self.conv_block = nn.Sequential(*before, second, instance_norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def unet(inputs: int, outputs: int, depth: int, width: int, upsampling: Upsampling) -> nn.Module:
    """An encoder and a decoder of `depth` halvings, each size of the one handed to the other: Isola et al. 2017, 6.1.1.

    Without the paper's dropout, its only noise: a translation is a function of the image.
    """
    inner: nn.Module | None = None
    for level in range(depth - 1, 0, -1):
        inner = Level(channels_at(level - 1, width), channels_at(level, width), inner, upsampling)
    down = nn.Conv2d(inputs, width, 4, 2, 1)
    up = doubling(2 * width if inner else width, outputs, upsampling, kernel=4, bias=True)
    return nn.Sequential(down, *([inner] if inner else []), nn.ReLU(), up, nn.Tanh())


class Level(nn.Module):
    """A halving, what lies beneath it, and the doubling back, beside the input: (N, C, H, W) ↦ (N, 2 C, H, W).

    Args:
        channels: C, of the input.
        hidden: channels at half the size.
        inner: the level beneath, hidden ↦ 2 hidden; None at the bottom, where too little is left to norm.
        upsampling: how it doubles the size.
    """

    def __init__(self, channels: int, hidden: int, inner: nn.Module | None, upsampling: Upsampling) -> None:
        super().__init__()
        down = [nn.LeakyReLU(0.2), nn.Conv2d(channels, hidden, 4, 2, 1, bias=inner is None)]
        beneath = [instance_norm(hidden), inner] if inner else []
        up = [nn.ReLU(), doubling(2 * hidden if inner else hidden, channels, upsampling, kernel=4)]
        self.model = nn.Sequential(*down, *beneath, *up, instance_norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)


def channels_at(level: int, width: int) -> int:
    """Channels of the U-Net at a level from the top, eight times the first ones at most."""
    return width * min(2**level, 8)


def halvings(shape: Shape) -> int:
    """Of the U-Net: down to two pixels of the shorter side, eight at most."""
    return max(2, min(DEEPEST, int(math.log2(min(shape[1:]))) - 1))


def patch_judge(
    channels: int, shape: Shape, *, width: int = 64, layers: int | None = None, edges: float = 0.0
) -> "PatchJudge":
    """A judge of overlapping patches: (N, C, H, W) in [0, 1] ↦ (N, 1, h, w), a number a patch. Isola et al. 2017, 6.1.2.

    Args:
        channels: of its images.
        shape: of the images that it is trained on.
        width: channels of its first layer.
        layers: convolutions of stride 2: 3 see patches of 70×70 pixels, 2 of 34×34, 1 of 16×16. By default as many as see
            hardly more than the image.
        edges: how far steps between pixels are lifted for it (`PatchJudge`).
    """
    layers = fitting_layers(shape) if layers is None else layers
    judge: list[nn.Module] = [nn.Conv2d(3 * channels if edges else channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for level in range(1, layers + 1):
        stride = 2 if level < layers else 1
        before, after = channels_at(level - 1, width), channels_at(level, width)
        judge += [nn.Conv2d(before, after, 4, stride, 1, bias=False), instance_norm(after), nn.LeakyReLU(0.2)]
    network = nn.Sequential(*judge, nn.Conv2d(channels_at(layers, width), 1, 4, 1, 1))
    return PatchJudge(network.apply(initialise), edges)


class PatchJudge(nn.Module):
    """A network over images in [-1, 1], asked about images in [0, 1].

    Args:
        network: of the images' channels, or of three times as many where there are edges.
        edges: κ > 0 shows it tanh(κ Δ) of the steps Δ from each pixel to the next beside and below as well; 0 images alone.
    """

    def __init__(self, network: nn.Sequential, edges: float = 0.0) -> None:
        super().__init__()
        self.model, self.edges = network, edges

    def forward(self, x: Tensor) -> Tensor:
        seen = 2 * x - 1
        if self.edges:
            across, down = F.pad(x.diff(dim=3), (0, 1, 0, 0)), F.pad(x.diff(dim=2), (0, 0, 0, 1))
            seen = torch.cat([seen, *(torch.tanh(self.edges * steps).to(seen.dtype) for steps in (across, down))], 1)
        values: Tensor = self.model(seen)
        return values


def fitting_layers(shape: Shape) -> int:
    """The most convolutions of stride 2, three at most, whose patch is no larger than an image and a tenth of it.

    A judge of 34×34 pixels, which sees emoji of 32×32 whole, cost as much as one of 16×16 and taught more (docs/results.md).
    """
    return max(layers for layers in (1, 2, 3) if layers == 1 or patch(layers) <= 1.1 * min(shape[1:]))


def patch(layers: int) -> int:
    """Pixels of a side of what one of the judge's numbers sees."""
    seen = 1
    for stride in (1, 1, *[2] * layers):  # backwards through convolutions of 4×4
        seen = (seen - 1) * stride + 4
    return seen


def instance_norm(channels: int) -> nn.GroupNorm:
    """Each channel of each image at mean zero and variance one: Ulyanov et al. 2016, without scale and shift.

    As a group norm of one channel a group, which is the same. torch's own `InstanceNorm2d` has wrong gradients on a CPU for
    one image whose gradient comes in channels-last order (2.13, off by as much as they are long), and one image is the
    papers' batch; it also leaves channels-last order, which the next convolution must restore.
    """
    return nn.GroupNorm(channels, channels, affine=False)


def normed(channels: int) -> list[nn.Module]:
    """Instance norm and ReLU."""
    return [instance_norm(channels), nn.ReLU()]


def initialise(module: nn.Module) -> None:
    """Weights from N(0, .02), biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, SPREAD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_images(model: str, shape: Shape, smallest: int = 8) -> None:
    """Raise a ConfigError unless items are images that can be translated."""
    if not is_image(shape) or min(shape[1:]) < smallest:
        kind = f"{shape[2]}×{shape[1]} pixels" if is_image(shape) else f"vectors of {shape[0]} numbers"
        raise ConfigError(
            f"{model} translates images of {smallest} pixels and more, got {kind}; take --image-size {smallest} or more."
        )


class Pool(nn.Module):
    """A history of generated images, from which a judge is shown one as often as a new one. Shrivastava et al. 2017, 2.3.

    Which slot an image of the batch meets depends on the step and on its number in the whole batch alone, so that ranks and
    micro-batches write to slots of their own and the pool is the same however the batch is split.

    Args:
        size: images kept; 0 for none, and new ones are shown always.
        shape: of an image.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: Shape) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros(size))

    @torch.no_grad()
    def forward(self, new: Tensor, chance: Tensor, row: Tensor, index: Tensor) -> Tensor:
        """New images in, the ones to show out: (N, C, H, W), without gradients.

        Args:
            new: (N, C, H, W).
            chance: (N, 1) uniform in [0, 1): under one half an image of the pool is shown, and the new one takes its place.
            row: (N,) int64, the number in the whole batch.
            index: the step, 0-d.
        """
        if not self.size:
            return new
        self.check(len(new))
        # Knuth's multiplicative hashing: consecutive steps begin at slots that are far apart.
        slot = ((index.long() * 2654435761 >> 8) + row) % self.size
        old, known = self.images[slot], self.filled[slot]
        shown = (known * (chance[:, 0] < 0.5)).view(-1, 1, 1, 1) > 0
        taken = shown | (known.view(-1, 1, 1, 1) == 0)
        self.images.index_copy_(0, slot, torch.where(taken, new.to(old.dtype), old))
        self.filled.index_fill_(0, slot, 1.0)
        return torch.where(shown, old.to(new.dtype), new)

    def check(self, count: int) -> None:
        """Raise ConfigError if so many images at once would write to slots of each other."""
        if 0 < self.size < count:
            raise ConfigError(
                f"a pool of {self.size} images has no room for a batch of {count}; give --pool {count} or more."
            )


def pools(model: nn.Module) -> list[Pool]:
    """The pools of a model."""
    return [module for module in model.modules() if isinstance(module, Pool)]
