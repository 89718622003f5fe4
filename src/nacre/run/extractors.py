"""The extractor and the referee of a data set: trained on its own labels where it has them, and kept in the cache."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre import images, seeds
from nacre.data import DataSet
from nacre.data.cache import cache_folder
from nacre.data.progress import bar
from nacre.errors import CheckpointError, ConfigError
from nacre.metrics import classifiers
from nacre.metrics.classifiers import ARCHITECTURE, Classifier, Referee
from nacre.metrics.extractors import LONGEST, REFEREE, SMALLEST, Card, Extractor, random_extractor, read, weights_sha256
from nacre.metrics.inception import inception
from nacre.metrics.transformer import KINDS, transformer
from nacre.networks import is_image
from nacre.run.place import stem

logger = logging.getLogger("nacre")

VERSION = 1
"""Of networks and training; another one makes other weights."""

STEPS, EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY = 1_500, 30, 128, 3e-3, 1e-2
SHIFT = 14
"""Images are moved by up to 1/14 of their size: two pixels of 28."""

LEAST = 500
"""Labelled training images under which a network learns too little of what they show."""

TESTED = 10_000
"""Test images that the accuracy is of, at most."""

CHOICES = "auto, random, labels, pinned:NAME, inception:FILE, inception-PROTOCOL:FILE, dinov2:FOLDER or clip:FOLDER"


def extractor(dataset: DataSet, which: str = "auto", *, seed: int = 0) -> Extractor:
    """The extractor that distances on a data set are taken in.

    Args:
        dataset: of images.
        which: "auto" is "labels" where at least 500 training images have labels of two classes or more, otherwise "random";
            "pinned:mnist" and "pinned:fashion-mnist" come with nacre; "inception:FILE" is the published FID's, with
            "inception-pytorch-fid:FILE" and "inception-clean:FILE" for the other ways to resize; "dinov2:FOLDER" and
            "clip:FOLDER" are models of transformers.
        seed: of the weights of "random" and "labels".

    Raises:
        ConfigError: there is no such extractor, or the data are vectors or have no labels to learn from.
    """
    _images_only(dataset)
    head, _, rest = which.partition(":")
    if head == "auto":
        head = "labels" if has_labels(dataset) else "random"
    if head == "random":
        return random_extractor(seed)
    if head == "labels":
        return classifiers.as_extractor(*trained(dataset, "labels", seed))
    if head == "pinned":
        return classifiers.pinned(rest)
    kind, _, protocol = head.partition("-")
    if rest and kind == "inception":
        return inception(Path(rest), protocol or "tensorflow1")
    if rest and head in KINDS:
        return transformer(head, Path(rest))
    raise ConfigError(f"the extractor is {CHOICES}; got {which!r}.")


def referee(dataset: DataSet, *, seed: int = 0) -> Referee:
    """The judge of a data set's classes: nothing else may see it.

    Args:
        dataset: labelled images.
        seed: of its weights; they are not those of an extractor of any seed.

    Raises:
        ConfigError: the data are vectors or have no labels to learn from.
    """
    _images_only(dataset)
    return Referee(*trained(dataset, REFEREE, seed))


def has_labels(dataset: DataSet) -> bool:
    """Whether there are enough labels for a network to learn from."""
    return len(dataset.classes) > 1 and len(labelled(dataset, "train")) >= LEAST


def trained(dataset: DataSet, kind: str, seed: int = 0) -> tuple[Classifier, Card]:
    """A classifier of the data's labels, from the cache or trained now.

    Args:
        dataset: labelled images.
        kind: "labels" or "referee".
        seed: of weights, order and shifts.

    Raises:
        ConfigError: fewer than 500 training images have labels, or of one class only.
    """
    if not has_labels(dataset):
        count, classes = len(labelled(dataset, "train")), len(dataset.classes)
        raise ConfigError(
            f"a network needs {LEAST} labelled training images of two classes or more, and {dataset.source} has {count:,} of "
            f"{classes}; take the extractor 'random'."
        )
    path = cache_folder() / "extractors" / f"{kind}-{_key(dataset, kind, seed)}.safetensors"
    if path.exists():
        try:
            return _checked(*classifiers.load(path), kind=kind)
        except CheckpointError as error:
            logger.warning(f"trained again: {error}")
    logger.info(f"training a small classifier of {dataset.source}, once ({kind})")
    network = train(dataset, kind, seed)
    card = card_of(network, dataset, kind, seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        card = classifiers.store(network, card, path)
    except OSError as error:
        logger.warning(f"{path.parent} cannot be written ({error.strerror}), so that this is trained anew each time")
    return network, card


def train(dataset: DataSet, kind: str, seed: int = 0) -> Classifier:
    """Train the classifier of a kind with AdamW, its rate rising for a tenth of the steps and falling to zero.

    Images are moved at random, and mirrored where the data may be. The result depends on data, kind and seed alone.
    """
    rows, shape = labelled(dataset, "train"), dataset.shape
    assert dataset.labels is not None
    network = Classifier((shape[0], shape[1], shape[2]), len(dataset.classes), ARCHITECTURE[kind])
    classifiers.initialized(network, kind, seed).train()
    steps = _steps(len(rows))
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    address = seeds.mix(seed, kind) & seeds.LARGEST_SEED
    with bar(steps, f"training a classifier ({kind})", "step", True) as shown:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * min(10 * (step + 1) / steps, (steps - step) / (0.9 * steps), 1.0)
            chosen = rows[_batch(address, step, len(rows))]
            logits = network.logits(_augmented(dataset, chosen, address, step))
            loss = F.cross_entropy(logits, torch.from_numpy(dataset.labels[chosen]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            shown.update()
    return network.eval().requires_grad_(False)


def labelled(dataset: DataSet, split: str) -> np.ndarray:
    """The rows of a split whose label is known."""
    rows = dataset.rows(split)  # type: ignore[arg-type]
    return rows[:0] if dataset.labels is None else rows[dataset.labels[rows] >= 0]


def _steps(count: int) -> int:
    return min(STEPS, EPOCHS * -(-count // BATCH))


def _batch(seed: int, step: int, count: int) -> np.ndarray:
    """The places of a step's items in a row of shuffled epochs."""
    places = np.arange(step * BATCH, (step + 1) * BATCH)
    orders = {epoch: seeds.permutation(seed, epoch, count) for epoch in set((places // count).tolist())}
    return np.array([orders[place // count][place % count] for place in places.tolist()])


def _augmented(dataset: DataSet, rows: np.ndarray, seed: int, step: int) -> Tensor:
    """Images in [0, 1], each moved by its own whole pixels, its border repeated."""
    batch = torch.from_numpy(np.ascontiguousarray(dataset.items[rows]))
    noise = seeds.noise(seeds.uniform(3), seed, "shift", rows=range(len(rows)), at=step)
    grids = []
    for side, share in zip(batch.shape[2:], noise.T, strict=False):
        most = side // SHIFT
        grids.append((torch.arange(side) + (share * (2 * most + 1)).long()[:, None] - most).clamp(0, side - 1))
    down, right = grids
    moved = batch[torch.arange(len(batch))[:, None, None], :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)
    return images.mirror(images.to_float(moved), noise[:, 2:]) if dataset.mirror else images.to_float(moved)


def card_of(network: Classifier, dataset: DataSet, kind: str, seed: int) -> Card:
    """What is known of a network trained by `train`: its accuracy is of test images, or of validation images without these."""
    assert dataset.labels is not None
    rows = labelled(dataset, "test")
    rows = rows if len(rows) else labelled(dataset, "validation")
    rows = rows[:: max(1, -(-len(rows) // TESTED))]
    accuracy = None
    if len(rows):
        told = read(network, dataset.items[rows], say=network.logits).argmax(1).numpy()
        accuracy = float((told == dataset.labels[rows]).mean())
    return Card(
        kind=kind,
        sha256=weights_sha256(network.state_dict()),
        version=VERSION,
        architecture=network.architecture,
        seed=seed,
        data=stem(dataset.source),
        fingerprint=dataset.fingerprint,
        accuracy=accuracy,
        tested=len(rows),
        steps=_steps(len(labelled(dataset, "train"))),
    )


def _checked(network: Classifier, card: Card, kind: str) -> tuple[Classifier, Card]:
    if card.kind != kind:
        raise CheckpointError(f"the cache holds a network of kind '{card.kind}' in the place of '{kind}'.")
    return network, card


def _key(dataset: DataSet, kind: str, seed: int) -> str:
    settings = [VERSION, kind, ARCHITECTURE[kind], seed, STEPS, EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY, SHIFT, LONGEST]
    told = json.dumps([*settings, dataset.mirror, dataset.shape])
    return f"{dataset.fingerprint[:16]}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _images_only(dataset: DataSet) -> None:
    if not is_image(dataset.shape):
        raise ConfigError(f"{dataset.source} holds vectors, which are compared as they are; extractors are of images.")
    if min(dataset.shape[1:]) < SMALLEST:
        raise ConfigError(f"extractors need images of {SMALLEST} pixels or more, and {dataset.source} has fewer.")
