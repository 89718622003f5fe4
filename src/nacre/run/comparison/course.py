"""Training all models of a comparison under equal conditions, each from several seeds; taken up again where it stopped."""

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nacre import __version__, files
from nacre.data import DataSettings
from nacre.engine import checkpoint
from nacre.engine.log import read as read_log
from nacre.engine.settings import FREE_TO_CHANGE, Training
from nacre.errors import ConfigError, NacreError, RunError, TrainingError
from nacre.models import CATALOGUE
from nacre.protocols import Samples
from nacre.run import config as configuration
from nacre.run import resume, train
from nacre.run.comparison.budget import Budget
from nacre.run.mixture import lacks_prior
from nacre.run.place import stem
from nacre.run.plan import plan
from nacre.run.session import trial
from nacre.spec import fields, find_class

logger = logging.getLogger("nacre")

NAME = "compare.yaml"
FORMAT = 1

TRIALS = 3
"""Measurements of a pace that buys steps; the middle one counts."""

DECIDED = ("steps", "epochs", "seed")
"""Settings of training that the budget and the seeds decide."""


@dataclass(frozen=True)
class Part:
    """What one model is given.

    Attributes:
        model: its name.
        steps, batch_size: of a run.
        pace: seconds a step, as measured before training.
        parameters: numbers that it learns.
    """

    model: str
    steps: int
    batch_size: int
    pace: float
    parameters: int


