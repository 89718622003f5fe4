"""A model under examination."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre import images, seeds
from nacre.data.captions import tokens
from nacre.data.stream import Captioned, Pairs, Stream
from nacre.engine.settings import Training
from nacre.engine.update import Update, in_motion
from nacre.networks import is_image
from nacre.protocols import Batch, Objective
from nacre.run.session import build
from nacre.spec import Spec, find_class

BATCH = 8
CLASSES = 3


@dataclass(frozen=True)
class Subject:
    """A model under examination.

    Attributes:
        spec: which.
        shape: of the items it is built for.
        backend: of torch.compile in the comparison with eager execution.
    """

    spec: Spec
    shape: tuple[int, ...]
    backend: str

    def build(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The model with the weights of seed 0."""
        return build(self.spec, self.shape, 0).to(dtype)

    @property
    def labels(self) -> np.ndarray | None:
        """(64,) labels of the items, for a model that is given them."""
        classes = self.spec.complete().get("classes", 0)
        return np.arange(64) % classes if classes else None

    @property
    def sides(self) -> str | None:
        """Whether the model learns from two kinds of images, "paired" or "unpaired"; None for one that does not."""
        return getattr(find_class(self.spec.name), "sides", None)

    @property
    def shape_b(self) -> tuple[int, ...]:
        """The shape of items of side B, for a model that has one."""
        shape: Any = self.build().shape_b
        return tuple(shape)

    def items(self, count: int = 64, side: str = "a") -> np.ndarray:
        """Items of the model's kind: smooth random uint8 images, or float32 vectors."""
        shape = self.shape if side == "a" else self.shape_b
        address = ("contract",) if side == "a" else ("contract", side)
        noise = seeds.noise(seeds.normal(*shape), *address, rows=range(count))
        if not is_image(shape):
            return noise.numpy()
        smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
        return images.to_uint8((smooth + 1) / 2).numpy()

    def some(self, dtype: torch.dtype = torch.float32, side: str = "a") -> Tensor:
        """A few items as a model is asked about them."""
        return images.to_float(torch.from_numpy(self.items(side=side)[:BATCH])).to(dtype)

    def batch(self, dtype: torch.dtype = torch.float32) -> Batch:
        """Items as a loss sees them: with their labels if the model is given any, or with items of the other side."""
        x, labels = self.some(dtype), self.labels
        if self.sides:
            return x, self.some(dtype, "b")
        if self.captions:
            return x, *self.stream().batch(0)[1:]
        return x if labels is None else (x, torch.from_numpy(labels[:BATCH]))

    @property
    def captions(self) -> list[str]:
        """64 captions of the items, for a model that reads; a few are alike."""
        if not self.spec.complete().get("words", 0):
            return []
        things = ("cat", "dog", "hat", "cup")
        return [f"a {color} {thing}" for color in ("red", "green", "blue", "grey") for thing in things] * 4

    def stream(self) -> Stream | Pairs | Captioned:
        """The batches of a training."""
        rows = np.arange(64)
        one = Stream(self.items(), rows, BATCH, labels=self.labels)
        if self.captions:
            return Captioned(one, tokens(self.captions))
        return Pairs(one, Stream(self.items(side="b"), rows, BATCH, seed=1)) if self.sides else one

    def train(self, model: nn.Module, steps: int, backend: str | None = None, **settings: Any) -> list[Update]:
        """Play all objectives for some steps."""
        training = Training(steps=steps, batch_size=BATCH, **settings)
        updates = in_motion(model, training, backend)
        stream = self.stream()
        for step in range(steps):
            for update in updates:
                if step in update.objective.when:
                    update(step, stream.batch(step))
        return updates

    @property
    def round(self) -> int:
        """Steps after which every objective has been played at least twice."""
        return max(o.when[min(1, len(o.when) - 1)] + 1 for o in objectives(self.build()))


def with_classes(chosen: Spec) -> Spec:
    """A model that cannot do without labels is examined with three classes."""
    if not getattr(find_class(chosen.name), "supervised", False) or "classes" in chosen.parameters:
        return chosen
    return Spec(chosen.name, {**chosen.parameters, "classes": CLASSES})


def objectives(model: nn.Module) -> list[Objective]:
    """A model's table."""
    return list(model.objectives())  # type: ignore[operator]
