"""From what was asked for to a run directory: train and resume."""

import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nacre import data
from nacre.data import DataSet
from nacre.engine import checkpoint, folder, numerics
from nacre.engine.lock import locked
from nacre.engine.settings import FREE_TO_CHANGE, Training, flag
from nacre.errors import ConfigError, DataError, RunError
from nacre.models import CATALOGUE
from nacre.networks import is_image
from nacre.run import config as configuration
from nacre.run.config import Request
from nacre.run.session import Run, Session, build, go, resolve, stream_of
from nacre.spec import Spec, coerce, fields

logger = logging.getLogger("nacre")


def train(
    model: str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    init_from: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    **flags: Any,
) -> Run:
    """Train a model on a data source; everything goes into a run directory.

    Args:
        model: a name of the catalogue, "FILE.py:CLASS" for your own, or None to let the data choose.
        out: the run directory; by default a new one under `runs/`.
        overwrite: replace the run that `out` holds.
        init_from: a run or model folder to take the initial weights from, and nothing else.
        config: a YAML file or a run to repeat; flags override it.
        **flags: settings of data (`data`, `image_size` …), training (`steps`, `batch_size`, `seed` …) and model.

    Returns:
        The run. If a signal stopped it, it was saved first and can be resumed.

    Raises:
        NacreError: one sentence on what was expected, what came and what to do.
    """
    asked = configuration.request(model, flags, configuration.read(Path(config)) if config else None)
    dataset = data.load(asked.data, progress=True)
    chosen = asked.spec(_choose(dataset) if asked.model is None else asked.model)
    training = resolve(asked.training, chosen, dataset)
    device = numerics.device_for(training.device)
    module = build(chosen, dataset.shape, training.seed, device)
    if init_from is not None:
        _take_weights(module, Path(init_from))
    stream = stream_of(dataset, training, device)
    recorded = {"shape": list(dataset.shape), "fingerprint": dataset.fingerprint, "source": chosen.source}
    written = configuration.record(
        chosen, asked.data, training, **recorded, numerics=numerics.describe(training, device)
    )
    path = _new_run(Path(out) if out else None, chosen, dataset, overwrite)
    with locked(path):
        configuration.write(path, written)
        return go(path, Session(chosen, dataset, training, module, stream), save_first=init_from is not None)


def resume(
    path: str | os.PathLike[str], *, model: str | None = None, accept_numerics: bool = False, **flags: Any
) -> Run:
    """Go on with a run from its last checkpoint, or from step 0 if it has none.

    Args:
        path: the run.
        model: "FILE.py:CLASS" again, for a model of your own.
        accept_numerics: go on though threads, torch or processor differ: the result is then no longer bit-identical.
        **flags: `steps` (to go further) and what is written when; any other setting must be what it was.

    Raises:
        ConfigError: a hyper-parameter was changed, or the numerics differ; each is named.
        RunError: the run is in use, or cannot be read.
    """
    path = Path(path)
    written = configuration.read(path)
    with locked(path):
        asked = _unchanged(written, flags, trusted(written["model"], model))
        dataset = data.load(asked.data, progress=True)
        if dataset.fingerprint != written["fingerprint"]:
            raise DataError(
                f"the data at {asked.data.data} are no longer what {path} was trained on; restore them, or start a new "
                f"run with --init-from {path}."
            )
        chosen = asked.spec(written["model"])
        training = resolve(asked.training, chosen, dataset)
        reached = checkpoint.steps(path / "checkpoints")
        if reached and (training.steps or 0) < reached[-1]:
            raise ConfigError(f"{path} has done {reached[-1]} steps already, got --steps {training.steps}; give more.")
        device = numerics.device_for(training.device)
        _same_numerics(written["numerics"], training, device, accept_numerics)
        module = build(chosen, dataset.shape, training.seed, device)
        configuration.write(path, {**written, "training": configuration.plain(training)})
        return go(path, Session(chosen, dataset, training, module, stream_of(dataset, training, device)))


def trusted(name: str, given: str | None) -> str:
    """The model that a file names, if running its code is what the user asked for.

    Raises:
        ConfigError: it is the user's own, and nothing read from a file is run.
    """
    if name in CATALOGUE:
        return name
    if given is None:
        raise ConfigError(f"this was trained with a model of your own; say so again: --model {name}")
    return given


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


def _new_run(out: Path | None, chosen: Spec, dataset: DataSet, overwrite: bool) -> Path:
    """An empty directory for a run."""
    try:
        if out is None:
            return _numbered(Path("runs"), f"{_plain(chosen.name)}-{_plain(dataset.source)}")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            _make_way(out, overwrite)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the run directory {out or 'runs'} cannot be written ({error.strerror}); take another --out."
        ) from None
    return out


def _make_way(out: Path, overwrite: bool) -> None:
    if not (out / configuration.NAME).is_file():
        raise RunError(f"{out} exists and is not a run of nacre; take another --out (nothing was changed).")
    if not overwrite:
        raise RunError(f"{out} holds a run already; `nacre resume {out}` goes on with it, --overwrite replaces it.")
    with locked(out):
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _numbered(parent: Path, stem: str) -> Path:
    for number in range(1, 10_000):
        path = parent / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{parent} holds 9,999 runs called {stem}; give this one a name with --out.")


def _plain(name: str) -> str:
    stem = Path(name.rstrip("/").rpartition(":")[2] or name).name if not name.startswith("toy:") else name
    return "".join(c if c.isalnum() else "-" for c in stem.lower()).strip("-") or "run"


def _take_weights(module: nn.Module, path: Path) -> None:
    """The weights of a run or model folder into a new model."""
    _, weights = folder.read(path / "model" if (path / "model").is_dir() else path)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise ConfigError(f"--init-from {path}: its weights do not fit this model ({reason.strip()[:160]}).") from None


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


def _same_numerics(recorded: Mapping[str, Any], training: Training, device: torch.device, accept: bool) -> None:
    numerics.apply(recorded)
    different = numerics.differences(recorded, numerics.describe(training, device))
    if not different:
        return
    if not accept:
        raise ConfigError(
            f"the result would not be bit-identical here: {', '.join(different)}; --accept-numerics goes on all the same."
        )
    logger.warning(f"going on under other numerics, no longer bit-identical: {', '.join(different)}")
