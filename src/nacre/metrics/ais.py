"""Annealed importance sampling: log p(x) of any decoder, where an encoder's bound is loose or there is no encoder.

p(z) is standard normal, and log p(x|z) has to be a differentiable function of z. Chains go from the prior to the posterior
through laws ∝ p(z) p(x|z)^β, β from 0 to 1 (Neal 2001; Wu et al. 2017), by Hamiltonian Monte Carlo (Neal 2011). The weight
of a chain is an unbiased estimate of p(x), so that its logarithm is a lower bound in expectation. The way back from an
exact posterior sample gives an upper bound; of items that the model made itself there is one (bidirectional Monte Carlo,
Grosse et al. 2015), and the gap between the two says how far off either can be. All in float64.

Step sizes are set by a run of their own, so that in the run that counts they are constants, and both bounds hold as
stated; Wu et al. adapt them in the run that counts. What is followed there is the acceptance rate over an item's chains.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre import losses, seeds
from nacre.errors import CapabilityError, ConfigError, at_least
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, mean
from nacre.seeds import Draw

LEAPS = 10
"""Leapfrog steps of a transition, one transition a distribution (Wu et al. 2017)."""

TARGET = 0.65
"""Acceptance rate that step sizes are set for (Beskos et al. 2013; Wu et al. 2017)."""

STEEPNESS = 4.0
"""Half the range over which the schedule's sigmoid runs, as in the code of Wu et al. 2017."""

PILOT, PILOT_CHAINS, FIRST_STEP, GAIN = 200, 16, 0.3, 0.4
"""The run that sets step sizes: its distributions, its chains at most, and how its steps begin and follow."""

JITTER = 0.2
"""A chain's step size is multiplied by a number within 1 ± this at each transition: else it might go round in circles."""

ROWS = 1024
"""Items times chains that are decoded at a time."""

FEW, MANY, LEAST_ACCEPTED = 2.0, 0.2, 0.3
"""Effective chains under which an item's estimate rests on one; the share of such items, and the acceptance, to warn of."""


