"""The page of a comparison: one self-contained HTML file, with its CSV and LaTeX beside it."""

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nacre import files
from nacre.errors import RunError
from nacre.metrics.intervals import Estimate
from nacre.run.comparison import words
from nacre.run.comparison.table import Comparison, Line
from nacre.run.evaluation.words import ARROWS, NOTHING, half_width, interval, number

INKS = ("#0072b2", "#d55e00", "#008a66", "#a05a96", "#b8860b", "#282828", "#56b4e9", "#8c8c8c")
"""Told apart by the colour-blind as well (Okabe & Ito 2008)."""

WIDTH, ROW = 200, 15
"""Pixels of the drawing beside a metric: its width, and the height that each model takes."""

MANY = 30
"""Ratio of the largest to the smallest number from which an axis is logarithmic."""

LEGEND = (
    "↑ more is better, ↓ less is better, ≈ the nearer to the floor the better; the floor, dashed in the drawings, is what real "
    "items score in the samples' place. Green is the best and all that nothing tells from it; where there is no green, nothing "
    "tells any of them apart, or nothing could be tested."
)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<main>
{body}
</main>
</html>
"""

STYLE = """
body { margin: 0; background: #fff; color: #282828; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1400px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; max-width: 60rem; } .faint { color: #6b6b6b; font-size: .88em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { font-weight: 600; } thead th { border-bottom: 2px solid #282828; vertical-align: bottom; }
th:first-child, td.words { text-align: left; } th.group { padding-top: 1.1rem; color: #6b6b6b; }
td.best { background: #e3f1ea; font-weight: 600; }
td small { display: block; color: #6b6b6b; font-weight: 400; font-size: .78em; } td svg { display: block; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .35em; }
.sides { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 1.2rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
figure img { display: block; width: 100%; image-rendering: pixelated; border: 1px solid #e4e4e4; }
details summary { cursor: pointer; font-weight: 600; margin: .8rem 0; } .warn { color: #a33d00; } dt { font-weight: 600; }
dd { margin: 0 0 .5rem 1.2rem; }
"""


def write(comparison: Comparison, out: Path) -> list[Path]:
    """Write compare.html, compare.csv and compare.tex.

    Args:
        comparison: what they say.
        out: their folder; made if absent.

    Raises:
        RunError: the folder cannot be written.
    """
    told = {
        "compare.html": document(comparison),
        "compare.csv": words.as_csv(comparison),
        "compare.tex": words.as_latex(comparison),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in told.items():
            files.write_text(out / name, text)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None
    return [out / name for name in told]


def document(comparison: Comparison) -> str:
    """The page as HTML."""
    names = [column.name for column in comparison.columns]
    title = " · ".join(names)
    failures = [f'<p class="warn">{_(name)} is missing: {_(why)}</p>' for name, why in comparison.failures.items()]
    body = [
        f"<h1>{_(title)}</h1>",
        f"<p>{_(comparison.protocol)}.</p>",
        *failures,
        _table(comparison),
        f'<p class="faint">{_(LEGEND)}</p>',
        f"<p>{_(comparison.covers)}.</p>",
        *_samples(comparison),
        *_given(comparison),
        _differences(comparison),
        _protocols(comparison),
    ]
    return PAGE.format(title=_(title), style=STYLE, body="\n".join(body))


def _table(comparison: Comparison) -> str:
    heads = [
        f'<th scope="col"><span class="dot" style="background:{ink}"></span>{_(column.name)}</th>'
        for column, ink in zip(comparison.columns, _inks(comparison), strict=True)
    ]
    rows, group = [], ""
    for line in comparison.lines:
        if line.group != group:
            rows.append(f'<tr><th class="group" colspan="{len(heads) + 3}">{_(line.group)}</th></tr>')
        rows.append(_row(comparison, line))
        group = line.group
    return (
        f'<div class="wide"><table><thead><tr><th></th>{"".join(heads)}<th scope="col">floor</th><th></th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(comparison: Comparison, line: Line) -> str:
    cells = [_cell(cell, mark) for cell, mark in zip(line.cells, words.marks(comparison, line), strict=True)]
    sign = ' <span class="warn" title="' + _(line.caution) + '">⚠</span>' if line.caution else ""
    head = f'<th scope="row" title="{_(line.protocol)}">{_(line.name)} {ARROWS[line.better]}{sign}</th>'
    return f"<tr>{head}{''.join(cells)}{_cell(line.floor, False)}<td>{forest(line, _inks(comparison))}</td></tr>"


def _cell(estimate: Estimate | None, best: bool) -> str:
    if estimate is None:
        return f"<td>{NOTHING}</td>"
    value, ends = number(estimate.value, half_width(estimate)), interval(estimate)
    more = f"<small>{ends}</small>" if ends != NOTHING else ""
    mark = ' class="best"' if best else ""
    return f"<td{mark}>{value}{more}</td>"


def forest(line: Line, inks: Sequence[str]) -> str:
    """A metric drawn: each model's number with its interval, the floor as a dashed line."""
    shown = [each for each in (*line.cells, line.floor) if each]
    values = [each.value for each in shown]
    ends = [end for each in shown for end in (each.low, each.high) if math.isfinite(end)]
    log = min(values) > 0 and max(values) / min(values) > MANY
    least = min(values) / 2 if log else -math.inf
    low, high = max(least, min([*values, *ends])), max([*values, *ends])
    low, high = (math.log(low), math.log(high)) if log else (low, high)
    room = 0.04 * (high - low) or 1.0

    def at(value: float) -> float:
        place = math.log(max(value, least)) if log else value
        return (place - low + room) / (high - low + 2 * room) * WIDTH

    height, marks = ROW * len(line.cells), []
    if line.floor:
        x = at(line.floor.value)
        marks.append(f'<path d="M{x:.1f} 0V{height}" stroke="#8c8c8c" stroke-dasharray="3 3"/>')
    for place, (cell, ink) in enumerate(zip(line.cells, inks, strict=True)):
        y = ROW * (place + 0.5)
        if cell and math.isfinite(cell.low):
            marks.append(f'<path d="M{at(cell.low):.1f} {y}H{at(cell.high):.1f}" stroke="{ink}" stroke-width="2"/>')
        if cell:
            marks.append(f'<circle cx="{at(cell.value):.1f}" cy="{y}" r="3.5" fill="{ink}"/>')
    more = (
        f'<text x="{WIDTH}" y="{height - 2}" text-anchor="end" font-size="9" fill="#8c8c8c">log</text>' if log else ""
    )
    label = f"{line.name}: numbers and intervals"
    return f'<svg role="img" aria-label="{_(label)}" width="{WIDTH}" height="{height}">{"".join(marks)}{more}</svg>'


def _samples(comparison: Comparison) -> list[str]:
    first = comparison.columns[0]
    shown = [("held-out items", "#fff", first.pages.get("real"))]
    shown += [
        (column.name, ink, column.pages.get("samples"))
        for column, ink in zip(comparison.columns, _inks(comparison), strict=True)
    ]
    figures = [
        f'<figure><figcaption><span class="dot" style="background:{ink}"></span>{_(name)}</figcaption>'
        f'<img alt="{_(name)}" src="{_data(page)}"></figure>'
        for name, ink, page in shown
        if page is not None
    ]
    if not figures:
        return []
    which = f", of training seed {first.seeds[0]}" if comparison.seeds > 1 else ""
    return [
        "<h2>Samples</h2>",
        f'<p class="faint">The first ones of seed {first.evaluations[0].seed}{which}, not chosen.</p>',
        f'<div class="sides">{"".join(figures)}</div>',
    ]


def _given(comparison: Comparison) -> list[str]:
    facts = words.given(comparison)
    if not facts:
        return []
    heads = "".join(f"<th>{_(name)}</th>" for name in facts[0])
    rows = [
        f"<tr><th>{_(name)}</th>{''.join(f'<td>{_(each)}</td>' for each in rest)}</tr>" for name, *rest in facts[1:]
    ]
    return [
        "<h2>What each was given</h2>",
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>',
    ]


def _differences(comparison: Comparison) -> str:
    real = sum(bool(pair.better) for _line, pair in comparison.pairs)
    rows = []
    for line, pair in comparison.pairs:
        verdict = pair.verdict
        half = (verdict.high - verdict.low) / 2
        value = f"{number(verdict.value, half)} [{number(verdict.low, half)}, {number(verdict.high, half)}]"
        chance = f"{verdict.p:.3f}" if verdict.p >= 0.001 else "&lt; .001"
        told = f"{_(pair.better)} is better" if pair.better else "tie"
        mark = ' class="best"' if pair.better else ""
        of = "distance to the floor" if line.better == "floor" and line.floor else "difference"
        rows.append(
            f'<tr><th scope="row">{_(line.name)}</th><td class="words">{_(pair.first)} − {_(pair.second)}</td>'
            f'<td title="{of}">{value}</td><td>{chance}</td><td{mark}>{told}</td></tr>'
        )
    opened = " open" if len(comparison.columns) == 2 else ""
    return (
        f"<h2>Which differences are real</h2><p>{_(words.summary(comparison).partition(chr(10))[0].rstrip(':.'))}. An interval "
        "here is at the level that the correction leaves to it: it excludes zero if, and only if, the difference is real.</p>"
        f'<details{opened}><summary>{real} real, {len(rows) - real} ties</summary><div class="wide"><table><thead><tr><th></th>'
        "<th>models</th><th>difference</th><th>p, corrected</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _protocols(comparison: Comparison) -> str:
    items = [
        f"<dt>{_(line.name)}</dt><dd>{_(line.protocol)}"
        + (f' <span class="warn">{_(line.caution)}</span>' if line.caution else "")
        + "</dd>"
        for line in comparison.lines
    ]
    notes = "".join(f"<p>{_(note)}.</p>" for note in comparison.notes)
    return f"<h2>How it was measured</h2>{notes}<dl>{''.join(items)}</dl>"


def _inks(comparison: Comparison) -> list[str]:
    return [INKS[place % len(INKS)] for place in range(len(comparison.columns))]


def _data(page: np.ndarray) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(page).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _(words: str) -> str:
    return html.escape(words)
