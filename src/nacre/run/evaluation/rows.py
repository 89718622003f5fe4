"""What an evaluation says: a row for each number, with its interval, its floor and its protocol."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nacre.metrics.intervals import Estimate

SCHEMA_VERSION = 1

Better = Literal["higher", "lower", "floor"]


@dataclass(frozen=True)
class Row:
    """A number of an evaluation.

    Attributes:
        name: what it is, as "Fréchet distance".
        estimate: value, standard error, interval and N.
        floor: the same of real items against other real items, as many as there are samples; None where there is none.
        better: which way is up; "floor": the nearer to the floor the better, on either side of it.
        protocol: how it was computed, in a sentence: N, extractor, k, split, seed.
        caution: why it should not be trusted, or "".
    """

    name: str
    estimate: Estimate
    floor: Estimate | None
    better: Better
    protocol: str
    caution: str


@dataclass(frozen=True)
class Evaluation:
    """What is known of a run.

    Attributes:
        run: where it is.
        model: its name.
        data: the source that it is held against.
        split: of these, the one that is held out.
        samples: N that was asked for.
        seed: of samples, splits and subsets.
        extractor: the name of what features are of; "" for vectors, which are taken as they are.
        referee: the name of what tells the classes of samples; "" without labels.
        rows: the numbers.
        seconds: what it took.
        step: of the weights that were evaluated.
        parameters: numbers that the model has learned.
        held_out: real items that there are in the split.
        notes: what else a reader should know, a sentence each.
    """

    run: str
    model: str
    data: str
    split: str
    samples: int
    seed: int
    extractor: str
    referee: str
    rows: tuple[Row, ...]
    seconds: float
    step: int | None = None
    parameters: int = 0
    held_out: int = 0
    notes: Sequence[str] = field(default=())

    def __getitem__(self, name: str) -> Row:
        """The row of a name; KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a number that is not finite is None."""
        return {"schema_version": SCHEMA_VERSION, **_finite(asdict(self))}


def _finite(value: Any) -> Any:
    """The same, with None in the place of numbers that JSON does not have, and lists in that of tuples."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
