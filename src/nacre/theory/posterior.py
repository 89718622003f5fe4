"""The true posterior of a latent-variable model with one or two latents, by quadrature on a grid, in float64.

What a VAE's lecture calls intractable is a sum over a plane here, so that everything can be looked up: log p(x), p(z|x),
and the two sides of log p(x) = L + KL(q || p(z|x)). The prior is standard normal; log p(x|z) is any function of z.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nacre import losses, seeds
from nacre.errors import ConfigError
from nacre.theory.divergences import Quantity

LogLikelihood: TypeAlias = Callable[[Tensor], Tensor]
"""log p(x|z) of one item in nats: (N, D) float64 ↦ (N,)."""

POINTS = {1: 2049, 2: 161}
"""Points of a grid along each axis, by the number of latents: odd, so that every second one makes a grid, too."""

SEARCH = {1: 1025, 2: 81}
"""The same while the posterior's mass is looked for."""

REACH = 7.0
"""Half the width of the prior's box, and how many standard deviations of q have to be inside of a grid."""

DEPTH = 30.0
"""Nats below the highest point under which the posterior is taken for 0."""

ROWS = 1 << 13
"""Latents that are decoded at a time."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A factorial Gaussian over latents: what an encoder says of one item.

    Attributes:
        mean, std: (D,) float64.
    """

    mean: Tensor
    std: Tensor

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats: (…, D) ↦ (…)."""
        return losses.gaussian_log_density(z, self.mean, 2 * self.std.log())


@dataclass(frozen=True, eq=False)
class Posterior:
    """p(z|x) of one item.

    Attributes:
        axes: (n,) latents along each dimension.
        log_density: log p(z|x) in nats on their grid, (n,) or (n, n), the first latent along the first axis.
        log_evidence: log p(x) in nats; its error is the difference to a grid of every second point.
        mean: (D,).
        covariance: (D, D).
    """

    axes: tuple[Tensor, ...]
    log_density: Tensor
    log_evidence: Quantity
    mean: Tensor
    covariance: Tensor

    @property
    def points(self) -> Tensor:
        """The grid's latents: (n or n², D)."""
        return _product(self.axes)

    def kl_from(self, q: Gaussian) -> Quantity:
        """KL(q || p(z|x)) in nats: what the bound L misses. The error is as that of `log_evidence`."""
        log_q = q.log_density(self.points).view(self.log_density.shape)
        terms = log_q.exp() * (log_q - self.log_density)
        value, coarse = (_sum(each, self.axes, stride) for each, stride in ((terms, 1), (terms, 2)))
        return Quantity(float(value), abs(float(value - coarse)) + 1e-12)


def posterior(log_likelihood: LogLikelihood, latents: int, q: Gaussian | None = None) -> Posterior:
    """p(z|x) where it has its mass: on a grid over the box that holds all of it down to e⁻³⁰ of its height.

    Args:
        log_likelihood: log p(x|z) of the item.
        latents: D, 1 or 2.
        q: what the grid has to cover as well, so that KL(q || p(z|x)) can be told.

    Raises:
        ConfigError: a grid over so many latents is out of reach.
    """
    if latents not in POINTS:
        raise ConfigError(f"a grid covers 1 or 2 latents, got {latents}; train with --latent-dim 2.")
    box = torch.tensor([[-REACH, REACH]] * latents, dtype=torch.float64)
    while True:
        axes = _axes(box, SEARCH[latents])
        inner = _window(_joint(log_likelihood, axes), axes)
        if ((inner[:, 1] - inner[:, 0]) > 0.7 * (box[:, 1] - box[:, 0])).all():
            break
        box = inner
    if q is not None:
        box = torch.stack(
            [torch.minimum(box[:, 0], q.mean - REACH * q.std), torch.maximum(box[:, 1], q.mean + REACH * q.std)], 1
        )
    axes = _axes(box, POINTS[latents])
    joint = _joint(log_likelihood, axes)
    top = joint.max()
    evidence, coarse = (top + _sum((joint - top).exp(), axes, stride).log() for stride in (1, 2))
    log_density = joint - evidence
    weights, points = log_density.exp().flatten() * _cell(axes), _product(axes)
    mean = weights @ points
    centered = points - mean
    quantity = Quantity(float(evidence), abs(float(evidence - coarse)) + 1e-12)
    return Posterior(axes, log_density, quantity, mean, (weights[:, None] * centered).T @ centered)


