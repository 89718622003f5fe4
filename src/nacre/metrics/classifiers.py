"""Small classifiers: one whose features are an extractor's, and the referee, which nothing else may look at.

The referee of a data set quotes what an evaluation says of classes and of distances in features. It has another
architecture and another seed than anything that a model was trained, selected or compared with: whoever is judged by what he
was chosen by, wins. The kind is written into the weights' file, and a file of one kind is refused as the other.
"""

import dataclasses
import json
from importlib.resources import files as package_files
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nacre.errors import CheckpointError, ConfigError
from nacre.files import whole_file
from nacre.metrics import resizing
from nacre.metrics.extractors import BATCH, LONGEST, REFEREE, Card, Extractor, he_uniform, read, weights_sha256

ARCHITECTURES = ("pooled", "strided")
ARCHITECTURE = {"labels": "pooled", "pinned": "pooled", REFEREE: "strided"}
"""Of each kind."""

PINNED = ("fashion-mnist", "mnist")


class Classifier(nn.Module):
    """Three convolutions, a hidden layer whose activations are the features, and a head.

    Args:
        shape: (channels, height, width) of the images that it is trained on, of which those over 64 pixels are made smaller;
            images of other sizes and channels are brought to these.
        classes: 2 or more.
        architecture: "pooled" has 3×3 kernels, ReLU and max pooling, and sees the grid's 16 parts; "strided" has 5×5 kernels
            of stride 2, leaky ReLU, and sees the quarters.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, architecture: str = "pooled") -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ConfigError(f"the architecture is one of {', '.join(ARCHITECTURES)}, got {architecture!r}.")
        if classes < 2:
            raise ConfigError(f"a classifier tells two classes or more apart, got {classes}.")
        self.shape, self.classes, self.architecture = shape, classes, architecture
        self.size = resizing.at_most((shape[1], shape[2]), LONGEST)
        with torch.random.fork_rng(devices=[]):  # its weights are still to come, from `initialized` or `load`
            self.body = _pooled(shape[0]) if architecture == "pooled" else _strided(shape[0])
            self.dim = next(layer.out_features for layer in self.body if isinstance(layer, nn.Linear))
            self.head = nn.Linear(self.dim, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Tensor) -> Tensor:
        """Features of images in [0, 1]: (N, C, H, W) ↦ (N, D)."""
        x = 2 * resizing.smooth(resizing.with_channels(batch, self.shape[0]), self.size) - 1
        return self.body(x.contiguous(memory_format=torch.channels_last))

    def logits(self, batch: Tensor) -> Tensor:
        """Scores of the classes: (N, classes)."""
        return self.head(self(batch))


def _pooled(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.MaxPool2d(2)] if outputs < 64 else []  # before the norm, which then has a quarter to do
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU())


def _strided(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96 * 4, 96), nn.LeakyReLU(0.1))


class Referee:
    """A data set's judge of classes and features: never in a loss, a selection or an extractor.

    Args:
        network: trained on the data's training split.
        card: what it is; its hash belongs into the row.

    Raises:
        ConfigError: the network is an extractor's.
    """

    def __init__(self, network: Classifier, card: Card) -> None:
        if card.kind != REFEREE:
            raise ConfigError(
                f"{card.name} is an extractor, and a referee must be none: it would judge by what models were compared by."
            )
        self.network, self.card = network.eval().requires_grad_(False), card
        self.classes, self.dim = network.classes, network.dim

    def __repr__(self) -> str:
        return f"Referee({self.name}, classes={self.classes})"

    @property
    def name(self) -> str:
        """What belongs to every number that it gives."""
        return self.card.name

    def probabilities(self, items: Tensor | np.ndarray, *, batch_size: int = BATCH) -> Tensor:
        """Of the classes: (N, classes) float64. Images as `Extractor` takes them."""
        return read(self.network, items, batch_size, self.network.logits).double().softmax(1)

    def features(self, items: Tensor | np.ndarray, *, batch_size: int = BATCH) -> Tensor:
        """(N, D) float32, for distances between images."""
        return read(self.network, items, batch_size)

    def check(self, extractor: Extractor) -> None:
        """Refuse to judge what was compared or selected by a network too much like this one.

        Seeds of the same number are no likeness: those of another kind draw other numbers.

        Raises:
            ConfigError: the extractor has the referee's weights or its architecture.
        """
        own, other = self.card, extractor.card
        if other.sha256 == own.sha256 or other.architecture == own.architecture:
            raise ConfigError(
                f"{extractor.name} is not independent of the referee {self.name}; take another extractor."
            )


def as_extractor(network: Classifier, card: Card) -> Extractor:
    """The extractor of a classifier's features. Raises ConfigError if it is a referee."""
    return Extractor(network, network.dim, card)


def pinned(name: str) -> Extractor:
    """The classifier of MNIST or Fashion-MNIST that comes with nacre: the same weights for everybody.

    Args:
        name: "mnist" or "fashion-mnist".

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in PINNED:
        raise ConfigError(f"the pinned classifiers are {', '.join(PINNED)}; got {name!r}.")
    return as_extractor(*load(Path(str(package_files("nacre.metrics") / "pinned" / f"{name}.safetensors"))))


def store(network: Classifier, card: Card, path: Path, *, half: bool = False) -> Card:
    """Write weights and card, whole or not at all; returns the card with the hash of what was written.

    Args:
        path: its folder must exist.
        half: as float16.
    """
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    card = dataclasses.replace(card, sha256=weights_sha256(weights))
    layout = {"shape": network.shape, "classes": network.classes, "architecture": network.architecture}
    notes = {"card": json.dumps(dataclasses.asdict(card)), "layout": json.dumps(layout)}
    with whole_file(path) as aside:
        aside.write_bytes(save(weights, metadata=notes))
    return card


def load(path: Path) -> tuple[Classifier, Card]:
    """What `store` wrote, in evaluation mode.

    Raises:
        CheckpointError: it is damaged, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card, layout = Card(**json.loads(notes["card"])), json.loads(notes["layout"])
        network = Classifier(tuple(layout["shape"]), layout["classes"], layout["architecture"])
        network.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} holds no classifier that can be read ({reason}); delete it.") from None
    if weights_sha256(weights) != card.sha256:
        raise CheckpointError(f"the weights in {path} are not those that were written; delete it.")
    return network.eval().requires_grad_(False), card


def initialized(network: Classifier, kind: str, seed: int) -> Classifier:
    """The network with He et al.'s weights of its own kind and seed, and biases of zero."""
    for number, layer in enumerate(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data.copy_(he_uniform(tuple(layer.weight.shape), seed, kind, number))
            if layer.bias is not None:
                layer.bias.data.zero_()
    return network
