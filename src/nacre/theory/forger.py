"""A forger who never learns: the game in which a trained discriminator can be held against the exact one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses
from nacre.networks.mlp import mlp
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import normal, uniform
from nacre.theory import divergences
from nacre.theory.densities import Gaussians
from nacre.theory.divergences import Function, Quantity


class FixedForger(nn.Module):
    """A GAN whose generator's density is known and stays: only its discriminator learns (Goodfellow et al. 2014).

    Args:
        shape: (D,), as many dimensions as the forger's density has.
        forger: the density of what is generated.
        hidden: sizes of the discriminator's hidden layers.
        lr: Adam's learning rate.
    """

    means: Tensor
    stds: Tensor
    bounds: Tensor

    def __init__(
        self, shape: tuple[int, ...], *, forger: Gaussians, hidden: tuple[int, ...] = (32, 32), lr: float = 1e-2
    ) -> None:
        super().__init__()
        self.shape, self.lr = shape, lr
        self.discriminator = mlp((shape[0], *hidden, 1), nn.Tanh)
        self.register_buffer("means", torch.from_numpy(forger.means).float())
        self.register_buffer("stds", torch.from_numpy(forger.stds).float())
        self.register_buffer("bounds", torch.from_numpy(forger.weights.cumsum()[:-1]).float())
        self.prior = {"z": normal(forger.dim), "mode": uniform(1)}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=self.lr)
        return [
            Objective(
                name="discriminator",
                loss=self.discriminator_loss,
                over=("discriminator",),
                optimizer=adam,
                draws=self.prior,
            )
        ]

    def discriminator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-V(D, G): eq. 1."""
        real, fake = self.realness(batch), self.realness(self.sample(step.noise))
        loss = losses.discriminator_loss(real, fake)
        return loss, {"value": -loss}

    def realness(self, x: Tensor) -> Tensor:
        """The discriminator's logit: (N, D) ↦ (N,)."""
        return self.discriminator(x).squeeze(1)

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """Points of the forger's density."""
        mode = torch.bucketize(noise["mode"].squeeze(1).contiguous(), self.bounds)
        return self.means[mode] + self.stds[mode, None] * noise["z"]


@dataclass(frozen=True)
class Verdict:
    """A discriminator beside D* = p/(p + q).

    Attributes:
        logit_error: largest |logit D - logit D*| on `region`.
        region: the central part of (p + q)/2 that was looked at.
        value: V(D, G).
        best: V(D*, G) = -log 4 + 2 JSD(p, q), which no discriminator exceeds.
    """

    logit_error: float
    region: tuple[float, float]
    value: Quantity
    best: Quantity


def against_exact(logit: Function, p: Gaussians, q: Gaussians, *, share: float = 0.95, points: int = 1001) -> Verdict:
    """Hold a discriminator of p from q, both on the line, against the exact one.

    Args:
        logit: (N, 1) ↦ (N,).
        share: of the mass of (p + q)/2, in its middle, on which logits are compared.
        points: evenly spaced, at which they are.
    """
    low, high = divergences.central_region(p, q, share)
    x = np.linspace(low, high, points)[:, None]
    error = float(np.abs(logit(x) - divergences.optimal_logit(p, q)(x)).max())
    return Verdict(error, (low, high), divergences.game_value(p, q, logit), divergences.best_value(p, q))


def logit_of(realness: Callable[[Tensor], Any]) -> Function:
    """A discriminator of tensors as a function of float64 arrays, for the quadratures."""

    def logit(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(realness(torch.from_numpy(x).float()).double())

    return logit
