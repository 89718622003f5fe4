"""Branching a run: the same data and the same noise, and from a step on one thing changed."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from nacre import data, files
from nacre.engine import checkpoint
from nacre.engine.log import NAME as LOG
from nacre.engine.log import read as read_log
from nacre.engine.settings import FREE_TO_CHANGE, flag
from nacre.engine.update import owned
from nacre.errors import CheckpointError, ConfigError, ShapeError
from nacre.run import config as configuration
from nacre.run.config import Request, trusted
from nacre.run.launch import first_of_all, joined
from nacre.run.place import new_run
from nacre.run.plan import Plan, held, settled, told
from nacre.run.resume import data_of, play, replay
from nacre.run.session import Run, build, trial

logger = logging.getLogger("nacre")

MOMENTS = ("momentum", "amsgrad", "centered")
"""Settings of optimizers with which they remember more."""


def fork(
    path: str | os.PathLike[str],
    *,
    at: int,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    model: str | None = None,
    accept_changes: bool = False,
    **flags: Any,
) -> Run:
    """Branch a run at a step: a new run that shares its steps up to there and goes on with some settings changed.

    Without a change the fork is bit-identical to the run. A step whose checkpoint is gone is made again, exactly, from the
    last one before it.

    Args:
        path: the run; it is only read, and may still be going on.
        at: how many of its steps are shared.
        out: the directory of the new run; by default one beside the run, called after it and the step.
        overwrite: replace the run that `out` holds.
        model: "FILE.py:CLASS" again, for a model of your own.
        accept_changes: go on though threads, torch, processor or the file of your model differ from the run's.
        **flags: what changes: any setting of data, training or model that the weights and the optimizers' moments fit.

    Raises:
        Interrupted: a signal stopped it; it was saved first and can be resumed.
        ConfigError: the run has no such step, or a change would make another network.
        CheckpointError: the step cannot be made again.
    """
    path = Path(path)
    parent = configuration.recorded(path)
    _check_step(path, parent, at)
    before = configuration.request(trusted(parent["model"], model), {}, parent)
    plan = _plan(path, parent, before, configuration.request(before.model, flags, parent))
    written = _configuration(path, parent, before, plan, at)
    _check(path, parent, before, plan, written)
    trial(plan.session(first_of_all(plan.training, plan.device)))  # before anything is written
    again = {
        "path": path,
        "at": at,
        "out": out,
        "overwrite": overwrite,
        "model": model,
        "accept_changes": accept_changes,
    }
    with joined(plan.training, plan.device, told("fork", {**again, **flags})) as ranks:
        place = ranks.first(lambda: _place(path, at, None if out is None else Path(out), overwrite))
        with held(place, ranks):
            ranks.first(partial(_copy, path, place, written))
            replay(place, plan, written, ranks, accept_changes)
            return play(place, plan, written, ranks, accept_changes)


def changes(written: Mapping[str, Any]) -> str:
    """What a fork has changed, for people: "lr 0.001 → 0.0001", or "nothing"."""
    changed = written["forked_from"]["changed"]
    return ", ".join(f"{name} {each['was']} → {each['is']}" for name, each in changed.items()) or "nothing"


def _check_step(path: Path, parent: Mapping[str, Any], at: int) -> None:
    """Refuse a step that is none of the run's own."""
    steps, origin = parent["training"]["steps"], parent.get("forked_from") or {}
    if not 0 <= at <= steps:
        raise ConfigError(f"--at is a step of {path}, from 0 to {steps}; got {at}.")
    if at < origin.get("step", 0):
        raise ConfigError(
            f"up to step {origin['step']} {path} shares the steps of {origin['run']}; fork that one at {at}."
        )


def _plan(path: Path, parent: Mapping[str, Any], before: Request, asked: Request) -> Plan:
    """What the fork is made of.

    Raises:
        DataError: the run's own data are no longer what they were.
        ShapeError: it is to see other data, and these are of another shape.
    """
    if asked.data.data == before.data.data:
        dataset = data_of(path, parent, before)
    if asked.data != before.data:
        dataset = data.load(asked.data, progress=True)
    if list(dataset.shape) != parent["shape"]:
        was, now = ("×".join(map(str, shape)) for shape in (parent["shape"], dataset.shape))
        raise ShapeError(
            f"{path} is of items of {was} and {dataset.source} has {now}; bring them to that shape (--image-size, --channels)."
        )
    return settled(asked, asked.spec(parent["model"]), dataset)


def _configuration(path: Path, parent: Mapping[str, Any], before: Request, plan: Plan, at: int) -> dict[str, Any]:
    """What the fork writes down: as the run, with the changes, and where it comes from."""
    of_data, training = map(configuration.plain, plan.settings())  # type: ignore[arg-type]
    after = {"parameters": plan.spec.complete(), "data": of_data, "training": training}
    was = {
        "parameters": before.spec(parent["model"]).complete(),
        "data": configuration.plain(before.data),
        "training": configuration.plain(before.training),
    }
    changed = {
        name: {"was": was[section].get(name), "is": value}
        for section in after
        for name, value in after[section].items()
        if was[section].get(name) != value
    }
    how = {name: after["training"][name] for name in ("precision", "compile") if name in changed}
    numerics = {**parent["numerics"], **{name: value for name, value in how.items() if value != "auto"}}
    origin = {
        "run": str(path),
        "fingerprint": fingerprint(parent),
        "step": at,
        "changed": changed,
        "config": dict(parent),
    }
    written = {**parent, **after, "fingerprint": plan.data.fingerprint, "numerics": numerics, "forked_from": origin}
    return dict(json.loads(json.dumps(written)))  # so that no container stands in two places, which YAML would tell


