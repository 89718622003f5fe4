"""Comparisons: of runs that are there, and of models that are trained for it under equal conditions."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacre.engine import checkpoint
from nacre.errors import ConfigError
from nacre.models import CATALOGUE
from nacre.run import config as configuration
from nacre.run.comparison.budget import Budget
from nacre.run.comparison.course import Course
from nacre.run.comparison.measure import Measured, measured
from nacre.run.comparison.table import Column, Comparison, table
from nacre.run.evaluation import Evaluation, Settings

logger = logging.getLogger("nacre")

DONE, PLANNED = "steps done", "steps planned"
"""Facts of a run that stands for itself."""


def compare(
    runs: Sequence[str | os.PathLike[str]], *, out: str | os.PathLike[str] = "compare", **settings: Any
) -> Comparison:
    """Hold runs against the same real items, with as many samples of each, and say which differences are real.

    Args:
        runs: two or more.
        out: a folder for what has been measured.
        **settings: of the evaluation, those of `nacre.run.evaluation.Settings`: `samples` (10,000), `seed`, `extractor`,
            `checkpoint` …; `data` is a source that all are held against, by default the one that all were trained on.

    Raises:
        ConfigError: fewer than two runs, one named twice, or runs of different data.
    """
    paths, asked = [Path(run) for run in runs], Settings(**settings)
    facts = _checked(paths, asked.data)
    columns = []
    for path, name, fact in zip(paths, _names(paths), facts, strict=True):
        logger.info(f"evaluating {name}")
        found = measured(path, Path(out), _for(str(fact["model"]), asked.model, asked))
        columns.append(_column(name, {int(fact["training"].get("seed", 0)): found}, _trained(path, fact, found)))
    return _beside(columns)


def compare_models(
    models: Sequence[str],
    *,
    budget: str | Budget,
    out: str | os.PathLike[str],
    seeds: int = 3,
    conditional: bool = False,
    settings: Settings | None = None,
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
        conditional: train on the labels of the data.
        settings: of the evaluation.
        **flags: settings of data, training and models, the same for all.

    Raises:
        ConfigError: `out` holds another comparison, or no model can take the data.
        Interrupted: a signal came; the run that it came to was saved.
    """
    budget, asked = Budget.parse(budget) if isinstance(budget, str) else budget, settings or Settings()
    course = Course(Path(out), list(models), budget, seeds, flags, conditional)
    course.settle()
    found: dict[str, dict[int, Measured]] = {}

    def look(model: str, seed: int, run: Path) -> None:
        found.setdefault(model, {})[seed] = measured(run, course.out, _for(model, model, asked))

    course.play(look)
    columns = [_column(model, each, course.facts(model, list(each))) for model, each in found.items()]
    return _beside(columns, f"{budget} for each run", course.failures)


def _column(name: str, found: Mapping[int, Measured], facts: Mapping[str, Any] | None = None) -> Column:
    """A column of what was measured, by training seed."""
    first = next(iter(found.values()))
    return Column(
        name + (" + mixture" if first.mixture else ""),
        tuple(each.evaluation for each in found.values()),
        tuple(found),
        facts or {},
        first.by_item if len(found) == 1 else {},
        first.pages,
    )


def _trained(path: Path, written: Mapping[str, Any], found: Measured) -> dict[str, Any]:
    """How long a run has trained, and was to."""
    saved = checkpoint.steps(path / "checkpoints")
    return {DONE: saved[-1] if saved else found.evaluation.step, PLANNED: written["training"].get("steps")}


def _unequal(columns: Sequence[Column]) -> Iterator[str]:
    """What to say of runs that were not trained as long as others, or as they were to be."""
    done = {column.name: column.facts.get(DONE) for column in columns}
    if len(set(done.values())) > 1:
        told = ", ".join(f"{name} {steps:,}" for name, steps in done.items() if steps is not None)
        yield f"The runs were not trained equally long (steps: {told}), and may differ for that alone"
    for column in columns:
        steps, planned = column.facts.get(DONE), column.facts.get(PLANNED)
        if steps is not None and planned is not None and steps < planned:
            yield f"{column.name} is not at its end: {steps:,} of {planned:,} steps"


def _beside(columns: Sequence[Column], given: str = "", failures: Mapping[str, str] | None = None) -> Comparison:
    """Columns as a table, if they were measured alike.

    Raises:
        ConfigError: they were not.
    """
    everyone = [each for column in columns for each in column.evaluations]
    if not everyone:
        raise ConfigError(f"nothing is left to compare: {'; '.join((failures or {}).values())}")
    same = {name: _same(name, everyone) for name in ("n", "extractor", "referee")}
    first = everyone[0]
    words = [
        f"N = {int(same['n']):,} samples of each against as many {first.split} items of {first.data}",
        f"seed {first.seed}",
        *(f"{name} {same[name]}" for name in ("extractor", "referee") if same[name]),
        *([given] if given else []),
    ]
    notes = dict.fromkeys(note.rstrip(".") for each in everyone for note in each.notes)
    notes |= dict.fromkeys(_unequal(columns))
    return table(columns, "; ".join(words), tuple(notes), failures)


def _same(name: str, everyone: Sequence[Evaluation]) -> str:
    """What all evaluations have in common under a name; those that have nothing there aside.

    Raises:
        ConfigError: they differ.
    """
    kinds = dict.fromkeys(str(getattr(each, name)) for each in everyone)
    kinds.pop("", None)
    if len(kinds) > 1:
        raise ConfigError(
            f"the runs were held against different things ({name}: {', '.join(kinds)}); name common items with --data SOURCE."
        )
    return next(iter(kinds), "")


def _for(of_run: str, given: str | None, asked: Settings) -> Settings:
    """Settings for one run: the code of a model of the user's own has to be named, that of the catalogue's not."""
    return replace(asked, model=None if of_run in CATALOGUE else given)


def _checked(paths: Sequence[Path], data: str | None) -> list[dict[str, Any]]:
    """The configurations of runs that can be compared.

    Raises:
        ConfigError: they cannot.
    """
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
    return facts


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of paths, as long as it takes to tell them apart."""
    whole = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def _sized(fact: dict[str, Any]) -> str:
    return "×".join(map(str, fact["shape"]))
