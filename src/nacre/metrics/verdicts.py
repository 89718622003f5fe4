"""What is wrong with a run: from the history of its signals to verdicts, each a sentence with its number.

A rule reads the medians of the last quarter of the measurements, so that one bad batch is no verdict, and nothing is said
before a run is old enough to be judged. The rules are in `rules`, what to do about a verdict in `remedies`.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nacre.metrics import remedies
from nacre.metrics.history import NAMES, YOUNG, Facts, Severity, Verdict, View
from nacre.metrics.rules import DEAD, OF_DIRECTIONS, RULES, divergence

__all__ = ["LEAST", "NAMES", "YOUNG", "Facts", "Severity", "Verdict", "comparable", "verdicts"]

LEAST = 6
"""Measurements under which nothing is said: three make a median, and three more a past to compare it with."""

OF_LOOKS = ("oscillation", "value-range", "little-data")
"""Verdicts whose rules read several signals of a look: since when they hold, each look is asked for with the whole rule."""

Rule = Callable[[View], Iterator[Verdict]]


def verdicts(history: Sequence[Mapping[str, Any]], facts: Facts, *, least: int = LEAST) -> list[Verdict]:
    """What a history of signals says, the worst first; one that is "healthy" where nothing is wrong.

    Args:
        history: lines of a log with "step" and "signals", in order; empty for a run that never measured any.
        facts: what else is known of the run.
        least: measurements under which nothing is said.

    Returns:
        Nothing of a run that is too young to be judged, and of a model that neither samples nor reconstructs.
    """
    if facts.failure:
        return [_failed(history, facts)]
    history = comparable(history, facts)
    if len(history) < least:
        return []
    view = View(history, facts)
    # Divergence is told from the start.
    found = [verdict for rule in (RULES if view.old else RULES[:1]) for verdict in _told(rule, view)]
    found += [verdict for direction in view.directions for verdict in _of_direction(view, direction)]
    return found or ([*_healthy(view)] if view.old else [])


def comparable(history: Sequence[Mapping[str, Any]], facts: Facts) -> Sequence[Mapping[str, Any]]:
    """The lines that are of one set of data: after a fork on another, those of the fork alone."""
    return [line for line in history if line["step"] > facts.since]


def _failed(history: Sequence[Mapping[str, Any]], facts: Facts) -> Verdict:
    step = int(history[-1]["step"]) if history else 0
    sentence = f"training ended because {facts.failure.partition('; ')[0]}"
    return Verdict("divergence", "bad", step, sentence, {}, remedies.divergence(facts, step, _rates(history, facts)))


def _rates(history: Sequence[Mapping[str, Any]], facts: Facts) -> dict[str, Any]:
    """The last learning rates in a log: that of the objective that failed where it is named, otherwise of all."""
    looks = ({name: rate for name, rate in line["signals"].items() if name.startswith("lr/")} for line in history)
    last: dict[str, Any] = next((rates for rates in reversed(list(looks)) if rates), {})
    named = re.search(r"objective '([^']+)'", facts.failure)
    own = f"lr/{named[1]}" if named else ""
    return {own: last[own]} if own in last else last


def _told(rule: Rule, view: View) -> Iterator[Verdict]:
    """What a rule says. What gets better has not diverged, at its end as little as before, unless it learns nothing: with
    dead units, nothing but an offset can get better."""
    dead = any(view[name] >= DEAD for name in view.lines[-1] if name.startswith("dead/"))
    for verdict in rule(view.patient() if rule is divergence and not dead else view):
        yield _dated(verdict, rule, view) if verdict.name in OF_LOOKS or "finite" in verdict.evidence else verdict


def _dated(verdict: Verdict, rule: Rule, view: View) -> Verdict:
    """A verdict with the first look from which its rule holds of each."""

    def holds(look: View) -> bool:
        same = [each for each in rule(look) if each.name == verdict.name]
        return any("finite" in each.evidence or "finite" not in verdict.evidence for each in same)

    step = view.since_look(holds, between=verdict.name == "oscillation")
    advice = getattr(remedies, verdict.name.replace("-", "_"))(view.facts, step, view.lines[-1])
    return replace(verdict, step=step, advice=advice)


def _of_direction(view: View, direction: str) -> Iterator[Verdict]:
    """What is wrong with one direction of a model that translates."""
    own = view.of(direction)
    for rule in OF_DIRECTIONS if view.old else OF_DIRECTIONS[:1]:
        for verdict in _told(rule, own):
            told = re.sub(r"\b(samples|reconstructions)\b", "translations", verdict.sentence)
            yield replace(verdict, sentence=f"{direction}: {told}")


def _healthy(view: View) -> Iterator[Verdict]:
    """Health, of a model that was looked at: the gradients of one that can be asked for nothing prove nothing."""
    shown = ("lost", "coverage", "auc", "explained", "rate", "elbo")
    names = [*shown, *(f"{direction}/{name}" for direction in view.directions for name in ("auc", "distance"))]
    evidence = {name: view[name] for name in names if not math.isnan(view[name])}
    if evidence:
        sentence = "none of the diseases that nacre knows was seen; how good samples are is another question"
        yield Verdict("healthy", "good", view.steps[-1], sentence, evidence, "")
