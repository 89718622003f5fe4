"""Which differences between numbers are real, and which are what chance makes of equals.

Every pair of columns is tested on every metric. Holm's correction (1979) over all of these tests keeps the chance that even
one tie is called a difference under 5 %, whichever pairs one looks at afterwards and however the metrics hang together.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtr, ndtri, stdtr, stdtridf, stdtrit
from torch import Tensor

from nacre.metrics.intervals import LEVEL, Estimate, reach, standard_error


@dataclass(frozen=True)
class Contrast:
    """The difference of two numbers before it is judged.

    Attributes:
        value: the difference.
        se: its standard error; NaN or 0 where there is none, and then only a difference of 0 has a p-value.
        degrees: of freedom of Student's t.
    """

    value: float
    se: float
    degrees: float

    @property
    def p(self) -> float:
        """The two-sided p-value of "no difference"; NaN where that cannot be tested."""
        if self.value == 0:
            return 1.0
        return 2 * _tail(abs(self.value) / self.se, self.degrees) if self.se > 0 else math.nan


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a difference.

    Attributes:
        value: the difference.
        low, high: its interval, at the level that Holm's correction leaves to it: it excludes zero if, and only if, the
            difference is real.
        p: the p-value, multiplied as the correction has it; NaN where there is no test.
        real: whether it is more than chance makes of equals.
    """

    value: float
    low: float
    high: float
    p: float
    real: bool


def verdicts(contrasts: Sequence[Contrast]) -> list[Verdict]:
    """Judge differences together, by Holm's step-down procedure: all of them have a say in how strict it is."""
    chances = [contrast.p for contrast in contrasts]
    found = [Verdict(contrast.value, math.nan, math.nan, math.nan, False) for contrast in contrasts]
    tested = sorted((index for index, p in enumerate(chances) if not math.isnan(p)), key=chances.__getitem__)
    adjusted, rejected = 0.0, 0
    for place, index in enumerate(tested):
        adjusted = max(adjusted, min(1.0, (len(tested) - place) * chances[index]))
        level = (1 - LEVEL) / (len(tested) - rejected)
        found[index] = _verdict(contrasts[index], level, adjusted)
        rejected += found[index].real
    return found


def between_estimates(first: Estimate, second: Estimate) -> Contrast:
    """Of two independent estimates, with the degrees of Welch (1947).

    Estimates that share real items or noise err alike, so that this errs on the side of a tie.
    """
    ses = [standard_error(first), standard_error(second)]
    return Contrast(first.value - second.value, math.hypot(*ses), _welch(ses, [degrees(first), degrees(second)]))


def of_items(first: Tensor, second: Tensor) -> Contrast:
    """Of the means of numbers (N,) of the same items, N ≥ 2, in pairs: what makes an item hard for both is left out."""
    pairs = first.double() - second.double()
    return Contrast(float(pairs.mean()), float(pairs.std()) / math.sqrt(len(pairs)), len(pairs) - 1)


def of_distances(first: Estimate, second: Estimate, floor: Estimate) -> Contrast:
    """Of two numbers' distances to a floor that both have in common."""
    contrast = between_estimates(first, second)
    above = [first.value >= floor.value, second.value >= floor.value]
    if all(above):
        return contrast
    if not any(above):
        return Contrast(-contrast.value, contrast.se, contrast.degrees)
    # On opposite sides the floor's own error counts twice in the sum of both distances.
    ses = [standard_error(first), standard_error(second), 2 * standard_error(floor)]
    ses = [0.0 if math.isnan(se) else se for se in ses]
    value = abs(first.value - floor.value) - abs(second.value - floor.value)
    return Contrast(value, math.hypot(*ses), _welch(ses, [degrees(each) for each in (first, second, floor)]))


def of_seeds(first: Sequence[float], second: Sequence[float], least: Sequence[float] = (0.0, 0.0)) -> Contrast:
    """Of the means of two sets of values, one value a training seed: Welch's t (1947).

    Args:
        first, second: two values or more each.
        least: what the standard error of each mean is at least. A few seeds may agree by chance, or on a count of modes, but
            their mean is not known better than it was measured.
    """
    means, ses = [], []
    for values, floor in zip((first, second), least, strict=True):
        means.append(math.fsum(values) / len(values))
        ses.append(max(floor, statistics.stdev(values) / math.sqrt(len(values))))
    return Contrast(means[0] - means[1], math.hypot(*ses), _welch(ses, [len(first) - 1, len(second) - 1]))


def degrees(estimate: Estimate) -> float:
    """Degrees of freedom of an estimate's standard error: those with which Student's t gives its interval."""
    if not estimate.se > 0 or math.isnan(estimate.low):
        return math.inf
    ratio = reach(estimate) / estimate.se
    if ratio <= 1.001 * float(ndtri(0.5 + LEVEL / 2)):
        return math.inf
    return max(1.0, float(stdtridf(0.5 + LEVEL / 2, ratio)))


def _verdict(contrast: Contrast, level: float, p: float) -> Verdict:
    half = _quantile(1 - level / 2, contrast.degrees) * contrast.se if contrast.se > 0 else 0.0
    return Verdict(contrast.value, contrast.value - half, contrast.value + half, p, p < 1 - LEVEL)


def _welch(ses: Sequence[float], each: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent errors (Satterthwaite 1946)."""
    variances = [se * se for se in ses]
    total = sum(variances)
    spread = sum(variance**2 / degrees for variance, degrees in zip(variances, each, strict=True))
    return total**2 / spread if spread > 0 else math.inf


def _tail(t: float, degrees: float) -> float:
    return float(ndtr(-t)) if math.isinf(degrees) else float(stdtr(degrees, -t))


def _quantile(probability: float, degrees: float) -> float:
    return float(ndtri(probability)) if math.isinf(degrees) else float(stdtrit(degrees, probability))
