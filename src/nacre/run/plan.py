"""A run settled but for its ranks: what is asked for, with everything that the data decide."""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nacre import data
from nacre.data import DataSet, DataSettings
from nacre.data.sentences import reader_of
from nacre.engine import numerics
from nacre.engine.lock import locked
from nacre.engine.ranks import ALONE, Ranks
from nacre.engine.settings import Training
from nacre.errors import ConfigError
from nacre.models import CATALOGUE
from nacre.networks import Shape, is_image
from nacre.run.config import Request
from nacre.run.labels import fitted
from nacre.run.session import Session, build, resolve
from nacre.run.streams import described, stream_of, words_of
from nacre.spec import Spec, fields, find_class

logger = logging.getLogger("nacre")

SIZES = ("hidden", "width")
"""How the names of parameters end that are sizes of layers."""

KEPT = 256
"""Captions that a model is given to sample from."""


@dataclass(frozen=True)
class Plan:
    """What a run is made of, before its ranks have met.

    Attributes:
        asked: the request, as it came.
        spec, data, training: what it comes to: the model with what the data decide, steps and batch size filled in.
        device: where it runs.
        model: with the initial weights of the seed.
    """

    asked: Request
    spec: Spec
    data: DataSet
    training: Training
    device: torch.device
    model: nn.Module

    def session(self, ranks: Ranks = ALONE) -> Session:
        """What is trained, or this rank's part of it."""
        stream = stream_of(self.data, self.training, self.device, self.model, ranks)
        return Session(self.spec, self.data, self.training, self.model, stream, ranks)

    def settings(self) -> tuple[DataSettings, Training]:
        """Of data and training, to be written down: where the data are now, and as it was asked for what the length of the
        run decides, which is decided anew when it goes on to another length.
        """
        asked, other = self.asked.training, self.data.other
        return (
            dataclasses.replace(self.asked.data, data=self.data.source, data_b=None if other is None else other.source),
            dataclasses.replace(
                self.training,
                log_every=asked.log_every,
                sample_every=asked.sample_every,
                signal_every=asked.signal_every,
                profile=False,
            ),
        )

    def agree(self, ranks: Ranks) -> None:
        """Make sure that all ranks mean the same. Raises RunError if one does not."""
        ranks.agree(f"{self.spec.complete()} {self.training} {self.data.fingerprint}", self.device)


def plan(asked: Request, *, conditional: bool = False) -> Plan:
    """A new run, its model chosen by the data where none was asked for.

    Raises:
        NacreError: data or settings cannot be used.
    """
    dataset = data.load(asked.data, progress=True)
    chosen = asked.spec(_choose(dataset) if asked.model is None else asked.model)
    planned = settled(asked, fitted(chosen, dataset, conditional), dataset)
    for flag in idle(planned.spec, planned.model, dataset.shape):
        logger.info(
            f"{flag} changes nothing: no layer of this network is sized by it; nacre train {planned.spec.name} --help says "
            "which one's layers are."
        )
    return planned


def settled(asked: Request, chosen: Spec, dataset: DataSet) -> Plan:
    """A plan for a model and data that are known."""
    device = numerics.device_for(asked.training.device)
    model = build(chosen, dataset.shape, asked.training.seed, device)
    training = resolve(asked.training, chosen, dataset, model)
    if words_of(model):
        _introduce(model, dataset)
    return Plan(asked, chosen, dataset, training, device, model)


def idle(chosen: Spec, model: nn.Module, shape: Shape) -> list[str]:
    """The flags among those given that are to size layers and size none of `model`'s, whose network is of another kind."""
    found = []
    for field in fields(find_class(chosen.name)) if chosen.name in CATALOGUE else []:
        others = {name: value for name, value in chosen.parameters.items() if name != field.name}
        given = chosen.parameters.get(field.name, field.default)
        if field.name.endswith(SIZES) and given != field.default:
            with suppress(ConfigError):  # a default that does not go with the other settings: it has its effect
                if _sizes(build(Spec(chosen.name, others), shape, seed=0)) == _sizes(model):
                    found.append(field.flag)
    return found


def _sizes(model: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in model.parameters()]


def _introduce(model: nn.Module, dataset: DataSet) -> None:
    """Give a model captions to sample from: some of the training set, spread evenly."""
    rows = described(dataset, "train")
    some = rows[:: max(1, len(rows) // KEPT)]
    told = reader_of(model)([(dataset.captions or ())[row] for row in some])
    model.remember(torch.from_numpy(told))  # type: ignore[operator]


@contextmanager
def held(path: Path, ranks: Ranks) -> Iterator[None]:
    """Hold a run: the first rank does, for all."""
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(locked(path)))
        yield


def told(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What another rank is to call, in plain containers."""
    plain = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in arguments.items()}
    return {"call": function, "arguments": plain}


def _choose(dataset: DataSet) -> str:
    """A model for data that came without one, by kind, count, size and labels; says why."""
    count, shape = len(dataset.rows("train")), dataset.shape
    if dataset.other is not None:
        name, why = "cyclegan", "there are two kinds of images, and it needs no pairs (pix2pix takes those of one name)"
    elif not is_image(shape):
        name, why = "wgan_gp", "the data are vectors, and a Wasserstein GAN covers all the modes of a density"
    elif count < 2000:
        name, why = "vae", f"{count:,} images are too few for a GAN, whose discriminator would learn them by heart"
    elif max(shape[1:]) > 64:
        name, why = "vae", f"a GAN at {shape[2]}×{shape[1]} pixels takes hours; --image-size 64 makes one feasible"
    elif dataset.classes and count < 5000:
        name, why = (
            "vae",
            f"{count:,} labelled images: a VAE's codes are of use with the labels, and it needs fewer images",
        )
    else:
        name, why = (
            "gan",
            f"{count:,} images of {shape[2]}×{shape[1]} pixels are enough for a GAN, which is the sharper",
        )
    logger.info(f"no model named: {name}, because {why}")
    return name
