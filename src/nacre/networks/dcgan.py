"""The convolutional networks of DCGAN (Radford et al. 2016) for images of any size.

The encoder halves the image with 4×4 convolutions of stride 2 until its shorter side is at most 4, doubling the
channels each time; one last convolution covers what is left. The decoder mirrors it with transposed convolutions.
Odd sizes are rounded up on the way down, and the same sizes are met again on the way up.
"""

from itertools import pairwise

from torch import Tensor, nn

WIDEST = 8
"""No layer has more than this many times the first layer's channels (512 for 64, as in the paper)."""


def dcgan_encoder(
    shape: tuple[int, ...], outputs: int, *, width: int = 64, norm: str = "batch", bias: bool = True
) -> nn.Sequential:
    """Strided convolutions, LeakyReLU(.2), no pooling, no norm at the input: (N, C, H, W) ↦ (N, outputs)."""
    sizes = pyramid(shape)
    channels = [shape[0], *widths(width, len(sizes) - 1)]
    layers: list[nn.Module] = []
    for index, (inputs, out) in enumerate(pairwise(channels)):
        normed = norm if index > 0 else "none"
        height, width_ = sizes[index]
        layers += [nn.Conv2d(inputs, out, 4, 2, (1 + height % 2, 1 + width_ % 2), bias=normed != "batch")]
        layers += [*norms(normed, out), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(channels[-1], outputs, sizes[-1], bias=bias), nn.Flatten()]
    return nn.Sequential(*layers).apply(initialise)


def dcgan_decoder(inputs: int, shape: tuple[int, ...], *, width: int = 64, norm: str = "batch") -> nn.Sequential:
    """Transposed convolutions, norm and ReLU, none of the two at the output: (N, inputs) ↦ (N, C, H, W)."""
    sizes = pyramid(shape)[::-1]
    channels = widths(width, len(sizes) - 1)[::-1]
    layers: list[nn.Module] = [nn.Unflatten(1, (inputs, 1, 1))]
    layers += [nn.ConvTranspose2d(inputs, channels[0], sizes[0], bias=norm != "batch")]
    for index, (before, after) in enumerate(pairwise([*channels, shape[0]])):
        layers += [*norms(norm, before), nn.ReLU()]
        height, width_ = sizes[index + 1]
        bias = norm != "batch" or index == len(channels) - 1
        layers += [
            nn.ConvTranspose2d(
                before, after, 4, 2, (1 + height % 2, 1 + width_ % 2), (height % 2, width_ % 2), bias=bias
            )
        ]
    return nn.Sequential(*layers).apply(initialise)


def norms(norm: str, channels: int) -> list[nn.Module]:
    """Batch norm, or layer norm: over an item's channels and pixels, scaled by channel as in WGAN-GP's code; or none."""
    if norm == "layer":
        return [nn.GroupNorm(1, channels)]
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []


def pyramid(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The sizes (height, width) that an image meets on its way down, the full size first."""
    sizes = [(shape[1], shape[2])]
    while min(sizes[-1]) > 4 or len(sizes) == 1:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def widths(width: int, count: int) -> list[int]:
    """Channels of `count` levels: doubling from `width`, up to `WIDEST` times."""
    return [width * min(2**level, WIDEST) for level in range(count)]


def initialise(module: nn.Module) -> None:
    """Weights from N(0, .02), norms from N(1, .02), biases zero (Radford et al. 2016, section 4 and its code)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
