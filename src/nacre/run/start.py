"""From what was asked for to a run directory: train and resume."""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from nacre import data
from nacre.data import DataSet
from nacre.engine import checkpoint, folder, numerics
from nacre.engine.lock import locked
from nacre.engine.ranks import Ranks
from nacre.engine.settings import FREE_TO_CHANGE, Training, flag
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.models import CATALOGUE
from nacre.networks import is_image
from nacre.run import config as configuration
from nacre.run.config import Request, trusted
from nacre.run.labels import fitted
from nacre.run.launch import joined
from nacre.run.place import new_run
from nacre.run.session import Run, Session, build, compile_or_not, go, resolve, stream_of, trial
from nacre.spec import Spec, coerce, fields

logger = logging.getLogger("nacre")


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
    if or_resume and _goes_on(model, out, overwrite, conditional):
        return resume(os.fspath(out or ""), model=model if model and model not in CATALOGUE else None, **flags)
    asked = configuration.request(model, flags, configuration.read(Path(config)) if config else None)
    dataset = data.load(asked.data, progress=True)
    chosen = fitted(asked.spec(_choose(dataset) if asked.model is None else asked.model), dataset, conditional)
    training = resolve(asked.training, chosen, dataset)
    device = numerics.device_for(training.device)
    module = build(chosen, dataset.shape, training.seed, device)
    origin = chosen.parameters.get("origin")
    if origin:
        module.take(folder.read(_folder(Path(origin["from"])))[1])  # type: ignore[operator]
    if init_from is not None:
        _take_weights(module, Path(init_from))
    # Before anything is written: a model that cannot train must not cost an older run.
    pace = trial(Session(chosen, dataset, training, module, stream_of(dataset, training, device, module)))
    again = {"model": model, "out": out, "overwrite": overwrite, "init_from": init_from, "config": config, **flags}
    again["conditional"] = conditional
    with joined(training, device, _told("train", again)) as ranks:
        session = Session(chosen, dataset, training, module, stream_of(dataset, training, device, module, ranks), ranks)
        updates = compile_or_not(session, training.compile)
        ranks.agree(f"{chosen.complete()} {training} {dataset.fingerprint}", device)
        written = configuration.record(
            chosen,
            dataclasses.replace(asked.data, data=dataset.source),
            _as_asked(training, asked.training),
            shape=list(dataset.shape),
            fingerprint=dataset.fingerprint,
            source=chosen.source,
            init_from=None if init_from is None else os.fspath(init_from),
            numerics=numerics.describe(training, device, updates, ranks.size),
        )
        path = ranks.first(lambda: new_run(Path(out) if out else None, chosen.name, dataset.source, overwrite))
        with _held(path, ranks):
            ranks.first(lambda: configuration.write(path, written))
            return go(path, session, updates, pace, save_first=bool(origin) or init_from is not None)


def resume(
    path: str | os.PathLike[str], *, model: str | None = None, accept_changes: bool = False, **flags: Any
) -> Run:
    """Go on with a run from its last checkpoint, or from step 0 if it has none.

    Args:
        path: the run.
        model: "FILE.py:CLASS" again, for a model of your own.
        accept_changes: go on though threads, torch, processor or the file of your model differ: the result is then no
            longer bit-identical.
        **flags: `steps` (to go further), what is written when, `data` if the data have moved; any other setting must be
            what it was.

    Raises:
        ConfigError: a hyper-parameter was changed, or the numerics differ; each is named.
        CheckpointError: there are checkpoints and none can be used.
        RunError: the run is in use, or cannot be read.
    """
    path = Path(path)
    written = configuration.recorded(path)
    asked = _unchanged(written, flags, trusted(written["model"], model))
    dataset = data.load(asked.data, progress=True)
    if dataset.fingerprint != written["fingerprint"]:
        raise DataError(
            f"the data at {asked.data.data} are not what {path} was trained on; restore them, or start a new run with "
            f"--init-from {path}."
        )
    chosen = asked.spec(written["model"])
    training = resolve(asked.training, chosen, dataset)
    _check_steps(path, training, written)
    device = numerics.device_for(training.device)
    module = build(chosen, dataset.shape, training.seed, device)
    again = {"path": path, "model": model, "accept_changes": accept_changes, **flags}
    with joined(training, device, _told("resume", again)) as ranks, _held(path, ranks):
        session = Session(chosen, dataset, training, module, stream_of(dataset, training, device, module, ranks), ranks)
        if ranks.size == written["numerics"].get("ranks", 1):
            numerics.apply(written["numerics"])
        updates = compile_or_not(session, written["numerics"].get("compile", "off"))
        now = numerics.describe(training, device, updates, ranks.size)
        _check_changes(written, chosen, now, accept_changes)
        ranks.agree(f"{chosen.complete()} {training} {dataset.fingerprint}", device)
        pace = trial(session)
        moved = dataclasses.replace(asked.data, data=dataset.source)
        settled = {"data": configuration.plain(moved), "numerics": now}
        settled["training"] = configuration.plain(_as_asked(training, asked.training))

        def settle() -> None:
            ranks.first(lambda: configuration.write(path, {**written, **settled}))

        return go(path, session, updates, pace, settle=settle)


