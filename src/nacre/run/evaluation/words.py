"""An evaluation in words: numbers as they are printed, and the table of a terminal."""

import math
import textwrap
from collections.abc import Sequence

from nacre.metrics.intervals import Estimate
from nacre.run.evaluation.rows import Evaluation, Row

NOTHING = "–"

ARROWS = {"higher": "↑", "lower": "↓", "floor": "≈"}

MARKS = {True: "●", False: "○", None: " "}
FLOORED = {"higher": "under the floor", "lower": "over the floor", "floor": "off the floor"}

LEGEND = (
    "↑ more is better, ↓ less is better, ≈ the nearer to the floor the better. The floor is what real items score in the "
    "samples' place; ● marks what is not told apart from it, or is better, ○ what is worse. Intervals are of 95 %."
)


def number(value: float, half: float = math.nan) -> str:
    """A number with as many digits as its uncertainty `half` leaves a meaning: two of its own; without one, four."""
    if not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    if not math.isfinite(half) or half <= 0:
        return f"{value:,.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.2g}" if decimals > 6 else f"{round(value, decimals) + 0.0:,.{decimals}f}"


def half_width(estimate: Estimate) -> float:
    """The longer side of an interval; NaN without one."""
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def value_of(estimate: Estimate | None) -> str:
    """The value alone."""
    return NOTHING if estimate is None else number(estimate.value, half_width(estimate))


def interval(estimate: Estimate | None) -> str:
    """The two ends of an interval."""
    half = math.nan if estimate is None else half_width(estimate)
    if estimate is None or not math.isfinite(half) or half <= 0:
        return NOTHING
    return f"{number(estimate.low, half)} … {number(estimate.high, half)}"


def standing(row: Row) -> str:
    """How a number stands to its floor, in words; "" where it has none."""
    if row.at_floor is None:
        return ""
    return "at the floor" if row.at_floor else FLOORED[row.better]


def text(evaluation: Evaluation, width: int = 100) -> str:
    """The table of a terminal."""
    facts = [f"{evaluation.model}, {evaluation.run}", *headline(evaluation)]
    parts = [_wrapped(" · ".join(facts), width)]
    parts += [
        _wrapped(f"{each.title[:1].upper()}{each.title[1:]}: {each.sentence}.", width) for each in evaluation.verdicts
    ]
    for group in groups(evaluation.rows):
        head = ["", group[0].group, "", "95 % interval", "floor", ""]
        body = [
            [MARKS[row.at_floor], row.name, value_of(row.estimate), interval(row.estimate), value_of(row.floor),
             ARROWS[row.better] + (f" {standing(row)}" if row.at_floor is False else "")]
            for row in group
        ]  # fmt: skip
        parts.append(_aligned([head, *body]))
    parts += [_wrapped(evaluation.equilibrium, width)] if evaluation.equilibrium else []
    parts += [_wrapped(caution, width) for caution in cautions(evaluation)]
    parts += [_wrapped(note, width) for note in evaluation.notes]
    return "\n\n".join([*parts, _wrapped(LEGEND, width)])


def headline(evaluation: Evaluation) -> list[str]:
    """What was held against what."""
    facts = [f"step {evaluation.step:,}"] if evaluation.step is not None else []
    facts += [f"{evaluation.parameters:,} parameters", f"{evaluation.data} ({evaluation.split})"]
    facts += [f"N = {evaluation.n:,}", f"seed {evaluation.seed}", f"{evaluation.seconds:.0f} s"]
    return facts


def cautions(evaluation: Evaluation) -> list[str]:
    """What the rows are to be taken with, each said once, after whose it is; what the notes say is left to them."""
    found: dict[str, list[str]] = {}
    for row in evaluation.rows:
        said = own_caution(row, evaluation)
        if said:
            found.setdefault(said, []).append(row.name)
    return [f"{', '.join(names)}: {said}" for said, names in found.items()]


def own_caution(row: Row, evaluation: Evaluation) -> str:
    """A row's caution without what the notes say."""
    said = row.caution
    for note in evaluation.notes:
        said = said.replace(note, "").strip()
    return said


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by group, in the order of the groups' first rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return list(found.values())


def _wrapped(words: str, width: int) -> str:
    return "\n".join(textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for mark, name, *numbers, last in rows:
        middle = [word.rjust(width) for word, width in zip(numbers, widths[2:-1], strict=True)]
        lines.append("  ".join([f"{mark:1} {name.ljust(widths[1])}", *middle, last]).rstrip())
    return "\n".join(lines)
