"""Going on with a run: from its last checkpoint, under the settings that it was started with."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nacre import data
from nacre.engine import checkpoint, numerics
from nacre.engine.ranks import Ranks
from nacre.engine.settings import FREE_TO_CHANGE, Training, flag
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.run import config as configuration
from nacre.run.config import Request, trusted
from nacre.run.launch import joined
from nacre.run.plan import Plan, held, settled, told
from nacre.run.session import Run, compile_or_not, go, trial
from nacre.spec import Spec, coerce, fields

logger = logging.getLogger("nacre")

PLACE = ("device", "devices", "nodes", "strategy", "timeout", "checkpoint_every", "keep")
"""Settings that change no result, and that all steps of a run are therefore made with alike."""

MAY_MOVE = {"data", "data_b"}
"""Where the data are; what they are is told by their fingerprint."""


def resume(
    path: str | os.PathLike[str], *, model: str | None = None, accept_changes: bool = False, **flags: Any
) -> Run:
    """Go on with a run from its last checkpoint, or from step 0 if it has none.

    Args:
        path: the run.
        model: "FILE.py:CLASS" again, for a model of your own.
        accept_changes: go on though threads, torch, processor or the file of your model differ: the result is then no
            longer bit-identical.
        **flags: `steps` (to go further), what is written when, `data` and `data_b` if the data have moved; any other
            setting must be what it was.

    Raises:
        ConfigError: a hyper-parameter was changed, or the numerics differ; each is named.
        CheckpointError: there are checkpoints and none can be used.
        RunError: the run is in use, or cannot be read.
    """
    path = Path(path)
    written = configuration.recorded(path)
    plan = plan_of(path, written, _unchanged(written, flags, trusted(written["model"], model)))
    _check_steps(path, plan.training, written)
    again = {"path": path, "model": model, "accept_changes": accept_changes, **flags}
    with joined(plan.training, plan.device, told("resume", again)) as ranks, held(path, ranks):
        replay(path, plan, written, ranks, accept_changes)
        return play(path, plan, written, ranks, accept_changes)


def replay(path: Path, plan: Plan, written: Mapping[str, Any], ranks: Ranks, accept_changes: bool) -> None:
    """Do again the steps up to a fork that no checkpoint of the run holds, under the settings that they were made with.

    Args: as of `play`. A run that is no fork has no such steps.
    """
    origin = written.get("forked_from")
    if not origin or _reached(path) >= origin["step"]:
        return
    before = origin["config"]
    replay(path, plan, before, ranks, accept_changes)
    here = {name: getattr(plan.training, name) for name in PLACE} | {"stop_on": ()}  # it was gone on with
    if plan.data.fingerprint == before["fingerprint"]:
        here |= {name: getattr(plan.settings()[0], name) for name in MAY_MOVE}
    made = plan_of(path, before, configuration.request(plan.asked.model or plan.spec.name, here, before))
    play(path, made, before, ranks, accept_changes, until=origin["step"])


def play(
    path: Path, plan: Plan, written: Mapping[str, Any], ranks: Ranks, accept_changes: bool, until: int | None = None
) -> Run:
    """Go on with a run that is held, from its last checkpoint.

    Args:
        path: the run.
        plan: what it is to be made of from here on.
        written: its configuration.
        ranks: who trains.
        accept_changes: whether other numerics than the run's may be gone on with.
        until: a step to end at, where other settings take over; what is written of the run's own is then left as it is.
    """
    session = plan.session(ranks)
    if ranks.size == written["numerics"].get("ranks", 1):
        numerics.apply(written["numerics"])
    updates = compile_or_not(session, written["numerics"].get("compile", "off"))
    now = numerics.describe(plan.training, plan.device, updates, ranks.size)
    check = partial(_check_changes, written, plan.spec, now, accept_changes)
    ranks.first(check)  # what all would refuse is told once
    if ranks.rank:
        check()
    plan.agree(ranks)
    pace = trial(session)
    of_data, training = plan.settings()
    sections = {"data": configuration.plain(of_data), "training": configuration.plain(training)}
    settle = partial(configuration.write, path, {**written, **sections, "numerics": now})
    since = configuration.data_since(written)
    if until is not None:
        return go(path, session, updates, pace, until=until, judged_from=since)
    return go(path, session, updates, pace, settle=lambda: ranks.first(settle), judged_from=since)


def plan_of(path: Path, written: Mapping[str, Any], asked: Request) -> Plan:
    """What a run goes on with. Raises DataError if its data are no longer what they were."""
    return settled(asked, asked.spec(written["model"]), data_of(path, written, asked))


def data_of(path: Path, written: Mapping[str, Any], asked: Request) -> data.DataSet:
    """The data of a run.

    Raises:
        DataError: they are not those that it was trained on.
    """
    dataset = data.load(asked.data, progress=True)
    if dataset.fingerprint != written["fingerprint"]:
        raise DataError(
            f"the data at {asked.data.data} are not what {path} was trained on; restore them, or start a new run with "
            f"--init-from {path}."
        )
    return dataset


def _unchanged(written: Mapping[str, Any], flags: Mapping[str, Any], model: str) -> Request:
    """The request of a run, with the flags that a resumed run may change.

    Raises:
        ConfigError: some other setting was changed; all such are named.
    """
    before = configuration.request(model, {}, written)
    known = {"data": fields(data.DataSettings), "training": fields(Training)}
    given = configuration.sort(flags, {**known, "parameters": configuration.parameters_of(model)}, model)
    changed = []
    for section, listed in (*known.items(), ("parameters", configuration.parameters_of(model))):
        values = before.parameters if section == "parameters" else dataclasses.asdict(getattr(before, section))
        for name, value in coerce(listed, given[section], section).items():
            if name not in FREE_TO_CHANGE | MAY_MOVE and values.get(name) != value:
                changed.append(f"{flag(name)} (was {values.get(name)}, is {value})")
    if changed:
        raise ConfigError(
            f"a resumed run keeps its hyper-parameters, and these were changed: {', '.join(changed)}; start a new run with "
            "--init-from instead."
        )
    return configuration.request(model, flags, written)


def _reached(path: Path) -> int:
    """The step of the newest whole checkpoint; 0 if there is none."""
    state, _ = checkpoint.load_latest(path / "checkpoints")
    return int(state["step"]) if state else 0


def _check_steps(path: Path, training: Training, written: Mapping[str, Any]) -> None:
    """Refuse to go back, to go elsewhere than the learning rate does, and to go on from nothing where weights came from
    elsewhere.
    """
    before, schedule = (written["training"].get(name) for name in ("steps", "lr_schedule"))
    if training.steps != before and schedule not in (None, "constant"):
        raise ConfigError(
            f"a resumed run keeps its length where the learning rate depends on it, and the {schedule} learning rate schedule "
            f"of {path} is for {before} steps, got {training.steps}; start a new run with --init-from instead."
        )
    reached = checkpoint.steps(path / "checkpoints")
    if reached and (training.steps or 0) < reached[-1]:
        raise ConfigError(f"{path} has done {reached[-1]} steps already, got --steps {training.steps}; give more.")
    for flag_, source in beginnings(written).items():
        if not reached:
            raise CheckpointError(
                f"{path} was started from the weights of {source} and has no checkpoint; start it again with {flag_} {source} "
                "and --overwrite."
            )


def beginnings(written: Mapping[str, Any]) -> dict[str, str]:
    """Where the weights that a run started from came from, by flag; nothing where the seed brings them back."""
    origin = (written.get("parameters") or {}).get("origin") or {}
    found = {"--init-from": written.get("init_from"), "--encoder": origin.get("from")}
    return {name: source for name, source in found.items() if source}


def _check_changes(written: Mapping[str, Any], chosen: Spec, now: Mapping[str, Any], accept: bool) -> None:
    """Refuse numerics or a model's file other than the run's, unless told to go on; the ranks may be others."""
    changed = numerics.differences(written["numerics"], now)
    moved = written["numerics"].get("ranks", 1) != now["ranks"]
    if moved:  # fewer cores are left to each
        changed = [difference for difference in changed if not difference.startswith(("ranks ", "threads "))]
        logger.warning(
            f"trained by {_ranks(written['numerics'].get('ranks', 1))} so far and by {_ranks(now['ranks'])} now: equal "
            "but for rounding, no longer bit-identical"
        )
    if chosen.source != written.get("source"):
        changed.append(f"the file of {chosen.name} (edited since)")
    if not changed:
        return
    if not accept:
        raise ConfigError(
            f"the result would not be bit-identical here: {', '.join(changed)}; --accept-changes goes on all the same."
        )
    logger.warning(f"going on although these changed, no longer bit-identical: {', '.join(changed)}")


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"
