"""Command-line flags out of signatures."""

import re
import typing
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from nacre.errors import ConfigError
from nacre.spec import Field, type_name, unknown, wanted


class Parser(ArgumentParser):
    """An argument parser whose mistakes are one sentence.

    Attributes:
        lists: flags whose value may be typed as 512,256 instead of [512,256]; true where one number is a list as well.
        typed: the words that are being parsed, for the sentence about a wrong one.
    """

    lists: Mapping[str, bool] = MappingProxyType({})
    typed: tuple[str, ...] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a ConfigError instead of printing usage."""
        raise ConfigError(_sentence(message, self))


def parser(command: str, description: str, usage: str) -> Parser:
    """A parser for one command."""
    made = Parser(
        prog=f"nacre {command}", description=description, usage=f"nacre {command} {usage}", allow_abbrev=False
    )
    made.formatter_class = _Help
    return made


def add(parser: Parser, title: str, fields: Iterable[Field]) -> None:
    """A flag for each field, under a title."""
    group = parser.add_argument_group(title)
    for field in fields:
        if "tuple" in str(field.type):
            parser.lists = {**parser.lists, field.flag: typing.get_origin(field.type) is tuple}
        names = [field.flag] if len(field.name) > 1 else [f"-{field.name}", field.flag]
        options: dict[str, Any] = {"nargs": "?", "const": True} if _is_switch(field) else {}
        group.add_argument(*names, type=field.type, default=None, metavar=_metavar(field), help=_help(field), **options)


def given(parsed: Namespace, fields: Iterable[Field]) -> dict[str, Any]:
    """The flags that were given, by name."""
    values = vars(parsed)
    return {field.name: values[field.name] for field in fields if values.get(field.name) is not None}


def typed(argv: Sequence[str], flag: str) -> str | None:
    """What was typed for a flag, the last time if more than once, before anything is parsed."""
    words = [word.partition("=")[2] or after for word, after in pairwise([*argv, ""]) if word.partition("=")[0] == flag]
    return words[-1] if words else None


def parse(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Arguments as a namespace; what was not given is None or its own default."""
    parser.typed = tuple(argv)
    return parser.parse_args(_plainly(argv, parser.lists))


def _plainly(argv: Sequence[str], lists: Mapping[str, bool]) -> list[str]:
    """`--no-mirror` is `--mirror false`, and `--hidden 512,256` is `--hidden [512,256]`."""
    words: list[str] = []
    for word in argv:
        if words and re.fullmatch(r"--[^=]+", words[-1]) and re.fullmatch(r"-[\d.][^=]*,.*", word):  # -1,1 is no flag
            words[-1] += f"={word}"
            continue
        flag, equals, value = word.partition("=")
        if word.startswith("--no-"):
            words += ["--" + word[5:], "false"]
        elif flag in lists and equals:
            words += [flag, _bracketed(value, lists[flag])]
        else:
            words.append(_bracketed(word, lists[words[-1]]) if words and words[-1] in lists else word)
    return words


def _bracketed(value: str, lone: bool) -> str:
    """Numbers or words with commas in brackets; a lone one too where it can only be a list."""
    pattern = r"[\w-]+(,[\w-]+)*,?" if lone else r"\d+(,\d+)+"
    return f"[{value.rstrip(',')}]" if re.fullmatch(pattern, value) else value


def _is_switch(field: Field) -> bool:
    return field.type is bool or bool in typing.get_args(field.type)


def _metavar(field: Field) -> str:
    if _is_switch(field):
        return "yes|no"
    kind = type_name(field.type)
    if "tuple" in kind:
        return "NAME,NAME,…" if "str" in kind else "N|N,N" if "int or" in kind else "N,N,…"
    return {"str": "TEXT", "int": "N", "float": "X"}.get(kind, kind if "|" in kind else "X")


def _help(field: Field) -> str:
    default = "" if field.default is None else f" (default: {_plain(field.default)})"
    return (field.help + default).replace("%", "%%")


def _plain(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)


def _sentence(message: str, parser: Parser) -> str:
    """What the parser complains of, in our words."""
    text = " ".join(message.split())
    flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    bad = re.search(r'[Pp]arser key "([^"]+)"', text)
    if bad:
        action = next(action for action in parser._actions if action.dest == bad[1])
        typed = {word.partition("=")[0] for word in parser.typed}
        flag = next((option for option in action.option_strings if option in typed), "--" + bad[1].replace("_", "-"))
        return (
            f"{flag} takes {wanted(getattr(action, '_typehint', action.type))}, got '{_value_of(flag, parser.typed)}'."
        )
    stray = re.search(r"[Uu]nrecognized arguments: (\S+)", text)
    if stray and stray[1].startswith("-"):
        return unknown(stray[1].partition("=")[0], [flag for flag in flags if flag != "--print_shtab"], parser.prog)
    if stray:
        return f"'{stray[1]}' is out of place: first comes what {parser.prog} is about, then the flags; see {parser.prog} --help."
    return f"{text[0].lower()}{text[1:]}; see {parser.prog} --help"


def _value_of(flag: str, typed: Sequence[str]) -> str:
    for word, after in pairwise([*typed, ""]):
        if word.partition("=")[0] == flag:
            return word.partition("=")[2] or after
    return ""


class _Help(RawDescriptionHelpFormatter, Parser().formatter_class):  # type: ignore[misc]
    """Help without types and defaults of the parser's own: each flag's text already has them."""

    def _get_help_string(self, action: Any) -> Any:
        return action.help
