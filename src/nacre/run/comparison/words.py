"""A comparison in words: numbers as they are printed, the table of a terminal, CSV and LaTeX."""

import csv
import io
import math
from collections.abc import Sequence

from nacre.metrics.intervals import Estimate
from nacre.run.comparison.table import Column, Comparison, Line, Pair

UNDEFINED = "–"
"""Where a metric is not defined for a model."""

ARROWS = {"higher": "↑", "lower": "↓", "floor": "≈"}

LEGEND = (
    "↑ more is better, ↓ less is better, ≈ the nearer to the floor the better; the floor is real items against real items. "
    "Where several are named as the best, nothing tells them apart."
)

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


def number(value: float, half: float = math.nan) -> str:
    """A number with as many digits as its uncertainty `half` leaves a meaning: two of its own; without one, four."""
    if not math.isfinite(value):
        return UNDEFINED
    if not half > 0 or not math.isfinite(half):
        return f"{value:.4g}"
    decimals = 1 - math.floor(math.log10(half))
    return f"{value:.1e}" if decimals > 6 else f"{value:.{max(0, decimals)}f}"


def cell(estimate: Estimate | None) -> str:
    """A number ± half its interval, the longer half."""
    if estimate is None:
        return UNDEFINED
    half = half_width(estimate)
    return f"{number(estimate.value, half)} ± {number(half, half)}" if half > 0 else number(estimate.value)


def interval(estimate: Estimate) -> str:
    """The two ends of an interval."""
    half = half_width(estimate)
    return f"{number(estimate.low, half)} … {number(estimate.high, half)}" if half > 0 else UNDEFINED


def half_width(estimate: Estimate) -> float:
    """The longer side of an interval; NaN without one."""
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def best(line: Line) -> str:
    """Who is the best on a metric."""
    return "tie" if line.tie else " = ".join(line.best)


def text(comparison: Comparison, width: int = 100) -> str:
    """The table of a terminal, in several parts where it would be wider than `width` characters."""
    parts = [comparison.protocol + "."]
    heads = [f"{line.name} {ARROWS[line.better]}" for line in comparison.lines]
    names = [column.name for column in comparison.columns]
    body = [[cell(each) for each in line.cells] for line in comparison.lines]
    floors, winners = [cell(line.floor) for line in comparison.lines], [best(line) for line in comparison.lines]
    widths = [max(map(len, each)) for each in zip(names, *body, strict=True)]
    fixed = max(map(len, ["", *heads])) + 2 + max(map(len, ["floor", *floors])) + 2 + max(map(len, ["best", *winners]))
    for chosen in _blocks(widths, width - fixed):
        rows = [["", *(names[i] for i in chosen), "floor", "best"]]
        for head, cells, floor, winner in zip(heads, body, floors, winners, strict=True):
            rows.append([head, *(cells[i] for i in chosen), floor, winner])
        parts.append(_aligned(rows))
    parts += ["\n".join(facts) for facts in [_facts(comparison)] if facts]
    parts += [LEGEND, comparison.covers + ".", summary(comparison)]
    parts += [f"Note: {note}." for note in comparison.notes]
    parts += [f"{name} is missing: {reason}" for name, reason in comparison.failures.items()]
    return "\n\n".join(parts)


def summary(comparison: Comparison) -> str:
    """How many differences are real; of two models, which."""
    tested = comparison.pairs
    real = [(line, pair) for line, pair in tested if pair.better]
    if not tested:
        return "No difference could be tested."
    head = f"{len(real)} of {len(tested)} differences are real at 5 % after Holm's correction over all of them" + (
        ":" if real and len(comparison.columns) == 2 else "."
    )
    if len(comparison.columns) > 2:
        return head
    return "\n".join([head, *(f"  {sentence(line, pair)}" for line, pair in real)])


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
        for column, whole in zip(comparison.columns, line.cells, strict=True):
            place = ("best" if len(line.best) == 1 else "tied") if column.name in line.best else ""
            writer.writerow(_record(line, column, "", whole, place))
            if len(column.evaluations) > 1:
                for seed, each in zip(column.seeds, column.evaluations, strict=True):
                    row = next((row for row in each.rows if row.name == line.name), None)
                    writer.writerow(_record(line, column, str(seed), row.estimate if row else None, ""))
    return out.getvalue()


def as_latex(comparison: Comparison) -> str:
    """A table for booktabs; the best of each line, and what is not really different from it, in bold."""
    heads = " & ".join(["", *(escaped(column.name) for column in comparison.columns), "floor"])
    rows = []
    for line in comparison.lines:
        cells = [
            _tex_cell(each, column.name in line.best and not line.tie)
            for column, each in zip(comparison.columns, line.cells, strict=True)
        ]
        rows.append(" & ".join([escaped(f"{line.name} {ARROWS[line.better]}"), *cells, _tex_cell(line.floor, False)]))
    body = "".join(f"    {row} \\\\\n" for row in rows)
    caption = escaped(f"{comparison.protocol}. {comparison.covers}. {BOLD}")
    return (
        "% \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n"
        f"  \\begin{{tabular}}{{l{'r' * (len(comparison.columns) + 1)}}}\n    \\toprule\n    {heads} \\\\\n    \\midrule\n"
        f"{body}    \\bottomrule\n  \\end{{tabular}}\n  \\caption{{{caption}}}\n\\end{{table}}\n"
    )


BOLD = "Bold: the best, and what is not really different from it (5 %, Holm's correction over all pairs and metrics)."


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
    """Rows of words in columns: the first and the last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        middle = [word.rjust(width) for word, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return "\n".join(lines)


def _facts(comparison: Comparison) -> list[str]:
    """What each model was given, a line each."""
    return [
        f"{column.name}: " + ", ".join(f"{value} {name}" for name, value in shown(column))
        for column in comparison.columns
        if column.facts
    ]


def shown(column: Column) -> list[tuple[str, str]]:
    """A column's facts as they are printed."""
    return [
        (name, f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in column.facts.items()
    ]


def _record(line: Line, column: Column, seed: str, estimate: Estimate | None, place: str) -> list[object]:
    numbers = [estimate.value, estimate.se, estimate.low, estimate.high, estimate.n] if estimate else [math.nan] * 5
    floors = [line.floor.value, line.floor.low, line.floor.high] if line.floor else [math.nan] * 3
    plain = ["" if math.isnan(each) else each for each in (*numbers, *floors)]
    return [line.name, line.better, column.name, seed, *plain, place, line.protocol, line.caution]


def _tex_cell(estimate: Estimate | None, bold: bool) -> str:
    if estimate is None:
        return "--"
    half = half_width(estimate)
    value = number(estimate.value, half)
    told = f"\\mathbf{{{value}}}" if bold else value
    return f"${told} \\pm {number(half, half)}$" if half > 0 else f"${told}$"
