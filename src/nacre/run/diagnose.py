"""What is wrong with a run: its signals, read from the log or measured now, and the verdicts that they come to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nacre import data
from nacre.data import DataSet
from nacre.data.dataset import Split
from nacre.engine import checkpoint
from nacre.engine.log import read
from nacre.engine.signals import HELD_OUT, TRAIN, Signals
from nacre.engine.translation_signals import TranslationSignals
from nacre.engine.validate import floats, spread
from nacre.errors import ConfigError
from nacre.metrics.verdicts import LEAST, YOUNG, Facts, Verdict, comparable, verdicts
from nacre.run import config as configuration
from nacre.run.config import trusted
from nacre.run.labels import labels_of, rows_of
from nacre.run.place import called
from nacre.run.session import build
from nacre.run.streams import both_rows, other_of, sides_of


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run.

    Attributes:
        path: the run.
        verdicts: the gravest first; one that is healthy where nothing is wrong; none where nothing can be said.
        step, steps: of the last look, and the whole run's.
        looks: how many times the run was looked at.
        signals: what the last look saw.
        note: why nothing can be said, or "".
    """

    path: Path
    verdicts: tuple[Verdict, ...]
    step: int
    steps: int
    looks: int
    signals: Mapping[str, Any]
    note: str = ""

    @property
    def healthy(self) -> bool:
        """Whether something can be said, and nothing is wrong."""
        return bool(self.verdicts) and all(verdict.severity == "good" for verdict in self.verdicts)


def diagnose(
    path: str | os.PathLike[str], *, measure: bool = False, model: str | None = None, device: str = "cpu"
) -> Diagnosis:
    """Read the signals of a run, and say what they mean. Nothing is trained.

    Args:
        path: the run.
        measure: look at its checkpoints now, instead of reading the log: for runs without signals.
        model: "FILE.py:CLASS", to measure a model of your own.
        device: to measure on.

    Raises:
        ConfigError: there is no run, or nothing to measure.
        CheckpointError: it is damaged.
    """
    path = Path(path)
    written = configuration.recorded(path)
    lines = read(path)
    failure = next((str(line["failure"]) for line in reversed(lines) if "failure" in line), "")
    history = _measured(path, written, model, device) if measure else [line for line in lines if "signals" in line]
    last = history[-1]["signals"] if history else {}
    facts = Facts(
        run=called(path, written["model"]),
        steps=int(written["training"].get("steps") or 0),
        train=int(last.get("items", 0)),
        held_out=int(last.get("held_out", 0)),
        settings={**(written.get("parameters") or {}), **written["training"]},
        saved=checkpoint.steps(path / "checkpoints"),
        failure=failure,
        since=configuration.data_since(written),
    )
    looks = comparable(history, facts)
    found = verdicts(looks, facts, least=1 if measure else LEAST)
    step = int(history[-1]["step"]) if history else 0
    note = "" if found else _silence(facts, step, len(looks), measure)
    return Diagnosis(path, tuple(found), step, facts.steps, len(looks), last, note)


def _silence(facts: Facts, step: int, looks: int, measured: bool) -> str:
    """Why nothing can be said."""
    if not looks:
        return (
            f"{facts.run} has no signals in its log (it was made without them, or is younger than its first look); "
            f"nacre diagnose {facts.run} --measure looks at its checkpoints instead"
        )
    old = step >= YOUNG * facts.steps
    if old and measured:
        return f"nothing can be said of {facts.run}: its model neither samples, reconstructs nor translates"
    if old and looks >= LEAST:
        return (
            f"nothing can be said of {facts.run} by its log, which holds gradients alone; nacre diagnose {facts.run} --measure "
            "looks at what its checkpoints can do"
        )
    seen = "1 look" if looks == 1 else f"{looks} looks"
    if max([step, *facts.saved]) >= facts.steps and not measured:
        anew = f", or train anew with --signal-every {facts.steps // (2 * LEAST)}" if facts.steps >= 2 * LEAST else ""
        return (
            f"{facts.run} has ended, and {seen} in {facts.steps:,} steps are too few to judge it by its log (it takes {LEAST}); "
            f"nacre diagnose {facts.run} --measure looks at its checkpoints instead{anew}"
        )
    wanted = f"it takes {LEAST}, and a fifth of the run"
    return f"{facts.run} is too young to be judged: {seen} up to step {step:,} of {facts.steps:,}; {wanted}"


def _measured(path: Path, written: Mapping[str, Any], model: str | None, device: str) -> list[dict[str, Any]]:
    """The signals of each checkpoint that the run has kept."""
    steps = checkpoint.steps(path / "checkpoints")
    if not steps:
        raise ConfigError(f"{path} has no checkpoint to measure; let it train to its first one.")
    asked = configuration.request(trusted(written["model"], model), {}, written)
    dataset = data.load(asked.data, progress=True)
    chosen = asked.spec(written["model"])
    seed = int(written["training"]["seed"])
    found = []
    for step in steps:
        module, average = (build(chosen, dataset.shape, seed, device) for _ in range(2))
        state = checkpoint.load(path / "checkpoints", step)
        module.load_state_dict(state["model"])
        average.load_state_dict(state["average"] or state["model"])
        look = _translations(module, dataset) if sides_of(module) else _look(module, average, dataset, seed)
        found.append({"step": step, "signals": look})
    return found


def _look(module: nn.Module, average: nn.Module, dataset: DataSet, seed: int) -> dict[str, Any]:
    """The signals of a model."""
    rows, held_out = rows_of(module, dataset, labels_of(module, dataset)), dataset.rows("validation")
    seen, unseen = spread(rows, TRAIN, shuffle=True), spread(held_out, HELD_OUT, shuffle=True)
    train, others = (floats(dataset.items, each, range(len(each))) for each in (seen, unseen))
    classes = None if dataset.labels is None else torch.from_numpy(dataset.labels[seen])
    signals = Signals(module, average, [], train, others, seed, classes).measure()
    return {"items": len(rows), "held_out": len(held_out), **signals}


def _translations(module: nn.Module, dataset: DataSet) -> dict[str, Any]:
    """The signals of a model that translates."""
    splits: tuple[Split, Split] = ("train", "validation")
    rows, held_out = (both_rows(dataset, module, split) for split in splits)
    items = (dataset.items, other_of(dataset, type(module).__name__).items)
    train, others = (
        tuple(floats(of, spread(each, most, shuffle=True), range(most)) for of, each in zip(items, split, strict=True))
        for split, most in ((rows, TRAIN), (held_out, HELD_OUT))
    )
    signals = TranslationSignals(module, [], train, others, sides_of(module) == "paired").measure()
    return {"items": len(rows[0]), "held_out": len(held_out[0]), **signals}