def elbo(log_likelihood: LogLikelihood, q: Gaussian) -> Quantity:
    """L = E_q log p(x|z) - KL(q || p(z)) in nats: Kingma & Welling 2014, eq. 3.

    The expectation by the trapezoidal rule in q's own coordinates, which has nothing in common with a posterior's grid.
    """
    latents = len(q.mean)
    axes = _axes(torch.tensor([[-REACH, REACH]] * latents, dtype=torch.float64), POINTS[latents])
    noise = _product(axes)
    values = (_in_parts(log_likelihood, q.mean + q.std * noise) * losses.gaussian_log_density(noise).exp()).view(
        [len(axis) for axis in axes]
    )
    value, coarse = (float(_sum(values, axes, stride)) for stride in (1, 2))
    rate = float(losses.kl_to_standard_normal(q.mean[None], 2 * q.std.log()[None]))
    return Quantity(value - rate, abs(value - coarse) + 1e-12)


def sample_bounds(
    log_likelihood: LogLikelihood,
    q: Gaussian,
    ks: Iterable[int] = (1, 5, 50, 500),
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> dict[int, Quantity]:
    """E L_k = E log (1/k) Σ p(x, z_i)/q(z_i|x) for each k, which rises to log p(x) with k (Burda et al. 2016, theorem 1).

    The same `draws` samples are cut into groups of k. The error is three standard errors of the mean over the groups.
    """
    noise = seeds.noise(seeds.normal(len(q.mean)), seed, "bounds", rows=range(draws), dtype=torch.float64)
    z = q.mean + q.std * noise
    log_weights = _in_parts(log_likelihood, z) + losses.gaussian_log_density(z) - q.log_density(z)
    found = {}
    for k in ks:
        groups = log_weights[: draws // k * k].view(-1, k).T
        each = losses.importance_bound(groups)
        found[k] = Quantity(float(each.mean()), 3 * float(each.std()) / math.sqrt(len(each)))
    return found


def _axes(box: Tensor, count: int) -> tuple[Tensor, ...]:
    return tuple(torch.linspace(low, high, count, dtype=torch.float64) for low, high in box.tolist())


def _product(axes: tuple[Tensor, ...]) -> Tensor:
    """All points of a grid, row by row: (n or n², D)."""
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def _joint(log_likelihood: LogLikelihood, axes: tuple[Tensor, ...]) -> Tensor:
    """log p(x, z) on a grid: (n,) or (n, n)."""
    z = _product(axes)
    joint = _in_parts(log_likelihood, z) + losses.gaussian_log_density(z)
    return joint.view([len(axis) for axis in axes])


@torch.no_grad()
def _in_parts(log_likelihood: LogLikelihood, z: Tensor) -> Tensor:
    return torch.cat([log_likelihood(part) for part in torch.split(z, ROWS)])


def _window(joint: Tensor, axes: tuple[Tensor, ...]) -> Tensor:
    """The box, two points wider, of all that is not `DEPTH` below the highest point: (D, 2) low and high ends."""
    high = joint > joint.max() - DEPTH
    ends = []
    for dimension, axis in enumerate(axes):
        others = [other for other in range(len(axes)) if other != dimension]
        inside = torch.nonzero(high.any(dim=others[0]) if others else high).flatten()
        first, last = max(0, int(inside[0]) - 2), min(len(axis) - 1, int(inside[-1]) + 2)
        ends.append(torch.stack([axis[first], axis[last]]))
    return torch.stack(ends)


def _cell(axes: tuple[Tensor, ...]) -> float:
    return math.prod(float(axis[1] - axis[0]) for axis in axes)


def _sum(values: Tensor, axes: tuple[Tensor, ...], stride: int = 1) -> Tensor:
    """∫ over a grid, or over every `stride`th of its points; the values vanish at the ends."""
    some = values[::stride] if values.ndim == 1 else values[::stride, ::stride]
    return some.sum() * _cell(axes) * stride ** len(axes)
