"""The page of a comparison: one HTML file that stands alone, with its CSV and LaTeX beside it."""

import base64
import io
import math
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from nacre import __version__, files
from nacre.errors import RunError
from nacre.metrics.intervals import Estimate
from nacre.run.comparison import words
from nacre.run.comparison.table import Comparison, Line, Pair
from nacre.run.evaluation.words import ARROWS, NOTHING, half_width, interval, number
from nacre.run.report import style
from nacre.run.report.svg import INKS, Frame

PAGE, TABLE, TEX = "compare.html", "compare.csv", "compare.tex"

WIDTH, ROW = 190, 14
"""Pixels of the drawing beside a metric: its width, and the height that each model takes."""

MANY = 30
"""Ratio of the largest to the smallest number from which an axis is logarithmic."""

LEGEND = (
    "↑ more is better, ↓ less is better, ≈ the nearer to the floor the better. The floor, a band in the drawings, is what real "
    "items score in the samples' place. Green and bold is the best number, pale green what nothing tells from it; in a line "
    "without green, nothing tells any of them apart, or nothing could be tested."
)

JUDGED = (
    "Every pair of models is tested on every metric, with Holm's correction over all of these tests together: the chance that "
    "even one tie is called a difference is under 5 %. An interval here is at the level that the correction leaves to it: it "
    "excludes zero if, and only if, the difference is real."
)

OWN_CSS = """\
main { max-width: 1320px; }
td.best { background: color-mix(in srgb, var(--good) 24%, transparent); font-weight: 600; }
td.tied { background: color-mix(in srgb, var(--good) 9%, transparent); }
td small { display: block; color: var(--muted); font-weight: 400; font-size: 11.5px; }
th.group { text-align: left; padding-top: 18px; font-weight: 600; color: var(--ink); }
thead th { vertical-align: bottom; white-space: nowrap; font-size: 14px; color: var(--ink); }
td.words { text-align: left; } td:first-child { min-width: 250px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 18px; }
.pictures img { width: 100%; image-rendering: pixelated; }
summary { cursor: pointer; font-weight: 600; margin: 10px 0; }
"""


