"""The batches of a run, by what its model learns from: items, items with labels, two sides, or captions."""

from typing import Any

import numpy as np
import torch
from torch import nn

from nacre import seeds
from nacre.data import DataSet, captions, sides
from nacre.data.dataset import Split
from nacre.data.sentences import reader_of
from nacre.data.stream import Batches, Captioned, Pairs, Stream
from nacre.engine.ranks import ALONE, Ranks
from nacre.engine.settings import Training
from nacre.errors import ConfigError, DataError
from nacre.protocols import SamplesFromText
from nacre.run.labels import labels_of, rows_of


def stream_of(
    dataset: DataSet, training: Training, device: torch.device, model: nn.Module, ranks: Ranks = ALONE
) -> Batches:
    """The batches of a run, or a rank's part of each, as the model wants them."""
    batch_size = training.batch_size or 0
    ranks.check(batch_size, training.accumulate)
    common: dict[str, Any] = {"batch_size": batch_size, "device": device, "part": ranks.part(batch_size)}
    if sides_of(model):
        return _pairs(dataset, training, model, common)
    if words_of(model):
        rows = described(dataset, "train")
        texts = [(dataset.captions or ())[row] for row in rows]
        stream = Stream(dataset.items, rows, seed=training.seed, mirror=dataset.mirror, **common)
        return Captioned(stream, captions.tokens(texts), reader_of(model)(texts))
    labels = labels_of(model, dataset)
    return Stream(
        dataset.items,
        rows_of(model, dataset, labels),
        seed=training.seed,
        mirror=dataset.mirror,
        labels=labels,
        labelled_share=getattr(model, "labelled_share", 0.0),
        **common,
    )


def sides_of(model: object) -> str | None:
    """ "paired" or "unpaired" for a model, or its class, that learns from two kinds of images; None for one that does not."""
    return getattr(model, "sides", None)


def words_of(model: object) -> int:
    """Words of a caption that a model reads; 0 for one that reads none."""
    return model.words if isinstance(model, SamplesFromText) else 0


def described(dataset: DataSet, split: Split) -> np.ndarray:
    """The rows of a split that have a caption."""
    rows = dataset.rows(split)
    told = dataset.captions or ()
    return np.array([row for row in rows if told[row]], np.int64) if told else rows[:0]


def trained_on(dataset: DataSet, model: nn.Module) -> np.ndarray:
    """The rows that a model learns from, of side A where there are two: without those that lack a label, a caption or a partner
    that it needs.
    """
    if sides_of(model):
        return both_rows(dataset, model, "train")[0]
    return described(dataset, "train") if words_of(model) else rows_of(model, dataset, labels_of(model, dataset))


def judged_by(dataset: DataSet, model: nn.Module) -> np.ndarray:
    """The rows that a model's progress is judged by, of side A where there are two; those of a captioned model with a caption."""
    if sides_of(model):
        return both_rows(dataset, model, "validation")[0]
    return described(dataset, "validation") if words_of(model) else dataset.rows("validation")


def both_rows(dataset: DataSet, model: object, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The rows of either side in a split.

    Raises:
        ConfigError: the data have one side.
    """
    other = other_of(dataset, type(model).__name__)
    if sides_of(model) == "paired":
        return sides.paired_rows(dataset, split)
    return dataset.rows(split), other.rows(split)


def other_of(dataset: DataSet, name: str) -> DataSet:
    """The other side of a data set.

    Raises:
        ConfigError: it has none.
    """
    if dataset.other is None:
        raise ConfigError(
            f"{name} learns from two kinds of images, and {dataset.source} is one; name the other by --data-b, or a folder "
            "with trainA and trainB."
        )
    return dataset.other


def _pairs(dataset: DataSet, training: Training, model: nn.Module, common: dict[str, Any]) -> Pairs:
    other = other_of(dataset, type(model).__name__)
    wanted = model.shape_b[0]  # type: ignore[index]
    if wanted != other.shape[0]:
        raise ConfigError(
            f"{type(model).__name__} is built for {wanted} channels on side B, and {other.source} has {other.shape[0]}; leave "
            "--channels-b out."
        )
    rows, others = both_rows(dataset, model, "train")
    if not len(others):
        raise DataError(f"{other.source} has no image to train on.")
    seed = training.seed
    of_b = seed if sides_of(model) == "paired" else seeds.mix(seed, "side b") % seeds.LARGEST_SEED
    # Mirrored as pairs are: where one side must not be, the other is not.
    mirror = dataset.mirror and other.mirror
    one = Stream(dataset.items, rows, seed=seed, mirror=mirror, **common)
    return Pairs(one, Stream(other.items, others, seed=of_b, mirror=mirror, **common))
