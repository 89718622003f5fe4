"""What theory says exactly, beside what nacre's players, bounds and chains come to.

    python benchmarks/theory.py [--seeds 0 1 2 3 4] [--digits 20]

Protocol, four parts. Discriminator: N(0, 1) against a forger of N(1, 1) who never learns, `nacre lab discriminator` with
default flags, one run a seed; V by quadrature. Posterior: a VAE with two latents on scikit-learn's digits, and for 20
digits that it has not seen log p(x) on a grid, L in q's own coordinates, KL(q || p(z|x)) on the grid, the bound of k
samples, and 64 chains of Hamiltonian Monte Carlo. AIS: a linear-Gaussian model, whose log p(x) is known. Dirac-GAN: the
five games from one start, integrated by Runge-Kutta.
"""

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nacre
import rows
from nacre import images, seeds
from nacre.data import DataSettings, load
from nacre.lab.latents import asked, told
from nacre.lab.subjects import Discriminator
from nacre.metrics.ais import ais, gaussian_decoder
from nacre.theory import dirac, elbo, hmc, posterior, sample_bounds

KS = (1, 5, 50, 500)
DIM, LATENTS, SIGMA, ITEMS = 20, 5, 0.5, 10
DISTRIBUTIONS, CHAINS = 10_000, 300
START, TIME = (1.2, 0.6), 30.0
PROTOCOL = (
    "discriminator: nacre lab discriminator --seed s (MLP 16-16, 2,000 steps of 1,024), largest |logit D - (1/2 - x)| on the "
    "central 95 % of (p + q)/2, and -log 4 + 2 JSD - V(D, G), both in float64, one value a seed; posterior: nacre train vae "
    "--data digits --latent-dim 2 --likelihood bernoulli --hidden 64 --activation tanh --steps 3000 --lr 2e-3 --seed 0, the "
    "first validation digits, binarized once, float64, HMC with 64 chains of 150 draws after 150; AIS: x = Wz + b + .5 eps, 20 "
    "pixels, 5 latents, 10 items, 10,000 distributions, 300 chains; Dirac-GAN: start theta 1.2, psi .6, R1 gamma = .3, WGAN-GP "
    "lambda = .25, time 30 in steps of .1"
)


def discriminators(seed_list: list[int]) -> dict[str, list[float]]:
    """A trained discriminator beside D*."""
    found: dict[str, list[float]] = {"logit_error": [], "value_missing": []}
    for seed in seed_list:
        *_, (_, facts) = Discriminator(seed=seed, count=2).frames()
        found["logit_error"].append(facts["logit_error"])
        found["value_missing"].append(facts["missing"])
        print(f"seed {seed}: logit off by {facts['logit_error']:.4f}, V short by {facts['missing']:.1e}", flush=True)
    return found


def posteriors(count: int) -> dict[str, Any]:
    """log p(x) = L + KL(q || p(z|x)), bounds and chains on unseen digits."""
    settings = {"data": "digits", "latent_dim": 2, "likelihood": "bernoulli", "hidden": (64,), "activation": "tanh"}
    with tempfile.TemporaryDirectory() as folder:
        run = nacre.train("vae", out=Path(folder) / "vae", steps=3000, lr=2e-3, sample_every=0, **settings)
        model = nacre.load(run).module.double()
        dataset = load(DataSettings(data="digits"))
    chosen = dataset.items[dataset.rows("validation")[:count]]
    items = images.to_float(torch.from_numpy(np.ascontiguousarray(chosen))).double()
    noise = seeds.noises(model.likelihood.draws, 0, "theory", rows=range(count), dtype=torch.float64)
    observed = model.likelihood.observe(items, noise)
    off, grids, gaps, chains = [], [], [], []
    bounds: dict[int, list[float]] = {k: [] for k in KS}
    for x in observed:
        log_likelihood, q = asked(model, x[None])
        truth = posterior(log_likelihood, 2, q)
        gap, bound = truth.kl_from(q), elbo(log_likelihood, q)
        off.append(abs(truth.log_evidence.value - bound.value - gap.value))
        grids.append(truth.log_evidence.error + gap.error + bound.error)
        gaps.append(gap.value)
        for k, tighter in sample_bounds(log_likelihood, q, KS).items():
            bounds[k].append(truth.log_evidence.value - tighter.value)
        chains.append(told(hmc(log_likelihood, 2), truth)["hmc_off"])
    for name, values in (("identity off by", off), ("KL(q || p(z|x))", gaps), ("HMC off, standard errors", chains)):
        print(f"{name}: mean {np.mean(values):.2g}, largest {np.max(values):.2g}", flush=True)
    return {
        "identity_error": max(off),
        "quadrature_error": max(grids),
        "kl_smallest": min(gaps),
        "kl_largest": max(gaps),
        **{f"missing_with_{k}_samples": float(np.mean(each)) for k, each in bounds.items()},
        "hmc_within_3": float(np.mean(np.array(chains) <= 3)),
        "hmc_largest": max(chains),
    }


def annealed() -> dict[str, float]:
    """AIS of a model whose log p(x) is known."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, bias = drawn(DIM, LATENTS), drawn(DIM)
    law = torch.distributions.MultivariateNormal(bias, weight @ weight.T + SIGMA**2 * torch.eye(DIM))
    x = bias + drawn(ITEMS, DIM) @ law.scale_tril.T
    decoder = gaussian_decoder(lambda z: z @ weight.T + bias, LATENTS, SIGMA)
    found = ais(decoder, x, distributions=DISTRIBUTIONS, chains=CHAINS)
    error = found.values - law.log_prob(x)
    print(f"AIS off by {error.mean():.4f} on average, {error.abs().max():.4f} at most; accepted {found.accepted:.2f}")
    return {"ais_mean_error": float(error.mean()), "ais_largest_error": float(error.abs().max())}


def games() -> dict[str, float]:
    """How far from the equilibrium the Dirac-GAN's players end, over how far they began."""
    steps = int(TIME / 0.1)
    ways = {game: dirac.path(game, START, steps=steps, r1=0.3) for game in dirac.GAMES}
    shares = {game: float(np.linalg.norm(way[-1]) / math.hypot(*START)) for game, way in ways.items()}
    print(f"Dirac-GAN: {shares}")
    radius = np.linalg.norm(ways["plain"], axis=1)
    small = dirac.path("r1", (1e-4, 0.0), steps=20_000, step_size=0.01, r1=0.3)
    rate = -math.log(np.linalg.norm(small[-1]) / 1e-4) / 200
    return {
        **{f"dirac_{game.replace('-', '_')}": share for game, share in shares.items()},
        "dirac_plain_radius_drift": float(np.ptp(radius) / radius[0]),
        "dirac_r1_rate": rate,
        "dirac_r1_rate_exact": 0.15,
    }


def main() -> None:
    """Compute, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--digits", type=int, default=20)
    parsed = parser.parse_args()
    values = {**discriminators(parsed.seeds), **posteriors(parsed.digits), **annealed(), **games()}
    print(rows.write_row("theory", PROTOCOL, values, parsed.seeds, parsed.digits))


if __name__ == "__main__":
    main()
