"""Extractors: fixed networks from images to features, by which sets of images are compared.

A distance of features means nothing without the extractor that they are of, so that its `name` belongs to every number:
kind and version, the data and the seed that it was trained with, how images are brought to its size, and its weights' hash.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nacre import images, seeds
from nacre.errors import ConfigError, ShapeError
from nacre.metrics import resizing

BATCH = 250
SMALLEST = 8
"""Pixels of the shorter side, at least."""

LONGEST = 64
"""Pixels of the longer side, at most, for nacre's own networks: larger images are made smaller."""

REFEREE = "referee"

RANDOM_VERSION = 1
RANDOM_CHANNELS = (32, 64, 64)
QUARTERS = 2


@dataclass(frozen=True, kw_only=True)
class Card:
    """What an extractor or a referee is.

    Attributes:
        kind: "random", "labels", "pinned", "referee", "inception-v3", "dinov2" or "clip".
        sha256: of the weights.
        version: of kinds that nacre makes; another one has other weights.
        architecture: of the network, where there are several.
        seed: of the weights; None where they are somebody else's.
        data: what it was trained on, in a word; "" where nacre did not train it.
        fingerprint: of these data.
        protocol: how images are brought to its size, where that is published; "" for `resizing.smooth`.
        accuracy: of its classes on test images; None where it tells none.
        tested: test images.
        steps: of the training.
    """

    kind: str
    sha256: str
    version: int = 1
    architecture: str = ""
    seed: int | None = None
    data: str = ""
    fingerprint: str = ""
    protocol: str = ""
    accuracy: float | None = None
    tested: int = 0
    steps: int = 0

    @property
    def name(self) -> str:
        """The part of every number's name: kind-version, protocol, data, seed, weights."""
        parts = [f"{self.kind}-v{self.version}" if self.seed is not None else self.kind, self.protocol]
        parts += [f"{self.data}-{self.fingerprint[:8]}" if self.fingerprint else ""]
        parts += [f"seed-{self.seed}" if self.seed is not None else "", self.sha256[:8]]
        return "/".join(part for part in parts if part)


class Extractor:
    """A fixed network from images to features.

    Args:
        network: of images (N, C, H, W) of 256 levels in [0, 1]; it brings them to its own channels and size.
        dim: D, the number of features.
        card: what it is.

    Raises:
        ConfigError: the network is a data set's referee.
    """

    def __init__(self, network: nn.Module, dim: int, card: Card) -> None:
        if card.kind == REFEREE:
            raise ConfigError(
                f"{card.name} is the referee, which only judges: no number may be taken in its features; take another "
                "extractor."
            )
        self.network, self.dim, self.card = network.eval().requires_grad_(False), dim, card

    def __repr__(self) -> str:
        return f"Extractor({self.name}, dim={self.dim})"

    @property
    def name(self) -> str:
        """What belongs to every number that is taken in its features."""
        return self.card.name

    def to(self, device: str | torch.device) -> "Extractor":
        """Move the network; features come back to the CPU all the same."""
        self.network.to(device)
        return self

    def __call__(self, items: Tensor | np.ndarray, *, batch_size: int = BATCH) -> Tensor:
        """Features of images: (N, D) float32 on the CPU, whatever the batch size, without gradients.

        Args:
            items: (N, C, H, W), uint8 or float in [0, 1], of 1 to 4 channels and 8 pixels or more; floats are brought to
                256 levels first, as data and published samples are.
            batch_size: images at a time.

        Raises:
            ShapeError: these are no such images.
        """
        return read(self.network, items, batch_size)


def read(
    network: nn.Module,
    items: Tensor | np.ndarray,
    batch_size: int = BATCH,
    say: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What a network says of images, batch by batch: float32 on the CPU.

    Args:
        network: in evaluation mode.
        items: as `Extractor` takes them.
        batch_size: images at a time.
        say: a method of the network's; by default its forward.

    Raises:
        ShapeError: as `Extractor`.
    """
    checked, say = levels(items), say or network
    device = next(network.parameters()).device
    # float32 throughout: TF32 would make features depend on the graphics card by 1e-3.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        parts = [say(images.to_float(part.to(device))).float().cpu() for part in torch.split(checked, batch_size)]
    return torch.cat(parts)


def levels(items: Tensor | np.ndarray) -> Tensor:
    """Images as uint8.

    Raises:
        ShapeError: they are not (N, C, H, W) of 1 to 4 channels and 8 pixels or more, or not in [0, 1].
    """
    batch = torch.as_tensor(items).detach()
    if batch.ndim != 4 or not len(batch) or not 1 <= batch.shape[1] <= 4:
        raise ShapeError(
            f"an extractor takes images (N, C, H, W) of 1 to 4 channels, got {tuple(batch.shape)}; vectors are compared as "
            "they are."
        )
    if min(batch.shape[2:]) < SMALLEST:
        raise ShapeError(
            f"an extractor takes images of {SMALLEST} pixels or more, got {batch.shape[2]}×{batch.shape[3]}; compare "
            "their pixels instead."
        )
    if batch.dtype == torch.uint8:
        return batch
    if not batch.is_floating_point() or not bool(((batch >= 0) & (batch <= 1)).all()):
        raise ShapeError("an extractor takes uint8 images or floats in [0, 1], got other numbers; rescale them.")
    return images.to_uint8(batch)


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and numbers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def random_extractor(seed: int = 0) -> Extractor:
    """A convolutional network with random weights, never trained: for data without labels, the same on every machine.

    Such features tell textures, edges and their rough places, and nothing of what is meant: distances in them compare models
    on one data set and size, and are no FID.

    Args:
        seed: of the weights.
    """
    network = RandomNetwork(seed)
    sha256 = weights_sha256(network.state_dict())
    dim = RANDOM_CHANNELS[-1] * QUARTERS**2
    return Extractor(network, dim, Card(kind="random", sha256=sha256, version=RANDOM_VERSION, seed=seed))


class RandomNetwork(nn.Module):
    """Three strided 4×4 convolutions with ReLU, averaged over the quarters of the image: (N, C, H, W) ↦ (N, 256).

    Weights are uniform with the variance of He et al. (2015, eq. 10), from the bits of PCG64, which no version of torch or
    NumPy changes. Images of C channels use the first C of four.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        before = (4, *RANDOM_CHANNELS[:-1])
        shapes = [(after, inputs, 4, 4) for inputs, after in zip(before, RANDOM_CHANNELS, strict=True)]
        self.kernels = nn.ParameterList(
            [he_uniform(shape, seed, "extractor", layer) for layer, shape in enumerate(shapes)]
        )

    def forward(self, batch: Tensor) -> Tensor:
        size = tuple(batch.shape[2:])
        h = 2 * resizing.smooth(batch, resizing.at_most((size[0], size[1]), LONGEST)) - 1
        channels = h.shape[1]
        first, *others = self.kernels
        for kernel in (first[:, :channels] * (4 / channels) ** 0.5, *others):
            h = torch.relu(nn.functional.conv2d(h, kernel, stride=2, padding=1))
        return nn.functional.adaptive_avg_pool2d(h, QUARTERS).flatten(1)


def he_uniform(shape: tuple[int, ...], *address: int | str) -> nn.Parameter:
    """Weights (outputs, inputs, …) uniform in ±√(6 / fan-in), a pure function of the address."""
    fan_in = int(np.prod(shape[1:]))
    unit = seeds.noise(seeds.uniform(*shape), *address, rows=range(1))[0]
    return nn.Parameter((2 * unit - 1) * float(np.float32((6 / fan_in) ** 0.5)), requires_grad=False)
