"""The loop: one for every model."""

from collections.abc import Callable, Sequence

from nacre.data.stream import Batches
from nacre.engine.average import Average
from nacre.engine.ranks import AGREE_EVERY
from nacre.engine.record import Record
from nacre.engine.update import Update


def train(
    updates: Sequence[Update],
    average: Average,
    stream: Batches,
    record: Record,
    *,
    start: int,
    steps: int,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Play the objectives, step by step, each when it is its turn.

    Args:
        updates: the model's objectives in playing order.
        average: trails the weights.
        stream: step ↦ batch.
        record: writes down what happens.
        start, steps: the first step, and the one to end at: the run's last, or one before.
        stop: whether this rank was told to stop; the run can be resumed from there.

    Returns:
        The number of steps done.
    """
    done, clock = start, record.clock
    clock.start()
    for step in range(start, steps):
        batch = stream.batch(step)
        clock.lap("data")
        for update in updates:
            if step in update.objective.when:
                record.add(update.objective.name, step, update(step, batch))
        average.update(step)
        clock.lap("average")
        done = step + 1
        record.tick(done)
        clock.lap("writing")
        halt = stop() or record.stopped is not None
        if (record.ranks.size == 1 or done % AGREE_EVERY == 0) and record.ranks.any(halt, stream.device):
            break
    record.finish(done, complete=done == record.training.steps)
    clock.lap("writing")
    return done
