"""A comparison in words: numbers as they are printed, the table of a terminal, CSV and LaTeX."""

import csv
import io
import math
import textwrap
from collections.abc import Sequence
from typing import Literal, TypeAlias

from nacre.metrics.intervals import Estimate
from nacre.run.comparison.table import Column, Comparison, Line, Pair
from nacre.run.evaluation.words import ARROWS, NOTHING, half_width, number

Mark: TypeAlias = Literal["best", "tied", ""]

SIGNS: dict[Mark, str] = {"best": "*", "tied": "~", "": " "}

LEGEND = (
    "↑ more is better, ↓ less is better, ≈ the nearer to the floor the better; the floor is what real items score in the "
    "samples' place. * is the best number, and ~ marks what nothing tells from it; in a line without marks, nothing tells any of "
    "them apart, or nothing could be tested."
)

FEW_SEEDS = 4
"""Training seeds up to which only large differences can be real."""

CSV_FIELDS = (
    "metric", "better", "model", "seed", "value", "se", "low", "high", "n", "floor", "floor_low", "floor_high", "place",
    "protocol", "caution",
)  # fmt: skip

TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "≥": r"$\geq$", "≤": r"$\leq$", "–": "--", "→": r"$\to$", "×": r"$\times$", "±": r"$\pm$", "↑": r"$\uparrow$",
        "↓": r"$\downarrow$", "≈": r"$\approx$", "½": r"$\frac{1}{2}$", "…": r"\ldots{}",
    }
)  # fmt: skip
"""Characters that LaTeX would take for something else, and those that its fonts lack."""


def cell(estimate: Estimate | None) -> str:
    """A number ± half its interval, the longer half."""
    if estimate is None:
        return NOTHING
    half = half_width(estimate)
    return f"{number(estimate.value, half)} ± {number(half, half)}" if half > 0 else number(estimate.value)


def text(comparison: Comparison, width: int = 100) -> str:
    """The table of a terminal, in several parts where it would be wider than `width` characters."""
    parts = [_wrapped(comparison.protocol + ".", width)]
    body = [
        [cell(each) + SIGNS[mark] for each, mark in zip(line.cells, marks(comparison, line), strict=True)]
        for line in comparison.lines
    ]
    names = [column.name + " " for column in comparison.columns]
    heads, floors = (
        [f"  {line.name} {ARROWS[line.better]}" for line in comparison.lines],
        [cell(line.floor) for line in comparison.lines],
    )
    widths = [max(map(len, each)) for each in zip(names, *body, strict=True)]
    fixed = max(map(len, ["", *heads])) + 2 + max(map(len, ["floor", *floors]))
    for chosen in _blocks(widths, width - fixed):
        rows, group = [["", *(names[i] for i in chosen), "floor"]], ""
        for line, head, cells, floor in zip(comparison.lines, heads, body, floors, strict=True):
            rows += [[line.group]] if line.group != group else []
            rows.append([head, *(cells[i] for i in chosen), floor])
            group = line.group
        parts.append(_aligned(rows))
    facts = given(comparison)
    parts += [_aligned(facts)] if facts else []
    parts += [_wrapped(LEGEND, width), _wrapped(comparison.covers + ".", width)]
    parts.append("\n".join(_wrapped(told, width, "    ") for told in summary(comparison).splitlines()))
    cautions = dict.fromkeys(line.caution for line in comparison.lines if line.caution)
    parts += [_wrapped(f"Caution: {caution}", width) for caution in cautions]
    parts += [_wrapped(f"{note}.", width) for note in comparison.notes if f"{note}." not in cautions]
    parts += [_wrapped(f"{name} is missing: {reason}", width) for name, reason in comparison.failures.items()]
    return "\n\n".join(parts)


def marks(comparison: Comparison, line: Line) -> list[Mark]:
    """What each column is on a metric: the best, tied with it, or neither; neither where nothing tells any apart."""
    told = () if line.tie else line.best
    known: dict[str, Mark] = {**dict.fromkeys(told, "tied"), **dict.fromkeys(told[:1], "best")}
    return [known.get(column.name, "") for column in comparison.columns]


def given(comparison: Comparison) -> list[list[str]]:
    """What each model was given and took, a row each under a row of heads; nothing where that is not known."""
    heads = list(dict.fromkeys(name for column in comparison.columns for name in column.facts))
    rows = [[column.name, *(_plain(column.facts.get(head)) for head in heads)] for column in comparison.columns]
    return [["", *heads], *rows] if heads else []


def summary(comparison: Comparison) -> str:
    """How many differences are real; of two models, which."""
    tested = comparison.pairs
    real = [(line, pair) for line, pair in tested if pair.better]
    if not tested:
        return "No difference could be tested."
    head = f"{len(real)} of {len(tested)} differences are real at 5 % after Holm's correction over all of them."
    if 1 < comparison.seeds <= FEW_SEEDS and len(real) < len(tested):
        head += f" From {comparison.seeds} training seeds, only large ones can be; more --seeds tell more apart."
    if len(comparison.columns) == 2:
        return "\n".join([head, *(f"  {sentence(line, pair)}" for line, pair in real)])
    return "\n".join([head, *(f"  {line.name}: {order(line)}" for line in comparison.lines if order(line))])


