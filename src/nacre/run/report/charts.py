"""The curves of a report, of losses and of signals over steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nacre.metrics.history import DIRECTIONS
from nacre.metrics.meanings import MEANINGS, PARTS
from nacre.run.report import svg

TOGETHER = {
    "d_real": "real items",
    "d_train": "training items",
    "d_fake": "generated items",
    "d_remade": "reconstructions",
    "d_made": "samples",
}
"""Curves that share a chart, and what they are called in it."""


def of_losses(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Losses, their parts and the validation, over steps."""
    found = _series(log, "losses")
    alone = len({name.rpartition("/")[0] for name in found}) == 1
    charts: dict[str, list[svg.Series]] = {}
    meanings = {}
    for name, series in found.items():
        head, _, part = name.rpartition("/")
        if part == "loss":
            charts.setdefault("Losses", []).append(series)
            meanings["Losses"] = "what each player minimises; in a game they need not fall" if not alone else ""
        elif part in TOGETHER:
            charts.setdefault(f"What the {head} says, on average", []).append(series)
        else:
            title = _plainly(part if alone else name)
            charts[title], meanings[title] = [series], meaning(part)
    validated = [line for line in log if line.get("validation")]
    for name, series in _series(validated, "validation").items():
        charts[f"Validation: {validated[-1]['validation']['name']}"] = [series] if name == "value" else []
    return [svg.curves(title, series, meanings.get(title, "")) for title, series in charts.items() if series]


def meaning(part: str) -> str:
    """What a part of a loss says; "" for one of a model of the user's own."""
    of_all, _, side = part.rpartition("_")
    return PARTS.get(part) or (PARTS.get(of_all, "") if side in ("a", "b") or side.isdecimal() else "")


def of_signals(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured of fixed items: signals of one kind share a chart, and so do the two directions of a translation."""
    charts: dict[tuple[str, str], list[svg.Series]] = {}
    for name, series in _series(log, "signals").items():
        head, _, part = name.rpartition("/")
        if np.ptp(series.y) > 0:
            of_direction = head in DIRECTIONS
            kind = part if of_direction else head or part
            title = "what the judge says" if part in TOGETHER else _plainly(kind)
            title += f", {head}" if of_direction and part in TOGETHER else ""
            own = replace(series, name=head) if of_direction and part not in TOGETHER else series
            about = "on average" if part in TOGETHER else MEANINGS.get(kind, "")
            charts.setdefault((title, about), []).append(own)
    return [svg.curves(title, series, about) for (title, about), series in charts.items()]


def _plainly(name: str) -> str:
    """A logged name in words."""
    return name.replace("/", ": ").replace("_", " ")


def _series(log: Sequence[Mapping[str, Any]], kind: str) -> dict[str, svg.Series]:
    """The curves of a kind of entry by name, of the steps at which there is a number, two at least."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        for name, value in (line.get(kind) or {}).items():
            if isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((float(line["step"]), float(value)))
    found = {}
    for name, known in points.items():
        x, y = np.array(known).T
        head, _, part = name.rpartition("/")
        told = TOGETHER.get(part, head if part == "loss" else _plainly(part))
        if len(known) > 1:
            found[name] = svg.Series(told, x, y)
    return found
