"""Transfer to labels: the lower layers of an encoder that never saw a label, and a classifier on top of them.

The head is trained first, on frozen layers, so that its first, large gradients do not spoil them; then some or all of
them are unfrozen, at a lower rate (Hinton & Salakhutdinov 2006; Erhan et al. 2010; Yosinski et al. 2014).
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from nacre.errors import ConfigError, at_least
from nacre.networks import Shape
from nacre.protocols import ALWAYS, Batch, Logs, Objective, Step
from nacre.seeds import coarse

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class Transfer(nn.Module):
    """Classifier on the lower layers of a trained encoder: the head alone first, then both (Erhan et al. 2010).

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        classes: number of labels; on the command line that of the data.
        encoder: a run or model folder whose encoder is reused (`ae`, `stacked_ae`, `vae` …); the class itself also takes
            the model. Without one the classifier is trained from nothing.
        origin: what `encoder` was built as: model, parameters and shape. It is filled in from the run, so that this model
            can do without that one once it is trained.
        reuse_layers: how many of the encoder's layers, counted from the data; by default all but the last, which leads
            to the code.
        freeze_layers: how many of these, counted from the data, stay as they are to the end.
        frozen_steps: steps in which the head alone is trained, before the other reused layers are as well.
        finetune_lr: learning rate of head and reused layers after that; before, it is 1e-3. `--lr` replaces both.
        hidden: sizes of the layers between the reused ones and the classes.
        dropout: share of the numbers that go into each layer of the head that training drops.
    """

    supervised = True

    def __init__(
        self,
        shape: Shape,
        *,
        classes: int = 0,
        encoder: str | None = None,
        origin: dict[str, Any] | None = None,
        reuse_layers: int | None = None,
        freeze_layers: int = 0,
        frozen_steps: int = 500,
        finetune_lr: float = 1e-4,
        hidden: tuple[int, ...] = (256,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, hidden=hidden)
        at_least(0, freeze_layers=freeze_layers, frozen_steps=frozen_steps, finetune_lr=finetune_lr)
        if classes < 2:
            raise ConfigError(f"transfer learns to tell 2 classes or more apart, got {classes}; give it labelled data.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is a share, from 0 to less than 1; got {dropout}.")
        self.shape, self.classes, self.dropout = shape, classes, dropout
        self.freeze_layers, self.frozen_steps, self.finetune_lr = freeze_layers, frozen_steps, finetune_lr
        self.reused = _lower_layers(encoder, shape, reuse_layers)
        self.theirs = _names(self.reused, encoder)
        if freeze_layers > len(self.reused):
            raise ConfigError(f"freeze_layers is of the {len(self.reused)} reused layers, got {freeze_layers}.")
        self.reused[:freeze_layers].requires_grad_(False)
        self.reused.eval()
        with torch.no_grad():
            features = self.reused(torch.zeros(1, *shape)).numel()
        self.sizes = (features, *hidden, classes)
        self.head = nn.ModuleList([nn.Linear(inputs, outputs) for inputs, outputs in pairwise(self.sizes)])
        self.draws = {f"drop{index}": coarse(size) for index, size in enumerate(self.sizes[:-1]) if dropout}

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size for some thousands of labels."""
        return {"steps": 3_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        """The head alone, and from step `frozen_steps` on the head and the layers that are not frozen."""
        layers = [f"reused.{index}" for index in range(self.freeze_layers, len(self.reused))]
        layers = [name for name in layers if any(True for _ in self.get_submodule(name).parameters())]
        loss, draws, adam = self.class_loss, self.draws, partial(Adam, lr=1e-3)
        if not layers:
            return [Objective(name="head", loss=loss, over=("head",), optimizer=adam, draws=draws)]
        head = Objective(
            name="head", loss=loss, over=("head",), optimizer=adam, draws=draws, when=ALWAYS[: self.frozen_steps]
        )
        finetune = Objective(
            name="finetune",
            loss=loss,
            over=("head", *layers),
            optimizer=partial(Adam, lr=self.finetune_lr),
            draws=draws,
            when=ALWAYS[self.frozen_steps :],
        )
        return [head, finetune] if self.frozen_steps else [finetune]

    def class_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-log p(y|x), the mean over the batch, to which items without a label (-1) add nothing; and the accuracy."""
        x, y = batch
        logits = self.logits(x, step.noise)
        known = y >= 0
        right = ((logits.argmax(1) == y) & known).sum() / known.sum().clamp(min=1)
        loss = F.cross_entropy(logits, y, ignore_index=-1, reduction="sum") / len(y)
        return loss, {"accuracy": right}

    def logits(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Scores of the classes: (N, *shape) ↦ (N, classes). Numbers are dropped where noise for it is given."""
        h = self.reused(x).flatten(1)
        for index, layer in enumerate(self.head):
            h = torch.relu(h) if index else h
            if f"drop{index}" in noise:
                h = torch.where(noise[f"drop{index}"] < self.dropout, 0.0, h / (1 - self.dropout))
            h = layer(h)
        return h

    def classify(self, x: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return self.logits(x, {}).softmax(1)

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take the reused layers' weights from those of the model that they are of.

        Raises:
            ConfigError: they do not fit.
        """
        own = self.reused.state_dict()
        for name, theirs in self.theirs.items():
            if theirs not in weights or weights[theirs].shape != own[name].shape:
                raise ConfigError(
                    f"the encoder's {theirs} is not what it was when this model was laid out; leave --origin out."
                )
        self.reused.load_state_dict({name: weights[theirs] for name, theirs in self.theirs.items()})

    def train(self, mode: bool = True) -> "Transfer":
        """As any module; but the batch norms of the reused layers keep the statistics of their own training."""
        super().train(mode)
        self.reused.eval()
        return self


def _lower_layers(model: Any, shape: Shape, count: int | None) -> nn.Sequential:
    """The first `count` layers of a model's encoder: each a weight layer with what follows it."""
    if model is None:
        return nn.Sequential()
    name = type(model).__name__
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, nn.Sequential):
        raise ConfigError(
            f"{name} has no encoder that is a sequence of layers; take a run of a model that has (`ae`, `stacked_ae`, `vae`)."
        )
    if tuple(model.shape) != tuple(shape):
        raise ConfigError(f"the encoder of {name} takes items of shape {tuple(model.shape)}, and the data are {shape}.")
    if getattr(model, "below", None) is not None:
        raise ConfigError(f"this {name} stands on another model's codes; reuse the layers of that one (its --encoder).")
    layers = _layers(encoder)
    count = max(1, len(layers) - 1) if count is None else count
    if not 1 <= count <= len(layers):
        raise ConfigError(f"reuse_layers is from 1 to {len(layers)}, the layers of {name}'s encoder; got {count}.")
    return nn.Sequential(*layers[:count])


def _layers(encoder: nn.Sequential) -> list[nn.Sequential]:
    """A sequence cut before each module with weights, norms excepted; what has none goes with the one before."""
    layers: list[list[nn.Module]] = [[]]
    begun = False
    for module in encoder:
        weighs = any(True for _ in module.parameters()) and not isinstance(module, NORMS)
        if weighs and begun:
            layers.append([])
        layers[-1].append(module)
        begun = begun or weighs
    return [nn.Sequential(*modules) for modules in layers]


def _names(reused: nn.Sequential, model: Any) -> dict[str, str]:
    """For each tensor of the reused layers its name there, and in the model that they are of."""
    if model is None:
        return {}
    known = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: known[id(tensor)] for name, tensor in reused.state_dict(keep_vars=True).items()}
