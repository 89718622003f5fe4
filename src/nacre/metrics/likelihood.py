"""What a latent-variable model says about data: bounds on log p(x), and what its latents do for them. In nats.

All numbers are means over items with the t interval of `intervals.mean`; items are taken for independent. A bound's own
Monte Carlo noise is part of the spread over items, and so of the interval.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from nacre import seeds
from nacre.errors import CapabilityError, ShapeError, at_least
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, around, mean
from nacre.protocols import device_of, dtype_of, require

LogWeights: TypeAlias = Callable[[range, range], Tensor]
"""(some items' numbers, some draws' numbers) ↦ log p(x, z) - log q(z|x), z from q: (draws, items). Each of its values depends
on its item and its draw alone, never on what else is asked for."""

ITEMS, ROWS = 64, 8192
"""Items, and items times draws, whose weights are asked for at a time."""

SMALL_ESS, MANY = 10, 0.05
"""Effective samples under which an item's L_k is off by more than 1/20 nat to first order; the share of such to warn of."""

ACTIVE = 0.01
"""Variance over items of a posterior mean above which a latent is active (Burda et al. 2016, section 5)."""


@dataclass(frozen=True, eq=False)
class ImportanceBound:
    """What k samples of the posterior q say of log p(x).

    Attributes:
        bound: L_k = E log (1/k) Σ w_i ≤ log p(x), nats an item.
        elbo: the same samples' E (1/k) Σ log w_i, nats an item.
        k: samples an item.
        values: (N,) float64, L_k of each item.
        ess: (N,) float64, (Σ w)² / Σ w², in [1, k]: how many samples an item's estimate is worth (Kong 1992).
        caution: why the bound is loose, or "".
    """

    bound: Estimate
    elbo: Estimate
    k: int
    values: Tensor
    ess: Tensor
    caution: str


@dataclass(frozen=True)
class RateDistortion:
    """The two halves of an ELBO, nats an item (Alemi et al. 2018).

    Attributes:
        rate: E KL(q(z|x) || p(z)).
        distortion: -E log p(x|z).
        elbo: -rate - distortion, with the interval of the items' sums.
    """

    rate: Estimate
    distortion: Estimate
    elbo: Estimate


@dataclass(frozen=True)
class ActiveUnits:
    """Which latents an encoder uses.

    Attributes:
        active: their numbers, ascending.
        undecided: latents, active or not, whose interval of the variance holds the threshold.
        variances: of the posterior means over items, of every latent.
    """

    active: tuple[int, ...]
    undecided: tuple[int, ...]
    variances: tuple[Estimate, ...]

    @property
    def count(self) -> int:
        """How many are active."""
        return len(self.active)


def log_likelihood(values: Tensor | np.ndarray) -> Estimate:
    """The mean of a bound's values (N,), one an item and N ≥ 2, in nats.

    Raises:
        ShapeError: there are fewer than two, or a value is no finite number.
    """
    return mean(_of_items(values))


def importance_bound(log_weights: LogWeights, count: int, k: int) -> ImportanceBound:
    """L_k (Burda et al. 2016, section 3), the ELBO and effective sample sizes from the same k samples of each item.

    Memory is bounded whatever k is: weights are asked for `ROWS` at a time, and only their running sums are kept.

    Args:
        log_weights: of the items and draws of two ranges; see `LogWeights`.
        count: items, two at least.
        k: samples an item, one at least; 5,000 in the paper's tables.

    Raises:
        ConfigError: `k` or `count` is too small.
        ShapeError: an item's weights are all zero, or hold what is no number.
    """
    at_least(2, count=count)
    at_least(1, k=k)
    parts = [_running_sums(log_weights, range(start, min(start + ITEMS, count)), k) for start in range(0, count, ITEMS)]
    total, squares, logs = (torch.cat(column) for column in zip(*parts, strict=True))
    values, ess = total - math.log(k), (2 * total - squares).exp().clamp(1, k)
    return ImportanceBound(log_likelihood(values), log_likelihood(logs / k), k, values, ess, _loose(ess, k))


def model_log_weights(model: torch.nn.Module, items: Tensor, *, seed: int = 0) -> LogWeights:
    """The log-weights of a model's own posterior, for `importance_bound`; the model should be in evaluation mode.

    It takes models whose `log_likelihood` is a bound of `k_eval` samples with noise (N, k, size of the latent), such as
    `vae`, `iwae` and `lvae`, and asks them for a bound of one sample, which is a weight. Items are encoded again with each
    draw. How an item is binarized or dequantized is drawn once for all of its samples.

    Args:
        items: (N, *shape), as the model takes them.
        seed: of all noise; an item's is a function of the seed, its number and the draw's.

    Raises:
        CapabilityError: the model has no such bound.
    """
    capable = require(model, "log_likelihood")
    if not hasattr(model, "k_eval"):
        raise CapabilityError(
            f"{type(model).__name__} has no bound of k samples; its own bound is {capable.likelihood_name}."
        )
    asked, prior = capable.likelihood_draws, require(model, "sample").prior
    latents = {name: law for name, law in prior.items() if name in asked}
    looks = {name: law for name, law in asked.items() if name not in latents}
    device, dtype = device_of(model), dtype_of(model)

    @torch.no_grad()
    def weigh(rows: range, draws: range) -> Tensor:
        look = seeds.noises(looks, seed, "likelihood", rows=rows, device=device, dtype=dtype)
        noise = {name: torch.cat([each] * len(draws)) for name, each in look.items()}
        for name, law in latents.items():
            drawn = [
                seeds.noise(law, seed, "weights", name, rows=rows, at=draw, device=device, dtype=dtype)
                for draw in draws
            ]
            noise[name] = torch.cat(drawn)[:, None]
        x = torch.cat([items[rows.start : rows.stop].to(device, dtype)] * len(draws))
        return capable.log_likelihood(x, noise).view(len(draws), len(rows))

    return weigh


