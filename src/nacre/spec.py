"""A model that is not yet built: its name and parameters, and the flags that both come from.

A constructor's signature is the configuration: command line, YAML, JSON and keyword arguments are all read against the
same list of fields, and none of them is written twice.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from nacre.errors import ConfigError
from nacre.models import CATALOGUE
from nacre.networks import Shape

MOST_LISTED = 12
"""Names that a sentence lists; where there are more, the help does."""

_IN_WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a text",
    tuple[int, ...]: "whole numbers (such as 64,32)",
    tuple[int, int]: "two whole numbers (such as 64,32)",
    tuple[str, ...]: "names (such as a,b)",
    dict[str, Any]: "a mapping",
}


@dataclass(frozen=True)
class Field:
    """One parameter of a constructor: its name, type, default and meaning."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """How it is typed."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Spec:
    """A model by name: one of the catalogue's, or "FILE.py:CLASS" for the user's own.

    Attributes:
        name: as the user gave it.
        parameters: keyword arguments of the constructor, checked; those left out take its defaults.
    """

    name: str
    parameters: Mapping[str, Any]

    def build(self, shape: Shape) -> nn.Module:
        """The model for items of `shape`, with weights from torch's ambient generator."""
        given = dict(self.parameters)
        if given.get("origin"):  # a model that starts from another is given it built; its weights are taken later
            origin = given["origin"]
            given["encoder"] = spec(origin["model"], origin["parameters"]).build(origin["shape"])
        return typing.cast(nn.Module, find_class(self.name)(tuple(shape), **given))

    def complete(self) -> dict[str, Any]:
        """Every parameter with its value, defaults included, in plain containers."""
        given = {field.name: field.default for field in fields(find_class(self.name))} | dict(self.parameters)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def recommended(self, shape: Shape) -> dict[str, Any]:
        """Settings of training that the model recommends for items of `shape`; empty if it has no opinion."""
        recommend = getattr(find_class(self.name), "recommended", None)
        return dict(recommend(tuple(shape))) if recommend else {}

    @property
    def source(self) -> str | None:
        """SHA-256 of the file of a user's own model."""
        return (
            None if self.name in CATALOGUE else hashlib.sha256(_file_and_class(self.name)[0].read_bytes()).hexdigest()
        )


def spec(name: str, parameters: Mapping[str, Any] | None = None) -> Spec:
    """A checked specification.

    Raises:
        ConfigError: no such model, no such parameter, or a value of the wrong type.
    """
    known = fields(find_class(name))
    values = coerce(known, parameters or {}, f"model '{name}'")
    encoder = values.get("encoder")
    if encoder and "origin" in {field.name for field in known} and (values.get("origin") or {}).get("from") != encoder:
        values["origin"] = origin_of(encoder)
    return Spec(name, values)


def origin_of(path: str) -> dict[str, Any]:
    """What rebuilds the model of a run or model folder, without its weights: `from`, `model`, `parameters` and `shape`.

    Raises:
        ConfigError: there is none, or it is a model of somebody's own.
    """
    root = Path(path)
    file = (root / "model" if (root / "model").is_dir() else root) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        origin = {"from": path, **{key: config[key] for key in ("model", "parameters", "shape")}}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"there is no trained model at {path} to take an encoder from (looked for {file}).") from None
    if origin["model"] not in CATALOGUE:
        raise ConfigError(
            f"{path} is of a model of somebody's own ({origin['model']}), whose code is not run for its encoder; take one of "
            "the catalogue."
        )
    return origin


@lru_cache
def find_class(name: str) -> type:
    """The class of a model: of the catalogue, or of a Python file of the user's ("FILE.py:CLASS"), which is run.

    Raises:
        ConfigError: there is no such model, file or class, or the class has no table of objectives.
    """
    if name in CATALOGUE:
        module, _, attribute = CATALOGUE[name].partition(":")
        return typing.cast(type, getattr(importlib.import_module(module), attribute))
    file, attribute = _file_and_class(name)
    found = getattr(_import_file(file), attribute, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module) or not hasattr(found, "objectives"):
        raise ConfigError(f"{file} has no class {attribute} that is an nn.Module with a method `objectives`.")
    return found


