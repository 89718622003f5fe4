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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nacre import seeds
from nacre.data import DataSet
from nacre.data.captions import vocabulary
from nacre.data.dataset import left_out
from nacre.data.sides import about_unpaired
from nacre.data.stream import Batches
from nacre.engine import checkpoint, folder, loop, numerics
from nacre.engine.average import Average, tensors
from nacre.engine.clock import Clock
from nacre.engine.ledger import Ledger
from nacre.engine.log import read as read_log
from nacre.engine.ranks import ALONE, Ranks, batch_norms, synchronise
from nacre.engine.record import Record
from nacre.engine.settings import Training
from nacre.engine.signals import TRAIN
from nacre.engine.update import Update, in_motion, lengths
from nacre.engine.validate import Score, spread
from nacre.errors import ConfigError, Interrupted, TrainingError
from nacre.metrics.verdicts import Facts, Verdict
from nacre.networks import is_image, memory_format
from nacre.protocols import Logs
from nacre.run.labels import labels_of
from nacre.run.place import called, stem
from nacre.run.streams import both_rows, described, judged_by, sides_of, trained_on, words_of
from nacre.spec import Spec

logger = logging.getLogger("nacre")

COMPILE_BACKEND = os.environ.get("NACRE_COMPILE_BACKEND", "inductor")
"""What `--compile on` compiles with; the tests take the quicker "aot_eager"."""

LOOK = 4_096
"""Images between two looks at how training stands, where that leaves 16 of these."""


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """A run directory and how it ended.

    Attributes:
        path: the directory.
        done: steps done.
        steps: steps asked for.
        score: the last validation, if anything was kept aside.
        stopped: the verdict that stopped it early, if it was told to stop on some (`stop_on`).
    """

    path: Path
    done: int
    steps: int
    score: Score | None = None
    stopped: Verdict | None = None

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
    stream: Batches
    ranks: Ranks = ALONE


