"""From what was asked for to a run directory."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nacre.engine import checkpoint, folder, numerics
from nacre.engine.update import Update
from nacre.errors import ConfigError
from nacre.models import CATALOGUE
from nacre.run import config as configuration
from nacre.run.launch import first_of_all, joined
from nacre.run.place import new_run, stem
from nacre.run.plan import Plan, held, plan, told
from nacre.run.resume import beginnings, resume
from nacre.run.session import Run, compile_or_not, go, trial


def train(
    model: str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    init_from: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    or_resume: bool = False,
    conditional: bool = False,
    **flags: Any,
) -> Run:
    """Train a model on a data source; everything goes into a run directory.

    Args:
        model: a name of the catalogue, "FILE.py:CLASS" for your own, or None to let the data choose.
        out: the run directory; by default a new one under `runs/`.
        overwrite: replace the run that `out` holds.
        init_from: a run or model folder to take the initial weights from, and nothing else.
        config: a YAML file or a run to repeat; flags override it.
        or_resume: go on with the run that `out` holds, if it holds one, whatever its weights and settings came from
            (`init_from`, `config`): for schedulers that start a command again.
        conditional: condition the model on the labels of the data: sets its `classes`.
        **flags: settings of data (`data`, `image_size` …), training (`steps`, `batch_size`, `seed` …) and model.

    Returns:
        The run.

    Raises:
        Interrupted: a signal (Ctrl-C, SIGTERM) stopped it; it was saved first and can be resumed.
        NacreError: one sentence on what was expected, what came and what to do.
    """
    found = _found(model, out, overwrite, conditional) if or_resume else None
    if found is not None and not _lost(out, found):
        return resume(os.fspath(out or ""), model=model if model and model not in CATALOGUE else None, **flags)
    repeated = configuration.read(Path(config)) if config else {}
    init_from = _init_from(repeated) if init_from is None else os.fspath(init_from)
    asked = configuration.request(model, flags, repeated)
    planned = plan(asked, conditional=conditional)
    if found is not None:
        _check_beginning(found, planned, init_from)
    taken = _take_weights(planned, None if init_from is None else Path(init_from))
    # Before anything is written: a model that cannot train must not cost an older run.
    pace = trial(planned.session(first_of_all(planned.training, planned.device)))
    again = {"model": model, "out": out, "overwrite": overwrite, "init_from": init_from, "config": config, **flags}
    again["conditional"] = conditional
    with joined(planned.training, planned.device, told("train", again)) as ranks:
        session = planned.session(ranks)
        updates = compile_or_not(session, planned.training.compile)
        planned.agree(ranks)
        written = _configuration(planned, updates, ranks.size, init_from)
        otherwise = Path("runs") / f"{stem(session.spec.name)}-{stem(session.data.source)}"
        path = ranks.first(
            lambda: new_run(
                Path(out) if out else None, otherwise, overwrite or (found is not None and _lost(out, found))
            )
        )
        with held(path, ranks):
            ranks.first(lambda: configuration.write(path, written))
            return go(path, session, updates, pace, save_first=taken)


def _configuration(planned: Plan, updates: Sequence[Update], ranks: int, init_from: str | None) -> dict[str, Any]:
    """What a new run writes down: all that it takes to repeat it."""
    dataset, training = planned.data, planned.training
    return configuration.record(
        planned.spec,
        *planned.settings(),
        shape=list(dataset.shape),
        fingerprint=dataset.fingerprint,
        source=planned.spec.source,
        init_from=init_from,
        numerics=numerics.describe(training, planned.device, updates, ranks),
    )


def _found(
    model: str | None, out: str | os.PathLike[str] | None, overwrite: bool, conditional: bool
) -> dict[str, Any] | None:
    """The configuration of the run that a command is to go on with; None if there is none yet.

    Raises:
        ConfigError: it is unclear which, or the run is of something else.
    """
    if out is None:
        raise ConfigError("--or-resume goes on with the run that --out names; give --out.")
    if overwrite:
        raise ConfigError("--or-resume goes on with a run and --overwrite replaces it; drop one of them.")
    if not (Path(out) / configuration.NAME).exists():
        return None
    written = configuration.recorded(Path(out))
    if model in CATALOGUE and written["model"] != model:
        raise ConfigError(f"{out} is a run of '{written['model']}' and '{model}' was asked for; take another --out.")
    if conditional and not (written.get("parameters") or {}).get("classes"):
        raise ConfigError(f"{out} is a run of a model without labels; drop --conditional, or take another --out.")
    return written


def _lost(out: str | os.PathLike[str] | None, written: Mapping[str, Any]) -> bool:
    """Whether a run ended before it had saved the weights that came from elsewhere, so that it can only start over."""
    reached = checkpoint.steps(Path(out or "") / "checkpoints")
    return bool(beginnings(written)) and not written.get("forked_from") and not reached


def _check_beginning(found: Mapping[str, Any], planned: Plan, init_from: str | None) -> None:
    """Refuse to start a run over from other weights than it was started from."""
    was = beginnings(found)
    now = beginnings({"init_from": init_from, "parameters": planned.spec.parameters})
    if was != now:
        before, given = (" ".join(f"{name} {source}" for name, source in each.items()) for each in (was, now))
        raise ConfigError(
            f"the run was started with {before} and has no checkpoint to go on from; start it over with these, got "
            f"{given or 'none'}, or take another --out."
        )


def _init_from(repeated: Mapping[str, Any]) -> str | None:
    """Where the initial weights of a run that is repeated came from.

    Raises:
        ConfigError: it is a fork, whose first steps were made under other settings.
    """
    if repeated.get("forked_from"):
        raise ConfigError(
            "--config repeats a run from its start, and this one is a fork; `nacre fork` of the run that it names repeats it, "
            "and a copy of its config.yaml without forked_from trains by its settings from the start."
        )
    found = repeated.get("init_from")
    if not isinstance(found, str | None):
        raise ConfigError(f"'init_from' of a configuration is the path of a run or model folder, got {found!r:.60}.")
    return found


def _take_weights(planned: Plan, init_from: Path | None) -> bool:
    """Give a new model the weights that it is to start from; returns whether it was given any."""
    origin = planned.spec.parameters.get("origin")
    if origin:
        planned.model.take(folder.read(_folder(Path(origin["from"])))[1])  # type: ignore[operator]
    if init_from is not None:
        _take_all(planned.model, init_from)
    return bool(origin) or init_from is not None


def _take_all(module: nn.Module, path: Path) -> None:
    """The weights of a run or model folder into a new model."""
    if not path.exists():
        raise ConfigError(f"there is no run or model folder at {path} to take weights from (--init-from).")
    _, weights = folder.read(_folder(path))
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise ConfigError(f"--init-from {path}: its weights do not fit this model ({reason.strip()[:160]}).") from None


def _folder(path: Path) -> Path:
    """The model folder of a run, or the folder itself."""
    return path / "model" if (path / "model").is_dir() else path
