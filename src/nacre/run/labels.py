"""What a model is told of its data besides their shape: how many classes, which labels, whether to augment."""

import dataclasses
import logging
from typing import Any

import numpy as np
from torch import nn

from nacre.data import DataSet
from nacre.data.sentences import Reader, Words, sentence_encoder
from nacre.errors import ConfigError
from nacre.networks import is_image
from nacre.spec import Spec, fields, find_class

logger = logging.getLogger("nacre")

FEW = 5000
"""Images under which a discriminator soon knows them by heart, so that they are augmented."""


def fitted(chosen: Spec, dataset: DataSet, conditional: bool) -> Spec:
    """A specification with what the data decide: `classes` for a model that takes labels, `augment` where images are few.

    Raises:
        ConfigError: labels are wanted and the model takes none, or the data have none.
    """
    target = find_class(chosen.name)
    known = {field.name for field in fields(target)}
    decided = dict(chosen.parameters)
    if conditional and "classes" not in known:
        raise ConfigError(f"{chosen.name} cannot be conditioned on labels; leave --conditional out.")
    if (conditional or getattr(target, "supervised", False)) and "classes" not in decided:
        decided["classes"] = len(classes_of(chosen.name, dataset))
    if getattr(target, "sides", None) and dataset.other is not None and "channels_b" not in decided:
        decided["channels_b"] = dataset.other.shape[0]
    if getattr(target, "captioned", False) and "words" not in decided:
        decided |= reading(chosen, dataset)
    if dataset.other is not None and not getattr(target, "sides", None):
        logger.warning(f"{chosen.name} learns from {dataset.source} alone; --data-b is for models that translate")
    few = too_few(dataset.shape, len(dataset.rows("train")))
    # Pictures of captions came out worse for it from the start on (docs/results.md, text to image).
    if "augment" in known and "augment" not in decided and few and not getattr(target, "captioned", False):
        logger.info(f"under {FEW:,} images, so the discriminator sees them augmented (--no-augment: as they are)")
        decided["augment"] = True
    return dataclasses.replace(chosen, parameters=decided)


def reading(chosen: Spec, dataset: DataSet) -> dict[str, Any]:
    """What a model is told of captions: how many words it is to read, and what its sentence encoder is, if it has one.

    Raises:
        ConfigError, CheckpointError: the sentence encoder cannot be read.
    """
    folder = chosen.parameters.get("text_encoder")
    if folder is None:
        return {"words": words_in(chosen.name, dataset, Words())}
    encoder = sentence_encoder(folder)
    return {"words": words_in(chosen.name, dataset, encoder), "text_origin": encoder.origin}


def words_in(name: str, dataset: DataSet, reader: Reader) -> int:
    """Words, or tokens, that a model is to read of each caption: 0 if there are none; says what is left out."""
    captions = [] if dataset.captions is None else [dataset.captions[row] for row in dataset.rows("train")]
    told = [caption for caption in captions if caption]
    if not told:
        logger.info(f"{dataset.source} has no captions, so that {name} learns without")
        return 0
    bare, long = len(captions) - len(told), sum(reader.unread(caption) > 0 for caption in told)
    if bare:
        logger.warning(f"{bare:,} of {len(captions):,} images to train on have no caption and are left out")
    if long:
        most = f"{reader.longest} {reader.unit}"
        logger.warning(f"{long:,} captions have more than {most}, of which the first {reader.longest} are read")
    return reader.longest


def too_few(shape: tuple[int, ...], count: int) -> bool:
    """Whether a discriminator should see so many items to train on augmented."""
    return is_image(shape) and count < FEW


def classes_of(name: str, dataset: DataSet) -> tuple[str, ...]:
    """The names of the data's classes.

    Raises:
        ConfigError: there are none.
    """
    if dataset.labels is None or not dataset.classes:
        raise ConfigError(
            f"{name} is to learn from labels, and {dataset.source} has none; take a folder of one folder a class, or an "
            ".npz with `labels`."
        )
    return dataset.classes


def labels_of(model: nn.Module, dataset: DataSet) -> np.ndarray | None:
    """(N,) int64 labels for a model that is built for classes; None for one that is not.

    Raises:
        ConfigError: the data have other classes than the model.
    """
    classes = int(getattr(model, "classes", 0))
    if not classes:
        return None
    named = classes_of(type(model).__name__, dataset)
    if len(named) > classes:
        raise ConfigError(f"the model is built for {classes} classes and {dataset.source} has {len(named)}.")
    return dataset.labels


def rows_of(model: nn.Module, dataset: DataSet, labels: np.ndarray | None) -> np.ndarray:
    """The rows to train on: without those that lack a label the model needs."""
    rows = dataset.rows("train")
    if labels is None or getattr(model, "semi_supervised", False):
        return rows
    return rows[labels[rows] >= 0]
