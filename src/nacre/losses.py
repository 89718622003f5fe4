"""Losses: pure functions of tensors, each with its paper's equation. "nll" is a negative log-likelihood in nats.

Elementwise quantities are summed over an item's dimensions and returned one a row, (N,); adversarial losses take logits
or critic values of any shape and return their mean.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Σ (x̂ - x)² over an item: (N, …) ↦ (N,)."""
    return (prediction - target).square().flatten(1).sum(1)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Σ -x log p - (1 - x) log(1 - p), p = sigmoid(logits): (N, …) ↦ (N,).

    For targets in {0, 1} this is the Bernoulli nll (`bernoulli_nll`); for grey targets it is a reconstruction loss and
    no likelihood (Loaiza-Ganem & Cunningham 2019).
    """
    return (F.softplus(logits) - target * logits).flatten(1).sum(1)


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x), x in {0, 1}, in nats: (N, …) ↦ (N,). Kingma & Welling 2014, appendix C.1."""
    return binary_cross_entropy(logits, x)


def gaussian_nll(mean: Tensor, log_std: Tensor, x: Tensor) -> Tensor:
    """-log N(x; mean, σ²) with σ = exp(log_std), broadcast over x, in nats: (N, …) ↦ (N,)."""
    error = ((x - mean) * torch.exp(-log_std)).square() / 2
    return (error + log_std + math.log(2 * math.pi) / 2).flatten(1).sum(1)


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, I)) in nats, summed over latents: (N, D) ↦ (N,).

    Kingma & Welling 2014, eq. 10 and appendix B.
    """
    return (mean.square() + log_var.exp() - 1 - log_var).flatten(1).sum(1) / 2


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))), D = sigmoid(logits). Goodfellow et al. 2014, eq. 1.

    With D at one half everywhere this is 2 log 2 = -V, the value of the game at its equilibrium being -log 4.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_generator_loss(fake: Tensor) -> Tensor:
    """E log(1 - D(G(z))): what the generator minimises in Goodfellow et al. 2014, eq. 1."""
    return -F.softplus(fake).mean()


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """-E log D(G(z)): the form with gradients when D wins. Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (‖∇ critic(x̂)‖₂ - 1)², x̂ = ε x + (1 - ε) G(z). Gulrajani et al. 2017, algorithm 1, lines 6 and 7.

    Two-sided; the norm is over the flattened item; computed in float32 at least, whatever autocast says.

    Args:
        real, fake: (N, …).
        mix: ε, (N, 1) uniform in [0, 1): one number an item.
    """
    with torch.autocast(real.device.type, enabled=False):
        weight = mix.view(-1, *[1] * (real.ndim - 1))
        between = weight * real + (1 - weight) * fake
        between = between.to(torch.promote_types(between.dtype, torch.float32)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        # The epsilon keeps the square root's derivative finite where the slope is exactly zero.
        norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()
        return (norm - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
    """E ‖∇ D(x)‖² at real items, and the logits D(x) that it was taken from. Mescheder et al. 2018, eq. 9 (times 2/γ).

    Computed in float32 at least, whatever autocast says.

    Args:
        real: (N, …).

    Returns:
        The penalty, 0-d, and the discriminator's output at `real`.
    """
    with torch.autocast(real.device.type, enabled=False):
        real = real.to(torch.promote_types(real.dtype, torch.float32)).detach().requires_grad_()
        logits = discriminator(real)
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        return slope.flatten(1).square().sum(1).mean(), logits
