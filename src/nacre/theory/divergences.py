"""How far two known densities are apart, and what the adversarial game between them is worth.

Integrals are sums of Gauss-Legendre quadratures over panels that end where the densities change; the error that comes with
each value is its difference to the same sum of a lower order, and bounds the rounding and the tails as well.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from nacre.errors import ConfigError
from nacre.theory.densities import Density, OnTheLine

LOG_4 = math.log(4)
ORDERS = {1: (32, 48), 2: (10, 14)}
"""Points in a panel along each axis, by the number of dimensions: of the error's estimate, and of the value."""

ROWS = 1 << 13
"""Points at which densities are evaluated at a time."""

Function = Callable[[np.ndarray], np.ndarray]
"""(N, D) ↦ (N,)."""


@dataclass(frozen=True)
class Quantity:
    """A number, how exact it is, and its unit.

    Attributes:
        value: the number.
        error: a bound on how far it is off, as estimated.
        unit: "nats", "bits", or "" for a distance in the unit of the data.
    """

    value: float
    error: float
    unit: Literal["nats", "bits", ""] = "nats"

    @property
    def bits(self) -> "Quantity":
        """The same in bits: JSD then runs from 0 to 1."""
        if self.unit != "nats":
            raise ConfigError(f"only nats can be told in bits, got {self.unit or 'a distance'}.")
        return Quantity(self.value / math.log(2), self.error / math.log(2), "bits")


def kl(p: Density, q: Density) -> Quantity:
    """KL(p || q) = ∫ p log(p/q) in nats; infinite where p lives outside of q's support."""

    def integrand(x: np.ndarray) -> np.ndarray:
        return _excess(p.log_density(x), q.log_density(x))

    return _nats(integrand, p, q)


def jsd(p: Density, q: Density) -> Quantity:
    """JSD(p, q) = ½ KL(p || m) + ½ KL(q || m), m = (p + q)/2, in nats: from 0 to log 2, in bits from 0 to 1."""

    def integrand(x: np.ndarray) -> np.ndarray:
        log_p, log_q = p.log_density(x), q.log_density(x)
        log_m = np.logaddexp(log_p, log_q) - math.log(2)
        return (_excess(log_p, log_m) + _excess(log_q, log_m)) / 2

    return _nats(integrand, p, q)


def optimal_logit(p: Density, q: Density) -> Function:
    """log p(x) - log q(x): the logit of the best discriminator of p from q. NaN where neither has density."""

    def logit(x: np.ndarray) -> np.ndarray:
        log_p, log_q = p.log_density(x), q.log_density(x)
        somewhere = ~(np.isneginf(log_p) & np.isneginf(log_q))
        return np.subtract(log_p, log_q, out=np.full(len(x), np.nan), where=somewhere)

    return logit


def optimal_discriminator(p: Density, q: Density) -> Function:
    """D*(x) = p(x) / (p(x) + q(x)). Goodfellow et al. 2014, proposition 1."""
    logit = optimal_logit(p, q)
    return lambda x: expit(logit(x))


def game_value(p: Density, q: Density, logit: Function) -> Quantity:
    """V(D, G) = E_p log D + E_q log(1 - D) in nats, D = sigmoid(logit), q the generator's density.

    Goodfellow et al. 2014, eq. 1. It is largest at D*, where it is -log 4 + 2 JSD(p, q) (theorem 1): -log 4 if p = q.
    """

    def integrand(x: np.ndarray) -> np.ndarray:
        verdict = logit(x)
        real = _weighted(p.log_density(x), -np.logaddexp(0, -verdict))
        return real + _weighted(q.log_density(x), -np.logaddexp(0, verdict))

    return _nats(integrand, p, q)


def best_value(p: Density, q: Density) -> Quantity:
    """max over D of V(D, G) = -log 4 + 2 JSD(p, q) in nats. Goodfellow et al. 2014, theorem 1."""
    apart = jsd(p, q)
    return Quantity(2 * apart.value - LOG_4, 2 * apart.error)


