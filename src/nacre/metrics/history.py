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

REACH = 0.1
"""Share of the measurements, counted back from each, among which it is looked for what changes: a slow turn takes a few."""

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
        since: the step of a fork on other data, up to which looks are of another set; -1 for none.
    """

    run: str = "RUN"
    steps: int = 0
    train: int = 0
    held_out: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    saved: Sequence[int] = ()
    failure: str = ""
    since: int = -1


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
        self.reach = max(1, round(REACH * len(history)))
        self.final, self.steady = self.steps[-1] >= facts.steps, False
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

    def at(self, number: int) -> "View":
        """One look alone, with those within reach before it."""
        own = copy.copy(self)
        first = max(0, number - self.reach)
        own.steps, own.lines, own.window = self.steps[first : number + 1], self.lines[first : number + 1], 1
        own.final = True  # one look is given no time to get better
        return own

    def patient(self) -> "View":
        """The same, for a rule that gives time to what has got better all along, even at the end of the run."""
        own = copy.copy(self)
        own.final = False
        own.steady = self.final
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
        return self.steps[self._first([test(line) for line in self.lines])]

    def since_look(self, test: Callable[["View"], bool], *, between: bool = False) -> int:
        """The same of a test that a single look is put to, or (`between`) the way to it from those within reach before it."""
        first = self._first([test(self.at(number)) for number in range(len(self.lines))])
        return self.steps[max(0, first - self.reach * between)]

    def _first(self, held: Sequence[bool]) -> int:
        first = len(held) - 1
        for number in reversed(range(len(held))):
            if not held[number] and number < len(held) - self.window:
                break
            first = number if held[number] else first
        return first

    def improving(self, name: str, better: int) -> bool:
        """Whether a run that goes on still brings a signal up (`better` = 1) or down (-1) by a tenth from window to window.

        At its end a run is what it is, and no more time is given; of a `patient` view more is asked there instead: that the
        signal was brought further in every window.
        """
        before = self.past(name)[-self.window :]
        if self.final or not before or (self.steady and not self._ever_better(name, better)):
            return False
        past = statistics.median(before)
        return better * (self[name] - past) > STEADY * max(abs(past), abs(self[name]))

    def _ever_better(self, name: str, better: int) -> bool:
        told = [line[name] for line in self.lines if line.get(name) is not None]
        ends = range(len(told), 0, -self.window)
        windows = [statistics.median(told[max(0, end - self.window) : end]) for end in ends]
        return all(better * (now - before) > 0 for now, before in pairwise(windows))

    def calming(self) -> bool:
        """Whether the samples of a run that goes on move less than they did a window before."""
        before = copy.copy(self)
        before.lines = self.lines[: -self.window]
        return not self.final and self.swing() < (1 - STEADY) * before.swing()

    def swing(self) -> float:
        """How far the generator's samples now move from bin to bin: mean total variation, 0 to 1, from one measurement to the
        next or to the last within reach, whichever is more."""
        recent = self.lines[-max(1 + self.reach, self.window) :]
        bins = [line["bins"] for line in recent if line.get("bins") is not None]
        moves = (
            [sum(abs(a - b) for a, b in zip(*pair, strict=True)) / 2 for pair in zip(bins, bins[lag:], strict=False)]
            for lag in {1, self.reach}
        )
        return max((statistics.mean(each) for each in moves if each), default=math.nan)


def _begun(steps: Sequence[int], lines: Sequence[Mapping[str, Any]]) -> int:
    """The step before which there was nothing to look at: that of the first look with more than gradients, unless it is the
    first of all."""
    always = ("gradient/", "lr/", "items", "held_out")
    told = [not all(name.startswith(always) for name in line) for line in lines]
    first = told.index(True) if any(told) else 0
    return steps[first] if first else 0
