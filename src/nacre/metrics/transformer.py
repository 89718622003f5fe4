"""DINOv2 and CLIP through transformers, where it is installed and the weights are at hand; nothing is downloaded.

Fréchet distances in DINOv2's features agree with people's eyes better than in Inception's (Stein et al. 2023), and in CLIP's
they see what pictures mean (Kynkäänniemi et al. 2023).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nacre import images
from nacre.data import hugging_face
from nacre.errors import ConfigError
from nacre.metrics import resizing
from nacre.metrics.extractors import Card, Extractor, weights_sha256

PROTOCOL = "clean-uint8"
"""Bicubic with smoothing to a square, rounded to 256 levels as Pillow does."""


class Kind(NamedTuple):
    """How a family of networks is loaded and fed.

    Attributes:
        model: its class in transformers.
        mean, std: of each colour, which pixels are standardized by.
        size: pixels of either side, from the configuration.
        dim: number of features, from the configuration.
        features: which of the outputs.
    """

    model: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: Callable[[Any], int]
    dim: Callable[[Any], int]
    features: Callable[[Any], Tensor]


KINDS = {
    "dinov2": Kind(
        model="Dinov2Model",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        size=lambda config: 16 * config.patch_size,  # 224: it was trained at 518 last, and is used at this
        dim=lambda config: config.hidden_size,
        features=lambda output: output.last_hidden_state[:, 0],
    ),
    "clip": Kind(
        model="CLIPVisionModelWithProjection",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        size=lambda config: config.image_size,
        dim=lambda config: config.projection_dim,
        features=lambda output: output.image_embeds,
    ),
}


class Vision(nn.Module):
    """A vision transformer with what comes before it: images (N, C, H, W) in [0, 1] ↦ (N, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, kind: Kind) -> None:
        super().__init__()
        self.model, self.size, self.features = model, kind.size(model.config), kind.features
        self.register_buffer("mean", torch.tensor(kind.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(kind.std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        return self.features(self.model(pixel_values=self.prepared(batch)))

    def prepared(self, batch: Tensor) -> Tensor:
        """Images as the model was trained on them: (N, 3, size, size), standardized."""
        square = resizing.clean(resizing.with_channels(batch, 3), (self.size, self.size))
        return (images.to_float(images.to_uint8(square)) - self.mean) / self.std


def transformer(kind: str, folder: Path) -> Extractor:
    """DINOv2's class token, or CLIP's projected image embedding.

    Args:
        kind: "dinov2" or "clip".
        folder: holds `config.json` and `model.safetensors`, as Hugging Face's hub has them.

    Raises:
        ConfigError: there is no such kind or folder, or transformers is not installed.
        CheckpointError: the folder holds something else.
    """
    if kind not in KINDS:
        raise ConfigError(f"the kinds are {', '.join(KINDS)}; got {kind!r}.")
    model = hugging_face.loaded(KINDS[kind].model, folder)
    network = Vision(model, KINDS[kind])
    card = Card(kind=kind, sha256=weights_sha256(model.state_dict()), protocol=PROTOCOL)
    return Extractor(network, KINDS[kind].dim(model.config), card)