@dataclass
class Course:
    """Models to be trained alike, and where their runs are.

    Args:
        out: the folder of all.
        models: names of the catalogue, or "FILE.py:CLASS".
        budget: what each run is given.
        seeds: training seeds of each model: 0, 1, …
        flags: settings of data, training and models, by name, the same for all that have them.
        conditional: train on labels.
        parts: the models that can take the data.
        failures: those that cannot, and what failed later; why.
    """

    out: Path
    models: Sequence[str]
    budget: Budget
    seeds: int
    flags: Mapping[str, Any]
    conditional: bool = False
    parts: dict[str, Part] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def settle(self) -> None:
        """Check every model against the data, measure its pace, and write down what was decided; says what is to come.

        Raises:
            ConfigError: `out` holds a comparison with other settings, or something else; or no model can take the data.
        """
        self._check_flags()
        written = self._written()
        for model in self.models:
            known = written.get(model)
            try:
                self.parts[model] = self._part(model, None if known is None else Part(model=model, **known))
            except NacreError as error:
                self.failures[model] = str(error)
                logger.warning(f"{model} is left out: {error}")
        if not self.parts:
            raise ConfigError(f"no model is left to compare: {'; '.join(self.failures.values())}")
        self._write({**written, **{name: _recorded(part) for name, part in self.parts.items()}})
        self._forecast()

    def run_of(self, model: str, seed: int) -> Path:
        """Where a run is."""
        return self.out / f"{model if model in CATALOGUE else stem(model)}-seed{seed}"

    def play(self, look: Callable[[str, int, Path], None]) -> None:
        """Train what is not trained yet, one seed of all models after the other.

        Args:
            look: called with model, seed and run when a run is complete.

        Raises:
            Interrupted: a signal came; the run was saved first and all of this can be taken up again.
        """
        turns = [(model, seed) for seed in range(self.seeds) for model in self.parts]
        begun, looks = time.perf_counter(), list[float]()
        for number, (model, seed) in enumerate(turns, 1):
            left = sum(self._seconds_left(*turn) for turn in turns[number - 1 :])
            left += statistics.fmean(looks or [0.0]) * (len(turns) - number + 1)
            logger.info(f"[{number}/{len(turns)}] {model}, seed {seed}; about {span(left)} left")
            path = self.run_of(model, seed)
            try:
                self._train(path, self.parts[model], seed)
            except TrainingError as error:
                self.failures[f"{model}, seed {seed}"] = str(error)
                logger.warning(f"{model}, seed {seed}, is left out: {error}")
                continue
            seen = time.perf_counter()
            look(model, seed, path)
            looks.append(time.perf_counter() - seen)
        logger.info(f"{len(turns)} runs in {span(time.perf_counter() - begun)}")

    def facts(self, model: str, seeds: Sequence[int]) -> dict[str, Any]:
        """What a model was given and what it took."""
        part = self.parts[model]
        minutes = [minutes_of(self.run_of(model, seed)) for seed in seeds]
        return {
            "parameters": part.parameters,
            "steps": part.steps,
            "batch size": part.batch_size,
            "images seen": part.steps * part.batch_size,
            "minutes of training": statistics.fmean(minutes),
        }

    def _train(self, path: Path, part: Part, seed: int) -> None:
        own = part.model if part.model not in CATALOGUE else None
        flags = {**self._flags_of(part.model), "steps": part.steps, "seed": seed}
        if self._complete(path, part):
            return
        if (path / configuration.NAME).exists():
            resume(path, model=own, **flags)
        else:
            train(part.model, out=path, conditional=self.conditional, **flags)

    def _complete(self, path: Path, part: Part) -> bool:
        done = checkpoint.steps(path / "checkpoints")
        return bool(done) and done[-1] >= part.steps and (path / "model" / "model.safetensors").is_file()

    def _seconds_left(self, model: str, seed: int) -> float:
        part, done = self.parts[model], checkpoint.steps(self.run_of(model, seed) / "checkpoints")
        return max(0, part.steps - (done[-1] if done else 0)) * part.pace

    def _part(self, model: str, known: Part | None) -> Part:
        """What a model is given: as it was decided before, or by a trial now.

        Raises:
            NacreError: it cannot take the data, or neither samples nor decodes.
        """
        if known is not None:
            return known
        planned = plan(configuration.request(model, self._flags_of(model)), conditional=self.conditional)
        if not isinstance(planned.model, Samples) and not lacks_prior(planned.model):
            raise ConfigError(f"{model} neither samples nor decodes codes, so that there is nothing of it to compare.")
        times = TRIALS if self.budget.kind == "minutes" else 1
        pace = statistics.median(trial(planned.session()) for _ in range(times))
        batch_size = planned.training.batch_size or 0
        count = sum(parameter.numel() for parameter in planned.model.parameters())
        return Part(model, self.budget.steps(batch_size, pace), batch_size, pace, count)

    def _flags_of(self, model: str) -> dict[str, Any]:
        """The flags that a model has."""
        known = {each.name for target in (DataSettings, Training) for each in fields(target)}
        known |= {each.name for each in fields(find_class(model))}
        return {name: value for name, value in self.flags.items() if name in known}

    def _check_flags(self) -> None:
        """Say which models lack a flag.

        Raises:
            ConfigError: nobody has it, a model is named twice, or there are no seeds.
        """
        places = [self.run_of(model, 0) for model in self.models]
        if len(set(places)) < len(places) or not places or self.seeds < 1:
            named = ", ".join(self.models) or "none"
            raise ConfigError(
                f"a comparison takes one or more models, each once, and one or more seeds; got {named} and {self.seeds}."
            )
        own = {model: {each.name for each in fields(find_class(model))} for model in self.models}
        common = {each.name for target in (DataSettings, Training) for each in fields(target)}
        for name in self.flags:
            flag = "--" + name.replace("_", "-")
            if name in DECIDED:
                raise ConfigError(f"{flag} is decided by --budget and --seeds here; leave it out.")
            lacking = [model for model in self.models if name not in own[model] | common]
            if len(lacking) == len(self.models):
                raise ConfigError(
                    f"none of {', '.join(self.models)} has the flag {flag}; see nacre train MODEL --help."
                )
            if lacking:
                logger.info(f"{flag} means nothing to {', '.join(lacking)}")

    def _written(self) -> dict[str, Any]:
        """The parts that an earlier command decided on.

        Raises:
            ConfigError: it was another comparison, or `out` is something else.
        """
        file = self.out / NAME
        try:
            written = yaml.safe_load(file.read_text(encoding="utf-8"))
            before, parts = dict(written["settings"]), dict(written["parts"])
        except FileNotFoundError:
            if self.out.is_dir() and any(self.out.iterdir()):
                raise ConfigError(f"{self.out} exists and is no comparison; take another --out.") from None
            return {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{file} cannot be read ({' '.join(str(error).split())[:120]}); take another --out."
            ) from None
        now = self._settings()
        changed = [
            f"--{name.replace('_', '-')} (was {_told(before.get(name))}, is {_told(now.get(name))})"
            for name in dict.fromkeys((*before, *now))
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise ConfigError(
                f"{self.out} holds a comparison under other settings: {', '.join(changed)}; give those it has, or another "
                "--out."
            )
        return parts

    def _settings(self) -> dict[str, Any]:
        """What enters training: with other settings, other models would come out."""
        entering = {name: value for name, value in self.flags.items() if name not in FREE_TO_CHANGE}
        flags = {name: list(value) if isinstance(value, tuple) else value for name, value in entering.items()}
        return {"budget": str(self.budget), "conditional": self.conditional, **flags}

    def _write(self, parts: Mapping[str, Any]) -> None:
        told = {"format": FORMAT, "nacre": __version__, "settings": self._settings(), "parts": dict(parts)}
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            files.write_text(self.out / NAME, yaml.safe_dump(told, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise RunError(f"{self.out} cannot be written ({error.strerror or error}); take another --out.") from None

    def _forecast(self) -> None:
        for model, part in self.parts.items():
            left = sum(self._seconds_left(model, seed) for seed in range(self.seeds))
            logger.info(
                f"{model}: {self.seeds} × {part.steps:,} steps of {part.batch_size} ({part.steps * part.batch_size:,} images "
                f"each), about {span(left)}"
            )
        total = sum(self._seconds_left(model, seed) for model in self.parts for seed in range(self.seeds))
        logger.info(
            f"about {span(total)} of training in all, and the evaluation of {len(self.parts) * self.seeds} runs"
        )


def minutes_of(run: Path) -> float:
    """Minutes that a run took, as its log has them: of the steps that counted, whatever is written in between included."""
    lines = [line for line in read_log(run) if "kimg" in line]
    before, seconds = 0.0, 0.0
    for line in lines:
        seconds += 1000 * (line["kimg"] - before) / line["images_per_s"] if line["images_per_s"] else 0.0
        before = line["kimg"]
    return seconds / 60


def span(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _recorded(part: Part) -> dict[str, Any]:
    return {name: value for name, value in asdict(part).items() if name != "model"}


def _told(value: Any) -> str:
    return "not given" if value is None else str(value)
