"""What theory says, computed: games between known densities, true posteriors, and the dynamics of a game in the plane."""

from nacre.theory.densities import Gaussians, Uniform, normal, toy
from nacre.theory.divergences import (
    Quantity,
    best_value,
    central_region,
    game_value,
    jsd,
    kl,
    optimal_discriminator,
    optimal_logit,
    wasserstein,
    wasserstein_of_samples,
)
from nacre.theory.forger import FixedForger, Verdict, against_exact, logit_of
from nacre.theory.hmc import Chains, hmc
from nacre.theory.posterior import Gaussian, Posterior, elbo, posterior, sample_bounds

__all__ = [
    "Chains",
    "FixedForger",
    "Gaussian",
    "Gaussians",
    "Posterior",
    "Quantity",
    "Uniform",
    "Verdict",
    "against_exact",
    "best_value",
    "central_region",
    "elbo",
    "game_value",
    "hmc",
    "jsd",
    "kl",
    "logit_of",
    "normal",
    "optimal_discriminator",
    "optimal_logit",
    "posterior",
    "sample_bounds",
    "toy",
    "wasserstein",
    "wasserstein_of_samples",
]