def wasserstein(p: OnTheLine, q: OnTheLine) -> Quantity:
    """W₁(p, q) = ∫ |F⁻¹(u) - G⁻¹(u)| du on the line, taken as ∫ |F(x) - G(x)| dx, which is the same area.

    Unlike JSD, which is log 2 for all densities that do not meet, it tells how far they are apart.
    """
    _on_the_line(p, q)

    def gap(x: np.ndarray) -> np.ndarray:
        return p.cdf(x) - q.cdf(x)

    ends = _edges((p, q), 0)
    # The absolute value bends where the difference changes its sign: panels end there, too.
    fine = np.unique(np.concatenate([np.linspace(a, b, 16) for a, b in pairwise(ends)]))
    signs = np.sign(gap(fine))
    turns = [
        brentq(lambda x: float(gap(np.array([x]))[0]), a, b)
        for (a, b), (s, t) in zip(pairwise(fine), pairwise(signs), strict=True)
        if s * t < 0
    ]
    bent = np.unique([*ends, *turns])
    low, high = (_integral(lambda x: np.abs(gap(x[:, 0])), [bent], order) for order in ORDERS[1])
    return Quantity(high, abs(high - low) + 1e-12 * (1 + abs(high)), "")


def wasserstein_of_samples(x: np.ndarray, y: np.ndarray) -> float:
    """W₁ of two samples on the line, (N,) and (M,), exactly: the area between their quantile functions."""
    # Both quantile functions are steps: between these shares neither moves.
    shares = np.unique(np.concatenate([np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y)]))
    widths = np.diff(shares, prepend=0.0)
    middles = shares - widths / 2
    quantiles = [np.sort(each)[np.minimum((middles * len(each)).astype(int), len(each) - 1)] for each in (x, y)]
    return float(widths @ np.abs(quantiles[0] - quantiles[1]))


def central_region(p: OnTheLine, q: OnTheLine, share: float = 0.95) -> tuple[float, float]:
    """The interval that leaves half of what `share` leaves of (p + q)/2 on either side."""
    _on_the_line(p, q)
    ends = _edges((p, q), 0)
    tails = ((1 - share) / 2, (1 + share) / 2)

    def below(x: float, tail: float) -> float:
        at = np.array([x])
        return float((p.cdf(at) + q.cdf(at))[0]) / 2 - tail

    low, high = (float(brentq(below, ends[0], ends[-1], args=(tail,))) for tail in tails)
    return low, high


def _nats(integrand: Function, *densities: Density) -> Quantity:
    dims = {density.dim for density in densities}
    if len(dims) > 1 or not dims <= set(ORDERS):
        raise ConfigError(f"densities of one number of dimensions, 1 or 2, were expected; got {sorted(dims)}.")
    edges = [_edges(densities, axis) for axis in range(dims.pop())]
    low, high = (_integral(integrand, edges, order) for order in ORDERS[len(edges)])
    # Sums in float64 of terms that cancel are not exact to the last digits.
    error = 0.0 if math.isinf(high) else abs(high - low) + 1e-12
    return Quantity(high, error)


def _edges(densities: tuple[Density, ...], axis: int) -> np.ndarray:
    """Where panels meet, those that are the same but for rounding taken once."""
    edges = np.unique(np.concatenate([density.edges(axis) for density in densities]))
    return edges[np.diff(edges, prepend=-np.inf) > 1e-9 * (edges[-1] - edges[0])]


def _integral(integrand: Function, edges: list[np.ndarray], order: int) -> float:
    """Over the box that the edges of each axis span."""
    axes = [_nodes(each, order) for each in edges]
    total = 0.0
    for x, weights in _points(axes):
        total += float(weights @ integrand(x))
    return total


def _nodes(edges: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss-Legendre panels between the edges."""
    points, weights = np.polynomial.legendre.leggauss(order)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    return (middle[:, None] + half[:, None] * points).ravel(), (half[:, None] * weights).ravel()


def _points(axes: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The product of one or two axes, a part at a time: (N, D) points and (N,) weights."""
    (last, last_weights), first = axes[-1], axes[0] if len(axes) == 2 else None
    if first is None:
        yield last[:, None], last_weights
        return
    rows = max(1, ROWS // len(last))
    for start in range(0, len(first[0]), rows):
        x, w = first[0][start : start + rows], first[1][start : start + rows]
        grid = np.stack(np.meshgrid(x, last, indexing="ij"), -1).reshape(-1, 2)
        yield grid, np.outer(w, last_weights).ravel()


def _excess(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """p log(p/q), and 0 where p is 0 whatever q is."""
    return _weighted(log_p, np.subtract(log_p, log_q, out=np.zeros_like(log_p), where=~np.isneginf(log_p)))


def _weighted(log_density: np.ndarray, values: np.ndarray) -> np.ndarray:
    """p(x) f(x), and 0 where p is 0 whatever f is."""
    p = np.exp(log_density)
    return np.multiply(p, values, out=np.zeros_like(p), where=p > 0)


def _on_the_line(*densities: Density) -> None:
    if any(density.dim != 1 for density in densities):
        raise ConfigError("quantiles order a line: densities of one dimension were expected.")
