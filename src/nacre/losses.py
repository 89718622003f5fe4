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


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, *, one_sided: bool = False
) -> Tensor:
    """E (‖∇ critic(x̂)‖₂ - 1)², x̂ = ε x + (1 - ε) G(z). Gulrajani et al. 2017, algorithm 1, lines 6 and 7.

    The norm is over the flattened item; computed in float32 at least, whatever autocast says.

    Args:
        real, fake: (N, …).
        mix: ε, (N, 1) uniform in [0, 1): one number an item.
        one_sided: leave slopes under one alone: E max(0, ‖∇ critic(x̂)‖₂ - 1)².
    """
    with torch.autocast(real.device.type, enabled=False):
        weight = mix.view(-1, *[1] * (real.ndim - 1))
        between = weight * real + (1 - weight) * fake
        between = between.to(torch.promote_types(between.dtype, torch.float32)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        # The epsilon keeps the square root's derivative finite where the slope is exactly zero.
        excess = (slope.flatten(1).square().sum(1) + 1e-12).sqrt() - 1
        return (excess.clamp(min=0) if one_sided else excess).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
    """E ‖∇ D(x)‖² at real items, and the logits D(x) that it was taken from. Mescheder et al. 2018, eq. 9 (times 2/γ).

    At generated items it is R2, their eq. 10. Computed in float32 at least, whatever autocast says.

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


def sparsity_kl(activations: Tensor, target: float) -> Tensor:
    """Σ_j KL(Bernoulli(ρ) || Bernoulli(ρ̂_j)), ρ̂_j the mean of unit j over the batch: (N, D) in [0, 1] ↦ 0-d.

    Ng 2011, "Sparse autoencoder", section 3; there ρ̂ is the mean over all training items.

    Args:
        target: ρ, in (0, 1).
    """
    mean = activations.mean(0).clamp(1e-6, 1 - 1e-6)
    active = target * (math.log(target) - mean.log())
    return (active + (1 - target) * (math.log(1 - target) - (1 - mean).log())).sum()


def jacobian_norm(encode: Callable[[Tensor], Tensor], x: Tensor, probe: Tensor) -> Tensor:
    """‖∂ encode(x)/∂x‖² (Frobenius) as E ‖Jᵀv‖², v ~ N(0, I), estimated with one v an item: (N, …) ↦ (N,).

    Rifai et al. 2011, eq. 6, by Hutchinson's estimator (1990). In float32 at least, whatever autocast says.

    Args:
        encode: (N, …) ↦ (N, D).
        probe: v, (N, D).
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32)).detach().requires_grad_()
        (back,) = torch.autograd.grad((encode(x) * probe).sum(), x, create_graph=True)
        return back.flatten(1).square().sum(1)


def least_squares_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """½ E (D(x) - 1)² + ½ E D(G(z))². Mao et al. 2017, eq. 9: a = 0, b = c = 1."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator_loss(fake: Tensor) -> Tensor:
    """½ E (D(G(z)) - 1)². Mao et al. 2017, eq. 9."""
    return (fake - 1).square().mean() / 2


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))). Miyato et al. 2018, eq. 16 with its sign turned."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """-E D(G(z)). Miyato et al. 2018, eq. 17; a Wasserstein GAN's as well (Arjovsky et al. 2017, eq. 2)."""
    return -fake.mean()


def relativistic_loss(winner: Tensor, loser: Tensor) -> Tensor:
    """E softplus(loser - winner): what wants D(winner) above D(loser), item by item. Huang et al. 2024, eq. 2.

    The discriminator's winners are real items and its losers generated ones; the generator's the other way round.
    """
    return F.softplus(loser - winner).mean()