def write(comparison: Comparison, out: Path) -> list[Path]:
    """Write page, CSV and LaTeX into a folder, which is made if absent.

    Raises:
        RunError: it cannot be written.
    """
    told = {PAGE: document(comparison), TABLE: words.as_csv(comparison), TEX: words.as_latex(comparison)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in told.items():
            files.write_text(out / name, text)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None
    return [out / name for name in told]


def document(comparison: Comparison) -> str:
    """The page as HTML."""
    title = " · ".join(column.name for column in comparison.columns)
    parts = [
        f'<header><div class="brand">nacre · comparison</div><h1>{escape(title)}</h1>'
        f'<p class="muted">{escape(comparison.protocol)}.</p></header>',
        *(
            f'<div class="note">{escape(name)} is missing: {escape(why)}</div>'
            for name, why in comparison.failures.items()
        ),
        *(f'<div class="note">{escape(note)}.</div>' for note in comparison.notes),
        _samples(comparison),
        _numbers(comparison),
        _given(comparison),
        _differences(comparison),
        _protocols(comparison),
        f"<footer>nacre {__version__}, {datetime.now(UTC):%Y-%m-%d}</footer>",
    ]
    return style.document(title, parts, OWN_CSS)


def forest(line: Line) -> str:
    """A metric drawn: each model's number with its interval, the floor as a band."""
    shown = [each for each in (*line.cells, line.floor) if each]
    values = [each.value for each in shown]
    log = min(values) > 0 and max(values) / min(values) > MANY
    least = min(values) / 2 if log else -math.inf

    def place(value: float) -> float:
        return math.log(max(value, least)) if log else value

    ends = [place(end) for each in shown for end in (each.low, each.value, each.high) if math.isfinite(end)]
    low, high = min(ends), max(ends)
    room = 0.05 * (high - low) or 0.5
    frame = Frame(WIDTH, ROW * len(line.cells), (low - room, high + room), (0, 1), left=0, right=0, top=0, bottom=0)
    parts = _band(line.floor, frame, place)
    for index, cell in enumerate(line.cells):
        y, ink = ROW * (index + 0.5), _ink(index)
        if cell and math.isfinite(cell.low):
            left, right = frame.across(place(cell.low)), frame.across(place(cell.high))
            parts.append(f'<path d="M{left:.1f} {y}H{right:.1f}" stroke="{ink}" stroke-width="2"/>')
        if cell:
            parts.append(f'<circle cx="{frame.across(place(cell.value)):.1f}" cy="{y}" r="3.5" fill="{ink}"/>')
    label = f"{line.name}: numbers and intervals"
    return (
        f'<svg viewBox="0 0 {WIDTH} {frame.height}" role="img" aria-label="{escape(label)}" width="{WIDTH}" '
        f'height="{frame.height}">{"".join(parts)}</svg>' + ("<small>logarithmic</small>" if log else "")
    )


def _band(floor: Estimate | None, frame: Frame, place: Callable[[float], float]) -> list[str]:
    if floor is None:
        return []
    left, middle, right = (
        frame.across(place(end if math.isfinite(end) else floor.value)) for end in (floor.low, floor.value, floor.high)
    )
    return [
        f'<rect x="{left:.1f}" y="0" width="{max(2.0, right - left):.1f}" height="{frame.height}" fill="var(--band)"/>',
        f'<path d="M{middle:.1f} 0V{frame.height}" stroke="var(--muted)"/>',
    ]


def _samples(comparison: Comparison) -> str:
    first = comparison.columns[0]
    shown = [("held-out items", "none", first.pages.get("real"))]
    shown += [(each.name, _ink(index), each.pages.get("samples")) for index, each in enumerate(comparison.columns)]
    figures = [
        f'<figure><figcaption>{_key(name, ink)}</figcaption><img alt="{escape(name)}" src="{_data(page)}"></figure>'
        for name, ink, page in shown
        if page is not None
    ]
    if not figures:
        return ""
    which = f", each of training seed {first.seeds[0]}" if comparison.seeds > 1 else ""
    lead = f"The first ones of seed {first.evaluations[0].seed}{which}; none was chosen."
    return (
        f'<section><h2>Samples</h2><p class="lead">{lead}</p><div class="pictures">{"".join(figures)}</div></section>'
    )


def _numbers(comparison: Comparison) -> str:
    heads = "".join(f"<th>{_key(column.name, _ink(index))}</th>" for index, column in enumerate(comparison.columns))
    rows, group, said = [], "", set[str]()
    for line in comparison.lines:
        if line.group != group:
            said = set()
            rows.append(f'<tr><th class="group" colspan="{len(comparison.columns) + 3}">{escape(line.group)}</th></tr>')
        rows.append(_row(comparison, line, "" if line.caution in said else line.caution))
        said.add(line.caution)
        group = line.group
    return (
        f'<section><h2>Numbers</h2><p class="lead">{escape(comparison.covers)}.</p><div class="sheet"><table><thead><tr>'
        f"<th></th>{heads}<th>floor</th><th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="muted">{escape(LEGEND)}</p></section>'
    )


def _row(comparison: Comparison, line: Line, said: str) -> str:
    cells = [_cell(cell, mark) for cell, mark in zip(line.cells, words.marks(comparison, line), strict=True)]
    caution = f'<span class="caution">{escape(said)}</span>' if said else ""
    name = f'{escape(line.name)} <span class="better">{ARROWS[line.better]}</span>{caution}'
    head = f'<td title="{escape(line.protocol)}">{name}</td>'
    return f"<tr>{head}{''.join(cells)}{_cell(line.floor, '')}<td>{forest(line)}</td></tr>"


def _cell(estimate: Estimate | None, place: words.Mark) -> str:
    if estimate is None:
        return f"<td>{NOTHING}</td>"
    value, ends = number(estimate.value, half_width(estimate)), interval(estimate)
    more = f"<small>{ends}</small>" if ends != NOTHING else ""
    mark = f' class="{place}"' if place else ""
    return f"<td{mark}>{value}{more}</td>"


def _given(comparison: Comparison) -> str:
    facts = words.given(comparison)
    if not facts:
        return ""
    heads = "".join(f"<th>{escape(name)}</th>" for name in facts[0])
    rows = [
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(each)}</td>' for each in rest)}</tr>"
        for name, *rest in facts[1:]
    ]
    return (
        f'<section><h2>What each was given</h2><div class="sheet"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _differences(comparison: Comparison) -> str:
    rows = [_judged(line, pair) for line, pair in comparison.pairs]
    real = sum(bool(pair.better) for _, pair in comparison.pairs)
    opened = " open" if len(comparison.columns) == 2 else ""
    return (
        f'<section><h2>Which differences are real</h2><p class="lead">{escape(JUDGED)}</p>'
        f"<p>{escape(words.summary(comparison).splitlines()[0])}</p>"
        f'<details{opened}><summary>{real} real, {len(rows) - real} ties</summary><div class="sheet"><table><thead><tr>'
        '<th></th><th></th><th>difference</th><th>interval</th><th>p, corrected</th><th class="mark"></th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details></section>"
    )


def _judged(line: Line, pair: Pair) -> str:
    verdict = pair.verdict
    half = (verdict.high - verdict.low) / 2
    ends = f"{number(verdict.low, half)} … {number(verdict.high, half)}" if half > 0 else NOTHING
    chance = f"{verdict.p:.3f}" if verdict.p >= 0.001 else "< .001"
    told = f"{pair.better} is better" if pair.better else "tie"
    mark = "mark good" if pair.better else "mark muted"
    of = " (distance to the floor)" if line.better == "floor" else " (item by item)" if pair.paired else ""
    return (
        f'<tr><td>{escape(line.name)}{of}</td><td class="words">{escape(pair.first)} − {escape(pair.second)}</td>'
        f"<td>{number(verdict.value, half)}</td><td>{ends}</td><td>{escape(chance)}</td>"
        f'<td class="{mark}">{escape(told)}</td></tr>'
    )


def _protocols(comparison: Comparison) -> str:
    items = "".join(f"<li><b>{escape(line.name)}</b>: {escape(line.protocol)}</li>" for line in comparison.lines)
    return f'<section><h2>How it was measured</h2><ol class="protocols">{items}</ol></section>'


def _key(name: str, ink: str) -> str:
    return f'<span class="key"><i style="background:{ink}"></i>{escape(name)}</span>'


def _ink(index: int) -> str:
    return f"var(--c{index % INKS})"


def _data(page: np.ndarray) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(page).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