@dataclass(frozen=True, eq=False)
class Decoder:
    """A model of items x given latents z, whose prior is standard normal; float64 in, float64 out.

    Attributes:
        latent_dim: D.
        log_density: log p(x|z) in nats, differentiable in z: (N, *shape), (N, D) ↦ (N,). Such is `VAE.log_density`.
        simulate: an item from p(x|z) for each z: (N, D), generator ↦ (N, *shape); None if that is not known.
    """

    latent_dim: int
    log_density: Callable[[Tensor, Tensor], Tensor]
    simulate: Callable[[Tensor, torch.Generator], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Annealed:
    """log p(x) by annealed importance sampling, nats an item.

    Attributes:
        log_likelihood: a lower bound in expectation, or of chains that ran backwards an upper one.
        values: (N,) float64, that of each item.
        ess: (N,) float64, (Σ w)² / Σ w² over an item's chains, in [1, chains].
        accepted: share of proposals that were accepted.
        protocol: how it was computed.
        caution: why it should not be trusted, or "".
    """

    log_likelihood: Estimate
    values: Tensor
    ess: Tensor
    accepted: float
    protocol: str
    caution: str


@dataclass(frozen=True, eq=False)
class Bidirectional:
    """log p(x) of items that the model made itself, from below and from above, nats an item.

    Attributes:
        lower, upper: the two bounds.
        gap: upper - lower: how far off either is at most, in expectation. Real items may be harder than the model's own.
    """

    lower: Annealed
    upper: Annealed
    gap: Estimate


def gaussian_decoder(decode: Callable[[Tensor], Tensor], latent_dim: int, sigma: float) -> Decoder:
    """p(x|z) = N(x; decode(z), σ²), what Wu et al. 2017 make of any generator: the number is one of this σ.

    Args:
        decode: (N, D) ↦ (N, *shape), in float64.
        latent_dim: D.
        sigma: σ, not its square (the code of Wu et al. calls the variance sigma).

    Raises:
        ConfigError: σ is not positive.
    """
    if not sigma > 0:
        raise ConfigError(f"sigma must be positive, got {sigma:g}.")
    log_std = torch.tensor(math.log(sigma), dtype=torch.float64)

    def simulate(z: Tensor, generator: torch.Generator) -> Tensor:
        center = decode(z)
        noise = torch.randn(center.shape, generator=generator, dtype=torch.float64)
        return center + sigma * noise.to(center.device)

    return Decoder(latent_dim, lambda x, z: -losses.gaussian_nll(decode(z), log_std.to(z.device), x), simulate)


def bernoulli_decoder(logits: Callable[[Tensor], Tensor], latent_dim: int) -> Decoder:
    """p(x|z): independent pixels in {0, 1}; items have to be binarized.

    Args:
        logits: (N, D) ↦ (N, *shape), in float64.
        latent_dim: D.
    """

    def simulate(z: Tensor, generator: torch.Generator) -> Tensor:
        chance = torch.sigmoid(logits(z))
        drawn = torch.rand(chance.shape, generator=generator, dtype=torch.float64)
        return (drawn.to(chance.device) < chance).double()

    return Decoder(latent_dim, lambda x, z: -losses.bernoulli_nll(logits(z), x), simulate)


def schedule(distributions: int) -> Tensor:
    """β from 0 to 1, slow at both ends, where the laws change most: (distributions + 1,). The code of Wu et al. 2017."""
    place = torch.sigmoid(torch.linspace(-STEEPNESS, STEEPNESS, distributions + 1, dtype=torch.float64))
    return (place - place[0]) / (place[-1] - place[0])


def ais(
    decoder: Decoder, items: Tensor | np.ndarray, *, distributions: int = 1000, chains: int = 16, seed: int = 0
) -> Annealed:
    """log p(x) of items from below.

    Args:
        decoder: in evaluation mode and float64 (`model.double()`).
        items: (N, *shape), N ≥ 2, as the decoder's density takes them: binarized for Bernoulli pixels, dequantized for a
            density on images. They lie where the decoder does.
        distributions: steps from the prior to the posterior, 2 at least; Wu et al. 2017 take 10,000 for their tables.
        chains: of each item.
        seed: of all noise; an item's is a function of the seed and its number.

    Raises:
        ConfigError: the decoder does not compute in float64, or a number is out of range.
        ShapeError: there are fewer than two items, or a value is no finite number.
    """
    parts = [_forward(batch, distributions) for batch in _batches(decoder, items, distributions, chains, seed)]
    return _assembled(parts, f"AIS, {_protocol(distributions, chains)}")


def reverse_ais(
    decoder: Decoder,
    items: Tensor | np.ndarray,
    latents: Tensor,
    *,
    distributions: int = 1000,
    chains: int = 16,
    seed: int = 0,
) -> Annealed:
    """log p(x) from above, for items of which an exact sample of the posterior is known (Grosse et al. 2015).

    Args:
        latents: (N, D) float64, one sample of each p(z|x); all of an item's chains start from it.
        decoder, items, distributions, chains, seed: as in `ais`.

    Raises:
        ConfigError, ShapeError: as `ais`.
    """
    batches = _batches(decoder, items, distributions, chains, seed)
    parts = [_backward(batch, latents[batch.rows.start : batch.rows.stop], distributions) for batch in batches]
    return _assembled(parts, f"reverse AIS from exact posterior samples, {_protocol(distributions, chains)}")


def bidirectional(
    decoder: Decoder,
    count: int,
    *,
    distributions: int = 1000,
    chains: int = 16,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Bidirectional:
    """log p(x) from both sides, of items that the model makes: z ~ p(z), x ~ p(x|z), so that z ~ p(z|x).

    Args:
        count: items, two at least.
        decoder, distributions, chains, seed: as in `ais`.
        device: where the decoder lies.

    Raises:
        CapabilityError: the decoder does not simulate.
        ConfigError: as `ais`.
    """
    if decoder.simulate is None:
        raise CapabilityError("the decoder draws no items; give it a `simulate`, or use `ais` for a lower bound alone.")
    at_least(2, count=count)
    law = seeds.normal(decoder.latent_dim)
    z = seeds.noise(law, seed, "ais", "latents", rows=range(count), dtype=torch.float64).to(device)
    generator = torch.Generator().manual_seed(seeds.mix(seed, "ais", "items"))
    with torch.no_grad():
        x = decoder.simulate(z, generator)
    lower = ais(decoder, x, distributions=distributions, chains=chains, seed=seed)
    upper = reverse_ais(decoder, x, z, distributions=distributions, chains=chains, seed=seed)
    return Bidirectional(lower, upper, mean(upper.values - lower.values))


class _State(NamedTuple):
    """Where chains are, log p(x|z) there, and its slope: (M, D), (M,), (M, D)."""

    z: Tensor
    likely: Tensor
    slope: Tensor


class _Chains:
    """The chains of some items: item i's are the rows i·C to (i + 1)·C - 1 of every tensor.

    Args:
        items: (N, *shape) float64.
        rows: the items' numbers among all.
        count: C.
        seed: of all noise.
    """

    def __init__(self, decoder: Decoder, items: Tensor, rows: range, count: int, seed: int) -> None:
        self.decoder, self.items, self.rows, self.count, self.seed = decoder, items, rows, count, seed
        self.x = items.repeat_interleave(count, 0)

    def at(self, z: Tensor) -> _State:
        """The chains' state at z, (N·C, D)."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            likely = self.decoder.log_density(self.x, z)
            (slope,) = torch.autograd.grad(likely.sum(), z)
        if likely.dtype != torch.float64:
            raise ConfigError(f"AIS computes in float64, and the decoder in {likely.dtype}; give it model.double().")
        return _State(z.detach(), likely.detach(), slope)

    def from_prior(self, purpose: str) -> _State:
        """Chains that start in the prior."""
        return self.at(self.noise(seeds.normal(self.count, self.decoder.latent_dim), f"{purpose} prior"))

    def noise(self, draw: Draw, purpose: str, at: int = 0) -> Tensor:
        """A draw of shape (C, …) for each item, addressed by the item's number: (N·C, …)."""
        drawn = seeds.noise(draw, self.seed, "ais", purpose, rows=self.rows, at=at, dtype=torch.float64)
        return drawn.flatten(0, 1).to(self.items.device)

    def moved(self, state: _State, beta: Tensor, log_step: Tensor, purpose: str, at: int) -> tuple[_State, Tensor]:
        """One trajectory of each chain, accepted or not (Neal 2011, section 5.3.2); it leaves p(z) p(x|z)^β as it is.

        Args:
            beta: 0-d.
            log_step: (N,), the logarithm of each item's step size.

        Returns:
            The state, and the mean chance of acceptance of each item's chains, (N,).
        """
        coins = self.noise(seeds.uniform(self.count, 2), f"{purpose} coins", at)
        step = log_step.exp().repeat_interleave(self.count)[:, None] * (1 + JITTER * (2 * coins[:, :1] - 1))
        momentum = self.noise(seeds.normal(self.count, self.decoder.latent_dim), f"{purpose} momentum", at)
        energy = _log_joint(state, beta) - momentum.square().sum(1) / 2
        proposal = state
        for _ in range(LEAPS):
            momentum = momentum + step / 2 * (beta * proposal.slope - proposal.z)
            proposal = self.at(proposal.z + step * momentum)
            momentum = momentum + step / 2 * (beta * proposal.slope - proposal.z)
        gain = _log_joint(proposal, beta) - momentum.square().sum(1) / 2 - energy
        chance = gain.nan_to_num(nan=-math.inf).clamp(max=0).exp()  # what ran off to no number is refused
        taken = coins[:, 1] < chance
        kept = [
            torch.where(taken.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(proposal, state, strict=True)
        ]
        return _State(*kept), chance.view(-1, self.count).mean(1)

    def steps(self, distributions: int) -> Tensor:
        """Logarithms of step sizes for each distribution but the prior, from a run of their own: (distributions, N).

        There, after each transition, an item's log ε moves by `GAIN` times the excess of its chains' acceptance over
        `TARGET`. What it was is smoothed over neighbouring β and carried over to as many distributions as are wanted.
        """
        few = _Chains(self.decoder, self.items, self.rows, min(self.count, PILOT_CHAINS), self.seed)
        state = few.from_prior("pilot")
        log_step = torch.full((len(self.rows),), math.log(FIRST_STEP), dtype=torch.float64, device=self.items.device)
        steps = []
        for number, beta in enumerate(schedule(PILOT)[1:]):
            state, chance = few.moved(state, beta, log_step, "pilot", number)
            log_step = log_step + GAIN * (chance - TARGET)
            steps.append(log_step)
        smooth = F.avg_pool1d(torch.stack(steps, 1)[:, None], 9, stride=1, padding=4, count_include_pad=False)
        return F.interpolate(smooth, size=distributions, mode="linear", align_corners=True)[:, 0].T


def _forward(chains: _Chains, distributions: int) -> tuple[Tensor, Tensor, Tensor]:
    """log of the mean weight, effective chains and acceptance of each item: (N,) each. Neal 2001, eq. 11."""
    betas, steps = schedule(distributions), chains.steps(distributions)
    state, accepted = chains.from_prior("forward"), torch.zeros(())
    log_weights = betas[1] * state.likely
    for number in range(1, distributions):
        state, chance = chains.moved(state, betas[number], steps[number - 1], "forward", number)
        log_weights = log_weights + (betas[number + 1] - betas[number]) * state.likely
        accepted = accepted + chance / (distributions - 1)
    return *_averaged(log_weights, chains.count), accepted


def _backward(chains: _Chains, latents: Tensor, distributions: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the weights of `_forward`'s chains turned round, whose inverse is unbiased for 1/p(x)."""
    betas, steps = schedule(distributions), chains.steps(distributions)
    state, accepted = chains.at(latents.to(chains.x).repeat_interleave(chains.count, 0)), torch.zeros(())
    log_weights = (betas[-1] - betas[-2]) * state.likely
    for number in reversed(range(1, distributions)):
        state, chance = chains.moved(state, betas[number], steps[number - 1], "backward", number)
        log_weights = log_weights + (betas[number] - betas[number - 1]) * state.likely
        accepted = accepted + chance / (distributions - 1)
    inverse, ess = _averaged(-log_weights, chains.count)
    return -inverse, ess, accepted


def _log_joint(state: _State, beta: Tensor) -> Tensor:
    """log p(z) p(x|z)^β but for a constant."""
    return beta * state.likely - state.z.square().sum(1) / 2


def _averaged(log_weights: Tensor, chains: int) -> tuple[Tensor, Tensor]:
    """log of the mean weight over an item's chains, and the effective number of these: (N·C,) ↦ (N,), (N,)."""
    each = log_weights.view(-1, chains).T
    total, squares = each.logsumexp(0), (2 * each).logsumexp(0)
    return total - math.log(chains), (2 * total - squares).exp()


def _batches(
    decoder: Decoder, items: Tensor | np.ndarray, distributions: int, chains: int, seed: int
) -> Iterator[_Chains]:
    at_least(2, distributions=distributions)
    at_least(1, chains=chains)
    points.items(items, 2)
    x = torch.as_tensor(items).double()
    size = max(1, ROWS // chains)
    for start in range(0, len(x), size):
        rows = range(start, min(start + size, len(x)))
        yield _Chains(decoder, x[rows.start : rows.stop], rows, chains, seed)


def _assembled(parts: Sequence[tuple[Tensor, Tensor, Tensor]], protocol: str) -> Annealed:
    values, ess, chance = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    accepted, alone, cautions = float(chance.mean()), float((ess < FEW).double().mean()), []
    if alone > MANY:
        cautions.append(f"at {alone:.0%} of the items one chain has most of the weight: take more distributions")
    if accepted < LEAST_ACCEPTED:
        cautions.append(f"only {accepted:.0%} of the proposals were accepted: the chains hardly move")
    return Annealed(mean(values), values, ess, accepted, protocol, "; ".join(cautions))


def _protocol(distributions: int, chains: int) -> str:
    return (
        f"{distributions:,} distributions (sigmoid schedule), {chains} chains, one HMC transition of {LEAPS} leapfrog steps "
        "each, step sizes from a run of their own, float64"
    )
