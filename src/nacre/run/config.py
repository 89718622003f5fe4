"""A run's configuration: what was asked for and everything needed to repeat it, as YAML."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nacre import __version__, files
from nacre.data import sides
from nacre.data.settings import DataSettings
from nacre.engine.settings import Training
from nacre.errors import CheckpointError, ConfigError
from nacre.models import CATALOGUE
from nacre.spec import Field, Spec, coerce, fields, find_class, spec, unknown

FORMAT = 1
NAME = "config.yaml"
RECORDED = ("format", "nacre", "shape", "fingerprint", "numerics", "source", "init_from", "forked_from")
"""What a run adds to what was asked for."""

PLACES = frozenset(
    {"out", "overwrite", "init_from", "config", "model", "json", "accept_changes", "or_resume", "conditional"}
)
"""Flags of commands, which no parameter of a model may be called."""

SECTIONS = ("model", "parameters", "data", "training")


@dataclass(frozen=True)
class Request:
    """What was asked for, checked: a model (None: to be chosen by the data), the data, and how to train."""

    model: str | None
    parameters: Mapping[str, Any]
    data: DataSettings
    training: Training

    def spec(self, chosen: str) -> Spec:
        """The specification of the model, which is `chosen` where none was asked for."""
        return spec(self.model or chosen, self.parameters)


def request(model: str | None, flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Request:
    """Sort flags into their sections, over those of a configuration.

    Args:
        model: name, or None to take the configuration's or to choose by the data.
        flags: settings of data, training and model, by name.
        config: as `read` gives it.

    Raises:
        ConfigError: a name that no section knows (the nearest is offered), or a value of the wrong type or range.
    """
    base = _sections(config or {})
    model = _agreed(model, base["model"])
    check_names(model)
    known = {"data": fields(DataSettings), "training": fields(Training), "parameters": parameters_of(model)}
    given = sort(flags, known, model)
    merged = {section: {**base[section], **given[section]} for section in known}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if given["training"].get(one) is not None and other not in given["training"]:
            merged["training"][other] = None
    source = given["data"].get("data")
    if source is not None and sides.holds_both(str(source)) and "data_b" not in given["data"]:
        merged["data"]["data_b"] = None  # a folder with both sides, in the place of the configuration's two
    checked = {section: coerce(known[section], merged[section], _owner(section, model)) for section in known}
    return Request(model, checked["parameters"], DataSettings(**checked["data"]), Training(**checked["training"]))


def trusted(name: str, given: str | None) -> str:
    """The model that a file names, if running its code is what the user asked for.

    Raises:
        ConfigError: it is the user's own, and nothing read from a file is run.
    """
    if name in CATALOGUE:
        return name
    if given is None or given in CATALOGUE:
        raise ConfigError(f"this is of a model of your own, whose code runs only when you name it: --model {name}.")
    return given


def _agreed(asked: str | None, configured: str | None) -> str | None:
    """The model that flags and configuration both mean."""
    if configured is None or asked == configured:
        return asked
    if asked is None or (asked not in CATALOGUE and configured not in CATALOGUE):
        return trusted(configured, asked)
    raise ConfigError(f"the configuration is of model '{configured}' and '{asked}' was asked for; drop one of them.")


def check_names(model: str | None) -> None:
    """Refuse a model whose parameters cannot be flags."""
    others = {field.name for target in (DataSettings, Training) for field in fields(target)} | PLACES
    own = parameters_of(model)
    taken = [field.name for field in own if field.name in others]
    if taken:
        raise ConfigError(f"the parameters {', '.join(taken)} of {model} are flags of nacre's already; rename them.")
    bare = [field.name for field in own if field.default is inspect.Parameter.empty]
    if bare:
        raise ConfigError(f"the parameters {', '.join(bare)} of {model} need a default each.")


def parameters_of(model: str | None) -> list[Field]:
    """The fields of a model; none where it is still to be chosen."""
    return fields(find_class(model)) if model else []


def sort(flags: Mapping[str, Any], known: Mapping[str, list[Field]], model: str | None) -> dict[str, dict[str, Any]]:
    """Flags by section. Raises ConfigError for one that is in none."""
    names = {field.name: section for section, listed in known.items() for field in listed}
    for name in flags:
        if name not in names:
            raise ConfigError(unknown(name, names, f"training {model or 'a model that the data choose'}"))
    return {section: {n: v for n, v in flags.items() if names[n] == section} for section in known}


def record(chosen: Spec, data: DataSettings, training: Training, **recorded: Any) -> dict[str, Any]:
    """The configuration of a run, complete, in plain containers."""
    return {
        "format": FORMAT,
        "nacre": __version__,
        "model": chosen.name,
        "parameters": chosen.complete(),
        "data": plain(data),
        "training": plain(training),
        **recorded,
    }


def plain(settings: DataSettings | Training) -> dict[str, Any]:
    """Settings in containers that YAML knows."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(settings).items()}


