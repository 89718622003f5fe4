"""VGG-19 up to its fifth block, with weights from a file in torchvision's layout (Simonyan & Zisserman 2015, configuration E)."""

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nacre.errors import CheckpointError, ConfigError

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (1, 512))
"""Convolutions of each block and their channels; of the fifth only the first is needed."""

SMALLEST = 200
"""Images of fewer pixels are enlarged to this many: deep feature interpolation's least size (Upchurch et al. 2017)."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, by which the inputs were standardized."""


class VGG19(nn.Module):
    """Images in [0, 1] ↦ the activations conv3_1, conv4_1 and conv5_1, each (N, channels, height, width) after its ReLU.

    Args:
        weights: "features.N.weight" and "features.N.bias", as torchvision names them.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.blocks, number, inputs = nn.ModuleList(), 0, 3
        for count, channels in BLOCKS:
            block = nn.ModuleList()
            for _ in range(count):
                block.append(_convolution(weights, number, inputs, channels))
                number, inputs = number + 2, channels  # a ReLU follows
            self.blocks.append(block)
            number += 1  # and a pooling
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 1 or 3, H, W) ↦ three activations."""
        factor = SMALLEST / min(images.shape[2:])
        if factor > 1:
            images = F.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=False, antialias=False)
        h, seen = (images.expand(-1, 3, -1, -1) - self.mean) / self.std, []
        for number, block in enumerate(self.blocks):
            h = F.max_pool2d(h, 2) if number else h
            assert isinstance(block, nn.ModuleList)
            for place, layer in enumerate(block):
                h = F.relu(layer(h))
                if number >= 2 and place == 0:
                    seen.append(h)
        return seen


def load_vgg19(path: Path) -> VGG19:
    """The network with the weights of a .safetensors or .pth file; nothing in the file is executed.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is damaged, or of another network.
    """
    if not path.is_file():
        raise ConfigError(f"there are no weights of VGG-19 at {path}; name torchvision's file, .pth or .safetensors.")
    try:
        weights = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the weights of VGG-19 in {path} cannot be read ({reason[:120]}).") from None
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path} holds no weights by name; take torchvision's vgg19 as a state_dict.")
    return VGG19(weights)


def _convolution(weights: dict[str, Tensor], number: int, inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    for name, parameter in (("weight", layer.weight), ("bias", layer.bias)):
        key = f"features.{number}.{name}"
        value = weights.get(key)
        if not isinstance(value, Tensor) or parameter is None or value.shape != parameter.shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else "nothing"
            expected = tuple(parameter.shape) if parameter is not None else ()
            raise CheckpointError(
                f"VGG-19 has {key} of shape {expected}, and the file has {found}; take torchvision's vgg19."
            )
        with torch.no_grad():
            parameter.copy_(value)
    return layer
