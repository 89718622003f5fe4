"""Bounds on log p(x) against models whose log p(x) is known, and what latents do against closed forms."""

import math

import numpy as np
import pytest
import torch

from nacre import losses
from nacre.engine.sampling import evaluating
from nacre.engine.sampling import log_likelihood as own_bound
from nacre.errors import CapabilityError, ConfigError, ShapeError
from nacre.metrics import intervals, likelihood
from nacre.metrics.intervals import Estimate
from nacre.metrics.likelihood import (
    active_units,
    bits_per_dim,
    importance_bound,
    kl_by_latent,
    log_likelihood,
    model_log_weights,
    rate_distortion,
)
from nacre.models.iwae import IWAE
from nacre.models.lvae import LVAE
from nacre.models.m2 import M2
from nacre.models.vae import VAE
from nacre.networks import likelihoods

X = torch.linspace(-2, 2, 150, dtype=torch.float64)
EXACT = losses.gaussian_log_density(X[:, None], 0.0, math.log(2))
"""log p(x) of z ~ N(0, 1), x ~ N(z, 1), whose posterior is N(x / 2, 1 / 2)."""


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(mean, variance, asked=None):
    """Log-weights under q(z|x) = N(mean, variance), from noise that is the same whatever is asked for."""

    def weigh(rows, draws):
        if asked is not None:
            asked.append(len(rows) * len(draws))
        at = slice(rows.start, rows.stop)
        noise = torch.stack([normal(len(X), seed=draw)[at] for draw in draws])
        z = mean[at] + math.sqrt(variance) * noise
        joint = losses.gaussian_log_density(z[..., None]) + losses.gaussian_log_density((X[at] - z)[..., None])
        return joint - losses.gaussian_log_density(z[..., None], mean[at, None], math.log(variance))

    return weigh


def test_the_true_posterior_needs_one_sample():
    found = importance_bound(weights(X / 2, 0.5), 150, 7)
    assert found.values == pytest.approx(EXACT, abs=1e-12)
    assert found.ess == pytest.approx(torch.full((150,), 7.0), abs=1e-9)
    assert found.bound.value == pytest.approx(float(EXACT.mean()))
    assert found.elbo.value == pytest.approx(found.bound.value)
    assert (found.bound.n, found.k) == (150, 7)
    assert importance_bound(weights(X / 2, 0.5), 150, 20).caution == ""


def test_the_elbo_misses_the_divergence_and_the_bound_rises_to_the_likelihood():
    mean, variance = X / 2 + 0.8, 0.5
    divergence = losses.kl_between_normals(mean, torch.tensor(math.log(variance)), X / 2, torch.tensor(math.log(0.5)))
    found = {k: importance_bound(weights(mean, variance), 150, k) for k in (1, 10, 200)}
    expected = float((EXACT - divergence).mean())
    for each in found.values():
        assert each.elbo.value == pytest.approx(expected, abs=4 * 1.2 / math.sqrt(150 * each.k))
    assert found[1].bound == found[1].elbo
    bounds = [found[k].bound.value for k in (1, 10, 200)]
    assert bounds[0] + 0.3 < bounds[1] < bounds[2] < float(EXACT.mean()) + 0.01
    assert bounds[2] == pytest.approx(float(EXACT.mean()), abs=0.03)
    assert "samples are worth fewer than 10" in found[10].caution
    assert (found[1].caution, found[200].caution) == ("", "")


def test_five_thousand_samples_take_no_more_memory_and_chunks_change_nothing(monkeypatch):
    log_weights = weights(X / 2 + 1, 0.5)
    all_at_once = log_weights(range(150), range(23))
    expected = all_at_once.logsumexp(0) - math.log(23)
    share = all_at_once.softmax(0)
    monkeypatch.setattr(likelihood, "ITEMS", 37)
    monkeypatch.setattr(likelihood, "ROWS", 111)
    asked = []
    found = importance_bound(weights(X / 2 + 1, 0.5, asked), 150, 23)
    assert max(asked) <= 111
    assert sum(asked) == 150 * 23
    assert found.values == pytest.approx(expected, abs=1e-12)
    assert found.ess == pytest.approx(1 / share.square().sum(0), rel=1e-12)

    def many(rows, draws):
        assert len(rows) * len(draws) <= 8192
        return torch.zeros(len(draws), len(rows))

    monkeypatch.undo()
    assert importance_bound(many, 100, 5000).ess == pytest.approx(torch.full((100,), 5000.0))


def test_a_bad_posterior_is_told_of():
    found = importance_bound(weights(X / 2 + 3, 0.5), 150, 50)
    few, median = float((found.ess < 10).double().mean()), float(found.ess.median())
    assert few > 0.9
    assert (
        f"at {few:.0%} of the items the 50 samples are worth fewer than 10 (median of all items {median:.1f})"
        in found.caution
    )
    with pytest.raises(ShapeError, match="2 of 2 items hold NaN"):
        importance_bound(lambda rows, draws: torch.full((len(draws), len(rows)), math.nan), 2, 3)
    with pytest.raises(ConfigError, match="k must be 1 or more, got 0"):
        importance_bound(weights(X, 1.0), 150, 0)


