"""Closed forms of the KL divergence and of a VAE's ELBO against a million samples.

    python benchmarks/closed_forms.py [--seeds 0 1 2 3 4] [--samples 1000000]

Protocol: float64. KL: N(μ, σ²) of 8 independent dimensions, μ normal, log σ² normal, against N(0, I), and against another
such normal; the samples' mean of log q - log p. ELBO: a VAE of random weights, 2-8-2, Gaussian with σ = .7, at one random
point; its own estimate with the closed KL over 20,000 draws against the mean of log p(x, z) - log q(z|x). A value is the
difference in standard errors of the two.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Normal

import rows
from nacre import losses, seeds
from nacre.models.vae import VAE

OWN = 20_000


def main() -> None:
    """Measure, print, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    begun = time.perf_counter()
    values: dict[str, list[float]] = {"KL to N(0, I)": [], "KL between normals": [], "ELBO": []}
    for seed in asked.seeds:
        torch.manual_seed(seed)
        for name, each in zip(values, (*divergences(asked.samples), elbo(seed, asked.samples)), strict=True):
            values[name].append(each)
    for name, off in values.items():
        print(name, *(f"{each:+.2f}" for each in off), "standard errors; asked for: within 4")
    protocol = (__doc__ or "").split("Protocol: ")[1].strip()
    took = time.perf_counter() - begun
    print(
        rows.write_row(
            "closed-forms", protocol, values, asked.seeds, asked.samples, results=asked.results, wall_seconds=took
        )
    )


def divergences(count: int) -> tuple[float, float]:
    """Closed form less Monte Carlo, in standard errors: of the KL to the standard normal, and to another normal."""
    mean, log_var, prior_mean, prior_log_var = torch.randn(4, 1, 8, dtype=torch.float64)
    own, other = Normal(mean, (log_var / 2).exp()), Normal(prior_mean, (prior_log_var / 2).exp())
    z = own.sample((count,))[:, 0]
    standard = (own.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
    between = (own.log_prob(z) - other.log_prob(z)).sum(1)
    closed = losses.kl_between_normals(mean, log_var, prior_mean, prior_log_var).sum()
    return off(losses.kl_to_standard_normal(mean, log_var)[0], standard), off(closed, between)


@torch.no_grad()
def elbo(seed: int, count: int) -> float:
    """A VAE's own ELBO less Monte Carlo's, in standard errors of both."""
    model = VAE((2,), latent_dim=2, hidden=(8,), likelihood="gaussian", sigma=0.7).double()
    x = torch.randn(1, 2, dtype=torch.float64)
    mean, std = model.posterior(x)
    z = mean + std * torch.randn(count, 2, dtype=torch.float64)
    joint = Normal(model.decoder(z), 0.7).log_prob(x).sum(1) + Normal(0.0, 1.0).log_prob(z).sum(1)
    noise = seeds.noises(model.likelihood_draws, seed, "elbo", rows=range(OWN), dtype=torch.float64)
    ours = model.log_likelihood(x.expand(OWN, 2), noise)
    return off(ours.mean(), joint - Normal(mean, std).log_prob(z).sum(1), ours.std().item() / math.sqrt(OWN))


def off(closed: Tensor, samples: Tensor, own_error: float = 0.0) -> float:
    """A value less the mean of samples, in standard errors."""
    error = samples.std().item() / math.sqrt(len(samples))
    return (closed - samples.mean()).item() / math.hypot(error, own_error)


if __name__ == "__main__":
    main()
