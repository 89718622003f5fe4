"""A number with its uncertainty: what every metric here reports, and the four ways by which it is had.

Means of independent items take Student's t; shares take Wilson's score interval; smooth functions of whole sets take the
jackknife over groups, since the plain bootstrap repeats items, and a repeated item is its own neighbour at distance zero,
which ruins every metric that looks at neighbours or fits a covariance; the rest takes the bootstrap.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.metrics.points import items, shuffled

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its interval of confidence `LEVEL`.

    Attributes:
        value: the number.
        se: its standard error.
        low, high: the interval's ends; NaN where there is none.
        n: items that the number was computed from.
    """

    value: float
    se: float
    low: float
    high: float
    n: int


def mean(values: Tensor) -> Estimate:
    """The mean of independent values (N,), N ≥ 2, with Student's t interval."""
    values = values.double()
    count = len(values)
    if count < 2:
        raise ConfigError(f"an interval of a mean needs two values at least, got {count}.")
    se = float(values.std()) / math.sqrt(count)
    return around(float(values.mean()), se, count - 1, count)


def share(successes: float, trials: int) -> Estimate:
    """A share of independent trials with Wilson's score interval (Wilson 1927), which stays within [0, 1]."""
    if trials < 1:
        raise ConfigError("a share needs one trial at least, got none.")
    z, value = normal_quantile(0.5 + LEVEL / 2), successes / trials
    spread = z / (1 + z * z / trials) * math.sqrt(value * (1 - value) / trials + (z / (2 * trials)) ** 2)
    center = (value + z * z / (2 * trials)) / (1 + z * z / trials)
    estimate = Estimate(value, math.sqrt(value * (1 - value) / trials), center - spread, center + spread, trials)
    return cut(estimate, 0.0, 1.0)  # at 0 and 1, rounding goes beyond


def jackknife(value: float, left_out: Tensor, n: int, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """A statistic of a whole set, with the interval of the delete-a-group jackknife (Kott 2001).

    The s.e. is √((G - 1)/G Σ (t_g - t̄)²) over the statistics t_g of the set without its g-th of G random groups; the
    interval takes Student's t with G - 1 degrees. On average it errs on the wide side (Efron & Stein 1981).

    Args:
        value: of the whole set.
        left_out: (G,), the statistic without each group; G < 2 gives no interval.
        n: items of the whole set.
        least, most: what the statistic can be; the interval is cut there.
    """
    groups = len(left_out)
    if groups < 2:
        return Estimate(value, math.nan, math.nan, math.nan, n)
    spread = (left_out.double() - left_out.double().mean()).square().sum()
    return cut(around(value, math.sqrt((groups - 1) / groups * float(spread)), groups - 1, n), least, most)


def jackknifed_share(value: float, left_out: Tensor, n: int) -> Estimate:
    """A share of items that are not independent of each other, such as those within a ball of others: the jackknife's interval.

    It is never narrower than that of as many independent items (Wilson 1927): of a share of 0 or 1 that hardly a group
    changes, the jackknife knows too little. Arguments are those of `jackknife`, whose G < 2 gives no interval here either.
    """
    by_groups, by_items = jackknife(value, left_out, n, 0.0, 1.0), share(value * n, n)
    least = (by_items.high - by_items.low) / 2 / normal_quantile(0.5 + LEVEL / 2)
    return replace(by_items, se=least) if by_groups.se < least else by_groups


def bootstrap(statistic: Callable[..., float], *samples: Tensor, draws: int = 1_000, seed: int = 0) -> Estimate:
    """A statistic of one or several samples, with the percentile interval of the bootstrap (Efron 1979).

    Args:
        statistic: of as many tensors as `samples`; it must not mind repeated items.
        samples: (N, …) each, resampled independently of each other.
        draws: of the bootstrap.
        seed: of the draws. The interval does not depend on the order of the rows of a sample.
    """
    samples = tuple(each[shuffled(items(each), seed)] for each in samples)
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(draws, dtype=torch.float64)
    for draw in range(draws):
        resampled = [each[torch.randint(len(each), (len(each),), generator=generator)] for each in samples]
        values[draw] = statistic(*resampled)
    low, high = values.quantile(torch.tensor([0.5 - LEVEL / 2, 0.5 + LEVEL / 2], dtype=torch.float64)).tolist()
    return Estimate(statistic(*samples), float(values.std()), low, high, sum(map(len, samples)))


def around(value: float, se: float, degrees: int, n: int) -> Estimate:
    """A value with Student's t interval of `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 0.5 + LEVEL / 2)) * se
    return Estimate(value, se, value - half, value + half, n)


def cut(estimate: Estimate, least: float, most: float = math.inf) -> Estimate:
    """The same with value and interval within what can be."""
    value, low, high = (min(max(end, least), most) for end in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def reach(estimate: Estimate) -> float:
    """The longer side of the interval, for the other one may have been cut at what can be; NaN without one."""
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def standard_error(estimate: Estimate) -> float:
    """The s.e. of an estimate. What has none of its own, as a share of 0 or 1, takes that of its interval; NaN without either."""
    if estimate.se > 0:
        return estimate.se
    return reach(estimate) / normal_quantile(0.5 + LEVEL / 2)


def normal_quantile(probability: float) -> float:
    """z with P(Z ≤ z) = `probability`, Z standard normal."""
    return NormalDist().inv_cdf(probability)


def normal_tail(z: float) -> float:
    """P(Z ≥ z), Z standard normal."""
    return math.erfc(z / math.sqrt(2)) / 2
