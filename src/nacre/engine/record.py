"""What a run writes down, and when: log, signals, pictures, checkpoints, the model folder."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from nacre import files, images
from nacre.engine import alarm, checkpoint, pictures, translations
from nacre.engine.alarm import Alarm
from nacre.engine.average import Average
from nacre.engine.ledger import Ledger
from nacre.engine.log import Log
from nacre.engine.ranks import ALONE, Ranks
from nacre.engine.settings import Training
from nacre.engine.signals import HELD_OUT, TRAIN, Signals
from nacre.engine.translation_signals import TranslationSignals
from nacre.engine.update import Update
from nacre.engine.validate import Score, floats, score_of, spread, validate
from nacre.errors import CheckpointError, TrainingError
from nacre.metrics.verdicts import Facts, Verdict
from nacre.protocols import Logs

logger = logging.getLogger("nacre")


@dataclass
class Record:
    """Writes a run down as it goes. Nothing that it does changes what is trained.

    Args:
        path: the run's folder.
        model, average, updates: what a checkpoint holds.
        training: settings with steps resolved; when to write.
        items, held_out: the data and the rows of it that validation looks at.
        share: writes the model folder for a model: called with it, its step and facts for the card.
        resumed: steps done before.
        ranks: who trains; the first one writes, and the others come along for what takes all of them.
        labels: (N,) of the items, -1 where one is not known, for a model that learns from them.
        about: what a diagnosis knows of the run besides its signals.
        shown: the rows of the items that are trained on.
        classes: (N,) of the items, -1 where one is not known, whether or not the model learns from them: samples are to
            be of all classes.
        others: (M, …) items of the other side that were not trained on, for a model that translates.
        paired: whether these belong to the held-out rows, one by one.
        others_shown: (T, …) items of the other side that are trained on, those of `shown` as they are probed if paired.
    """

    path: Path
    model: nn.Module
    average: Average
    updates: Sequence[Update]
    training: Training
    items: np.ndarray
    held_out: np.ndarray
    share: Callable[[nn.Module, Mapping[str, Any]], None]
    resumed: int = 0
    ranks: Ranks = ALONE
    labels: np.ndarray | None = None
    about: Facts = field(default_factory=Facts)
    shown: np.ndarray | None = None
    classes: np.ndarray | None = None
    others: np.ndarray | None = None
    paired: bool = False
    others_shown: np.ndarray | None = None
    ledger: Ledger = field(default_factory=Ledger)
    best: tuple[int, float] | None = None
    score: Score | None = None

    def __post_init__(self) -> None:
        self.writes = self.ranks.rank == 0
        self.log = Log(self.path, self.resumed) if self.writes else None
        self.clock = self.updates[0].clock
        self.profiler = self.profile() if self.training.profile and self.writes else None
        self.saved = self.reached = self.resumed
        self.started = self.ticked = time.perf_counter()
        self.logged = self.resumed
        self.spent: dict[str, float] = {}
        self.glimpse: dict[str, str] = {}
        self.signals: Signals | TranslationSignals | None = None
        self.alarm = Alarm(self.about, self.training.stop_on, self.log.signals() if self.log else [])
        self.bar = tqdm(
            total=self.training.steps,
            initial=self.resumed,
            unit="step",
            delay=0.5,
            disable=None if self.writes else True,
            dynamic_ncols=True,
        )

    def add(self, objective: str, step: int, logs: Logs) -> None:
        """Note what an objective reported."""
        self.ledger.add(objective, step, logs)

    def tick(self, done: int) -> None:
        """Write what is due when `done` steps are done."""
        training, self.reached = self.training, done
        self.bar.update()
        if self.profiler:
            self.profiler.step()
        if done % (training.log_every or 100) == 0 or done == training.steps:
            self.report(done)
        if training.sample_every and done % training.sample_every == 0:
            self.ranks.first(partial(self.show, done))
        if training.signal_every and (done % training.signal_every == 0 or done == training.steps):
            self.ranks.first(partial(self.measure, done))
        if done % training.checkpoint_every == 0:
            self.checkpoint(done)

    def report(self, done: int) -> None:
        """One line of the log."""
        now, means = time.perf_counter(), self.ledger.means()
        speed = (done - self.logged) * (self.training.batch_size or 0) / max(1e-9, now - self.ticked)
        self.ticked, self.logged = now, done
        kimg = done * (self.training.batch_size or 0) / 1000
        if self.log:
            shares = {name: round(share, 4) for name, share in self.clock.shares(self.spent).items()}
            self.spent = dict(self.clock.spent)
            self.log.write(done, losses=means, kimg=kimg, images_per_s=round(speed, 1), shares=shares)
        losses = {name.removesuffix("/loss"): f"{value:.4g}" for name, value in means.items() if name.endswith("/loss")}
        self.bar.set_postfix({**losses, **self.glimpse, "images/s": f"{speed:,.0f}"}, refresh=False)

    def images_per_s(self) -> float:
        """Throughput of the whole run so far, everything included."""
        seconds = sum(self.clock.spent.values())
        return (self.saved - self.resumed) * (self.training.batch_size or 0) / max(1e-9, seconds)

    def profile(self) -> torch.profiler.profile:
        """Traces ten steps, the first ones left out; the later half of a run that has fewer than twenty to go."""
        trace = self.path / "trace.json"

        def write(profiler: torch.profiler.profile) -> None:
            with files.whole_file(trace) as aside:
                profiler.export_chrome_trace(str(aside))

        left = max(1, (self.training.steps or 0) - self.resumed)
        active = min(10, (left + 1) // 2)
        warmup = min(5, left - active)
        wait = min(10, left - active - warmup)
        steps = torch.profiler.schedule(wait=wait, warmup=warmup, active=active, repeat=1)
        profiler = torch.profiler.profile(schedule=steps, on_trace_ready=write, with_stack=False)
        profiler.start()
        return profiler

    def show(self, done: int) -> None:
        """Sample grids of this step."""
        if not self.log:
            return
        for name, page in self.pages():
            pictures.save(self.path / "samples" / f"{name}-{done:08d}.png", page)
            self.log.picture(done, name, page)

    def pages(self) -> Iterator[tuple[str, np.ndarray]]:
        """Pictures of what the averaged model can do, by name."""
        model, held_out = self.average.model, self.examples()
        yield from pictures.pages(model, held_out, self.training.seed)
        if self.others is not None:
            others = images.to_float(torch.from_numpy(self.others[: pictures.ON_A_PAGE]))
            yield from translations.pages(model, held_out, others)  # type: ignore[arg-type]

    def examples(self) -> Tensor:
        """Some held-out items, float (M, *shape)."""
        rows = self.held_out[: pictures.ON_A_PAGE]
        return images.to_float(torch.from_numpy(np.ascontiguousarray(self.items[rows])))

    def measure(self, done: int) -> None:
        """Signals of this step, and what they say now; the first rank measures, for all have the same weights."""
        alone = not self.alarm.history and bool(done % (self.training.signal_every or 1))
        if not self.log or self.shown is None or alone:  # a last look alone would say nothing
            return
        try:
            self.signals = self.signals or self.probe(self.shown)
            found = {"items": self.about.train, "held_out": self.about.held_out, **self.signals.measure(done)}
        except (
            RuntimeError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            IndexError,
            NotImplementedError,
        ) as error:
            # A model of somebody's own may not bear being looked at, and is trained all the same.
            self.shown = None
            reason = (str(error).splitlines() or [""])[0][:160]
            logger.warning(f"going on without signals: {type(self.model).__name__} cannot be measured ({reason})")
            return
        self.log.write(done, signals=found)
        self.glimpse = alarm.glimpse(found)
        for verdict in self.alarm.hear(done, found, checkpoint.steps(self.path / "checkpoints")):
            self.bar.clear()
            logger.warning(f"step {done:,}: {verdict.title}: {verdict.sentence} (nacre diagnose {self.path} says more)")
        for verdict in self.alarm.over:
            self.bar.clear()
            logger.warning(f"step {done:,}: {verdict.title} is over")

    def probe(self, shown: np.ndarray) -> Signals | TranslationSignals:
        """What measures signals."""
        rows = spread(shown, TRAIN, shuffle=True)
        chosen = (rows, spread(self.held_out, HELD_OUT, shuffle=True))
        train, held_out = (floats(self.items, each, range(len(each))) for each in chosen)
        if self.others is not None and self.others_shown is not None:
            order = spread(np.arange(len(self.others)), HELD_OUT, shuffle=True)
            sides = (images.to_float(torch.from_numpy(each)) for each in (self.others_shown, self.others[order]))
            seen, unseen = zip((train, held_out), sides, strict=True)
            return TranslationSignals(self.model, self.updates, seen, unseen, self.paired)
        classes = None if self.classes is None else torch.from_numpy(self.classes[rows])
        return Signals(self.model, self.average.model, self.updates, train, held_out, self.training.seed, classes)

    @property
    def stopped(self) -> Verdict | None:
        """The verdict that the run was to be stopped on, if it was met."""
        return self.alarm.stopped

    def checkpoint(self, done: int, *, judge: bool = True) -> None:
        """Judge the averaged weights (unless the run is only interrupted) and save everything.

        Raises:
            TrainingError: a loss or a weight is no longer a number; nothing is written.
            CheckpointError: the disk refused; earlier checkpoints stand.
        """
        self.ledger.read()
        self.check_weights(done)
        self.score = self.judged() if judge else None
        if self.score and (self.best is None or self.score.beats(self.best[1])):
            self.best = (done, self.score.value)
        self.ranks.first(partial(self.write, done))
        self.saved = done

    def judged(self) -> Score | None:
        """The score of the averaged weights on what was kept aside."""
        model = self.average.model
        if self.others is None:
            return validate(model, self.items, self.held_out, self.ranks, self.labels)
        a, b = self.items[self.held_out[: translations.MOST]], self.others[: translations.MOST]
        return translations.judged(model, a, b, self.paired)  # type: ignore[arg-type]

    def write(self, done: int) -> None:
        """Put a checkpoint and the model folder on the disk."""
        if self.score and self.log:
            self.log.write(done, validation={"name": self.score.name, "value": self.score.value})
        folder_ = self.path / "checkpoints"
        checkpoint.save(folder_, done, self.state_dict(done))
        checkpoint.prune(folder_, self.training.keep, self.best[0] if self.best else None, ahead_of=done)
        self.share(self.average.model, self.facts(done))

    def check_weights(self, done: int) -> None:
        """Raise a TrainingError if a weight is not finite."""
        for update in self.updates:
            if not all(bool(parameter.isfinite().all()) for parameter in update.parameters):
                raise TrainingError(
                    f"a weight of objective '{update.objective.name}' is no longer a number by step {done - 1}; "
                    "checkpoints written before are kept. Try a lower --lr, --clip 1, or --warmup 500."
                )

    def fail(self, error: TrainingError) -> None:
        """Note how training ended, for a diagnosis."""
        if self.log:
            self.log.write(self.reached + 1, failure=str(error))

    def finish(self, done: int, *, complete: bool) -> None:
        """The last checkpoint; and, when all steps are done, the pictures that are worth making once."""
        self.bar.close()
        if self.saved != done or done == 0:
            self.checkpoint(done, judge=complete)
        else:  # a kill may have come between that checkpoint and the folder
            self.ranks.first(lambda: self.share(self.average.model, self.facts(done)))
        if complete:
            self.ranks.first(self.last_pages)

    def last_pages(self) -> None:
        """The pictures of a run that is done."""
        for name, page in self.pages():
            pictures.save(self.path / f"{name}.png", page)
        for name, page in pictures.final_pages(self.average.model):
            pictures.save(self.path / f"{name}.png", page)

    def close(self) -> None:
        """Let go of the files."""
        self.bar.close()
        if self.profiler:
            self.profiler.stop()
        if self.log:
            self.log.close()

    def facts(self, done: int) -> dict[str, Any]:
        """What the model card says."""
        facts: dict[str, Any] = {"steps": done, "batch size": self.training.batch_size, "seed": self.training.seed}
        return facts | ({"validation": str(self.score)} if self.score else {})

    def state_dict(self, done: int) -> dict[str, Any]:
        """Everything that a run needs to go on: tensors and plain containers."""
        return {
            "step": done,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average.decay else None,
            "optimizers": {update.objective.name: update.optimizer.state_dict() for update in self.updates},
            "ledger": self.ledger.state_dict(),
            "best": list(self.best) if self.best else None,
            "score": asdict(self.score) if self.score else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a run where a checkpoint left it."""
        try:
            self.model.load_state_dict(state["model"])
            if self.average.decay:
                self.average.model.load_state_dict(state["average"] or state["model"])
            for update in self.updates:
                update.take_up(state["optimizers"][update.objective.name])
            self.ledger.load_state_dict(state["ledger"])
            best = (int(state["best"][0]), float(state["best"][1])) if state["best"] else None
            self.best = best if best and best[0] in checkpoint.steps(self.path / "checkpoints") else None
            self.score = score_of(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"the checkpoint of step {state['step']} does not fit the model ({reason})."
            ) from None