IMAGES = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SMALL = {"hidden": (16, 16), "k_eval": 30}
MODELS = {
    "vae": lambda: VAE((1, 8, 8), latent_dim=3, **SMALL),
    "elbo": lambda: VAE((1, 8, 8), latent_dim=3, hidden=(16, 16)),
    "conditional": lambda: VAE((1, 8, 8), latent_dim=3, classes=3, **SMALL),
    "gaussian": lambda: VAE((1, 8, 8), latent_dim=3, likelihood="gaussian", **SMALL),
    "iwae": lambda: IWAE((1, 8, 8), latent_dim=4, upper_dims=(2,), upper_hidden=(8, 8), **SMALL),
    "lvae": lambda: LVAE((1, 8, 8), k_eval=30),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_models_own_weights_give_its_own_bound(name):
    torch.manual_seed(0)
    with evaluating(MODELS[name]()) as model:
        found = importance_bound(model_log_weights(model, IMAGES, seed=3), 96, 30)
        # The same binarized images, and other samples of the posterior.
        difference = intervals.mean(
            (found.elbo.value if name == "elbo" else found.values) - own_bound(model, IMAGES, seed=3)
        )
    if name == "elbo":
        assert abs(difference.value) < 4 * difference.se
    else:
        assert abs(difference.value) < 4 * difference.se + 1e-4
        assert difference.se < 0.5
    assert (found.ess >= 1).all()


def test_a_models_weights_do_not_depend_on_how_they_are_asked_for():
    torch.manual_seed(0)
    with evaluating(MODELS["iwae"]().double()) as model:
        weigh = model_log_weights(model, IMAGES)
        whole = weigh(range(96), range(6))
        assert weigh(range(10, 20), range(2, 5)) == pytest.approx(whole[2:5, 10:20], abs=1e-9)
    assert len(whole.unique()) == 96 * 6


def test_m2_has_no_samples_to_weigh():
    with pytest.raises(CapabilityError, match="M2 has no bound of k samples; its own bound is ELBO with the classes"):
        model_log_weights(M2((1, 8, 8), classes=2, hidden=(8, 8)), IMAGES)


def test_bits_per_dim_are_those_of_the_likelihood():
    nats = Estimate(-1200.0, 3.0, -1206.0, -1194.0, 50)
    for name in ("gaussian", "discretized-logistic"):
        law = likelihoods.likelihood((3, 8, 8), name)
        found = bits_per_dim(nats, law.numbers, law.bin_nats)
        assert found.value == pytest.approx(float(law.bits(torch.tensor(1200.0))["bits_per_dim"]))
        assert (found.low, found.high) == (
            pytest.approx(found.value - 6 / 192 / math.log(2)),
            pytest.approx(found.value + 6 / 192 / math.log(2)),
        )
        assert (found.se, found.n) == (pytest.approx(3 / 192 / math.log(2)), 50)
    assert bits_per_dim(Estimate(-10 * math.log(2), 0, 0, 0, 1), 10).value == pytest.approx(1)
    with pytest.raises(ConfigError, match="dims must be 1 or more"):
        bits_per_dim(nats, 0)


def test_rate_distortion_and_kl_of_each_latent():
    mean, log_var = (
        normal(400, 3) * torch.tensor([1.0, 0.3, 0.0]),
        normal(400, 3, seed=1) * torch.tensor([0.5, 0.2, 0.0]),
    )
    kl = losses.kl_per_latent(mean, log_var)
    distortion = 90 - 2 * kl.sum(1) + normal(400, seed=2)
    found = rate_distortion(distortion, kl)
    assert found.rate.value == pytest.approx(float(losses.kl_to_standard_normal(mean, log_var).mean()))
    assert found.elbo.value == pytest.approx(-found.rate.value - found.distortion.value)
    assert found.elbo.se < found.distortion.se  # what one pays, the other saves
    assert rate_distortion(distortion.numpy(), kl.sum(1).float().numpy()).rate.value == pytest.approx(found.rate.value)
    each = kl_by_latent(kl)
    assert sum(latent.value for latent in each) == pytest.approx(found.rate.value)
    assert each[2] == Estimate(0, 0, 0, 0, 400)
    assert each[0].low < float(kl[:, 0].mean()) < each[0].high
    with pytest.raises(ShapeError, match="the same items, got 399 and 400"):
        rate_distortion(distortion[1:], kl)
    with pytest.raises(ShapeError, match="one number an item, got 3"):
        log_likelihood(kl)


def test_active_units():
    scales = torch.tensor([1.0, 0.01, 0.2, 0.0, 0.1])
    means = 5 + normal(500, 5) * scales
    found = active_units(means)
    assert set(found.active) - {4} == {0, 2}
    assert found.undecided == (4,)
    assert found.count == len(found.active)
    for each, scale in zip(found.variances, scales.tolist(), strict=True):
        assert each.value == pytest.approx(scale**2, rel=0.2)
        assert each.se == pytest.approx(scale**2 * math.sqrt(2 / 499), rel=0.25)
    assert active_units(means.float().numpy()).active == found.active
    assert active_units(means, threshold=0.5).active == (0,)
    with pytest.raises(ShapeError, match="4 or more items, got 3"):
        active_units(means[:3])


def test_the_interval_of_a_variance_covers_for_heavy_tails_as_well():
    samples = torch.from_numpy(np.random.default_rng(0).laplace(size=(400, 200)))
    covered = sum(each.low < 2 < each.high for each in active_units(samples).variances)
    assert 174 <= covered <= 200
