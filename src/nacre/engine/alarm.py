"""Verdicts while a run goes on: each is told when it turns bad and when it is over, and some may stop the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nacre.metrics import verdicts
from nacre.metrics.verdicts import Facts, Verdict


@dataclass
class Alarm:
    """Hears the signals of a run as they come.

    Args:
        facts: what is known of the run.
        stop_on: names of the verdicts that stop it. One that stood when the run was taken up again does not: the user
            went on knowing it.
        history: the signals up to here, lines of the log.

    Attributes:
        over: the verdicts that were bad before the last signals and are so no more.
        stopped: the verdict to stop on that was met, if one was.
    """

    facts: Facts
    stop_on: Sequence[str] = ()
    history: list[Mapping[str, Any]] = field(default_factory=list)
    over: list[Verdict] = field(default_factory=list)
    stopped: Verdict | None = None

    def __post_init__(self) -> None:
        self.told = self.bad()

    def bad(self) -> list[Verdict]:
        """What is bad now."""
        return [verdict for verdict in verdicts.verdicts(self.history, self.facts) if verdict.severity == "bad"]

    def hear(self, step: int, signals: Mapping[str, Any], saved: Sequence[int]) -> list[Verdict]:
        """Take up a step's signals; returns the verdicts that have turned bad."""
        self.history.append({"step": step, "signals": signals})
        self.facts = replace(self.facts, saved=saved)
        before, now = self.told, self.bad()
        fresh, self.over = _beyond(now, before), _beyond(before, now)
        self.told = now
        self.stopped = self.stopped or next((verdict for verdict in fresh if verdict.name in self.stop_on), None)
        return fresh


def _beyond(some: Sequence[Verdict], others: Sequence[Verdict]) -> list[Verdict]:
    """Those of some that are not, by name, among others."""
    names = {verdict.name for verdict in others}
    return [verdict for verdict in some if verdict.name not in names]


def glimpse(signals: Mapping[str, Any]) -> dict[str, str]:
    """What the progress line shows of signals: how the game stands, or what the codes cost."""
    shown = {"d_real": "D(x)", "d_fake": "D(G(z))", "value": "V", "rate": "rate", "explained": "explained"}
    found = {label: signals.get(name) for name, label in shown.items()}
    found["W"] = signals.get("wasserstein")
    if "rate" in signals and "elbo" in signals and signals["elbo"] is not None and signals["rate"] is not None:
        found["distortion"] = -signals["elbo"] - signals["rate"]
    if "value" in signals or "rate" in signals:
        found.pop("explained")
    return {label: f"{value:.3g}" for label, value in found.items() if value is not None}
