"""Losses: pure functions of tensors, each with its paper's equation. "nll" is a negative log-likelihood in nats.

Elementwise quantities are summed over an item's dimensions and returned one a row, (N,); adversarial losses take logits
or critic values of any shape and return their mean.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def in_full(x: Tensor) -> Tensor:
    """At least float32: what autocast has made smaller is made whole again before it enters a sum or an exponential."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Σ (x̂ - x)² over an item: (N, …) ↦ (N,)."""
    return (prediction - target).square().flatten(1).sum(1)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Σ -x log p - (1 - x) log(1 - p), p = sigmoid(logits): (N, …) ↦ (N,).

    For targets in {0, 1} this is the Bernoulli nll (`bernoulli_nll`); for grey targets it is a reconstruction loss and
    no likelihood (Loaiza-Ganem & Cunningham 2019).
    """
    logits = in_full(logits)
    return (F.softplus(logits) - target * logits).flatten(1).sum(1)


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x), x in {0, 1}, in nats: (N, …) ↦ (N,). Kingma & Welling 2014, appendix C.1."""
    return binary_cross_entropy(logits, x)


def gaussian_nll(mean: Tensor, log_std: Tensor, x: Tensor) -> Tensor:
    """-log N(x; mean, σ²) with σ = exp(log_std), broadcast over x, in nats: (N, …) ↦ (N,)."""
    error = ((x - mean) * torch.exp(-log_std)).square() / 2
    return (error + log_std + math.log(2 * math.pi) / 2).flatten(1).sum(1)


def continuous_bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x), x in [0, 1], λ = sigmoid(logits), in nats: (N, …) ↦ (N,). Loaiza-Ganem & Cunningham 2019.

    p(x) = C(λ) λ^x (1 - λ)^(1 - x): the Bernoulli law's formula, made a density by log C (`continuous_bernoulli_log_normalizer`).
    """
    logits = in_full(logits)
    return binary_cross_entropy(logits, x) - continuous_bernoulli_log_normalizer(logits).flatten(1).sum(1)


def continuous_bernoulli_log_normalizer(logits: Tensor) -> Tensor:
    """log C(λ), λ = sigmoid(logits): elementwise. Loaiza-Ganem & Cunningham 2019.

    In the logit t, C = 2 artanh(1 - 2λ) / (1 - 2λ) is t / tanh(t/2), which is even in t and 2 at λ = 1/2. There, where its
    gradient would be a difference of large numbers, its Taylor series stands in, as in the paper (there in λ).
    """
    logits = in_full(logits)
    near = logits.abs() < 0.1
    square = logits.square()
    series = math.log(2) + square / 12 - 7 * square.square() / 1440 + 31 * square**3 / 90720
    far = torch.where(near, 1.0, logits.abs())  # a branch that is not taken has finite gradients, too
    return torch.where(near, series, far.log() - (far / 2).tanh().log())


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """E x under `continuous_bernoulli_nll`, in (0, 1): elementwise. Loaiza-Ganem & Cunningham 2019, in the logit."""
    logits = in_full(logits)
    near = logits.abs() < 0.1
    series = logits / 12 - logits**3 / 720 + logits**5 / 30240
    far = torch.where(near, 1.0, logits)
    return 0.5 + torch.where(near, series, 0.5 / (far / 2).tanh() - 1 / far)


def discretized_logistic_nll(mean: Tensor, log_scale: Tensor, x: Tensor, levels: int = 256) -> Tensor:
    """-log P(x), x one of `levels` values k / (levels - 1), in nats: (N, …) ↦ (N,). Kingma et al. 2016.

    P is the logistic law's mass within half a level of x; the first and the last level take the tails. Computed by
    σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), which has no cancellation; a - b is a level in scales.
    """
    precision = torch.exp(-log_scale)
    centred = (x - mean) * precision
    half = precision / (2 * (levels - 1))
    below_top = F.softplus(-centred - half)  # -log σ(a)
    above_bottom = F.softplus(centred - half)  # -log σ(-b)
    width = torch.log(-torch.expm1(-2 * half))
    edge = 0.5 / (levels - 1)
    first, last = x < edge, x > 1 - edge
    nll = torch.where(first, below_top, torch.where(last, above_bottom, below_top + above_bottom - width))
    return nll.flatten(1).sum(1)


def gaussian_log_density(z: Tensor, mean: Tensor | float = 0.0, log_var: Tensor | float = 0.0) -> Tensor:
    """log N(z; mean, exp(log_var)) in nats, summed over the last dimension: (…, D) ↦ (…)."""
    log_var = torch.as_tensor(log_var, dtype=z.dtype, device=z.device)
    return -((z - mean).square() * torch.exp(-log_var) + log_var + math.log(2 * math.pi)).sum(-1) / 2


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, I)) in nats, summed over latents: (N, D) ↦ (N,).

    Kingma & Welling 2014, eq. 10 and appendix B.
    """
    return kl_per_latent(mean, log_var).flatten(1).sum(1)


