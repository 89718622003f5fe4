"""Hamiltonian Monte Carlo (Neal 2011, "MCMC using Hamiltonian dynamics"), in float64: samples of a true posterior."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.theory.posterior import LogLikelihood

TARGET = 0.8
"""Share of proposals to accept, which the step size is set for while warming up (Beskos et al. 2013 have .65 and more)."""

SHORTEST, LONGEST = 4, 12
"""Leaps of a trajectory, drawn anew for each: with one number it could come back to where it started, again and again."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Samples of independent chains.

    Attributes:
        samples: (draws, chains, D).
        accepted: share of proposals that were accepted.
        step_size: of the leaps, in standard deviations.
    """

    samples: Tensor
    accepted: float
    step_size: float

    @property
    def mean(self) -> tuple[Tensor, Tensor]:
        """The mean (D,) and its standard error, from the spread of the chains' own means."""
        return _over_chains(self.samples.mean(0))

    @property
    def covariance(self) -> tuple[Tensor, Tensor]:
        """The covariance (D, D) and its standard errors, from the spread of the chains' own."""
        centered = self.samples - self.mean[0]
        return _over_chains(torch.einsum("tci,tcj->cij", centered, centered) / len(centered))


def hmc(
    log_likelihood: LogLikelihood, latents: int, *, chains: int = 64, draws: int = 150, warmup: int = 150, seed: int = 0
) -> Chains:
    """Draw from p(z|x) ∝ p(x|z) N(z; 0, I).

    The chains start in the prior, and the likelihood is let in by and by over the first half of the warm-up, so that
    they find the mass; the second half sets step size and scales, which then stay. Chains do not cross from one far mode
    into another: their share of each is what they came to it with.

    Args:
        log_likelihood: log p(x|z) in nats, differentiable: (N, D) ↦ (N,).
        latents: D.
        chains: how many, all moved at once.
        draws: of each chain, after warming up.
        seed: of all noise.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(chains, latents, generator=generator, dtype=torch.float64)
    log_step, scales, kept, accepted = math.log(0.1), torch.ones(latents, dtype=torch.float64), [], 0.0
    for iteration in range(warmup + draws):
        heat = min(1.0, 2 * (iteration + 1) / warmup) if warmup else 1.0
        leaps = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=generator))
        z, chance = _moved(log_likelihood, z, heat, math.exp(log_step) * scales, leaps, generator)
        if iteration >= warmup:
            kept.append(z)
            accepted += chance / draws
            continue
        log_step += (chance - TARGET) / math.sqrt(1 + iteration % (warmup // 2 + 1))
        if iteration == warmup // 2 + warmup // 8:
            log_step, scales = log_step - float(z.std(0).log().mean()), z.std(0)
    return Chains(torch.stack(kept), accepted, math.exp(log_step))


def _moved(
    log_likelihood: LogLikelihood, z: Tensor, heat: float, steps: Tensor, leaps: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """One trajectory of each chain, accepted or not (Neal 2011, section 5.3.2); and the mean chance of acceptance."""
    momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype)
    here, slope = _log_joint(log_likelihood, z, heat)
    energy = here - momentum.square().sum(1) / 2
    proposal = z
    for _ in range(leaps):
        momentum = momentum + steps / 2 * slope
        proposal = proposal + steps * momentum
        there, slope = _log_joint(log_likelihood, proposal, heat)
        momentum = momentum + steps / 2 * slope
    # A trajectory that ran off to where nothing is a number is refused.
    gain = (there - momentum.square().sum(1) / 2 - energy).nan_to_num(nan=-math.inf)
    chance = gain.clamp(max=0).exp()
    taken = torch.rand(len(z), generator=generator, dtype=z.dtype) < chance
    return torch.where(taken[:, None], proposal, z), float(chance.mean())


def _log_joint(log_likelihood: LogLikelihood, z: Tensor, heat: float) -> tuple[Tensor, Tensor]:
    """heat · log p(x|z) + log p(z) but for a constant, (N,), and its gradient (N, D)."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = heat * log_likelihood(z) - z.square().sum(1) / 2
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def _over_chains(each: Tensor) -> tuple[Tensor, Tensor]:
    return each.mean(0), each.std(0) / math.sqrt(len(each))
