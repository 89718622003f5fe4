"""What an evaluation is of: a model, real items that it has not seen, and what both look like to an extractor."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nacre import data, images, seeds
from nacre.data import DataSet, DataSettings
from nacre.engine import checkpoint as checkpoints
from nacre.engine.sampling import CHUNK
from nacre.errors import CapabilityError, ConfigError, ShapeError, at_least
from nacre.metrics import floors
from nacre.metrics.classifiers import Referee
from nacre.metrics.extractors import SMALLEST, Extractor
from nacre.metrics.floors import Floor
from nacre.networks import is_image
from nacre.pretrained import Pretrained, load
from nacre.protocols import Classifies, Infers, LogLikelihood, Reconstructs, Samples, Translates, device_of
from nacre.run import config as configuration
from nacre.run import extractors

Split = Literal["test", "validation"]

LEAST = 20
"""Held-out items under which nothing is said."""

MOST_TRAINING = 60_000
"""Training items in which samples' neighbours are looked for; of more, this many at random."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an evaluation is made.

    Args:
        samples: N, 20 or more; as many held-out items stand against them, or fewer of both where there are not so many.
        seed: of samples, splits and subsets.
        split: of the real items: "test" for a number to publish, "validation" to choose by.
        extractor: what distances are taken in: "random", "labels", "pinned:mnist", "pinned:fashion-mnist",
            "inception:FILE", "dinov2:FOLDER" or "clip:FOLDER"; "auto" is "labels" where the data have them, otherwise
            "random".
        data: another source than the run's own, or where that has moved to.
        checkpoint: "best", or a step; by default the latest weights.
        model: "FILE.py:CLASS" for a model of your own.
        progress: whether to show how far it is, where standard error is a terminal.
        ais: held-out items whose log p(x) is found by annealed importance sampling, some seconds each; 0 for none.
        device: "cpu", "cuda", "mps" or "auto".
        batch_size: items in one forward pass; the numbers do not depend on it.

    Raises:
        ConfigError: a value out of its range.
    """

    samples: int = 10_000
    seed: int = 0
    split: Split = "test"
    extractor: str = "auto"
    data: str | None = None
    checkpoint: str | None = None
    model: str | None = None
    progress: bool = True
    ais: int = 0
    device: str = "cpu"
    batch_size: int = CHUNK

    def __post_init__(self) -> None:
        at_least(LEAST, samples=self.samples)
        at_least(1, batch_size=self.batch_size)
        at_least(0, ais=self.ais)
        if self.split not in ("test", "validation"):
            raise ConfigError(f"the split is test or validation, got {self.split!r}.")
        if not 0 <= self.seed <= seeds.LARGEST_SEED:
            raise ConfigError(f"a seed must be from 0 to {seeds.LARGEST_SEED}, got {self.seed}.")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the real items that it is held against. All sets are of one order, whatever the batch size.

    Attributes:
        path: where the model comes from.
        model: trained.
        step: of its weights, if known.
        dataset: the real items.
        own: whether these are what the model was trained on, so that its training items are known.
        settings: how.
        notes: sentences for the reader.
        by_item: numbers of single held-out items, (N,) under the name of the row that has their mean.
    """

    path: str
    model: Pretrained
    step: int | None
    dataset: DataSet
    own: bool
    settings: Settings
    notes: list[str]
    by_item: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of samples and choices."""
        return self.settings.seed

    @property
    def split(self) -> Split:
        """What is held out."""
        return self.settings.split

    @property
    def batch_size(self) -> int:
        """Items in one forward pass."""
        return self.settings.batch_size

    @property
    def image(self) -> bool:
        """Whether items are images."""
        return is_image(self.dataset.shape)

    @property
    def stacked(self) -> bool:
        """Whether items are stacked MNIST's, whose thousand classes are told digit by digit."""
        return self.image and self.dataset.shape[0] == 3 and self.dataset.source.startswith("stacked-mnist")

    @cached_property
    def held_out_rows(self) -> np.ndarray:
        """Rows of the data that the model is held against: N, or as many as there are."""
        return self._chosen(self.dataset.rows(self.split), self.settings.samples, "held out")

    @property
    def count(self) -> int:
        """N on either side."""
        return len(self.held_out_rows)

    @property
    def caution(self) -> str:
        """What to say where there are fewer real items than were asked for."""
        if self.count >= self.settings.samples:
            return ""
        what = "samples" if isinstance(self.model.module, Samples) else "items"
        return (
            f"{self.count:,} {what} instead of {self.settings.samples:,}, since there are no more {self.split} items."
        )

    @cached_property
    def held_out(self) -> Tensor:
        """(N, *shape), uint8 images or float vectors."""
        return self.items(self.held_out_rows)

    @cached_property
    def samples(self) -> Tensor:
        """(N, *shape) of the model, images in 256 levels as those of the data are."""
        made = self.model.sample(self.count, seed=self.seed, batch_size=self.batch_size)
        return images.to_uint8(made) if self.image else made

    @cached_property
    def stand_in_rows(self) -> np.ndarray:
        """Rows of N other real items, which stand for perfect samples: of the validation split first, then training items."""
        spare = self.dataset.rows("validation") if self.split == "test" else self.dataset.rows(self.split)[:0]
        first = self._chosen(spare, self.count, "stand-ins")
        rest = self._chosen(self.dataset.rows("train"), self.count - len(first), "stand-ins")
        return np.concatenate([first, rest])

    @cached_property
    def stand_ins(self) -> Tensor:
        """(N, *shape)."""
        return self.items(self.stand_in_rows)

    @cached_property
    def unseen_rows(self) -> np.ndarray:
        """Rows of validation items that are neither held out nor trained on, at most N."""
        spare = self.dataset.rows("validation") if self.split == "test" else self.dataset.rows("train")[:0]
        return self._chosen(spare, self.count, "unseen")

    @cached_property
    def train_rows(self) -> np.ndarray:
        """Rows of training items."""
        return np.sort(self._chosen(self.dataset.rows("train"), MOST_TRAINING, "training"))

    @cached_property
    def extractor(self) -> Extractor | None:
        """What features are of; None for vectors, and for images too small for one, which are compared as they are."""
        if not self.image or min(self.dataset.shape[1:]) < SMALLEST:
            return None
        chosen = extractors.extractor(self.dataset, self.settings.extractor)
        return chosen.to(device_of(self.model.module))

    @cached_property
    def referee(self) -> Referee | None:
        """The judge of classes; None without labels to learn from, or of images too small."""
        small = not self.image or min(self.dataset.shape[1:]) < SMALLEST
        if small or self.stacked or not extractors.has_labels(self.dataset):
            return None
        chosen = extractors.referee(self.dataset)
        if self.extractor is not None:
            chosen.check(self.extractor)
        return chosen

    def features(self, items: Tensor) -> Tensor:
        """What the metrics compare: (N, D)."""
        if self.extractor is None:
            return images.to_float(items).flatten(1)
        return self.extractor(items, batch_size=self.batch_size)

    @cached_property
    def sample_features(self) -> Tensor:
        """Of the samples."""
        return self.features(self.samples)

    @cached_property
    def held_out_features(self) -> Tensor:
        """Of the held-out items."""
        return self.features(self.held_out)

    @cached_property
    def stand_in_features(self) -> Tensor:
        """Of the stand-ins."""
        return self.features(self.stand_ins)

    @cached_property
    def train_features(self) -> Tensor:
        """Of the training items, whose images are read some at a time."""
        parts = np.array_split(self.train_rows, max(1, len(self.train_rows) // 4096))
        return torch.cat([self.features(self.items(part)) for part in parts])

    @property
    def space(self) -> str:
        """Where distances are taken, in words."""
        if self.extractor is not None:
            return f"in the {self.extractor.dim} features of {self.extractor.name}"
        return "on pixels" if self.image else f"on the {self.dataset.shape[0]} numbers of an item"

    @property
    def sizes(self) -> str:
        """How many of what, in words."""
        return f"{self.count:,} samples (seed {self.seed}) against {self.count:,} {self.split} items"

    @cached_property
    def floor_words(self) -> str:
        """Who stood for perfect samples, in words."""
        of_validation = int((self.dataset.split[self.stand_in_rows] == 1).sum())
        parts = [(of_validation, "validation"), (len(self.stand_in_rows) - of_validation, "training")]
        counted = " and ".join(f"{count:,} {name}" for count, name in parts if count)
        return f"floor: {counted} items in the samples' place"

    def floor(self, metric: Any, real: Tensor, spare: Tensor) -> Floor[Any]:
        """A metric of (real, fake) with the stand-ins as samples."""
        return floors.floor(metric, real, min(len(real), self.count), spare=spare, seed=self.seed)

    def items(self, rows: np.ndarray) -> Tensor:
        """Real items as they are stored."""
        return torch.from_numpy(np.ascontiguousarray(self.dataset.items[rows]))

    def floats(self, rows: np.ndarray) -> Tensor:
        """Real items as the model takes them."""
        return images.to_float(self.items(rows))

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """Numbers of their classes, -1 where one is not known."""
        return None if self.dataset.labels is None else self.dataset.labels[rows]

    def _chosen(self, rows: np.ndarray, count: int, purpose: str) -> np.ndarray:
        """At most `count` rows: all in their order, or some at random."""
        if len(rows) <= max(0, count):
            return rows
        return rows[
            seeds.permutation(seeds.mix(self.seed, purpose) & seeds.LARGEST_SEED, 0, len(rows))[: max(0, count)]
        ]


def _elsewhere(module: nn.Module, path: str | os.PathLike[str]) -> str:
    """Where a model that translates is judged."""
    run = os.fspath(path)
    return f"; how its translations stand says nacre diagnose {run}" if isinstance(module, Translates) else ""


def subject(path: str | os.PathLike[str], settings: Settings) -> Subject:
    """Open a run, and the data that it is held against.

    Raises:
        CapabilityError: the model does nothing that could be measured.
        ConfigError: what was asked for cannot be meant.
        RunError: the run cannot be read.
        DataError, ShapeError: the data cannot be had, or are not the model's.
    """
    which = settings.checkpoint
    trained = load(path, model=settings.model, checkpoint=which, device=settings.device)
    if not isinstance(trained.module, Samples | Reconstructs | LogLikelihood | Infers | Classifies):
        raise CapabilityError(
            f"{trained.spec.name} neither samples nor reconstructs, has no likelihood and tells no classes: there is nothing "
            f"to evaluate{_elsewhere(trained.module, path)}."
        )
    dataset, own, notes = _data_of(Path(path), trained, settings)
    step = _step(Path(path), trained.facts, which)
    found = Subject(os.fspath(path), trained, step, dataset, own, settings, notes)
    if found.count < LEAST:
        split = found.split
        other = "validation" if split == "test" else "test"
        raise ConfigError(
            f"{dataset.source} has {found.count} {split} items, and an evaluation takes {LEAST} at least; choose --split "
            f"{other}, or train with more kept aside (--{split} 0.1)."
        )
    if found.caution:
        notes.append(found.caution)
    return found


def _data_of(run: Path, model: Pretrained, asked: Settings) -> tuple[DataSet, bool, list[str]]:
    """The real items, whether the model was trained on their training split, and what to say of them."""
    source = asked.data
    written = configuration.recorded(run) if (run / configuration.NAME).is_file() else None
    if written is None and source is None:
        raise ConfigError(f"{run} is not a run, so it has no data of its own: say --data SOURCE.")
    dataset = data.load(_settings(written, source, model), progress=asked.progress)
    if dataset.shape != model.shape:
        raise ShapeError(
            f"{run} was built for items of shape {model.shape} and {dataset.source} has {dataset.shape}; give data of that "
            "shape."
        )
    if written is not None and dataset.fingerprint == written["fingerprint"]:
        return dataset, True, []
    if source is None:
        return (
            dataset,
            True,
            [f"{dataset.source} has changed since the run was trained: held-out items may be known to it."],
        )
    return (
        dataset,
        False,
        [f"Not the run's own data: nothing is said of what it may have copied from {dataset.source}."],
    )


def _settings(written: Mapping[str, Any] | None, source: str | None, model: Pretrained) -> DataSettings:
    """How the data are read: as for the run, from another place if one is named."""
    if written is None:
        size: dict[str, Any] = {}
        if is_image(model.shape):
            size = {"channels": model.shape[0], "image_size": model.shape[1:], "fit": model.facts.get("fit", "crop")}
        return DataSettings(data=source or "", **size)
    known = {each.name for each in dataclasses.fields(DataSettings)}
    plain: dict[str, Any] = {name: v for name, v in written["data"].items() if name in known}
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
    return DataSettings(**plain | ({"data": source} if source else {}))


def _step(run: Path, facts: Mapping[str, Any], which: str | None) -> int | None:
    """The step of the weights."""
    if which is None:
        return facts.get("steps")
    if which.isdecimal():
        return int(which)
    present = checkpoints.steps(run / "checkpoints")
    best = checkpoints.load(run / "checkpoints", present[-1])["best"] if present else None
    return int(best[0]) if best else present[-1] if present else None
