"""A comparison: what was measured of each model, side by side, and which differences are real."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from nacre.metrics.intervals import Estimate, around
from nacre.run.comparison import differences
from nacre.run.comparison.differences import Contrast, Verdict
from nacre.run.evaluation import Evaluation, Row

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Column:
    """One model of a comparison.

    Attributes:
        name: over its column.
        evaluations: one a training seed; a run that stands for itself has one.
        seeds: of their training.
        facts: what it was given and what it took, by name.
    """

    name: str
    evaluations: tuple[Evaluation, ...]
    seeds: tuple[int, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, metric: str) -> list[Row]:
        """What its evaluations say of a metric; nothing where it is undefined."""
        rows = [row for evaluation in self.evaluations for row in evaluation.rows if row.name == metric]
        return [row for row in rows if math.isfinite(row.estimate.value)]


@dataclass(frozen=True)
class Pair:
    """Two columns on one metric.

    Attributes:
        first, second: their names.
        verdict: on first - second; where the floor is the best, on the difference of their distances to it.
        better: the name of the one that is really better; "" for a tie.
    """

    first: str
    second: str
    verdict: Verdict
    better: str


@dataclass(frozen=True)
class Line:
    """One metric of a comparison.

    Attributes:
        name, better, protocol, caution: as in the evaluations' rows.
        floor: real items against other real items.
        cells: for each column its number; None where the metric is undefined for it.
        pairs: all pairs of columns that have the metric.
        best: names of the columns that are the best: the one with the best number, and those not really different from it.
            Empty where fewer than two can be compared, or none of the differences could be tested.
    """

    name: str
    better: str
    protocol: str
    caution: str
    floor: Estimate | None
    cells: tuple[Estimate | None, ...]
    pairs: tuple[Pair, ...] = ()
    best: tuple[str, ...] = ()

    @property
    def tie(self) -> bool:
        """Whether nothing tells those apart that have the metric."""
        return len(self.best) > 1 and len(self.best) == sum(cell is not None for cell in self.cells)


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Attributes:
        columns: the models.
        lines: the metrics.
        covers: what the intervals are of.
        protocol: what was the same for all.
        notes: what else a reader should know, a sentence each.
        failures: models that could not be compared, and why.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    covers: str
    protocol: str
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """Training seeds of a model, as many as the model with most of them has."""
        return max(len(column.evaluations) for column in self.columns)

    @property
    def pairs(self) -> list[tuple[Line, Pair]]:
        """Every difference that could be tested."""
        return [(line, pair) for line in self.lines for pair in line.pairs if not math.isnan(pair.verdict.p)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a number that is not finite is None."""
        lines = [
            {
                **{name: getattr(line, name) for name in ("name", "better", "protocol", "caution")},
                "floor": asdict(line.floor) if line.floor else None,
                "values": {
                    column.name: asdict(cell) if cell else None
                    for column, cell in zip(self.columns, line.cells, strict=True)
                },
                "seeds": {
                    column.name: [row.estimate.value for row in column.rows(line.name)] for column in self.columns
                },
                "best": list(line.best),
                "tie": line.tie,
                "differences": [
                    {"first": pair.first, "second": pair.second, **asdict(pair.verdict), "better": pair.better}
                    for pair in line.pairs
                ],
            }
            for line in self.lines
        ]
        columns = [
            {
                "name": column.name,
                "facts": dict(column.facts),
                "seeds": list(column.seeds),
                "runs": [each.run for each in column.evaluations],
            }
            for column in self.columns
        ]
        told = {"schema_version": SCHEMA_VERSION, "columns": columns, "metrics": lines, "covers": self.covers}
        told |= {"protocol": self.protocol, "notes": list(self.notes), "failures": dict(self.failures)}
        return _finite(told)


def table(
    columns: Sequence[Column], protocol: str, notes: Sequence[str] = (), failures: Mapping[str, str] | None = None
) -> Comparison:
    """Columns side by side, every pair of them tested on every metric, with Holm's correction over all of these tests."""
    names = dict.fromkeys(row.name for column in columns for each in column.evaluations for row in each.rows)
    drafts = [_line(name, columns) for name in names]
    drafts = [draft for draft in drafts if any(draft.cells)]
    places = [
        (draft, i, j)
        for draft in drafts
        for i, j in combinations(range(len(columns)), 2)
        if draft.cells[i] and draft.cells[j]
    ]
    judged = differences.verdicts([_contrast(draft, columns[i], columns[j]) for draft, i, j in places])
    lines = []
    for draft in drafts:
        pairs = [
            _pair(draft, columns[i].name, columns[j].name, verdict)
            for (of, i, j), verdict in zip(places, judged, strict=True)
            if of is draft
        ]
        whole = replace(draft, pairs=tuple(pairs))
        lines.append(replace(whole, best=_best(whole, columns)))
    several = max(len(column.evaluations) for column in columns) > 1
    uneven = [line.name for line in lines if not several and len({cell.n for cell in line.cells if cell}) > 1]
    more = [f"{name} is of different N in different columns, which makes it hard to compare" for name in uneven]
    covers = covered(min(len(column.evaluations) for column in columns), several)
    return Comparison(tuple(columns), tuple(lines), covers, protocol, (*notes, *more), failures or {})


