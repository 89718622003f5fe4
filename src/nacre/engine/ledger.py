"""Losses as they come: kept on the device, read at the reporting cadence, every one of them checked."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nacre.errors import TrainingError
from nacre.protocols import Logs

READ_EVERY = 1000
"""Rows that may wait on the device before they are read, however seldom the log is written."""


class Ledger:
    """The mean of each logged part since the last line of the log.

    Rows are added up one by one in float64, so the mean does not depend on when they were read.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.waiting: dict[str, list[Tensor]] = {}
        self.steps: dict[str, list[tuple[int, int]]] = {}
        self.turns = 0
        self.totals: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, objective: str, step: int, logs: Logs) -> None:
        """Note what an objective reported at a step, without asking the device for it."""
        if self.names.setdefault(objective, list(logs)) != list(logs):  # other parts, or in another order
            self.read()
            self.names[objective] = list(logs)
        self.waiting.setdefault(objective, []).append(torch.stack([part.float() for part in logs.values()]))
        self.steps.setdefault(objective, []).append((self.turns, step))
        self.turns += 1
        if len(self.waiting[objective]) >= READ_EVERY:
            self.read()

    def read(self) -> None:
        """Fetch the waiting rows.

        Raises:
            TrainingError: a number is not finite; names the first step and its objective.
        """
        found = {objective: torch.stack(rows).tolist() for objective, rows in self.waiting.items() if rows}
        self._check(found)
        for objective, rows in found.items():
            self._count(objective, rows)
            self.waiting[objective].clear()
            self.steps[objective].clear()

    def means(self) -> dict[str, float]:
        """The mean of each part since the last call, by "objective/part"; starts anew."""
        self.read()
        means = {name: total / self.counts[name] for name, total in self.totals.items()}
        self.totals, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """The unfinished line, in plain containers."""
        self.read()
        return {"totals": dict(self.totals), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with an unfinished line."""
        self.totals, self.counts = dict(state["totals"]), dict(state["counts"])

    def _check(self, found: Mapping[str, list[list[float]]]) -> None:
        """Raise a TrainingError for the first number in playing order that is not finite."""
        bad = [
            (turn, step, objective, name, value)
            for objective, rows in found.items()
            for (turn, step), row in zip(self.steps[objective], rows, strict=True)
            for name, value in zip(self.names[objective], row, strict=True)
            if not math.isfinite(value)
        ]
        if bad:
            _, step, objective, name, value = min(bad, key=lambda each: each[0])
            raise TrainingError(
                f"'{name}' of objective '{objective}' became {value} at step {step}; checkpoints written "
                "before are kept. Try a lower --lr, --clip 1, or --warmup 500."
            )

    def _count(self, objective: str, rows: list[list[float]]) -> None:
        for row in rows:
            for name, value in zip(self.names[objective], row, strict=True):
                key = f"{objective}/{name}"
                self.totals[key] = self.totals.get(key, 0.0) + value
                self.counts[key] = self.counts.get(key, 0) + 1
