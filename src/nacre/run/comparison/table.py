"""A comparison: what was measured of each model, side by side, and which differences are real."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, zip_longest
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from nacre.metrics.intervals import Estimate, around, standard_error
from nacre.run.comparison import differences
from nacre.run.comparison.differences import Contrast, Verdict
from nacre.run.evaluation import Evaluation, Row

SCHEMA_VERSION = 1

ASIDE = ("Its own discriminator", "Near duplicates within the training set")
"""How the names of metrics begin that judge a model's own judge, or the data: they are shown, and no model is better for it."""

NUMBER = re.compile(r"(?<![\w/])(?:\d[\d,]*)?\.?\d+(?:e-?\d+)?%?")
"""A number in a sentence; not one in a name."""


@dataclass(frozen=True)
class Column:
    """One model of a comparison.

    Attributes:
        name: over its column.
        evaluations: one a training seed; a run that stands for itself has one.
        seeds: of their training.
        facts: what it was given and what it took, by name.
        by_item: of a run that stands for itself, numbers of single held-out items, by metric.
        pages: pictures (height, width[, 3]) uint8: "real", held-out items, and "samples".
    """

    name: str
    evaluations: tuple[Evaluation, ...]
    seeds: tuple[int, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    by_item: Mapping[str, Tensor] = field(default_factory=dict)
    pages: Mapping[str, np.ndarray] = field(default_factory=dict)

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
        paired: whether the two were compared item by item.
    """

    first: str
    second: str
    verdict: Verdict
    better: str
    paired: bool


@dataclass(frozen=True)
class Line:
    """One metric of a comparison.

    Attributes:
        name, better, protocol, caution, group: as in the evaluations' rows.
        floor: real items against other real items.
        cells: for each column its number; None where the metric is undefined for it.
        pairs: all pairs of columns that have the metric and could be compared on it.
        best: names of columns: that with the best number, and then those that nothing tells from it. Empty where fewer than
            two can be compared, or none of the differences could be tested.
    """

    name: str
    better: str
    protocol: str
    caution: str
    group: str
    floor: Estimate | None
    cells: tuple[Estimate | None, ...]
    pairs: tuple[Pair, ...] = ()
    best: tuple[str, ...] = ()

    @property
    def directed(self) -> bool:
        """Whether a model can be better than another by this number: nothing is near to a floor that there is not."""
        return not self.name.startswith(ASIDE) and (self.better != "floor" or self.floor is not None)

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
                **{name: getattr(line, name) for name in ("name", "group", "better", "protocol", "caution")},
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
                    {
                        "first": pair.first,
                        "second": pair.second,
                        **asdict(pair.verdict),
                        "better": pair.better,
                        "paired": pair.paired,
                    }
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
    drafts = [draft for draft in (_line(name, columns) for name in names) if any(draft.cells)]
    groups = list(dict.fromkeys(draft.group for draft in drafts))
    drafts.sort(key=lambda draft: groups.index(draft.group))
    places = [
        (draft, first, second)
        for draft in drafts
        for first, second in combinations(columns, 2)
        if draft.directed and _alike(draft.name, first, second)
    ]
    judged = differences.verdicts([_contrast(*place) for place in places])
    lines = []
    for draft in drafts:
        pairs = [
            _pair(draft, first, second, verdict)
            for (line, first, second), verdict in zip(places, judged, strict=True)
            if line is draft
        ]
        whole = replace(draft, pairs=tuple(pairs))
        lines.append(replace(whole, best=_best(whole, columns)))
    seeds = [len(column.evaluations) for column in columns]
    paired = any(pair.paired for line in lines for pair in line.pairs)
    covers = covered(min(seeds), max(seeds), paired)
    return Comparison(
        tuple(columns), tuple(lines), covers, protocol, (*notes, *_unlike(drafts, columns)), failures or {}
    )


def _alike(name: str, first: Column, second: Column) -> bool:
    """Whether two columns have a metric, measured in the same way."""
    ours, theirs = first.rows(name), second.rows(name)
    return (
        bool(ours and theirs)
        and wording(ours[0].protocol) == wording(theirs[0].protocol)
        and _sizes(ours) == _sizes(theirs)
    )


def wording(protocol: str) -> str:
    """A protocol without its numbers, some of which are results."""
    return NUMBER.sub("…", protocol)


def in_common(protocols: Sequence[str]) -> str:
    """What protocols have in common: numbers that differ are left out, and another wording is put behind the first."""
    found = []
    for words in dict.fromkeys(map(wording, protocols)):
        alike = [protocol for protocol in protocols if wording(protocol) == words]
        numbers = zip(*map(NUMBER.findall, alike), strict=True)
        kept = [each[0] if len(set(each)) == 1 else "…" for each in numbers]
        found.append("".join(map("".join, zip_longest(NUMBER.split(alike[0]), kept, fillvalue=""))))
    return " / ".join(found)


def _sizes(rows: Sequence[Row]) -> set[int]:
    return {row.estimate.n for row in rows}


def _unlike(lines: Sequence[Line], columns: Sequence[Column]) -> Iterator[str]:
    """What to say of metrics that were measured in different ways, and are therefore not compared."""
    for line in lines:
        having = [column for column in columns if column.rows(line.name)]
        apart = [
            f"{first.name} and {second.name}"
            for first, second in combinations(having, 2)
            if line.directed and not _alike(line.name, first, second)
        ]
        if apart:
            yield f"{line.name} was measured in different ways, and is not compared, for {', '.join(apart)}"


def covered(fewest: int, most: int, paired: bool) -> str:
    """What the intervals of a table are of."""
    if most == 1:
        words = (
            "Intervals (95 %) are over the samples and the held-out items of one trained model each. They say whether these "
            "models differ, not whether another training seed would give the same order"
        )
        return words + (
            "; what is known of single items is compared item by item, over their choice alone" if paired else ""
        )
    alone = "; a model with one seed left has the interval of that one" if fewest == 1 else ""
    return (
        "Intervals (95 %, Student's t) are over the training seeds of a model: its initial weights, the order of its data, its "
        f"noise, its samples. The held-out items are the same for all{alone}"
    )


def _line(name: str, columns: Sequence[Column]) -> Line:
    rows = [row for column in columns for row in column.rows(name)]
    if not rows:
        return Line(name, "higher", "", "", "", None, (None,) * len(columns))
    cautions = dict.fromkeys(row.caution for row in rows if row.caution)
    floor = next((row.floor for row in rows if row.floor and math.isfinite(row.floor.value)), None)
    cells = tuple(_cell(column.rows(name)) for column in columns)
    first = rows[0]
    told = " ".join(cautions)
    for note in {note for column in columns for each in column.evaluations for note in each.notes}:
        told = told.replace(note, "").strip()  # it is said once, under the table
    return Line(name, first.better, in_common([row.protocol for row in rows]), told, first.group, floor, cells)


def _cell(rows: Sequence[Row]) -> Estimate | None:
    """A column's number: of one run its own; of several the mean over them."""
    if len(rows) < 2:
        return rows[0].estimate if rows else None
    values = [row.estimate.value for row in rows]
    contrast = differences.of_seeds(values, [0.0, 0.0], (_measured(rows), 0.0))
    return around(contrast.value, contrast.se, len(rows) - 1, len(rows))


def _measured(rows: Sequence[Row]) -> float:
    """The standard error of a mean over runs, if all that varied were what each was measured with."""
    ses = [standard_error(row.estimate) for row in rows]
    return math.hypot(*(0.0 if math.isnan(se) else se for se in ses)) / len(rows)


def _contrast(line: Line, first: Column, second: Column) -> Contrast:
    ours, theirs = first.rows(line.name), second.rows(line.name)
    if len(ours) > 1 and len(theirs) > 1:
        values = [[_distance(line, row.estimate.value) for row in rows] for rows in (ours, theirs)]
        return differences.of_seeds(values[0], values[1], (_measured(ours), _measured(theirs)))
    if len(ours) > 1 or len(theirs) > 1:  # one seed says nothing of the others
        return Contrast(ours[0].estimate.value - theirs[0].estimate.value, math.nan, math.inf)
    if _paired(line, first, second):
        return differences.of_items(first.by_item[line.name], second.by_item[line.name])
    if line.better == "floor" and line.floor:
        return differences.of_distances(ours[0].estimate, theirs[0].estimate, line.floor)
    return differences.between_estimates(ours[0].estimate, theirs[0].estimate)


def _paired(line: Line, first: Column, second: Column) -> bool:
    ours, theirs = first.by_item.get(line.name), second.by_item.get(line.name)
    return ours is not None and theirs is not None and len(ours) == len(theirs) > 1 and line.better != "floor"


def _distance(line: Line, value: float) -> float:
    """What is compared of a number: its distance to the floor where that is the best there is."""
    return abs(value - line.floor.value) if line.better == "floor" and line.floor else value


def _pair(line: Line, first: Column, second: Column, verdict: Verdict) -> Pair:
    up = verdict.value > 0 if line.better == "higher" else verdict.value < 0
    better = (first.name if up else second.name) if verdict.real else ""
    return Pair(first.name, second.name, verdict, better, _paired(line, first, second))


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
    return (best, *(name for name in scores if name in level and name != best))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
