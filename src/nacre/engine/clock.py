"""Where the time of a run goes, as the process that starts the work sees it."""

import time
from collections.abc import Mapping


class Clock:
    """Adds up the seconds between laps by what they were spent on.

    On a GPU the work is only queued here, and the time that it takes shows where its results are first asked for.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.last = time.perf_counter()

    def start(self) -> None:
        """Forget the time since the last lap."""
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The time since the last lap went into `name`."""
        now = time.perf_counter()
        self.spent[name] = self.spent.get(name, 0.0) + now - self.last
        self.last = now

    def shares(self, since: Mapping[str, float] | None = None) -> dict[str, float]:
        """The share of each, in [0, 1]: of all the time, or of what was spent beyond `since`."""
        spent = {name: seconds - (since or {}).get(name, 0.0) for name, seconds in self.spent.items()}
        total = sum(spent.values()) or 1.0
        return {name: seconds / total for name, seconds in spent.items()}
