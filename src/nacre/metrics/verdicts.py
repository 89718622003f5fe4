"""What is wrong with a run: from the history of its signals to verdicts, each a sentence with its number.

A rule reads the medians of the last quarter of the measurements, so that one bad batch is no verdict, and nothing is said
before a run is old enough to be judged. The rules are in `rules`, what to do about a verdict in `remedies`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nacre.metrics import remedies
from nacre.metrics.history import NAMES, YOUNG, Facts, Severity, Verdict, View
from nacre.metrics.rules import OF_DIRECTIONS, RULES

__all__ = ["LEAST", "NAMES", "YOUNG", "Facts", "Severity", "Verdict", "verdicts"]

LEAST = 6
"""Measurements under which nothing is said: three make a median, and three more a past to compare it with."""


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
    if len(history) < least:
        return []
    view = View(history, facts)
    # Divergence is told from the start.
    found = [verdict for rule in (RULES if view.old else RULES[:1]) for verdict in rule(view)]
    found += [verdict for direction in view.directions for verdict in _of_direction(view, direction)]
    return found or ([*_healthy(view)] if view.old else [])


def _failed(history: Sequence[Mapping[str, Any]], facts: Facts) -> Verdict:
    step = int(history[-1]["step"]) if history else 0
    sentence = f"training ended because {facts.failure.partition('; ')[0]}"
    return Verdict("divergence", "bad", step, sentence, {}, remedies.divergence(facts, step, {}))


def _of_direction(view: View, direction: str) -> Iterator[Verdict]:
    """What is wrong with one direction of a model that translates."""
    own = view.of(direction)
    for rule in OF_DIRECTIONS if view.old else OF_DIRECTIONS[:1]:
        for verdict in rule(own):
            told = re.sub(r"\b(samples|reconstructions)\b", "translations", verdict.sentence)
            yield replace(verdict, sentence=f"{direction}: {told}")


def _healthy(view: View) -> Iterator[Verdict]:
    """Health, of a model that was looked at: the gradients of one that can be asked for nothing prove nothing."""
    shown = ("lost", "coverage", "auc", "explained", "rate", "elbo")
    names = [*shown, *(f"{direction}/{name}" for direction in view.directions for name in ("auc", "distance"))]
    evidence = {name: view[name] for name in names if not math.isnan(view[name])}
    if evidence:
        yield Verdict("healthy", "good", view.steps[-1], "no signal is out of its range", evidence, "")
