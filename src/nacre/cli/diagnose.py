"""`nacre diagnose`."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from nacre.cli import flags, using
from nacre.metrics import remedies
from nacre.metrics.verdicts import Verdict
from nacre.run.diagnose import Diagnosis, diagnose
from nacre.spec import Field

OWN = [
    Field("measure", bool, False, "look at the run's checkpoints now, instead of reading its log"),
    Field("model", str | None, None, "FILE.py:CLASS, to measure a model of your own"),
    Field("device", str, "cpu", "to measure on: 'cpu', 'cuda', 'mps' …"),
    Field("json", bool, False, "print the answer as JSON"),
]

WIDTH = 100


def main(argv: Sequence[str]) -> int:
    """Say what is wrong with a run."""
    parser = flags.parser("diagnose", "Say what is wrong with a run, with evidence and advice.", "RUN [flags]")
    parser.add_argument("run", help="the run directory; it may still be training")
    flags.add(parser, "diagnose", OWN)
    parsed = flags.parse(parser, argv)
    given = flags.given(parsed, OWN)
    as_json = given.pop("json", False)
    found = diagnose(parsed.run, **given)
    facts: dict[str, Any] = dataclasses.asdict(found) | {"path": str(found.path), "healthy": found.healthy}
    facts["verdicts"] = [{**dataclasses.asdict(verdict), "title": verdict.title} for verdict in found.verdicts]
    return using.answer(as_json, page(found), **facts)


def page(found: Diagnosis) -> str:
    """A diagnosis for a person."""
    if found.note:
        return found.note
    head = f"{found.path}: step {found.step:,} of {found.steps:,}, {found.looks} looks"
    return "\n\n".join([head, *map(_paragraph, found.verdicts)])


def _paragraph(verdict: Verdict) -> str:
    since = "" if verdict.severity == "good" else f", since step {verdict.step:,}"
    lines = [f"{verdict.title.upper()}{since}", _wrapped(verdict.sentence)]
    shown = {name: value for name, value in verdict.evidence.items() if isinstance(value, int | float)}
    if shown:
        lines.append(_wrapped("evidence: " + ", ".join(f"{name} {_number(value)}" for name, value in shown.items())))
    for choice, (reason, command) in enumerate(remedies.choices(verdict.advice)):
        lines.append(_wrapped(("what to do: " if not choice else "or: ") + reason))
        lines += [f"    {command}"] if command else []
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
