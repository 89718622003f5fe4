"""One page that says all of an evaluation: it stands alone, offline, in light and dark, and on paper."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from nacre import __version__, files
from nacre.engine.log import read as read_log
from nacre.errors import RunError
from nacre.metrics import remedies
from nacre.metrics.verdicts import Verdict
from nacre.run import config as configuration
from nacre.run.evaluation import Evaluation, Examination, Row, Settings, bounds, words
from nacre.run.report import charts, pictures, svg
from nacre.run.report.style import document

NAME = "report.html"

CARDS = (
    "Fréchet distance", "Precision", "Recall", "Modes captured", "Samples of high quality", "Nearest neighbour: accuracy",
    "Convolutional network: accuracy", "Distance to the nearest training item, ratio",
)  # fmt: skip
"""Numbers at the head of the page, as far as there are any."""

CARD_GROUPS = (bounds.LIKELIHOOD, bounds.CLASSES, bounds.BACK)
"""Groups whose first number follows."""

MOST_CARDS = 8

ALWAYS = ("samples", "seed", "split")
"""Flags of an evaluation that its page names even where they are what they would be without."""


def write(examination: Examination, out: Path) -> Path:
    """Write the page.

    Raises:
        RunError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(out, page(examination))
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None
    return out


def page(examination: Examination) -> str:
    """The page as HTML."""
    evaluation, subject = examination.evaluation, examination.subject
    run = Path(evaluation.run)
    log = read_log(run)
    protocols: list[tuple[str, str]] = []
    parts = [
        _header(evaluation),
        _says(evaluation),
        _cards(evaluation),
        section("Samples", pictures.sample_figures(subject)),
        _numbers(evaluation, protocols),
        section("Does it copy?", pictures.neighbor_figures(examination), COPY),
        section("Reconstructions", pictures.reconstruction_figures(subject)),
        section("Latent space", [*pictures.latent_figures(subject), *pictures.walk_figures(subject), *_kl(evaluation)]),
        section("Training", charts.of_losses(log)),
        section("Signals while training", charts.of_signals(log), SIGNALS),
        _settings(run),
        _protocols(protocols),
        _footer(evaluation, subject.settings),
    ]
    return document(f"{evaluation.model} · {evaluation.data}", parts)


SIGNALS = (
    "What the model looked like on fixed items and fixed noise; the diagnosis is made from these. Signals that never moved are "
    "left out."
)

COPY = (
    "A model that has learned its training set by heart makes samples that lie nearer to it than new real items do. Close "
    "pairs alone prove nothing: similar items are there among real ones too, which is what the floor is for."
)


COLUMNS = '<colgroup><col class="name"><col class="plot"><col class="value"><col><col class="floor"><col class="mark"></colgroup>'


def section(title: str, figures: Sequence[str], lead: str = "") -> str:
    """Figures under a heading; nothing where there are none."""
    if not figures:
        return ""
    about = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f'<section><h2>{escape(title)}</h2>{about}<div class="figures">{"".join(figures)}</div></section>'


def _header(evaluation: Evaluation) -> str:
    facts = [
        ("run", evaluation.run),
        ("step", "" if evaluation.step is None else f"{evaluation.step:,}"),
        ("parameters", f"{evaluation.parameters:,}"),
        ("held out", f"{evaluation.n:,} {evaluation.split} items"),
        ("seed", str(evaluation.seed)),
        ("evaluated", f"{datetime.now(UTC):%Y-%m-%d}, in {evaluation.seconds:.0f} s"),
    ]
    told = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in facts if value)
    return (
        f'<header><div class="brand">nacre · evaluation</div><h1>{escape(evaluation.model)} '
        f'<small>on {escape(evaluation.data)}</small></h1><div class="facts">{told}</div></header>'
    )


def chosen(evaluation: Evaluation) -> list[Row]:
    """The rows for the head of the page."""
    known = {row.name: row for row in evaluation.rows}
    found = [known[name] for name in CARDS if name in known]
    heads = {group[0].group: group[0] for group in words.groups(evaluation.rows)}
    return [*found, *(heads[name] for name in CARD_GROUPS if name in heads)][:MOST_CARDS]