def _goes_on(model: str | None, out: str | os.PathLike[str] | None, overwrite: bool, conditional: bool) -> bool:
    """Whether a command that is to go on with a run, if there is one, has one to go on with.

    Raises:
        ConfigError: it is unclear which, or the run is of something else.
    """
    if out is None:
        raise ConfigError("--or-resume goes on with the run that --out names; give --out.")
    if overwrite:
        raise ConfigError("--or-resume goes on with a run and --overwrite replaces it; drop one of them.")
    if not (Path(out) / configuration.NAME).exists():
        return False
    written = configuration.recorded(Path(out))
    if model in CATALOGUE and written["model"] != model:
        raise ConfigError(f"{out} is a run of '{written['model']}' and '{model}' was asked for; take another --out.")
    if conditional and not (written.get("parameters") or {}).get("classes"):
        raise ConfigError(f"{out} is a run of a model without labels; drop --conditional, or take another --out.")
    return True


def _as_asked(training: Training, asked: Training) -> Training:
    """Settings to write down: what the length of the run decides is decided anew when it goes on to another length."""
    return dataclasses.replace(training, log_every=asked.log_every, sample_every=asked.sample_every, profile=False)


@contextmanager
def _held(path: Path, ranks: Ranks) -> Iterator[None]:
    """Hold a run: the first rank does, for all."""
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(locked(path)))
        yield


def _told(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What another rank is to call, in plain containers."""
    plain = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in arguments.items()}
    return {"call": function, "arguments": plain}


def _choose(dataset: DataSet) -> str:
    """A model for data that came without one, by kind, count, size and labels; says why."""
    count, shape = len(dataset.rows("train")), dataset.shape
    if not is_image(shape):
        name, why = "wgan_gp", "the data are vectors, and a Wasserstein GAN covers all the modes of a density"
    elif count < 2000:
        name, why = "vae", f"{count:,} images are too few for a GAN, whose discriminator would learn them by heart"
    elif max(shape[1:]) > 64:
        name, why = "vae", f"a GAN at {shape[2]}×{shape[1]} pixels takes hours; --image-size 64 makes one feasible"
    elif dataset.classes and count < 5000:
        name, why = (
            "vae",
            f"{count:,} labelled images: a VAE's codes are of use with the labels, and it needs fewer images",
        )
    else:
        name, why = (
            "gan",
            f"{count:,} images of {shape[2]}×{shape[1]} pixels are enough for a GAN, which is the sharper",
        )
    logger.info(f"no model named: {name}, because {why}")
    return name


def _take_weights(module: nn.Module, path: Path) -> None:
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
            if name not in FREE_TO_CHANGE and name != "data" and values.get(name) != value:
                changed.append(f"{flag(name)} (was {values.get(name)}, is {value})")
    more = given["training"].get("steps") not in (None, before.training.steps) or "epochs" in given["training"]
    if more and before.training.lr_schedule != "constant":
        changed.append(
            f"--steps (the {before.training.lr_schedule} learning rate schedule of {before.training.steps} depends on it)"
        )
    if changed:
        raise ConfigError(
            f"a resumed run keeps its hyper-parameters, and these were changed: {', '.join(changed)}; start a new run with "
            "--init-from instead."
        )
    return configuration.request(model, flags, written)


def _check_steps(path: Path, training: Training, written: Mapping[str, Any]) -> None:
    """Refuse to go back, and to go on from nothing where weights came from elsewhere."""
    reached = checkpoint.steps(path / "checkpoints")
    if reached and (training.steps or 0) < reached[-1]:
        raise ConfigError(f"{path} has done {reached[-1]} steps already, got --steps {training.steps}; give more.")
    for flag_, source in (("--init-from", written.get("init_from")), ("--encoder", _origin(written).get("from"))):
        if source and not reached:
            raise CheckpointError(
                f"{path} was started from the weights of {source} and has no checkpoint; start it again with {flag_} {source}."
            )


def _origin(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run says of the model that its own started from."""
    return (written.get("parameters") or {}).get("origin") or {}


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