def build(chosen: Spec, shape: tuple[int, ...], seed: int, device: torch.device | str = "cpu") -> nn.Module:
    """A model with the initial weights of a seed, laid out as `memory_format` says."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.mix(seed, "weights"))
        model = chosen.build(shape).to(torch.device(device))
        return model.to(memory_format=memory_format(model, torch.device(device)))  # type: ignore[call-overload]


def resolve(training: Training, chosen: Spec, dataset: DataSet, model: nn.Module) -> Training:
    """Settings with steps and batch size filled in, by what the model recommends and how many items it can learn from."""
    recommended = {"steps": 10_000, "batch_size": 64, "lr_schedule": "constant", **chosen.recommended(dataset.shape)}
    items = len(trained_on(dataset, model))
    # A small set is not to fail at a default; a power of two is what ranks, packs and micro-batches divide.
    batch_size = training.batch_size or min(recommended["batch_size"], 1 << max(0, items.bit_length() - 1))
    steps = training.steps or recommended["steps"]
    if training.epochs is not None:
        steps = math.ceil(training.epochs * items / batch_size)
    # What a run leaves behind does not grow with its length.
    log_every = training.log_every or max(100, steps // 1000)
    # A look costs as much whatever the batch: 37 s beside 50 for 125 steps of 8 images of 128 pixels (BEGAN).
    looks = max(100, steps // 64, min(steps // 16, LOOK // batch_size))
    signal_every = looks if training.signal_every is None else training.signal_every
    sample_every = max(1000, steps // 50) if training.sample_every is None else training.sample_every
    lr_schedule = training.lr_schedule or recommended["lr_schedule"]
    written: dict[str, Any] = {
        "lr_schedule": lr_schedule,
        "log_every": log_every,
        "sample_every": sample_every,
        "signal_every": signal_every,
    }
    return dataclasses.replace(training, epochs=None, steps=steps, batch_size=batch_size, **written)


def go(
    path: Path,
    session: Session,
    updates: list[Update],
    pace: float,
    *,
    save_first: bool = False,
    settle: Callable[[], None] = lambda: None,
    until: int | None = None,
    judged_from: int = -1,
) -> Run:
    """Train until all steps are done, a signal comes or a verdict stops it; it can be resumed from wherever that is.

    Args:
        path: the run, locked.
        session: what to train.
        updates: its table in motion.
        pace: seconds a step of this rank's part, for the forecast.
        save_first: write a checkpoint of step 0, for weights that the configuration would not bring back.
        settle: called when the last checkpoint has been taken up and nothing stands in the way any more.
        until: a step to end at with a checkpoint, though the run is longer.
        judged_from: the step from which on checkpoints were judged, and the model was looked at, by these data.

    Raises:
        Interrupted: a signal came, be it during the last step; everything was saved first.
    """
    training, model, ranks = session.training, session.model, session.ranks
    steps = training.steps or 0
    last = steps if until is None else until
    with torch.random.fork_rng(devices=[]), numerics.applied(session.stream.device), _signals() as caught:
        ranks.copy_from_first(tensors(model))
        average = Average(model, training.ema)
        if global_batch_norm(session):
            synchronise(model, ranks)
        state, notes = checkpoint.load_latest(path / "checkpoints", session.stream.device)
        for note in notes:
            logger.warning(note)
        start = int(state["step"]) if state else 0
        record = _record(path, session, updates, average, start, judged_from)
        try:
            if state:
                _take_up(record, state, judged_from)
            settle()
            _announce(path, session, updates, range(start, last), pace)
            if save_first:
                record.checkpoint(0)
            span = {"start": start, "steps": last}
            done = loop.train(updates, average, session.stream, record, **span, stop=lambda: bool(caught))
        except TrainingError as error:
            record.fail(error)
            raise
        finally:
            record.close()
        logger.info(_where_the_time_went(record))
        # The first rank alone reads verdicts, and one alone may have been told to stop; the others are to end as it does.
        on_verdict = done < last and ranks.any(record.stopped is not None, session.stream.device)
        told = ranks.any(bool(caught), session.stream.device)
    run = Run(path, done, steps, record.score, record.stopped if done < last else None)
    if told or (done < last and not on_verdict):
        raise Interrupted(run, caught[0] if caught else signal.SIGTERM)
    return run


def _take_up(record: Record, state: Mapping[str, Any], judged_from: int) -> None:
    """Go on from a checkpoint; what was best by other data is best no longer, and their score is none of these."""
    record.load_state_dict(state)
    if state["step"] <= judged_from:
        record.score = None
    if record.best and record.best[0] <= judged_from:
        record.best = None


def global_batch_norm(session: Session) -> bool:
    """Whether batch norms are to see the batches of all ranks."""
    wanted = session.training.sync_batchnorm
    several = session.ranks.size > 1 and bool(batch_norms(session.model))
    return several and (wanted == "on" or (wanted == "auto" and session.stream.device.type != "cpu"))


def compile_or_not(session: Session, wanted: Literal["auto", "on", "off"]) -> list[Update]:
    """The model's table in motion, its gradients compiled if that was asked for or pays; all that is slow is done here.

    Raises:
        ConfigError: "on" was asked for and the model cannot be compiled.
    """
    synchronised = global_batch_norm(session)
    if synchronised and wanted == "on":
        raise ConfigError("--compile on and --sync-batchnorm do not go together; take --compile off.")
    device, steps = session.stream.device, session.training.steps or 0
    if synchronised or not (
        wanted == "on" or (wanted == "auto" and numerics.compile_pays(session.model, device, steps))
    ):
        return updates_of(session, session.model)
    updates = updates_of(session, session.model, COMPILE_BACKEND)
    logger.info("compiling the gradients (--compile off does without)")
    kept = [buffer.clone() for buffer in session.model.buffers()]
    try:
        with torch.random.fork_rng(devices=[]), numerics.applied(device):
            for update in updates:
                update.accumulated(update.objective.when.start, session.stream.batch(0))
    except Exception as error:  # whatever a compiler raises
        reason = (str(error).splitlines() or [""])[0][:160]
        if wanted == "on":
            raise ConfigError(
                f"{session.spec.name} cannot be compiled ({type(error).__name__}: {reason}); take --compile off."
            ) from error
        logger.warning(f"going on without: {session.spec.name} cannot be compiled ({type(error).__name__}: {reason})")
        return updates_of(session, session.model)
    finally:
        for buffer, before in zip(session.model.buffers(), kept, strict=True):
            buffer.copy_(before)
    return updates


def updates_of(session: Session, model: nn.Module, backend: str | None = None) -> list[Update]:
    """A model's table in motion.

    Raises:
        ConfigError: the table is empty, or a row cannot be played.
    """
    updates = in_motion(model, session.training, backend, session.ranks, Clock())
    if not updates:
        raise ConfigError(f"{session.spec.name} has no objectives; `objectives()` should list at least one.")
    return updates


def trial(session: Session) -> float:
    """Play each objective a few times on a copy of the model, for a second at most; returns seconds a step of the whole run.

    An objective counts as often as it has its turn, also where that is long after the first steps.

    Raises:
        ConfigError: an objective cannot be played, or what it reports cannot be written down.
    """
    model, steps = copy.deepcopy(session.model), session.training.steps or 1
    updates = updates_of(dataclasses.replace(session, ranks=ALONE), model)
    turns = lengths(updates, steps)
    updates = [update for update in updates if turns[update.objective.name]]
    rounds: list[list[float]] = []
    ledger = Ledger()
    with torch.random.fork_rng(devices=[]), numerics.applied(session.stream.device):
        while len(rounds) < 20 and sum(map(sum, rounds)) < 1:
            step, marks = len(rounds), [time.perf_counter()]
            batch = session.stream.batch(step)
            marks.append(time.perf_counter())
            for update in updates:
                _try_to_note(ledger, update.objective.name, step, update(step, batch))
                marks.append(time.perf_counter())
            rounds.append([after - before for before, after in pairwise(marks)])
    shares = [1.0, *(turns[update.objective.name] / steps for update in updates)]
    means = map(statistics.mean, zip(*rounds[len(rounds) > 1 :], strict=True))
    return sum(share * mean for share, mean in zip(shares, means, strict=True))


def _try_to_note(ledger: Ledger, objective: str, step: int, logs: Logs) -> None:
    """Put what an objective reported into a ledger. Raises ConfigError if it is more than a number a part."""
    for name, part in logs.items():
        if part.ndim:
            raise ConfigError(
                f"'{name}' of objective '{objective}' should be one number, got a tensor of shape {tuple(part.shape)}; "
                "take its mean."
            )
    ledger.add(objective, step, logs)


def _record(path: Path, session: Session, updates: list[Update], average: Average, start: int, since: int) -> Record:
    chosen, shape = session.spec, session.data.shape

    def share(model: nn.Module, facts: Mapping[str, Any]) -> None:
        # A model may be shared, the path to one's photos not.
        facts = {**facts, **_known(model, session.data), "data": stem(session.data.source)}
        if is_image(shape):
            facts["fit"] = session.data.fit
        parameters = chosen.complete()
        folder.write(path / "model", model, name=chosen.name, parameters=parameters, shape=shape, facts=facts)

    data, training, ranks, model = session.data, session.training, session.ranks, session.model
    held_out, labels, others, others_shown = judged_by(data, model), labels_of(model, data), None, None
    shown = trained_on(data, model)
    if sides_of(model):
        _, of_b = both_rows(data, model, "train")
        _, rows = both_rows(data, model, "validation")
        assert data.other is not None
        others, others_shown = data.other.items[rows], data.other.items[spread(of_b, TRAIN, shuffle=True)]
    settings = {**chosen.complete(), **dataclasses.asdict(training)}
    about = Facts(called(path, chosen.name), training.steps or 0, len(shown), len(held_out), settings, since=since)
    return Record(
        *(path, model, average, updates, training, data.items, held_out, share, start, ranks, labels),
        about=about,
        shown=shown,
        classes=data.labels,
        others=others,
        paired=sides_of(model) == "paired",
        others_shown=others_shown,
    )


def _known(model: nn.Module, dataset: DataSet) -> dict[str, Any]:
    """What a model's folder says of the data: the names of the classes, or the words that it has read."""
    if getattr(model, "classes", 0):
        return {"classes": list(dataset.classes)}
    if words_of(model):
        return {"vocabulary": vocabulary((dataset.captions or ())[row] for row in described(dataset, "train"))}
    return {}


