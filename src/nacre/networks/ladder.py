"""The two sides of a ladder: networks that carry an item up to its evidence, and rungs that carry latents down to it.

For images the state has the sizes of DCGAN's pyramid without the full one (28×28: 14, 7 and 4 pixels, with `width` channels
at the largest and twice as many at each halving, up to four times), and residual blocks of two 3×3 convolutions, without
norms. Nothing is computed at full size but the first and the last convolution, which keeps a CPU busy where it counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from nacre.networks.dcgan import pyramid
from nacre.networks.mlp import mlp
from nacre.networks.resnet import Grid

WIDEST = 4
"""No size has more than this many times the channels of the largest."""

SPREAD = 6.0
"""Log-variances stay in ±6, smoothly, so that no KL and no precision overflows."""


class Rung(nn.Module):
    """One stochastic layer of a ladder: from the state above it and the evidence below it to the state beneath.

    Args:
        latent: shape of its latent.
        prior: state ↦ mean and log-variance of the latent; None at the top, where the prior is standard normal.
        evidence: bottom-up features (and state) ↦ mean and log-variance.
        merge: latent ↦ what it adds to the state.
        below: state ↦ the next rung's state.
    """

    def __init__(
        self, latent: tuple[int, ...], prior: nn.Module | None, evidence: nn.Module, merge: nn.Module, below: nn.Module
    ) -> None:
        super().__init__()
        self.latent, self.prior = latent, prior
        self.evidence, self.merge, self.below = evidence, merge, below
        self.apply(initialise)
        if prior is not None:  # at first all latents are nearly standard normal
            with torch.no_grad():
                next(iter(prior.parameters())).mul_(0.1)

    def expected(self, state: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """p(z | latents above): mean and log-variance, each of the shape of `like`."""
        if self.prior is None or state is None:
            return torch.zeros_like(like), torch.zeros_like(like)
        return _normal(self.prior(state))

    def seen(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the item says of z, before the prior is weighed in: mean and log-variance."""
        return _normal(self.evidence(features if state is None else features + state))

    def descend(self, state: Tensor | None, z: Tensor) -> Tensor:
        """The state beneath, given the latent."""
        added = self.merge(z)
        return self.below(added if state is None else state + added)


@dataclass(frozen=True)
class Ladder:
    """The parts of a ladder.

    Attributes:
        up: networks upwards, each from the features below it to its own.
        rungs: from the top down.
        scale: for each rung, which of `up` it takes its evidence from.
        out: the last state ↦ the decoder's output, (N, *shape).
    """

    up: nn.ModuleList
    rungs: nn.ModuleList
    scale: tuple[int, ...]
    out: nn.Module


def mlp_ladder(shape: tuple[int, ...], latent_dim: int, hidden: tuple[int, ...]) -> Ladder:
    """One stochastic layer for each hidden size, the latents doubling from `latent_dim` at the top (Sønderby et al. 2016)."""
    sizes = (prod(shape), *hidden)
    up = [nn.Sequential(mlp((before, after, after), nn.SiLU), nn.SiLU()) for before, after in pairwise(sizes)]
    up[0].insert(0, nn.Flatten())
    rungs = []
    for level in reversed(range(len(hidden))):
        size, beneath, latent = hidden[level], hidden[max(level - 1, 0)], latent_dim << (len(hidden) - 1 - level)
        top = level == len(hidden) - 1
        below = nn.Sequential(nn.SiLU(), mlp((size, beneath, beneath), nn.SiLU))
        heads = [nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * latent)) for _ in range(2)]
        rungs.append(Rung((latent,), None if top else heads[0], heads[1], nn.Linear(latent, size), below))
    out = nn.Sequential(nn.SiLU(), nn.Linear(hidden[0], prod(shape)), nn.Unflatten(1, shape))
    return Ladder(nn.ModuleList(up).apply(initialise), nn.ModuleList(rungs), tuple(reversed(range(len(hidden)))), out)


