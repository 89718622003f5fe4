"""Annealed importance sampling against models whose log p(x) is known exactly or on a fine grid."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from nacre import losses
from nacre.errors import CapabilityError, ConfigError, ShapeError
from nacre.metrics.ais import Decoder, ais, bernoulli_decoder, bidirectional, gaussian_decoder, reverse_ais, schedule
from nacre.models.vae import VAE


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def short_pilot(monkeypatch):
    monkeypatch.setattr("nacre.metrics.ais.PILOT", 60)
    monkeypatch.setattr("nacre.metrics.ais.ROWS", 4096)


class Linear:
    """z ~ N(0, I), x ~ N(Wz + b, σ²I): everything is known."""

    def __init__(self, dim, latent_dim, sigma, seed=0):
        self.weight, self.bias, self.sigma = normal(dim, latent_dim, seed=seed), normal(dim, seed=seed + 1), sigma
        self.decoder = gaussian_decoder(lambda z: z @ self.weight.T + self.bias, latent_dim, sigma)
        covariance = self.weight @ self.weight.T + sigma**2 * torch.eye(dim)
        self.law = torch.distributions.MultivariateNormal(self.bias, covariance)

    def items(self, count):
        return self.bias + normal(count, len(self.bias), seed=9) @ self.law.scale_tril.T

    def posterior(self, x, seed):
        precision = torch.eye(self.weight.shape[1]) + self.weight.T @ self.weight / self.sigma**2
        mean = torch.linalg.solve(precision, (x - self.bias) @ self.weight / self.sigma**2, left=False)
        return mean + torch.linalg.solve(torch.linalg.cholesky(precision).T, normal(*mean.shape, seed=seed).T).T


def on_a_grid(decoder, items):
    """log p(x) of one or two latents by a sum over 241² points of [-7, 7]², or 4,001 of [-7, 7]."""
    axis = torch.linspace(-7, 7, 241 if decoder.latent_dim == 2 else 4001, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * decoder.latent_dim).view(-1, decoder.latent_dim)
    log_cell = decoder.latent_dim * math.log(float(axis[1] - axis[0]))
    prior = losses.gaussian_log_density(z) + log_cell
    with torch.no_grad():
        return torch.stack([(decoder.log_density(x[None], z) + prior).logsumexp(0) for x in items])


def test_the_schedule_is_a_sigmoid_from_0_to_1():
    betas = schedule(100)
    assert (betas[0], betas[-1], len(betas)) == (0, 1, 101)
    assert (betas + betas.flip(0)) == pytest.approx(torch.ones(101), abs=1e-12)
    steps = betas.diff()
    assert (steps > 0).all()
    assert float(steps[50] / steps[0]) == pytest.approx(0.25 / (0.982 * 0.018), rel=0.05)  # σ(1 - σ) at 0 and at -4


def test_a_linear_gaussian_model_is_exact_to_a_twentieth_of_a_nat():
    model = Linear(6, 3, 1.0)
    x = model.items(4)
    found = ais(model.decoder, x, distributions=300, chains=500)
    assert found.values == pytest.approx(model.law.log_prob(x), abs=0.05)
    assert found.log_likelihood.value == pytest.approx(float(model.law.log_prob(x).mean()), abs=0.03)
    assert (found.ess > 300).all()
    assert 0.5 < found.accepted < 0.8
    assert found.caution == ""
    assert "AIS, 300 distributions (sigmoid schedule), 500 chains" in found.protocol


def network(*sizes, seed):
    torch.manual_seed(seed)
    layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.Tanh())][:-1]
    with torch.no_grad():
        layers[-1].weight *= 3
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("case", ["bernoulli", "two modes"])
def test_curved_posteriors_agree_with_a_fine_grid(case):
    if case == "bernoulli":
        decoder = bernoulli_decoder(network(2, 12, 30, seed=0), 2)
        items = decoder.simulate(normal(3, 2), torch.Generator().manual_seed(0))
    else:  # x = z² + noise: chains must not all end in one of two equal modes
        decoder = gaussian_decoder(torch.square, 1, 0.2)
        items = torch.tensor([[1.5], [0.4], [0.0]], dtype=torch.float64)
    found = ais(decoder, items, distributions=150, chains=256)
    assert found.values == pytest.approx(on_a_grid(decoder, items), abs=0.05)


def test_both_weights_are_unbiased_however_few_the_distributions():
    """The mean weight of chains is p(x), and that of inverse weights of chains that ran backwards is 1 / p(x)."""
    model = Linear(2, 1, 1.0)
    x = model.items(1).expand(1024, 2)
    exact = float(model.law.log_prob(x[0]))
    forward = ais(model.decoder, x, distributions=5, chains=1).values - exact
    backward = exact - reverse_ais(model.decoder, x, model.posterior(x, 3), distributions=5, chains=1).values
    for log_ratio in (forward, backward):
        ratio = log_ratio.exp()
        assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / 32)
        assert 0.05 < float(ratio.std()) < 3
        assert float(log_ratio.mean()) < 0  # Jensen: the logarithm bounds


def test_from_both_sides():
    model = Linear(8, 4, 0.6)
    found = bidirectional(model.decoder, 32, distributions=30, chains=16)
    assert found.gap.value == pytest.approx(found.upper.log_likelihood.value - found.lower.log_likelihood.value)
    assert 0.05 < found.gap.low < found.gap.high < 2.5
    longer = bidirectional(model.decoder, 32, distributions=120, chains=16)
    assert longer.gap.value < found.gap.value / 2
    assert longer.lower.log_likelihood.value > found.lower.log_likelihood.value
    assert longer.upper.log_likelihood.value < found.upper.log_likelihood.value
    assert "exact posterior samples" in found.upper.protocol


def test_a_vae_has_more_than_its_bound_says():
    torch.manual_seed(0)
    model = VAE((1, 4, 4), latent_dim=2, hidden=(12,)).double().eval()
    decoder = Decoder(2, model.log_density)
    items = (torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    found = ais(decoder, items, distributions=30, chains=100)
    assert found.values == pytest.approx(on_a_grid(decoder, items), abs=0.02)


def test_an_items_number_does_not_depend_on_the_others(monkeypatch):
    model = Linear(5, 2, 0.5)
    x = model.items(5)
    run = partial(ais, model.decoder, x, distributions=6, chains=8, seed=4)
    together = run().values
    monkeypatch.setattr("nacre.metrics.ais.ROWS", 16)
    assert run().values == pytest.approx(together, abs=1e-8)
    assert (run(seed=5).values != together).all()


def test_cautions():
    sharp = Linear(20, 6, 0.01)
    found = ais(sharp.decoder, sharp.items(4), distributions=4)
    assert "one chain has most of the weight: take more distributions" in found.caution
    flat = Decoder(1, lambda x, z: -1e12 * z.square().sum(1))
    assert "of the proposals were accepted" in ais(flat, torch.zeros(2, 1), distributions=3).caution


def test_mistakes():
    model = Linear(3, 2, 0.5)
    with pytest.raises(ConfigError, match=r"decoder in torch.float32; give it model.double\(\)"):
        ais(Decoder(2, lambda x, z: -z.float().square().sum(1)), model.items(2), distributions=2)
    with pytest.raises(ConfigError, match="distributions must be 2 or more, got 1"):
        ais(model.decoder, model.items(2), distributions=1)
    with pytest.raises(ConfigError, match="sigma must be positive, got 0"):
        gaussian_decoder(torch.square, 1, 0.0)
    with pytest.raises(ShapeError, match="1 of 2 items hold NaN"):
        ais(model.decoder, torch.tensor([[0.0, 1, 2], [math.nan, 0, 0]]))
    with pytest.raises(CapabilityError, match="draws no items"):
        bidirectional(Decoder(2, model.decoder.log_density), 3)
