"""What the experiments that train have in common: their moments, and the game that a GAN plays on a data source."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nacre import losses
from nacre.data import DataSet, DataSettings, load
from nacre.engine.settings import Training
from nacre.models.gan import GAN
from nacre.run.session import build, resolve
from nacre.run.streams import stream_of
from nacre.run.watch import watch
from nacre.spec import spec

Facts = dict[str, Any]
"""What a frame shows, in numbers."""


def moments(steps: int, frames: int) -> list[int]:
    """The numbers of steps after which a frame is drawn: closer together at first, where more happens."""
    return np.unique(np.rint(steps * np.linspace(0, 1, max(2, frames)) ** 1.5).astype(int)).tolist()


def model_on(
    name: str, parameters: Mapping[str, Any], data: DataSettings, training: Training
) -> tuple[nn.Module, DataSet, Training]:
    """A model with initial weights, the data that it is for, and its training with nothing left open."""
    dataset, chosen = load(data, progress=True), spec(name, parameters)
    model = build(chosen, dataset.shape, training.seed)
    return model, dataset, dataclasses.replace(resolve(training, chosen, dataset, model), device="cpu")


def watched(model: nn.Module, dataset: DataSet, training: Training, frames: int) -> Iterator[int]:
    """Train a model, pausing for each frame."""
    stream = stream_of(dataset, training, torch.device("cpu"), model)
    return watch(model, stream, training, moments(training.steps or 0, frames))


def played(gan: GAN, real: torch.Tensor, fake: torch.Tensor) -> float:
    """V(D, G) in nats, eq. 1 of Goodfellow et al. 2014, on items that nobody learned from."""
    with torch.no_grad():
        return -float(losses.discriminator_loss(gan.realness(real), gan.realness(fake)))