def conv_ladder(shape: tuple[int, ...], latent_dim: int, *, width: int, latent_channels: int, layers: int) -> Ladder:
    """A top latent of `latent_dim` numbers, and below it `layers` latents of `latent_channels` channels at each size."""
    full, *sizes = pyramid(shape)
    channels = [width * min(2**level, WIDEST) for level in range(len(sizes))]
    up = [_down(shape[0], channels[0], full)]
    up += [_down(channels[i], channels[i + 1], sizes[i]) for i in range(len(sizes) - 1)]
    top = len(sizes) - 1
    flat = nn.Sequential(nn.SiLU(), nn.Flatten(), nn.Linear(channels[top] * prod(sizes[top]), 2 * latent_dim))
    grid = Grid(latent_dim, channels[top], sizes[top])
    rungs, scale = [Rung((latent_dim,), None, flat, grid, Block(channels[top]))], [top]
    for level in range(top, -1, -1):
        for layer in range(layers):
            c, last = channels[level], layer == layers - 1
            moves = [_grow(c, channels[level - 1], sizes[level - 1])] if last and level else []
            prior = nn.Sequential(nn.SiLU(), nn.Conv2d(c, 2 * latent_channels, 1))
            evidence = nn.Sequential(nn.SiLU(), nn.Conv2d(c, 2 * latent_channels, 3, padding=1))
            merge = nn.Conv2d(latent_channels, c, 1)
            below = nn.Sequential(Block(c), *moves)
            rungs.append(Rung((latent_channels, *sizes[level]), prior, evidence, merge, below))
            scale.append(level)
    return Ladder(
        nn.ModuleList(up).apply(initialise), nn.ModuleList(rungs), tuple(scale), _grow(channels[0], shape[0], full)
    )


class Block(nn.Module):
    """x + gain · conv(silu(conv(silu(x)))), 3×3: (N, C, H, W) ↦ the same. The gains start small, so that blocks add up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.gain = nn.Parameter(torch.full((channels, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        silu = nn.functional.silu
        return x + self.gain * self.second(silu(self.first(silu(x))))


def precision_weighted(seen: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The product of two normal laws, normalised: means weighted by precision, precisions added. Sønderby et al. 2016.

    Args:
        seen, expected: mean and log-variance, of the same shape.
    """
    (mean, log_var), (prior_mean, prior_log_var) = seen, expected
    share = torch.sigmoid(prior_log_var - log_var)  # of the evidence in the sum of precisions
    return prior_mean + share * (mean - prior_mean), log_var - nn.functional.softplus(log_var - prior_log_var)


def side_by_side(latents: Iterable[Tensor]) -> Tensor:
    """Latents of any shapes side by side: (N, numbers)."""
    return torch.cat([z.flatten(1) for z in latents], 1)


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 2 / fan in) (He et al. 2015), or the signal would fade over a ladder's many layers; biases zero."""
    if not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        return
    # A transposed convolution of stride 2 reads a quarter of its kernel for each output.
    taps = module.weight[0].numel() if not isinstance(module, nn.ConvTranspose2d) else 4 * module.in_channels
    nn.init.normal_(module.weight, 0.0, (2 / taps) ** 0.5)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _normal(output: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_var = output.chunk(2, dim=1)
    return mean, SPREAD * torch.tanh(log_var / SPREAD)


def _down(inputs: int, outputs: int, size: tuple[int, int]) -> nn.Sequential:
    """Half of `size`, odd ones rounded up, and a residual block."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, (1 + size[0] % 2, 1 + size[1] % 2)), Block(outputs))


def _grow(inputs: int, outputs: int, size: tuple[int, int]) -> nn.Sequential:
    """Twice as large, to `size`."""
    odd = (size[0] % 2, size[1] % 2)
    return nn.Sequential(nn.SiLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, (1 + odd[0], 1 + odd[1]), odd))
