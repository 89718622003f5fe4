"""Training without a run directory: a model's table in motion on arrays, silent, and exactly as in a run."""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from nacre import seeds
from nacre.data.stream import Stream
from nacre.engine import numerics
from nacre.engine.average import Average, tensors
from nacre.engine.settings import Training
from nacre.engine.update import in_motion
from nacre.errors import TrainingError
from nacre.pretrained import Pretrained
from nacre.protocols import ALWAYS
from nacre.run.session import build
from nacre.spec import Spec


class Course:
    """A model in training: its weights, their moving average, the optimizers, and the number of steps behind it.

    Args:
        spec: of the model, which is built with the weights of the seed.
        shape: of an item.
        training: settings with the batch size resolved.
        done: steps that the model has been trained for already.

    Raises:
        ConfigError: the model's table cannot be played.
    """

    def __init__(self, spec: Spec, shape: tuple[int, ...], training: Training, done: int = 0) -> None:
        self.spec, self.shape, self.training, self.done = spec, shape, training, done
        self.device = numerics.device_for(training.device)
        self.module = build(spec, shape, training.seed, self.device)
        self.updates = in_motion(self.module, training)
        self.average = Average(self.module, training.ema)

    @property
    def endless(self) -> bool:
        """Whether nothing depends on how long the training will be, so that it can go on as long as data come."""
        always = all(update.objective.when.stop == ALWAYS.stop for update in self.updates)
        return always and self.training.lr_schedule in (None, "constant")

    def go_on(self, items: np.ndarray, *, labels: np.ndarray | None = None, passes: int | None = None) -> None:
        """Train on items, for as many steps as the settings say or for some passes over them.

        Args:
            items: (N, *shape), uint8 images or float32.
            labels: (N,) int64, for a model that learns from them.
            passes: over the items; each call has an order of its own.

        Raises:
            TrainingError: a weight is no longer a number.
        """
        seed = self.training.seed
        batch_size = min(self.training.batch_size or 1, len(items))
        steps = math.ceil(passes * len(items) / batch_size) if passes else self.training.steps or 0
        stream = Stream(
            items,
            np.arange(len(items)),
            batch_size,
            seed=seeds.mix(seed, "passes", at=self.done) % seeds.LARGEST_SEED if passes else seed,
            device=self.device,
            labels=labels,
            labelled_share=getattr(self.module, "labelled_share", 0.0),
        )
        with torch.random.fork_rng(devices=[]), numerics.applied(self.device):
            for position in range(steps):
                step, batch = self.done + position, stream.batch(position)
                for update in self.updates:
                    if step in update.objective.when:
                        update(step, batch)
                self.average.update(step)
        self.done += steps
        if not all(bool(tensor.isfinite().all()) for tensor in tensors(self.module)):
            raise TrainingError(
                f"a weight is no longer a number after {self.done} steps; scale the data, or try a lower lr or clip=1."
            )

    def result(self) -> nn.Module:
        """The averaged weights, as they are now."""
        return copy.deepcopy(self.average.model)

    def start_from(self, module: nn.Module) -> None:
        """Take over the weights of a module."""
        for mine in (self.module, self.average.model):
            mine.load_state_dict(module.state_dict())

    def state(self) -> dict[str, Any]:
        """Everything that it takes to go on, with NumPy's arrays for tensors."""
        return {
            "made of": (self.spec, self.shape, self.training, self.done),
            "module": _arrays(self.module.state_dict()),
            "average": _arrays(self.average.model.state_dict()),
            "optimizers": [_arrays(update.optimizer.state_dict()) for update in self.updates],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Course":
        """The course whose state this is."""
        course = cls(*state["made of"])
        course.module.load_state_dict(_tensors(state["module"]))
        course.average.model.load_state_dict(_tensors(state["average"]))
        for update, saved in zip(course.updates, state["optimizers"], strict=True):
            update.optimizer.load_state_dict(_tensors(saved))
        return course


def packed(model: Pretrained) -> dict[str, Any]:
    """A trained model as plain containers and NumPy's arrays."""
    weights = _arrays(model.module.state_dict())
    return {"spec": model.spec, "shape": model.shape, "facts": model.facts, "weights": weights}


def unpacked(state: dict[str, Any]) -> Pretrained:
    """The trained model that was packed, on the CPU."""
    module = build(state["spec"], state["shape"], 0)
    module.load_state_dict(_tensors(state["weights"]))
    return Pretrained(module, state["spec"], state["shape"], state["facts"])


def _arrays(tree: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu().numpy().copy(), dict(tree))


def _tensors(tree: Any) -> Any:
    return pytree.tree_map_only(np.ndarray, lambda array: torch.from_numpy(array.copy()), tree)
