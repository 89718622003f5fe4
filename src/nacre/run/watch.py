"""Training that is looked at while it goes on, and leaves nothing behind."""

from collections.abc import Collection, Iterator

import torch
from torch import nn

from nacre.data.stream import Batches
from nacre.engine import numerics
from nacre.engine.settings import Training
from nacre.engine.update import in_motion


def watch(model: nn.Module, stream: Batches, training: Training, moments: Collection[int]) -> Iterator[int]:
    """Play a model's objectives, and hand over at each of the moments: the model is then as it is after so many steps.

    Args:
        model: trained in place; in training mode while it is.
        stream: step ↦ batch.
        training: with steps and batch size.
        moments: numbers of steps, 0 being the start.
    """
    updates = in_motion(model, training)
    last = max(moments)
    for step in range(last + 1):
        if step in moments:
            yield step
        if step == last:
            return
        model.train()
        with torch.random.fork_rng(devices=[]), numerics.applied(stream.device):
            batch = stream.batch(step)
            for update in updates:
                if step in update.objective.when:
                    update(step, batch)