def fingerprint(written: Mapping[str, Any]) -> str:
    """A name for what decides a run's weights: model, data, settings and the numerics, as hexadecimal digits."""
    training = {name: value for name, value in written["training"].items() if name not in FREE_TO_CHANGE}
    facts = {
        name: written.get(name) for name in ("model", "source", "parameters", "fingerprint", "init_from", "numerics")
    }
    origin = written.get("forked_from") or {}
    told = json.dumps([facts, training, origin.get("fingerprint"), origin.get("step")], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _check(path: Path, parent: Mapping[str, Any], before: Request, plan: Plan, written: Mapping[str, Any]) -> None:
    """Refuse what cannot be gone on with.

    Raises:
        ConfigError: the fork would have no step of its own, or another network than the run.
        CheckpointError: the first steps are gone, and the run began with weights that its settings do not bring back.
    """
    at, steps = written["forked_from"]["step"], plan.training.steps or 0
    if steps <= at:
        raise ConfigError(f"a fork of {path} at step {at} needs --steps of more than {at} to go on to; got {steps}.")
    ours = build(before.spec(parent["model"]), tuple(parent["shape"]), plan.training.seed)
    if _layout(ours) != _layout(plan.model):
        names = ", ".join(flag(name) for name in written["forked_from"]["changed"] if name in plan.spec.complete())
        raise ConfigError(
            f"a fork goes on with the weights and the optimizers of {path}, and {names} would make others; start a new run with "
            "`nacre train`, and --init-from where the weights fit."
        )
    source = parent.get("init_from") or (parent["parameters"].get("origin") or {}).get("from")
    if source and _nearest(path, at) is None:
        kept = ", ".join(map(str, checkpoint.steps(path / "checkpoints"))) or "none"
        raise CheckpointError(
            f"{path} was started from the weights of {source} and has no checkpoint at step {at} or before it (there are: "
            f"{kept}); fork it at one of these. --keep and --checkpoint-every keep more."
        )


def _layout(model: nn.Module) -> list[Any]:
    """What weights and an optimizer's moments have to fit."""
    rows: list[Any] = [{name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}]
    # In what order they are played is no matter of theirs.
    for objective in sorted(model.objectives(), key=lambda row: row.name):  # type: ignore[operator]
        parameters = owned(model, objective)
        optimizer = objective.optimizer(parameters)
        # Whether there is a moment of this kind; how long its memory is may change.
        moments = [[bool(group.get(name)) for name in MOMENTS] for group in optimizer.param_groups]
        rows.append((objective.name, [tuple(each.shape) for each in parameters], type(optimizer), moments))
    return rows


def _nearest(path: Path, at: int) -> int | None:
    """The last step up to `at` of which there is a whole checkpoint."""
    folder = path / "checkpoints"
    for step in reversed([step for step in checkpoint.steps(folder) if step <= at]):
        try:
            checkpoint.load(folder, step)
        except checkpoint.NewerVersion:
            raise
        except CheckpointError as error:
            logger.warning(f"{error} Taking the one before.")
            continue
        return step
    return None


def _place(path: Path, at: int, out: Path | None, overwrite: bool) -> Path:
    """The directory of the fork."""
    if out is not None and out.resolve() == path.resolve():
        raise ConfigError(f"a fork is a run of its own, and {path} stays as it is; take another --out.")
    named = path if path.name not in ("", "..") else path.absolute()
    return new_run(out, named.parent / f"{named.name}-at-{at}", overwrite)


def _copy(path: Path, place: Path, written: Mapping[str, Any]) -> None:
    """Put into a new run what it shares with the one it comes from.

    From the configuration on, which comes first, it can be resumed: what is missing then is made again.
    """
    at = written["forked_from"]["step"]
    logger.info(f"forked from {path} at step {at:,}; changed: {changes(written)}")
    configuration.write(place, written)
    start = _nearest(path, at)
    lines = [line for line in read_log(path) if line["step"] <= (start or 0)]
    files.write_text(place / LOG, "".join(json.dumps(line) + "\n" for line in lines))
    if start is not None:
        best = checkpoint.load(path / "checkpoints", start)["best"]
        same_data = written["fingerprint"] == written["forked_from"]["config"]["fingerprint"]
        also = {best[0]} if best and same_data else set()
        for step in sorted({start} | (also & set(checkpoint.steps(path / "checkpoints")))):
            checkpoint.copy(path / "checkpoints", place / "checkpoints", step)
    if (start or 0) < at:
        logger.info(
            f"the checkpoint of step {at:,} was not kept, so steps {start or 0:,} to {at:,} are made again, exactly as they "
            "were (--keep and --checkpoint-every keep more)"
        )