def _cards(evaluation: Evaluation) -> str:
    cards = []
    for row in chosen(evaluation):
        between, floor = words.interval(row.estimate), words.value_of(row.floor)
        about = [between] if between != words.NOTHING else []
        about += [f"floor {floor}"] if row.floor is not None else []
        cards.append(
            f'<div class="card"><div class="name">{escape(row.name)}&nbsp;{words.ARROWS[row.better]}</div>'
            f'<div class="value">{escape(words.value_of(row.estimate))}</div>'
            f'<div class="about">{escape(" · ".join(about)) or "&nbsp;"}</div>'
            f"{svg.standing(row.estimate, row.floor, row.at_floor, width=200)}</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _says(evaluation: Evaluation) -> str:
    """The verdict on the game, and what the reader should know first."""
    found = [_verdict(each) for each in evaluation.verdicts]
    if evaluation.equilibrium:
        kind = "yes" if evaluation.equilibrium.startswith("Nash") else ""
        found.append(f'<div class="say {kind}"><p>{escape(evaluation.equilibrium)}</p></div>')
    found += [f'<div class="note">{escape(note)}</div>' for note in evaluation.notes]
    return "".join(found)


def _verdict(verdict: Verdict) -> str:
    """What the diagnosis says, with its advice."""
    kind = "yes" if verdict.severity == "good" else "no"
    title = escape(verdict.title[:1].upper() + verdict.title[1:])
    advice = "".join(
        f'<p class="advice">{"or " if number else ""}{escape(reason)}{f": {_command(command)}" if command else ""}</p>'
        for number, (reason, command) in enumerate(remedies.choices(verdict.advice))
    )
    return f'<div class="say {kind}"><p><b>{title}:</b> {escape(verdict.sentence)}.</p>{advice}</div>'


def _numbers(evaluation: Evaluation, protocols: list[tuple[str, str]]) -> str:
    """All rows, by group."""
    parts = [
        f'<section><h2>Numbers</h2><p class="lead">{escape(words.LEGEND)} Each line is drawn to its own scale.</p>'
    ]
    for group in words.groups(evaluation.rows):
        head = (
            f"<tr><th>{escape(group[0].group)}</th><th></th><th></th><th>95 % interval</th><th>floor</th><th></th></tr>"
        )
        said = [words.own_caution(row, evaluation) for row in group]
        body = "".join(
            _row(row, "" if caution in said[:place] else caution, protocols)
            for place, (row, caution) in enumerate(zip(group, said, strict=True))
        )
        parts.append(f'<div class="sheet"><table>{COLUMNS}<thead>{head}</thead><tbody>{body}</tbody></table></div>')
    return "".join(parts) + "</section>"


def _row(row: Row, said: str, protocols: list[tuple[str, str]]) -> str:
    protocols.append((row.name, row.protocol))
    place = len(protocols)
    caution = f'<span class="caution">{escape(said)}</span>' if said else ""
    kind = {True: "good", False: "bad", None: ""}[row.at_floor]
    mark = f"{words.MARKS[row.at_floor]} {words.standing(row)}".strip()
    return (
        f'<tr><td>{escape(row.name)} <span class="better">{words.ARROWS[row.better]}</span><sup><a href="#p{place}">{place}'
        f"</a></sup>{caution}</td><td>{svg.standing(row.estimate, row.floor, row.at_floor)}</td>"
        f'<td class="value">{escape(words.value_of(row.estimate))}</td><td>{escape(words.interval(row.estimate))}</td>'
        f'<td>{escape(words.value_of(row.floor))}</td><td class="mark {kind}">{escape(mark)}</td></tr>'
    )


def _kl(evaluation: Evaluation) -> list[str]:
    """KL by latent, the largest first."""
    if not evaluation.kl_by_latent:
        return []
    order = sorted(range(len(evaluation.kl_by_latent)), key=lambda number: -evaluation.kl_by_latent[number].value)
    title = "KL(q(z|x) || p(z)) of each latent in nats, the largest first, by their numbers; near zero: not used"
    return [svg.bars(title, [evaluation.kl_by_latent[number] for number in order], [str(number) for number in order])]


def _settings(run: Path) -> str:
    """How it was trained."""
    if not (run / configuration.NAME).is_file():
        return ""
    written = configuration.read(run)
    parts = []
    for title, key in (("Model", "parameters"), ("Training", "training"), ("Data", "data"), ("Numerics", "numerics")):
        known = {name: value for name, value in (written.get(key) or {}).items() if value is not None}
        listed = "".join(
            f"<dt>{escape(str(name))}</dt><dd>{escape(_plain(value))}</dd>" for name, value in known.items()
        )
        parts.append(f"<div><h3>{title}</h3><dl>{listed}</dl></div>" if listed else "")
    return f'<section><h2>How it was trained</h2><div class="sheet settings">{"".join(parts)}</div></section>'


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " × ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _protocols(protocols: Sequence[tuple[str, str]]) -> str:
    listed = "".join(
        f'<li id="p{number}"><b>{escape(name)}.</b> {escape(told[:1].upper() + told[1:])}</li>'
        for number, (name, told) in enumerate(protocols, 1)
    )
    return f'<section><h2>How each number was measured</h2><ol class="protocols">{listed}</ol></section>'


def _footer(evaluation: Evaluation, settings: Settings) -> str:
    """How to make the page again: with N, seed and split, and whatever else was not left as it was."""
    words = ["nacre", "evaluate", evaluation.run]
    for each in fields(Settings):
        value = getattr(settings, each.name)
        usual = {each.default, "auto"} if each.name == "device" else {each.default}
        if each.name in ALWAYS or (each.name != "progress" and value not in usual):
            words += [f"--{each.name.replace('_', '-')}", str(value)]
    return f"<footer><p>Made by nacre {escape(__version__)}. The same numbers again: {_command(shlex.join(words))}</p></footer>"


def _command(command: str) -> str:
    """A command to copy, which is not broken within a flag and its value."""
    parts = re.split(r" (?=--)", command)
    told = " ".join([escape(parts[0]), *(f"<span>{escape(part)}</span>" for part in parts[1:])])
    return f'<code class="command">{told}</code>'