def covered(fewest: int, several: bool) -> str:
    """What the intervals of a table are of."""
    if not several:
        return (
            "Intervals (95 %) are over the samples and the held-out items of one trained model each. They say whether these "
            "models differ, not whether another training seed would give the same order"
        )
    alone = "; a model with one seed left has the interval of that one" if fewest == 1 else ""
    return (
        "Intervals (95 %, Student's t) are over the training seeds of a model: its initial weights, the order of its data, its "
        f"noise, its samples. The held-out items are the same for all{alone}"
    )


def _line(name: str, columns: Sequence[Column]) -> Line:
    rows = [row for column in columns for row in column.rows(name)]
    if not rows:
        return Line(name, "higher", "", "", None, (None,) * len(columns))
    cautions = dict.fromkeys(row.caution for row in rows if row.caution)
    protocols = dict.fromkeys(row.protocol for row in rows)
    floor = next((row.floor for row in rows if row.floor), None)
    cells = tuple(_cell(column.rows(name)) for column in columns)
    return Line(name, rows[0].better, " / ".join(protocols), " ".join(cautions), floor, cells)


def _cell(rows: Sequence[Row]) -> Estimate | None:
    """A column's number: of one run its own; of several the mean over them."""
    if len(rows) < 2:
        return rows[0].estimate if rows else None
    values = [row.estimate.value for row in rows]
    contrast = differences.of_seeds(values, [0.0, 0.0], (_measured(rows), 0.0))
    return around(contrast.value, contrast.se, len(rows) - 1, len(rows))


def _measured(rows: Sequence[Row]) -> float:
    """The standard error of a mean over runs, if all that varied were what each was measured with."""
    ses = [differences.standard_error(row.estimate) for row in rows]
    return math.hypot(*(0.0 if math.isnan(se) else se for se in ses)) / len(rows)


def _contrast(line: Line, first: Column, second: Column) -> Contrast:
    ours, theirs = first.rows(line.name), second.rows(line.name)
    if len(ours) > 1 and len(theirs) > 1:
        values = [[_distance(line, row.estimate.value) for row in rows] for rows in (ours, theirs)]
        return differences.of_seeds(values[0], values[1], (_measured(ours), _measured(theirs)))
    if len(ours) > 1 or len(theirs) > 1:  # one seed says nothing of the others
        return Contrast(ours[0].estimate.value - theirs[0].estimate.value, math.nan, math.inf)
    if line.better == "floor" and line.floor:
        return differences.of_distances(ours[0].estimate, theirs[0].estimate, line.floor)
    return differences.between_estimates(ours[0].estimate, theirs[0].estimate)


def _distance(line: Line, value: float) -> float:
    """What is compared of a number: its distance to the floor where that is the best there is."""
    return abs(value - line.floor.value) if line.better == "floor" and line.floor else value


def _pair(line: Line, first: str, second: str, verdict: Verdict) -> Pair:
    if not verdict.real:
        return Pair(first, second, verdict, "")
    up = verdict.value > 0 if line.better == "higher" else verdict.value < 0
    return Pair(first, second, verdict, first if up else second)


def _best(line: Line, columns: Sequence[Column]) -> tuple[str, ...]:
    """The column with the best number among those that could be tested, and all that are not really different from it."""
    sign = -1 if line.better == "higher" else 1
    tested = [pair for pair in line.pairs if not math.isnan(pair.verdict.p)]
    taking_part = {name for pair in tested for name in (pair.first, pair.second)}
    scores = {
        column.name: sign * fmean(_distance(line, row.estimate.value) for row in column.rows(line.name))
        for column in columns
        if column.name in taking_part
    }
    if not scores:
        return ()
    best = min(scores, key=scores.__getitem__)
    level = {
        name
        for pair in tested
        if best in (pair.first, pair.second) and not pair.better
        for name in (pair.first, pair.second)
    }
    return tuple(name for name in scores if name == best or name in level)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