def _announce(path: Path, session: Session, updates: list[Update], ahead: range, pace: float) -> None:
    training, dataset = session.training, session.data
    steps, batch = training.steps or 0, training.batch_size or 0
    parameters, items = sum(p.numel() for p in session.model.parameters()), len(trained_on(dataset, session.model))
    logger.info(
        f"{session.spec.name} ({parameters:,} parameters) on {dataset.source}: {items:,} items of "
        f"{'×'.join(map(str, dataset.shape))} to train on, {len(judged_by(dataset, session.model)):,} to validate with"
    )
    for note in dataset.notes:
        logger.info(note)
    if sides_of(session.model) == "paired" and (lone := about_unpaired(dataset)):
        logger.warning(lone)
    for side in filter(None, (dataset, dataset.other)):
        if side.bad:
            logger.warning(left_out(side.bad))
    counts = lengths(updates, steps)
    turns = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    if idle := [name for name, count in counts.items() if not count]:
        logger.warning(f"{steps:,} steps hold no turn for {', '.join(idle)}: take more --steps, or it stays untrained")
    logger.info(f"{steps:,} steps of {batch} ({steps * batch / 1000:,.0f} kimg; updates: {turns}) into {path}")
    resuming = f"resuming at step {ahead.start:,}; " if ahead.start else ""
    until = f", up to step {ahead.stop:,}" if ahead.stop < steps else ""
    ranks = session.ranks.size
    if ranks > 1:
        logger.info(f"{ranks} ranks share every batch, {batch // ranks} items each")
    if ranks > 1 and batch_norms(session.model) and not global_batch_norm(session):
        logger.info("batch norms see each rank's own items only (--sync-batchnorm on: those of all)")
    logger.info(f"{resuming}about {_span(pace * len(ahead))} to go{until}")


def _where_the_time_went(record: Record) -> str:
    if record.saved == record.resumed:
        return f"all {record.saved:,} steps were done before"
    shares = sorted(record.clock.shares().items(), key=lambda share: -share[1])
    return f"{record.images_per_s():,.0f} images/s; " + ", ".join(f"{name} {share:.1%}" for name, share in shares)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