def bits_per_dim(bound: Estimate, dims: int, bin_nats: float = 0.0) -> Estimate:
    """A (bound on the) log-likelihood in nats an item as bits for each of an item's numbers; less is better.

    Args:
        bound: nats an item.
        dims: numbers in an item, channels counted.
        bin_nats: what -log density lacks to that of grey levels: dims · log 256 for a density on images in [0, 1], and 0 for
            probabilities and binarized pixels; `networks.likelihoods` have it as `bin_nats`.

    Raises:
        ConfigError: `dims` is not positive.
    """
    at_least(1, dims=dims)
    unit = dims * math.log(2)
    value, high, low = ((bin_nats - nats) / unit for nats in (bound.value, bound.low, bound.high))
    return replace(bound, value=value, se=bound.se / unit, low=low, high=high)


def rate_distortion(distortion: Tensor | np.ndarray, kl: Tensor | np.ndarray) -> RateDistortion:
    """Rate, distortion and ELBO from what each item pays.

    Args:
        distortion: (N,) -log p(x|z), z from q(z|x), in nats.
        kl: (N, D), KL(q(z|x) || p(z)) of each latent, or (N,) of all, in nats; for a Gaussian posterior
            `losses.kl_per_latent`.

    Raises:
        ShapeError: there are fewer than two items, not equally many, or a value is no finite number.
    """
    paid, rate = _of_items(distortion), points.items(kl, 2).sum(1)
    if len(paid) != len(rate):
        raise ShapeError(f"expected distortion and KL of the same items, got {len(paid)} and {len(rate)}.")
    return RateDistortion(mean(rate), mean(paid), mean(-rate - paid))


def kl_by_latent(kl: Tensor | np.ndarray) -> tuple[Estimate, ...]:
    """The mean KL of each latent's posterior from its prior, in nats.

    Args:
        kl: (N, D), of N items, N ≥ 2; for a Gaussian posterior `losses.kl_per_latent`.

    Raises:
        ShapeError: there are fewer than two items, or a value is no finite number.
    """
    return tuple(mean(latent) for latent in points.items(kl, 2).T)


def active_units(means: Tensor | np.ndarray, threshold: float = ACTIVE) -> ActiveUnits:
    """The latents whose posterior mean varies over items: Var_x(E_q z) > .01 (Burda et al. 2016, section 5).

    The paper writes a covariance for what is a variance of each latent. Of latents above others it averages the mean over
    samples of those below as well; here means are taken as they are given.

    Args:
        means: (N, D), the means of q(z|x) of N items, N ≥ 4.
        threshold: of the variance.

    Raises:
        ShapeError: there are fewer than four items, or a value is no finite number.
    """
    values = points.items(means, 4)
    variances = tuple(_variance(latent) for latent in values.T)
    numbered = list(enumerate(variances))
    return ActiveUnits(
        active=tuple(number for number, each in numbered if each.value > threshold),
        undecided=tuple(number for number, each in numbered if each.low <= threshold <= each.high),
        variances=variances,
    )


def _running_sums(log_weights: LogWeights, rows: range, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """log Σ w, log Σ w² and Σ log w over k draws of each of some items: (len(rows),) each."""
    total = squares = torch.full((len(rows),), -math.inf, dtype=torch.float64)
    logs = torch.zeros(len(rows), dtype=torch.float64)
    step = max(1, ROWS // len(rows))
    for start in range(0, k, step):
        part = log_weights(rows, range(start, min(start + step, k))).detach().cpu().double()
        total = torch.logaddexp(total, part.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * part).logsumexp(0))
        logs = logs + part.sum(0)
    return total, squares, logs


def _loose(ess: Tensor, k: int) -> str:
    few = float((ess < SMALL_ESS).double().mean())
    if k == 1 or few <= MANY:
        return ""
    return (
        f"at {few:.0%} of the items the {k:,} samples are worth fewer than {SMALL_ESS} (median of all items "
        f"{float(ess.median()):.1f}): the bound is loose there; take more samples, or annealed importance sampling."
    )


def _variance(values: Tensor) -> Estimate:
    """The variance of (N,) values; its s.e. from the fourth moment holds for any law."""
    count, variance = len(values), float(values.var())
    fourth = float((values - values.mean()).pow(4).mean())
    se = math.sqrt(max(0.0, fourth - variance**2 * (count - 3) / (count - 1)) / count)
    return around(variance, se, count - 1, count)


def _of_items(values: Tensor | np.ndarray) -> Tensor:
    found = points.items(values, 2)
    if found.shape[1] != 1:
        raise ShapeError(f"expected one number an item, got {found.shape[1]}.")
    return found[:, 0]
