"""Which items a step sees: a pure function of the step."""

import warnings
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nacre import images, seeds
from nacre.errors import DataError

WRONG = 15
"""Captions of other images that come with each."""


class Batches(Protocol):
    """Step ↦ this rank's part of its batch, on the device."""

    device: torch.device

    def batch(self, step: int) -> Any: ...


class Stream:
    """The batches of a run: epoch after epoch in a new order each, without a gap where two epochs meet.

    Args:
        items: uint8 images (N, C, H, W) or float32 vectors (N, D); may be memory-mapped.
        rows: (M,) indices of the items to train on.
        batch_size: items in a step.
        seed: of the order and of the mirroring.
        mirror: flip half of the images left and right.
        device: where batches go.
        part: the rows of every batch that are this rank's; by default all.
        labels: (N,) int64 of all items, for a model that is given them; -1 where one is not known.
        labelled_share: the least share of a batch, in [0, 1], that has a label, where few items have one: these are gone
            through in an order of their own and stand evenly spaced among the others.

    Raises:
        DataError: there are fewer items than a batch holds, or none with a label where some are wanted.
    """

    def __init__(
        self,
        items: np.ndarray,
        rows: np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        mirror: bool = False,
        device: torch.device | str = "cpu",
        part: range | None = None,
        labels: np.ndarray | None = None,
        labelled_share: float = 0.0,
    ) -> None:
        if len(rows) < batch_size:
            raise DataError(
                f"a batch takes {batch_size} items and there are {len(rows)} to train on; "
                f"add images or take --batch-size {max(1, len(rows))} or less."
            )
        self.rows, self.batch_size = rows, batch_size
        self.seed, self.mirror, self.device = seed, mirror, torch.device(device)
        self.part = range(batch_size) if part is None else part
        self.items = _placed(items, self.device)
        self.labels = labels
        known = rows[labels[rows] >= 0] if labels is not None else rows
        if labels is not None and not len(known):
            raise DataError("the model learns from labels, and no item to train on has one; take data with labels.")
        self.order = Order(rows, seed)
        # Where labels are the rule, the order of all items has them in every batch.
        few = labels is not None and len(known) < labelled_share * len(rows)
        self.labelled = Order(known, seeds.mix(seed, "labelled") % seeds.LARGEST_SEED) if few else None
        self.places = np.arange(0, batch_size, max(1, round(1 / labelled_share))) if few else rows[:0]

    def batch(self, step: int) -> Tensor | tuple[Tensor, Tensor]:
        """This rank's part of a step's batch, on the device; with their labels, (len(part),) int64, if there are any.

        The items are (len(part), C, H, W) uint8 or (len(part), D) float32.
        """
        chosen = self.indices(step)[self.part.start : self.part.stop]
        batch = self.gathered(chosen)
        if self.mirror:
            chance = seeds.noise(seeds.uniform(1), self.seed, "mirror", at=step, rows=self.part, device=self.device)
            batch = images.mirror(batch, chance)
        if self.labels is None:
            return batch
        return batch, _moved(torch.from_numpy(self.labels.take(chosen)), self.device)

    def gathered(self, chosen: np.ndarray) -> Tensor:
        """The items at these indices, on the device."""
        if isinstance(self.items, Tensor):
            return self.items.index_select(0, _moved(torch.from_numpy(chosen), self.items.device))
        # By NumPy: torch's threads wait for each other at every batch, and where other processes keep the cores busy,
        # they wait far longer than one thread takes to copy it.
        return _moved(torch.from_numpy(self.items.take(chosen, axis=0)), self.device)

    def indices(self, step: int) -> np.ndarray:
        """Indices of the items of a step, for all ranks: (batch_size,) int64."""
        chosen = self.order.take(step, self.batch_size)
        if self.labelled is not None:
            chosen = chosen.copy()  # it may be a view of the order
            chosen[self.places] = self.labelled.take(step, len(self.places))
        return chosen