def summary(model_class: type) -> str:
    """The first sentence of a model's documentation."""
    return (inspect.getdoc(model_class) or "").partition("\n")[0]


def fields(target: type) -> list[Field]:
    """The keyword-only parameters of a constructor, with the meanings that its docstring's `Args:` gives."""
    import docstring_parser

    documented = docstring_parser.parse(inspect.getdoc(target) or "").params
    help_ = {param.arg_name: " ".join((param.description or "").split()) for param in documented}
    hints = typing.get_type_hints(inspect.getattr_static(target, "__init__"))
    keywords = [p for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return [Field(p.name, hints.get(p.name, Any), p.default, help_.get(p.name, "")) for p in keywords]


def coerce(known: Iterable[Field], values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """`values` as the types that the fields declare.

    Raises:
        ConfigError: an unknown name (the nearest known one is offered) or a value of the wrong type.
    """
    by_name = {field.name: field for field in known}
    for name in values:
        if name not in by_name:
            raise ConfigError(unknown(name, by_name, owner))
    return {name: _checked(by_name[name], value) for name, value in values.items()}


def unknown(name: str, known: Iterable[str], owner: str) -> str:
    """The sentence for a name that nobody knows, with the nearest one that somebody does."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    listed = f"it has: {', '.join(names)}." if names else "it has none."
    hint = f"did you mean '{nearest[0]}'?" if nearest else listed if len(names) <= MOST_LISTED else "see --help."
    return f"{owner} has no '{name}'; {hint}"


def type_name(annotation: Any) -> str:
    """A type as a person reads it: "int", "bernoulli|gaussian", "float or none"."""
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(map(str, typing.get_args(annotation)))
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    arguments = typing.get_args(annotation)
    if type(None) in arguments:
        return " or ".join(type_name(a) for a in arguments if a is not type(None))
    return str(annotation).replace("typing.", "")


def wanted(annotation: Any) -> str:
    """What a flag of a type takes, in words: "a whole number", "whole numbers (such as 64,32)"."""
    arguments = typing.get_args(annotation)
    if type(None) in arguments or typing.get_origin(annotation) is types.UnionType:
        return " or ".join(wanted(argument) for argument in arguments if argument is not type(None))
    return _IN_WORDS.get(annotation, type_name(annotation))


def _checked(field: Field, value: Any) -> Any:
    from jsonargparse import ArgumentError, ArgumentParser

    if field.type is Any:
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(field.flag, type=field.type, default=field.default)
    try:
        return parser.parse_object({field.name: value})[field.name]
    except ArgumentError:
        shown = (
            repr(value)
            if isinstance(value, str | int | float | tuple | list | dict | None)
            else f"a {type(value).__name__}"
        )
        raise ConfigError(f"{field.flag} takes {wanted(field.type)}, got {shown:.80}.") from None


def _file_and_class(name: str) -> tuple[Path, str]:
    path, colon, attribute = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ConfigError(
            unknown(name, CATALOGUE, "nacre's catalogue") + " (`nacre models` lists them; your own is FILE.py:CLASS)"
        )
    if not Path(path).is_file():
        raise ConfigError(f"there is no file {path} to take the model {attribute} from.")
    return Path(path), attribute


def _import_file(file: Path) -> Any:
    # The digest keeps two files of one name apart; sys.modules is where dataclasses and pickling look.
    name = f"nacre_user_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, file)
        if found is None or found.loader is None:
            raise ConfigError(f"{file} cannot be imported as a Python module.")
        sys.modules[name] = importlib.util.module_from_spec(found)
        try:
            found.loader.exec_module(sys.modules[name])
        except Exception as error:
            del sys.modules[name]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ConfigError(f"{file} cannot be imported ({reason}); mend it and try again.") from error
    return sys.modules[name]
