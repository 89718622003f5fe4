"""Comparisons: of runs that are there, and of models that are trained for it under equal conditions."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nacre.errors import ConfigError
from nacre.models import CATALOGUE
from nacre.run import config as configuration
from nacre.run.comparison.budget import Budget
from nacre.run.comparison.course import Course
from nacre.run.comparison.kept import evaluated
from nacre.run.comparison.table import Column, Comparison, table
from nacre.run.evaluation import Evaluation

logger = logging.getLogger("nacre")


def compare(
    runs: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] = "compare",
    samples: int = 10_000,
    seed: int = 0,
    extractor: str = "auto",
    data: str | None = None,
    checkpoint: str | None = None,
    model: str | None = None,
) -> Comparison:
    """Hold runs against the same real items, with as many samples of each, and say which differences are real.

    Args:
        runs: two or more.
        out: a folder for what has been measured.
        samples, seed, extractor, checkpoint: as `nacre.run.evaluation.evaluate` has them.
        data: a source that all are held against; by default the one that all were trained on.
        model: "FILE.py:CLASS" for runs of a model of your own.

    Raises:
        ConfigError: fewer than two runs, one named twice, or runs of different data.
    """
    paths = [Path(run) for run in runs]
    _check(paths, data)
    settings = {"samples": samples, "seed": seed, "extractor": extractor, "data": data, "checkpoint": checkpoint}
    columns = []
    for path, name in zip(paths, _names(paths), strict=True):
        written = configuration.recorded(path)
        logger.info(f"evaluating {name}")
        found = evaluated(path, Path(out), **settings, model=_own(str(written["model"]), model))
        columns.append(Column(name, (found,), (int(written["training"].get("seed", 0)),)))
    return _beside(columns)


def compare_models(
    models: Sequence[str],
    *,
    budget: str | Budget,
    out: str | os.PathLike[str],
    seeds: int = 3,
    samples: int = 10_000,
    seed: int = 0,
    extractor: str = "auto",
    checkpoint: str | None = None,
    conditional: bool = False,
    **flags: Any,
) -> Comparison:
    """Train models on the same data, each from the same seeds and with the same budget, and compare what comes out.

    A comparison that was stopped goes on when this is called again. Another number of seeds, and other models, may be asked
    for; whatever else enters training must be what it was.

    Args:
        models: names of the catalogue, or "FILE.py:CLASS".
        budget: of each run: "images=2M", "minutes=10" or "steps=5000".
        out: a folder for all: the runs are `out`/MODEL-seedK.
        seeds: of training, for each model.
        samples, seed, extractor, checkpoint: of the evaluation.
        conditional: train on the labels of the data.
        **flags: settings of data, training and models, the same for all.

    Raises:
        ConfigError: `out` holds another comparison, or no model can take the data.
        Interrupted: a signal came; the run that it came to was saved.
    """
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    course = Course(Path(out), list(models), budget, seeds, flags, conditional)
    course.settle()
    settings = {"samples": samples, "seed": seed, "extractor": extractor, "checkpoint": checkpoint}
    found: dict[str, list[tuple[int, Evaluation]]] = {}

    def look(model: str, training_seed: int, run: Path) -> None:
        evaluation = evaluated(run, course.out, **settings, model=_own(model, model))
        found.setdefault(model, []).append((training_seed, evaluation))

    course.play(look)
    columns = []
    for name, each in found.items():
        own_seeds = tuple(training_seed for training_seed, _ in each)
        columns.append(Column(name, tuple(e for _, e in each), own_seeds, course.facts(name, own_seeds)))
    return _beside(columns, f"{budget} for each run", course.failures)


def _beside(columns: Sequence[Column], given: str = "", failures: dict[str, str] | None = None) -> Comparison:
    """Columns as a table, if they were measured alike.

    Raises:
        ConfigError: they were not.
    """
    everyone = [each for column in columns for each in column.evaluations]
    if not everyone:
        raise ConfigError(f"nothing is left to compare: {'; '.join((failures or {}).values())}")
    first = everyone[0]
    for name in ("extractor", "referee", "held_out"):
        kinds = dict.fromkeys(str(getattr(each, name)) for each in everyone)
        if len(kinds) > 1:
            raise ConfigError(
                f"the runs were measured with different {name}s ({', '.join(kinds)}); name common items with --data."
            )
    fewest = min(first.samples, first.held_out)
    short = f", fewer than the {first.samples:,} that were asked for" if fewest < first.samples else ""
    protocol = f"N = {fewest:,} samples of each against as many held-out items ({first.split}) of {first.data}{short}"
    protocol += f"; extractor {first.extractor}" if first.extractor else ""
    protocol += f"; {given}" if given else ""
    notes = dict.fromkeys(note.rstrip(".") for each in everyone for note in each.notes)
    return table(columns, protocol, tuple(notes), failures)


def _check(paths: Sequence[Path], data: str | None) -> None:
    """Raise a ConfigError where runs cannot be compared."""
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            "a comparison takes two or more runs, each once, or --models with the names of models to train; got "
            f"{', '.join(map(str, paths)) or 'none'}."
        )
    facts = [configuration.recorded(path) for path in paths]
    for path, fact in zip(paths, facts, strict=True):
        if fact["shape"] != facts[0]["shape"]:
            raise ConfigError(
                f"{paths[0]} makes items of {_sized(facts[0])} and {path} of {_sized(fact)}, and numbers of different sizes "
                "cannot be compared; train one of them anew with the other's --image-size and --channels."
            )
        if data is None and fact["fingerprint"] != facts[0]["fingerprint"]:
            raise ConfigError(
                f"{paths[0]} was trained on {facts[0]['data'].get('data')} and {path} on {fact['data'].get('data')}, in other "
                "items or other splits; name the items that both are to be held against with --data SOURCE."
            )


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of paths, as long as it takes to tell them apart."""
    whole = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def _own(of_run: str, given: str | None) -> str | None:
    """A model of the user's own, whose code has to be named; None for one of the catalogue."""
    return None if of_run in CATALOGUE else given


def _sized(fact: dict[str, Any]) -> str:
    return "×".join(map(str, fact["shape"]))
