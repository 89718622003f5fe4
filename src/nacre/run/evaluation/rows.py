"""What an evaluation says: a row for each number, with its interval, its floor and its protocol."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nacre.metrics.intervals import LEVEL, Estimate, normal_quantile, standard_error
from nacre.metrics.verdicts import Verdict

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
        group: the heading that it belongs under.
    """

    name: str
    estimate: Estimate
    floor: Estimate | None
    better: Better
    protocol: str
    caution: str
    group: str = ""

    @property
    def at_floor(self) -> bool | None:
        """Whether nothing says that it is worse than its floor; None without a floor.

        The difference has to be beyond chance, both standard errors taken together. Where one is not known, the interval
        tells it; a number without either counts as exact.
        """
        if self.floor is None:
            return None
        worse = self.estimate.value - self.floor.value
        worse = abs(worse) if self.better == "floor" else -worse if self.better == "higher" else worse
        errors = [standard_error(each) for each in (self.estimate, self.floor)]
        spread = math.hypot(*(0.0 if math.isnan(error) else error for error in errors))
        return worse <= normal_quantile(0.5 + LEVEL / 2) * spread + 1e-9 * abs(self.floor.value)


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
        n: samples, and held-out items, that there were.
        step: of the weights that were evaluated.
        parameters: numbers that the model has learned.
        kl_by_latent: of a model with a Gaussian posterior, KL(q(z_j|x) || p(z_j)) of each latent j, nats.
        equilibrium: of a model with a discriminator, whether the game has ended where nobody can tell, in a sentence.
        verdicts: what the diagnosis of the run says, the gravest first; none where nothing can be said.
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
    n: int = 0
    step: int | None = None
    parameters: int = 0
    kl_by_latent: tuple[Estimate, ...] = ()
    equilibrium: str = ""
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Row:
        """The row of a name; KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a number that is not finite is None."""
        told = asdict(self)
        for row, plain in zip(self.rows, told["rows"], strict=True):
            plain["at_floor"] = row.at_floor
        for verdict, plain in zip(self.verdicts, told["verdicts"], strict=True):
            plain["title"] = verdict.title
        return {"schema_version": SCHEMA_VERSION, **_finite(told)}


def joined(*cautions: str) -> str:
    """Cautions as one, each said once."""
    return " ".join(dict.fromkeys(each for each in cautions if each))


def _finite(value: Any) -> Any:
    """The same, with None in the place of numbers that JSON does not have, and lists in that of tuples."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