def order(line: Line) -> str:
    """Who is really better than whom on a metric."""
    found: dict[str, list[str]] = {}
    for pair in line.pairs:
        if pair.better:
            found.setdefault(pair.better, []).append(pair.second if pair.better == pair.first else pair.first)
    return "; ".join(f"{better} before {', '.join(others)}" for better, others in found.items())


def sentence(line: Line, pair: Pair) -> str:
    """What is known of two models on a metric."""
    verdict = pair.verdict
    if math.isnan(verdict.p):
        return f"{line.name}: {pair.first} against {pair.second} cannot be tested"
    if not pair.better:
        return f"{line.name}: nothing tells {pair.first} from {pair.second}"
    other = pair.second if pair.better == pair.first else pair.first
    half = (verdict.high - verdict.low) / 2
    ends = sorted([abs(verdict.low), abs(verdict.high)])
    nearer = " nearer to the floor" if line.better == "floor" else ""
    by = f"{number(abs(verdict.value), half)} [{number(ends[0], half)}, {number(ends[1], half)}]"
    return f"{line.name}: {pair.better} is better than {other}, by {by}{nearer}"


def as_csv(comparison: Comparison) -> str:
    """A row for each metric and model, and one for each training seed where there are several."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for line in comparison.lines:
        for column, whole, place in zip(comparison.columns, line.cells, marks(comparison, line), strict=True):
            writer.writerow(_record(line, column, "", whole, place))
            if len(column.evaluations) > 1:
                for seed, each in zip(column.seeds, column.evaluations, strict=True):
                    row = next((row for row in each.rows if row.name == line.name), None)
                    writer.writerow(_record(line, column, str(seed), row.estimate if row else None, ""))
    return out.getvalue()


def as_latex(comparison: Comparison) -> str:
    """A table for booktabs; the best of each line in bold, what nothing tells from it underlined."""
    heads = " & ".join(["", *(escaped(column.name) for column in comparison.columns), "floor"])
    rows = []
    for line in comparison.lines:
        cells = [_tex_cell(each, mark) for each, mark in zip(line.cells, marks(comparison, line), strict=True)]
        rows.append(" & ".join([escaped(f"{line.name} {ARROWS[line.better]}"), *cells, _tex_cell(line.floor, "")]))
    body = "".join(f"    {row} \\\\\n" for row in rows)
    caption = escaped(f"{comparison.protocol}. {comparison.covers}. {BOLD}")
    return (
        "% \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n"
        f"  \\begin{{tabular}}{{l{'r' * (len(comparison.columns) + 1)}}}\n    \\toprule\n    {heads} \\\\\n    \\midrule\n"
        f"{body}    \\bottomrule\n  \\end{{tabular}}\n  \\caption{{{caption}}}\n\\end{{table}}\n"
    )


BOLD = (
    "Bold: the best number; underlined: what nothing tells from it (5 %, Holm's correction over all pairs and metrics)."
)


def escaped(words: str) -> str:
    """Words as LaTeX prints them."""
    return words.translate(TEX)


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns in as many tables as they take, at least one in each."""
    blocks: list[list[int]] = [[]]
    for index, width in enumerate(widths):
        if blocks[-1] and sum(widths[i] + 2 for i in blocks[-1]) + width > room - 2:
            blocks.append([])
        blocks[-1].append(index)
    return blocks


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns, the first to the left; a row of one word is a heading."""
    whole = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    lines = []
    for first, *rest in rows:
        words = [word.rjust(width) for word, width in zip(rest, widths[1:], strict=bool(rest))] if rest else []
        lines.append("  ".join([first.ljust(widths[0]) if rest else first, *words]).rstrip())
    return "\n".join(lines)


def _wrapped(words: str, width: int, later: str = "") -> str:
    lines = textwrap.wrap(words, width, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _plain(value: object) -> str:
    """A fact as it is printed."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def _record(line: Line, column: Column, seed: str, estimate: Estimate | None, place: str) -> list[object]:
    numbers = [estimate.value, estimate.se, estimate.low, estimate.high, estimate.n] if estimate else [math.nan] * 5
    floors = [line.floor.value, line.floor.low, line.floor.high] if line.floor else [math.nan] * 3
    plain = ["" if math.isnan(each) else each for each in (*numbers, *floors)]
    return [line.name, line.better, column.name, seed, *plain, place, line.protocol, line.caution]


def _tex_cell(estimate: Estimate | None, mark: Mark) -> str:
    if estimate is None:
        return "--"
    half = half_width(estimate)
    value = _tex_number(number(estimate.value, half))
    told = {"best": f"\\mathbf{{{value}}}", "tied": f"\\underline{{{value}}}", "": value}[mark]
    return f"${told} \\pm {_tex_number(number(half, half))}$" if half > 0 else f"${told}$"


def _tex_number(words: str) -> str:
    """A printed number in mathematics: no space after a comma, and powers of ten."""
    digits, _, power = words.replace(",", "{,}").partition("e")
    return f"{digits} \\times 10^{{{int(power)}}}" if power else digits
