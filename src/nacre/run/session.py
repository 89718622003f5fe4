"""A run in motion: everything settled, started or taken up again, and written down."""

import copy
import dataclasses
import logging
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nacre import seeds
from nacre.data import DataSet
from nacre.data.stream import Stream
from nacre.engine import checkpoint, folder, loop, numerics
from nacre.engine.average import Average
from nacre.engine.log import read as read_log
from nacre.engine.record import Record
from nacre.engine.settings import Training
from nacre.engine.update import Update, lengths
from nacre.engine.validate import Score
from nacre.spec import Spec

logger = logging.getLogger("nacre")

COMPILE_BACKEND = os.environ.get("NACRE_COMPILE_BACKEND", "inductor")
"""What `--compile on` compiles with; the tests take the quicker "aot_eager"."""


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """A run directory and how it ended.

    Attributes:
        path: the directory.
        done: steps done.
        steps: steps asked for.
        score: the last validation, if anything was kept aside.
        interrupted: the signal that stopped the run early, if one did.
    """

    path: Path
    done: int
    steps: int
    score: Score | None = None
    interrupted: int | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        return read_log(self.path)


@dataclass(frozen=True)
class Session:
    """What a run is made of, settled."""

    spec: Spec
    data: DataSet
    training: Training
    model: nn.Module
    stream: Stream


def build(chosen: Spec, shape: tuple[int, ...], seed: int, device: torch.device | str = "cpu") -> nn.Module:
    """A model with the initial weights of a seed, laid out with the channels last, as convolutions like it best."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.mix(seed, "weights"))
        return chosen.build(shape).to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


def resolve(training: Training, chosen: Spec, dataset: DataSet) -> Training:
    """Settings with steps and batch size filled in, by what the model recommends for the data."""
    recommended = {"steps": 10_000, "batch_size": 64, **chosen.recommended(dataset.shape)}
    batch_size = training.batch_size or recommended["batch_size"]
    steps = training.steps or recommended["steps"]
    if training.epochs is not None:
        steps = math.ceil(training.epochs * len(dataset.rows("train")) / batch_size)
    return dataclasses.replace(training, steps=steps, epochs=None, batch_size=batch_size)


def go(path: Path, session: Session, save_first: bool = False) -> Run:
    """Train until all steps are done or a signal comes; the run can be resumed from wherever that is."""
    training, model = session.training, session.model
    steps = training.steps or 0
    with torch.random.fork_rng(devices=[]), numerics.applied(session.stream.device), _signals() as caught:
        backend = COMPILE_BACKEND if training.compile == "on" else None
        updates = [Update(model, objective, training, backend) for objective in model.objectives()]  # type: ignore[operator]
        average = Average(model, training.ema)
        state, notes = checkpoint.load_latest(path / "checkpoints", session.stream.device)
        for note in notes:
            logger.warning(note)
        start = int(state["step"]) if state else 0
        record = _record(path, session, updates, average, start)
        if state:
            record.load_state_dict(state)
        _announce(path, session, updates, start)
        try:
            if save_first:  # weights from elsewhere would not come back from the configuration alone
                record.checkpoint(0)
            done = loop.train(
                updates, average, session.stream, record, start=start, steps=steps, stop=lambda: bool(caught)
            )
        finally:
            record.close()
    return Run(path, done, steps, record.score, caught[0] if caught and done < steps else None)


def _record(path: Path, session: Session, updates: list[Update], average: Average, start: int) -> Record:
    chosen, shape = session.spec, session.data.shape

    def share(model: nn.Module, facts: Mapping[str, Any]) -> None:
        facts = {**facts, "data": session.data.source}
        parameters = chosen.complete()
        folder.write(path / "model", model, name=chosen.name, parameters=parameters, shape=shape, facts=facts)

    held_out = session.data.rows("validation")
    items = session.data.items
    return Record(path, session.model, average, updates, session.training, items, held_out, share, resumed=start)


def _announce(path: Path, session: Session, updates: list[Update], start: int) -> None:
    training, dataset = session.training, session.data
    steps, batch = training.steps or 0, training.batch_size or 0
    parameters = sum(p.numel() for p in session.model.parameters())
    logger.info(
        f"{session.spec.name} ({parameters:,} parameters) on {dataset.source}: {len(dataset.rows('train')):,} items of "
        f"{'×'.join(map(str, dataset.shape))} to train on, {len(dataset.rows('validation')):,} to validate with"
    )
    for note in dataset.notes:
        logger.info(note)
    turns = ", ".join(f"{name} {count:,}" for name, count in lengths(updates, steps).items())
    logger.info(f"{steps:,} steps of {batch} ({steps * batch / 1000:,.0f} kimg; updates: {turns}) into {path}")
    left = steps - start
    logger.info(
        f"{'resuming at step ' + format(start, ',') + '; ' if start else ''}about {_forecast(session, left)} to go"
    )


def _forecast(session: Session, steps: int) -> str:
    """How long `steps` steps may take: the mean of a few on a copy of the model, those of one second at most."""
    model = copy.deepcopy(session.model)
    updates = [Update(model, objective, session.training) for objective in model.objectives()]  # type: ignore[operator]
    durations: list[float] = []
    while len(durations) < 20 and sum(durations) < 1:
        begun = time.perf_counter()
        batch = session.stream.batch(len(durations))
        for update in updates:
            if len(durations) in update.objective.when:
                update(len(durations), batch)
        durations.append(time.perf_counter() - begun)
    seconds = statistics.mean(durations[len(durations) > 1 :]) * steps
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def stream_of(dataset: DataSet, training: Training, device: torch.device) -> Stream:
    """The batches of a run."""
    batch_size = training.batch_size or 0
    rows = dataset.rows("train")
    return Stream(dataset.items, rows, batch_size, seed=training.seed, mirror=dataset.mirror, device=device)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step is finished and saved first; a second one acts as it always does."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