def kl_per_latent(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats, elementwise. Kingma & Welling 2014, appendix B."""
    mean, log_var = in_full(mean), in_full(log_var)
    return (mean.square() + log_var.exp() - 1 - log_var) / 2


def kl_between_normals(mean: Tensor, log_var: Tensor, prior_mean: Tensor, prior_log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(prior_mean, exp(prior_log_var))) in nats, elementwise."""
    mean, log_var, prior_mean, prior_log_var = map(in_full, (mean, log_var, prior_mean, prior_log_var))
    difference = (mean - prior_mean).square() * torch.exp(-prior_log_var)
    return (difference + (log_var - prior_log_var).exp() - 1 - (log_var - prior_log_var)) / 2


def with_free_bits(kl: Tensor, nats: float) -> Tensor:
    """Σ_j max(λ, KL_j), λ = `nats`: under λ a latent's KL costs the same, so nothing is won by emptying it: (N, D) ↦ (N,).

    Kingma et al. 2016, where the maximum is taken of a mini-batch's mean KL; here of each item's, so that the loss
    stays a mean over items and does not depend on how a batch is split.
    """
    return kl.clamp(min=nats).flatten(1).sum(1)


def importance_bound(log_weights: Tensor) -> Tensor:
    """L_k = log (1/k) Σ_i w_i, a lower bound on log p(x) that grows with k: (k, N) ↦ (N,). Burda et al. 2016, section 3.

    Args:
        log_weights: log w_i = log p(x, z_i) - log q(z_i | x), z_i from q.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def log_weights_in_parts(log_weights: Callable[..., Tensor], *noise: Tensor, rows: int = 2048) -> Tensor:
    """Log-weights for noise (N, k, …), a few samples at a time, so that memory does not grow with k: (k, N).

    Args:
        log_weights: noise (N, part of k, …) ↦ (part of k, N).
        rows: samples times items in one part, at most (one sample at least).
    """
    count, k = noise[0].shape[:2]
    size = max(1, rows // max(count, 1))
    return torch.cat([log_weights(*(each[:, at : at + size] for each in noise)) for at in range(0, k, size)])


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


def value_and_slope(judge: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A judge's values at items and their slopes there, which can be differentiated again: (N, …) ↦ (N,), (N, …).

    A judge that has a `value_and_slope` of its own is asked for it; any other is differentiated, in float32 at least,
    whatever autocast says.
    """
    own = getattr(judge, "value_and_slope", None)
    if own is not None:
        found: tuple[Tensor, Tensor] = own(x)
        return found
    with torch.autocast(x.device.type, enabled=False):
        x = in_full(x).detach().requires_grad_()
        values = judge(x)
        (slope,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    return values, slope


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, *, one_sided: bool = False
) -> Tensor:
    """E (‖∇ critic(x̂)‖₂ - 1)², x̂ = ε x + (1 - ε) G(z). Gulrajani et al. 2017, algorithm 1, lines 6 and 7.

    The norm is over the flattened item, in float32 at least; the slope is `value_and_slope`'s.

    Args:
        real, fake: (N, …).
        mix: ε, (N, 1) uniform in [0, 1): one number an item.
        one_sided: leave slopes under one alone: E max(0, ‖∇ critic(x̂)‖₂ - 1)².
    """
    weight = mix.view(-1, *[1] * (real.ndim - 1))
    _, slope = value_and_slope(critic, weight * real + (1 - weight) * fake)
    slope = in_full(slope)
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
        logits, slope = value_and_slope(discriminator, in_full(real))
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
        x = in_full(x).detach().requires_grad_()
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