def write(run: Path, config: Mapping[str, Any]) -> None:
    """Put a configuration into a run."""
    files.write_text(run / NAME, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def recorded(run: Path) -> dict[str, Any]:
    """The configuration of a run, with all that a run records.

    Raises:
        ConfigError: there is no run.
        CheckpointError: its configuration is damaged, or from a newer version.
    """
    config = read(run)
    kinds = {
        "model": str,
        "format": int,
        "shape": list,
        "fingerprint": str,
        "numerics": dict,
        "training": dict,
        "data": dict,
    }
    wrong = [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]
    origin = config.get("forked_from")
    if origin is not None and not _names_a_step(origin):
        wrong.append("forked_from")
    if wrong:
        raise CheckpointError(
            f"{run / NAME} is damaged or not of a run: {', '.join(wrong)} is missing or of the wrong type."
        )
    return config


def data_since(config: Mapping[str, Any]) -> int:
    """The step after which a run has had its data: that of the last fork on others; -1 if it always had."""
    origin = config.get("forked_from")
    if not origin:
        return -1
    before = origin["config"]
    return int(origin["step"]) if before["fingerprint"] != config["fingerprint"] else data_since(before)


def read(path: Path) -> dict[str, Any]:
    """A configuration from a YAML file or a run.

    Raises:
        ConfigError: there is none, it is no YAML mapping, or it has unknown keys.
        CheckpointError: it was written by a newer version.
    """
    file = path / NAME if path.is_dir() else path
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"there is no run or configuration at {path} (looked for {file}).") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid YAML ({' '.join(str(error).split())[:120]}).") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file} should hold the sections {', '.join(SECTIONS)}, got {type(config).__name__}.")
    for key in config:
        if key not in SECTIONS + RECORDED:
            raise ConfigError(unknown(str(key), SECTIONS, str(file)))
    if not isinstance(config.get("model"), str | None) or not isinstance(config.get("format", FORMAT), int):
        raise ConfigError(f"{file}: 'model' should be a name and 'format' a number, got {config.get('model')!r:.60}.")
    if config.get("format", FORMAT) > FORMAT:
        raise CheckpointError(
            f"{path} was made by nacre {config.get('nacre')} (format {config['format']}) and this version reads up to "
            f"format {FORMAT}; upgrade nacre."
        )
    return config


def _names_a_step(origin: Any) -> bool:
    """Whether this says from what and where a run was forked."""
    return isinstance(origin, dict) and isinstance(origin.get("step"), int) and isinstance(origin.get("config"), dict)


def _sections(config: Mapping[str, Any]) -> dict[str, Any]:
    for section in ("parameters", "data", "training"):
        if not isinstance(config.get(section) or {}, dict):
            raise ConfigError(f"section '{section}' of the configuration should be a mapping, got {config[section]!r}.")
    return {"model": config.get("model"), **{s: config.get(s) or {} for s in ("parameters", "data", "training")}}


def _owner(section: str, model: str | None) -> str:
    return f"model '{model}'" if section == "parameters" else f"section '{section}'"