class Pairs:
    """The batches of a run on two sides: (batch of a, batch of b).

    Two streams over as many rows, of one seed, go through them in the same order and mirror the same ones: pairs stay
    pairs. Of two seeds, each epoch makes new pairs.
    """

    def __init__(self, a: Stream, b: Stream) -> None:
        self.a, self.b, self.device = a, b, a.device

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's part of a step's batch, of both sides."""
        return self.a.batch(step), self.b.batch(step)  # type: ignore[return-value]


class Captioned:
    """The batches of a run on images with captions: (items, own captions, wrong captions).

    Wrong captions are other texts, drawn anew at each step, `WRONG` of them for each item. Where there are texts that differ from
    its own in one word, about half are of these: a red seven on blue is easily told from a green four on white, without
    knowing what a seven is, and then nobody learns it.

    Args:
        stream: of the images.
        tokens: (rows, words, features): one caption for each of the stream's rows, in their order, as numbers.
        told: (rows, …): what the model is told of each; by default these numbers.
    """

    def __init__(self, stream: Stream, tokens: np.ndarray, told: np.ndarray | None = None) -> None:
        self.stream, self.device = stream, stream.device
        flat = tokens.reshape(len(tokens), -1)
        _, first, meaning = np.unique(flat, axis=0, return_index=True, return_inverse=True)
        if len(first) < 2:
            raise DataError("a model that reads needs two different captions at least.")
        self.meaning, self.near = meaning.ravel(), Near(tokens[first])
        self.distinct = (tokens if told is None else told)[first]
        self.row = {int(row): place for place, row in enumerate(stream.rows)}

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's part of a step's batch, on the device: (M, C, H, W), and what is told: (M, …) and (M, WRONG, …)."""
        stream = self.stream
        items = stream.batch(step)
        chosen = stream.indices(step)[stream.part.start : stream.part.stop]
        own = self.meaning[[self.row[int(row)] for row in chosen]]
        chance = seeds.noise(seeds.uniform(WRONG), stream.seed, "wrong", at=step, rows=stream.part).numpy()
        drawn = zip(own.tolist(), chance.tolist(), strict=True)
        wrong = np.array([[self.other(one, share) for share in row] for one, row in drawn])
        told = (_moved(torch.from_numpy(self.distinct[each]), self.device) for each in (own, wrong))
        return (items, *told)  # type: ignore[return-value]

    def other(self, own: int, chance: float) -> int:
        """Another caption, by a number in [0, 1): any one below one half, above it one that is near, if there is any."""
        near, share = self.near.count(own), 2 * chance % 1
        if chance >= 0.5 and near:
            return self.near.member(own, int(share * near))
        count = len(self.distinct)
        return (own + 1 + int(share * (count - 1))) % count


class Near:
    """Which captions differ from each in one word, at whatever place: groups of captions that are equal without it.

    Args:
        captions: (N, words, features), all different.
    """

    def __init__(self, captions: np.ndarray) -> None:
        groups: dict[bytes, list[int]] = {}
        for number, row in enumerate(captions[:, :, 0]):  # a word's first number is of the whole of it
            for place in range(int((row > 0).sum())):
                without = row.copy()
                without[place] = -1
                groups.setdefault(without.tobytes(), []).append(number)
        self.of: list[list[tuple[list[int], int]]] = [[] for _ in captions]
        for members in groups.values():
            for at, number in enumerate(members if len(members) > 1 else ()):
                self.of[number].append((members, at))

    def count(self, own: int) -> int:
        """How many there are."""
        return sum(len(members) - 1 for members, _ in self.of[own])

    def member(self, own: int, number: int) -> int:
        """One of them, by a number below their count."""
        for members, at in self.of[own]:
            if number < len(members) - 1:
                return members[(at + 1 + number) % len(members)]
            number -= len(members) - 1
        raise IndexError(number)


class Order:
    """Rows in an order that is another in each epoch, cut into batches without a gap where two epochs meet."""

    def __init__(self, rows: np.ndarray, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.orders: dict[int, np.ndarray] = {}

    def take(self, step: int, count: int) -> np.ndarray:
        """Batch number `step` of batches of `count` rows: (count,) int64."""
        epoch, offset = divmod(step * count, len(self.rows))
        chosen = self.epoch(epoch)[offset : offset + count]
        while len(chosen) < count:
            epoch += 1
            chosen = np.concatenate([chosen, self.epoch(epoch)[: count - len(chosen)]])
        return chosen

    def epoch(self, epoch: int) -> np.ndarray:
        """The order of an epoch; two are remembered, since a batch may straddle them."""
        if epoch not in self.orders:
            self.orders = {old: order for old, order in self.orders.items() if old == epoch - 1}
            self.orders[epoch] = self.rows[seeds.permutation(self.seed, epoch, len(self.rows))]
        return self.orders[epoch]


def _placed(items: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """Items where batches are gathered: on a GPU if they take no more than a quarter of what it has free."""
    if device.type != "cuda" or items.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return np.asarray(items)  # without what NumPy does for each result of a map's own class
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mapped file cannot be written to, and nobody does
        return torch.from_numpy(items).to(device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; on its way to a GPU nothing waits for it."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
