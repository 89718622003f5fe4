"""A run as its diagnosis sees it: the history of its signals, what else is known of it, and what is said of it."""

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

NAMES = {
    "healthy": "healthy",
    "collapse": "mode collapse",
    "partial-collapse": "partial mode collapse",
    "strong-discriminator": "discriminator too strong",
    "weak-discriminator": "discriminator too weak",
    "oscillation": "oscillation",
    "divergence": "divergence",
    "overfit-discriminator": "over-fitted discriminator",
    "posterior-collapse": "posterior collapse",
    "blurry-decoder": "blurry decoder",
    "memorization": "memorization",
    "little-data": "too little data",
    "dead-units": "dead units",
    "value-range": "wrong value range",
    "batchnorm-drift": "batch norm drift",
}
"""Verdicts by the word that a command takes, with the words that a person reads."""

DIRECTIONS = ("a2b", "b2a")
"""That a model may translate in."""

Severity = Literal["good", "bad"]

WINDOW = 0.25
"""Share of the measurements that are "now"."""

YOUNG = 0.2
"""Share of a run in which every model looks ill."""

STEADY = 0.1
"""Change of a signal from one window to the next, relative to it, under which it stays as it is."""


@dataclass(frozen=True)
class Verdict:
    """Something that a history of signals says.

    Attributes:
        name: a key of `NAMES`.
        severity: "good" or "bad".
        step: since when it has been so.
        sentence: what was found, with its number.
        evidence: the numbers that it rests on, by the names of the signals.
        advice: what to do, with a command; "" if nothing has to be done.
    """

    name: str
    severity: Severity
    step: int
    sentence: str
    evidence: Mapping[str, Any]
    advice: str

    @property
    def title(self) -> str:
        """What a person calls it."""
        return NAMES[self.name]


@dataclass(frozen=True)
class Facts:
    """What is known of a run besides its signals.

    Attributes:
        run: its folder, as it is typed in a command, with the flag that names a model of one's own.
        steps: its whole length.
        train, held_out: items.
        settings: the flags of its model and training, by name, with their values.
        saved: steps that a fork can start from.
        failure: the sentence that it ended with, or "".
    """

    run: str = "RUN"
    steps: int = 0
    train: int = 0
    held_out: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    saved: Sequence[int] = ()
    failure: str = ""


class View:
    """A history, as rules look at it.

    Args:
        history: lines with "step" and "signals", in order.
        facts: what else is known.
    """

    def __init__(self, history: Sequence[Mapping[str, Any]], facts: Facts) -> None:
        self.facts = facts
        self.steps = [int(line["step"]) for line in history]
        self.lines: list[Mapping[str, Any]] = [line["signals"] for line in history]
        self.window = max(3, math.ceil(WINDOW * len(history)))
        first = _begun(self.steps, self.lines)
        self.old = self.steps[-1] - first >= YOUNG * (facts.steps - first)

    def of(self, direction: str) -> "View":
        """The same of one direction of a model that translates, whose signals stand behind its name."""
        ahead, own = f"{direction}/", copy.copy(self)
        own.lines = [
            {name.removeprefix(ahead): value for name, value in line.items() if name.startswith(ahead)}
            for line in self.lines
        ]
        return own

    @property
    def directions(self) -> list[str]:
        """The directions that a model translates in; none where it does not."""
        return [name for name in DIRECTIONS if any(signal.startswith(f"{name}/") for signal in self.lines[-1])]

    def __getitem__(self, name: str) -> float:
        """The median of a signal now; NaN, with which every comparison fails, where it is not measured."""
        found = [line[name] for line in self.lines[-self.window :] if line.get(name) is not None]
        return statistics.median(found) if found else math.nan

    def past(self, name: str) -> list[float]:
        """What a signal was before."""
        return [line[name] for line in self.lines[: -self.window] if line.get(name) is not None]

    def recent(self, name: str) -> list[Any]:
        """What a signal is now, measurement by measurement."""
        return [line[name] for line in self.lines[-self.window :] if line.get(name) is not None]

    def since(self, test: Callable[[Mapping[str, Any]], bool]) -> int:
        """The first step of those up to the end at which a test holds, single exceptions in the window allowed."""
        first = self.steps[-1]
        for step, line in reversed(list(zip(self.steps, self.lines, strict=True))):
            if not test(line) and step < self.steps[-self.window :][0]:
                break
            first = step if test(line) else first
        return first

    def improving(self, name: str, better: int) -> bool:
        """Whether a run that goes on still brings a signal up (`better` = 1) or down (-1) by a tenth from window to window."""
        before = self.past(name)[-self.window :]
        if self.steps[-1] >= self.facts.steps or not before:
            return False
        past = statistics.median(before)
        return better * (self[name] - past) > STEADY * max(abs(past), abs(self[name]))

    def swing(self) -> float:
        """How far the kinds of the generator's samples move between two measurements now: mean total variation, 0 to 1."""
        bins = self.recent("bins")
        moves = [sum(abs(a - b) for a, b in zip(*pair, strict=True)) / 2 for pair in pairwise(bins)]
        return statistics.mean(moves) if moves else math.nan


def _begun(steps: Sequence[int], lines: Sequence[Mapping[str, Any]]) -> int:
    """The step before which there was nothing to look at: that of the first look with more than gradients, unless it is the
    first of all."""
    always = ("gradient/", "lr/", "items", "held_out")
    told = [not all(name.startswith(always) for name in line) for line in lines]
    first = told.index(True) if any(told) else 0
    return steps[first] if first else 0
