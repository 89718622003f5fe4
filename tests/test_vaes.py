"""The variational family: likelihoods, bounds and gradients against closed forms, sums and Monte Carlo."""

import math
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import ContinuousBernoulli, Normal, kl_divergence

import nacre
from nacre import losses, schedules, seeds
from nacre.contract import check_model
from nacre.engine import sampling
from nacre.engine.validate import validate
from nacre.errors import ConfigError
from nacre.models.ae import AE
from nacre.models.iwae import IWAE
from nacre.models.lvae import LVAE
from nacre.models.m2 import M2, summed_out
from nacre.models.vae import VAE
from nacre.models.vaegan import VAEGAN
from nacre.networks import ladder, likelihoods
from nacre.protocols import Step

DIGIT = (1, 4, 4)


def noise_for(draws, rows, seed=0, dtype=torch.float64):
    return seeds.noises(draws, seed, "test", rows=range(rows), dtype=dtype)


def built(model, seed=0):
    """A model in float64 with weights large enough to matter."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 1.5 / math.sqrt(parameter[0].numel()))
    return model.double()


def grey(count, shape=DIGIT, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, *shape)) / 255)


def at(step, noise):
    return Step(torch.tensor(step), noise)


def within(estimates, expected, errors=4):
    """Whether the mean of independent estimates is within so many standard errors of what is expected."""
    standard_error = estimates.std(0) / math.sqrt(len(estimates))
    return bool(((estimates.mean(0) - expected).abs() <= errors * standard_error + 1e-12).all())


@pytest.mark.parametrize("logit", [-8.0, -0.5, -0.1, -0.0999, -1e-4, 0.0, 1e-9, 0.03, 0.1, 0.7, 12.0])
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(logit):
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(80))
    x, weights = (nodes + 1) / 2, weights / 2
    output = torch.full((80, 1), logit, dtype=torch.float64)
    density = (-losses.continuous_bernoulli_nll(output, x[:, None])).exp()
    assert (weights * density).sum().item() == pytest.approx(1, abs=1e-11)
    assert losses.continuous_bernoulli_mean(output[0]).item() == pytest.approx(
        (weights * density * x).sum().item(), abs=1e-11
    )


def test_continuous_bernoulli_against_torch_and_its_gradient_near_one_half():
    logits = torch.linspace(-6, 6, 201, dtype=torch.float64)[:, None]
    x = torch.rand(201, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = -ContinuousBernoulli(logits=logits).log_prob(x).squeeze(1)
    torch.testing.assert_close(losses.continuous_bernoulli_nll(logits, x), expected, atol=1e-7, rtol=1e-6)
    near = torch.tensor([-1e-30, 0.0, 1e-12, 1e-5, 1e-2, 0.0999, 0.1001], requires_grad=True)
    (slope,) = torch.autograd.grad(losses.continuous_bernoulli_log_normalizer(near).sum(), near)
    torch.testing.assert_close(slope, near.detach() / 6, atol=2e-5, rtol=0)


def test_continuous_bernoulli_is_computed_in_full_of_logits_that_autocast_made_small():
    generator = torch.Generator().manual_seed(0)
    x, logits = torch.rand(8, 784, generator=generator), (2 * torch.randn(8, 784, generator=generator)).bfloat16()
    for law in (
        lambda logits: losses.continuous_bernoulli_nll(logits, x),
        losses.continuous_bernoulli_log_normalizer,
        losses.continuous_bernoulli_mean,
    ):
        torch.testing.assert_close(law(logits), law(logits.float()))


@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.31, 1.0])
def test_discretized_logistic_sums_to_one_over_its_levels(mean, log_scale):
    x = (torch.arange(256, dtype=torch.float64) / 255)[:, None]
    nll = losses.discretized_logistic_nll(torch.tensor(mean).double(), torch.tensor(log_scale).double(), x)
    assert nll.isfinite().all()
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_discretized_logistic_is_a_difference_of_two_distribution_functions():
    x = torch.tensor([[3 / 255], [100 / 255], [254 / 255]]).double()
    scale = math.exp(-2.5)
    upper, lower = (torch.sigmoid((x + sign / 510 - 0.4) / scale) for sign in (1, -1))
    ours = losses.discretized_logistic_nll(torch.tensor(0.4).double(), torch.tensor(-2.5).double(), x)
    torch.testing.assert_close(ours, -(upper - lower).log().squeeze(1))


def test_gaussian_integrates_to_one_and_sigma_can_be_fixed():
    law = likelihoods.likelihood((1,), "gaussian", 0.3).double()
    assert not list(law.parameters())
    x = torch.linspace(-4, 5, 20_001, dtype=torch.float64)[:, None]
    density = (-law.nll(torch.full_like(x, 0.4), x)).exp()
    assert torch.trapezoid(density, x.squeeze(1)).item() == pytest.approx(1, abs=1e-9)


def test_bernoulli_sums_to_one_over_all_images():
    law = likelihoods.likelihood((1, 1, 3), "bernoulli")
    output = torch.tensor([-2.0, 0.3, 1.0]).double().view(1, 1, 1, 3)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3).view(8, 1, 1, 3)
    assert (-law.nll(output.expand_as(x), x)).exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "continuous-bernoulli", "discretized-logistic"])
def test_bits_per_dim_of_noise_are_at_least_eight(name):
    """Uniform noise on 256 levels has 8 bits a number: a bound cannot say less, and a flat law says just that."""
    law = likelihoods.likelihood((1, 64, 64), name).double()
    x = grey(4, (1, 64, 64))
    seen = law.observe(x, noise_for(law.draws, 4))
    bits = law.bits(law.nll(torch.zeros_like(x), seen).mean())["bits_per_dim"].item()
    flat = name == "continuous-bernoulli"  # its density at λ = 1/2 is 1 everywhere
    assert bits == pytest.approx(8, abs=1e-9) if flat else bits > 8


def test_a_learned_sigma_stops_at_one_grey_level():
    law = likelihoods.likelihood(DIGIT, "gaussian")
    x = grey(2).float()
    with torch.no_grad():
        law.log_std.fill_(math.log(1 / 256))
        floor = law.nll(torch.zeros(2, *DIGIT), x)
        law.log_std.fill_(-9.0)
    assert torch.equal(law.nll(torch.zeros(2, *DIGIT), x), floor)


def test_impossible_likelihoods_are_refused():
    for shape, name, sigma in [
        ((2,), "discretized-logistic", None),
        (DIGIT, "bernoulli", 0.1),
        (DIGIT, "gaussian", 0.0),
    ]:
        with pytest.raises(ConfigError, match=r"likelihood|sigma"):
            likelihoods.likelihood(shape, name, sigma)


def test_kl_between_normals_against_torch():
    torch.manual_seed(0)
    mean, log_var, prior_mean, prior_log_var = torch.randn(4, 5, 3, dtype=torch.float64)
    posterior, prior = Normal(mean, (log_var / 2).exp()), Normal(prior_mean, (prior_log_var / 2).exp())
    ours = losses.kl_between_normals(mean, log_var, prior_mean, prior_log_var)
    torch.testing.assert_close(ours, kl_divergence(posterior, prior))
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(losses.gaussian_log_density(z, mean, log_var), posterior.log_prob(z).sum(1))


def test_elbo_and_kl_against_a_million_samples():
    model = built(VAE((2,), latent_dim=2, hidden=(8,), likelihood="gaussian", sigma=0.7))
    x = torch.randn(1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        mean, std = model.posterior(x)
        z = mean + std * torch.randn(1_000_000, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        likely = Normal(model.decoder(z), 0.7).log_prob(x).sum(1)
        rates = (Normal(mean, std).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
        assert within(rates, losses.kl_to_standard_normal(mean, 2 * std.log()))
        noise = noise_for(model.likelihood_draws, 20_000)
        ours = model.log_likelihood(x.expand(20_000, 2), noise)
    truth, error = (likely - rates).mean(), (likely - rates).std() / 1000
    assert (ours.mean() - truth).abs() < 4 * math.hypot(error, ours.std() / math.sqrt(20_000))


def test_the_loss_of_a_vae_is_minus_its_elbo():
    model = built(VAE(DIGIT, latent_dim=3, hidden=(8,)))
    x, noise = grey(6), noise_for(model.likelihood_draws, 6)
    loss, parts = model.elbo_loss(x, at(0, noise))
    torch.testing.assert_close(-loss, model.log_likelihood(x, noise).mean())
    torch.testing.assert_close(parts["elbo"], -loss)


def test_free_bits_cost_nothing_below_and_everything_above():
    kl = torch.tensor([[0.1, 3.0], [0.4, 0.6]])
    assert losses.with_free_bits(kl, 0.5).tolist() == pytest.approx([3.5, 1.1])
    model = built(VAE(DIGIT, latent_dim=3, hidden=(8,), free_bits=50.0))
    noise = noise_for(model.likelihood_draws, 6)
    loss, parts = model.elbo_loss(grey(6), at(0, noise))
    torch.testing.assert_close(loss, parts["distortion"] + 3 * 50)
    assert parts["rate"] < 150


def test_warm_up_is_a_function_of_the_step():
    assert schedules.kl_weight(torch.tensor(7), 0) == 1
    assert [float(schedules.kl_weight(torch.tensor(step), 10)) for step in (0, 5, 10, 99)] == [0, 0.5, 1, 1]
    model = built(VAE(DIGIT, latent_dim=3, hidden=(8,), beta=2.0, kl_warmup=10))
    noise = noise_for(model.likelihood_draws, 6)
    for step, weight in ((0, 0.0), (5, 1.0), (50, 2.0)):
        loss, parts = model.elbo_loss(grey(6), at(step, noise))
        torch.testing.assert_close(loss, parts["distortion"] + weight * parts["rate"])


def test_reconstructions_are_the_same_or_as_many_as_asked_for():
    model = built(VAE(DIGIT, latent_dim=3, hidden=(8,)))
    x = grey(5)
    assert torch.equal(model.reconstruct(x), model.decode(model.posterior(x)[0]))
    several = model.reconstruct(x, draws=8)
    assert several.shape == (5, 8, *DIGIT)
    assert torch.equal(several, model.reconstruct(x, draws=8))
    assert several.std(1).max() > 0.01
    mean, std = model.posterior(x)
    z = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = model.decode(mean + std * z[:, 1])
    torch.testing.assert_close(model.reconstruct(x, draws=2, noise={"z": z})[:, 1], expected)


def test_a_loaded_vae_reconstructs_items_many_ways_whatever_their_companions(tmp_path):
    flags = {"steps": 2, "latent_dim": 3, "hidden": (8,), "sample_every": 0}
    vae = nacre.load(nacre.train("vae", out=tmp_path / "vae", **flags))
    x = torch.rand(5, 1, 8, 8)
    several = vae.reconstruct(x, draws=3)
    assert several.shape == (5, 3, 1, 8, 8)
    assert several.std(1).max() > 0.01
    torch.testing.assert_close(several, vae.reconstruct(x, draws=3, batch_size=2))
    torch.testing.assert_close(several, vae.module.reconstruct(x, draws=3))
    with pytest.raises(ConfigError, match="draws"):
        vae.reconstruct(x, draws=0)
    plain = nacre.load(nacre.train("ae", out=tmp_path / "ae", **flags))
    with pytest.raises(nacre.NacreError, match="one way only"):
        plain.reconstruct(x, draws=3)


def test_the_label_free_bound_is_below_the_exact_likelihood_of_the_mixture():
    """With a decoder that ignores z the model is a mixture of as many laws as there are labels."""
    model = built(VAE(DIGIT, latent_dim=2, hidden=(8,), classes=3, sigma=0.5))
    with torch.no_grad():
        first = next(parameter for parameter in model.decoder.parameters() if parameter.ndim == 2)
        first[:, :2] = 0
    x, noise = grey(7), noise_for(model.likelihood_draws, 7)
    seen = model.likelihood.observe(x, noise)
    z = torch.zeros(7, 2, dtype=torch.float64)
    each = torch.stack(
        [-model.likelihood.nll(model.decoder(model.code(z, torch.full((7,), y))), seen) for y in range(3)]
    )
    rate = losses.kl_to_standard_normal(*model.encoder(seen).chunk(2, 1))
    torch.testing.assert_close(model.log_likelihood(x, noise), each.exp().mean(0).log() - rate)


def test_labels_are_used_in_training_and_inferred_in_reconstruction():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 4.0], [4.0, 0.0], [-4.0, -4.0]])
    label = torch.arange(90) % 3
    x = centres[label] + 0.1 * torch.randn(90, 2)
    model = VAE((2,), latent_dim=2, hidden=(32,), classes=3)
    descent = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(200):
        noise = seeds.noises(model.objectives()[0].draws, 0, at=step, rows=range(90))
        loss, _ = model.elbo_loss((x, label), at(step, noise))
        descent.zero_grad()
        loss.backward()
        descent.step()
    with torch.no_grad():
        code = model.encode(x)
        assert code.shape == (90, model.code_dim) == (90, 5)
        assert (code[:, 2:].argmax(1) == label).float().mean() > 0.95
        assert (model.reconstruct(x) - x).abs().max() < 1.5
        made = sampling.sample(model, 30, labels=torch.arange(30) % 3)
        assert (made - centres[torch.arange(30) % 3]).norm(dim=1).median() < 1.5


def linear_gaussian():
    """x = W z + b + N(0, .5²) with a posterior that is not the true one, and log p(x) in closed form."""
    model = IWAE((3,), latent_dim=2, hidden=(4,), activation="linear", likelihood="gaussian", sigma=0.5, k_eval=5000)
    model = built(model)
    with torch.no_grad():
        model.encoder[-1].weight[2:] *= 0.1
        bias = model.decoder(torch.zeros(1, 2, dtype=torch.float64))[0]
        weight = torch.stack([model.decoder(unit[None])[0] - bias for unit in torch.eye(2, dtype=torch.float64)], 1)
    covariance = weight @ weight.T + 0.25 * torch.eye(3, dtype=torch.float64)
    return model, torch.distributions.MultivariateNormal(bias, covariance)


def test_the_bound_grows_with_k_to_the_exact_likelihood():
    model, exact = linear_gaussian()
    x = 0.5 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        bounds = [torch.stack([model.log_likelihood(x, noise_for(model.draws(k), 40, s)).mean() for s in range(r)]).mean()
                  for k, r in ((1, 200), (5, 100), (50, 20), (5000, 2))]  # fmt: skip
    truth = exact.log_prob(x).mean()
    assert bounds == sorted(bounds)
    assert truth - bounds[0] > 0.1
    assert (truth - bounds[-1]).abs() < 0.01


def test_importance_bound_is_a_log_mean_and_survives_large_numbers():
    weights = torch.tensor([[1.0, 4.0], [3.0, 0.0]]).double()
    torch.testing.assert_close(losses.importance_bound(weights.log()).exp(), weights.mean(0))
    assert losses.importance_bound(torch.full((7, 2), -1e4)).tolist() == pytest.approx([-1e4, -1e4])


def test_parts_of_samples_give_the_bound_of_all():
    noise = torch.randn(6, 11, 2, generator=torch.Generator().manual_seed(0))
    sizes = []

    def weigh(part):
        sizes.append(part.shape[1])
        return part.sum(2).T

    assert torch.equal(losses.log_weights_in_parts(weigh, noise, rows=24), noise.sum(2).T)
    assert sizes == [4, 4, 3]


def test_validation_takes_fewer_items_where_each_takes_many_samples():
    items = noise_for({"x": seeds.normal(2)}, 2500, dtype=torch.float32)["x"].numpy()
    for k, count in ((1, 2000), (50, 200), (100, 200)):
        score = validate(IWAE((2,), latent_dim=2, hidden=(4,), k_eval=k), items, np.arange(len(items)))
        assert (score.count, score.name.split(",")[0]) == (count, f"L_{k}")


def test_k_of_one_is_a_vae():
    """The same networks and the same noise: the bounds agree but for the KL, which the VAE has in closed form."""
    model = built(IWAE(DIGIT, latent_dim=3, hidden=(8,), k=1))
    vae = VAE(DIGIT, latent_dim=3, hidden=(8,), activation="tanh").double()
    vae.load_state_dict(model.state_dict())
    x = grey(1).expand(4000, *DIGIT)
    with torch.no_grad():
        difference = model.log_likelihood(x, noise_for(model.draws(1), 4000)) - vae.log_likelihood(
            x, noise_for(vae.likelihood_draws, 4000)
        )
        several = VAE(DIGIT, latent_dim=3, hidden=(8,), activation="tanh", k_eval=4).double()
        several.load_state_dict(model.state_dict())
        noise = noise_for(several.likelihood_draws, 10)
        torch.testing.assert_close(several.log_likelihood(x[:10], noise), model.log_likelihood(x[:10], noise))
    assert within(difference, 0.0)


@pytest.mark.parametrize("upper", [(), (2,)], ids=["one layer", "two layers"])
def test_dreg_has_the_expectation_of_iwae_and_less_variance(upper):
    model = built(IWAE((3,), latent_dim=2, upper_dims=upper, upper_hidden=(4,), hidden=(4,), k=16, sigma=0.5))
    x = 0.5 * torch.randn(1, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    encoders = [*model.encoder.parameters(), *model.upper_encoders.parameters()]
    decoders = [*model.decoder.parameters(), *model.upper_decoders.parameters()]

    def gradients(loss, seed):
        noise = noise_for(model.draws(16), 4, seed)
        found = torch.autograd.grad(loss(x.expand(4, 3), at(0, noise))[0], encoders + decoders)
        flat = [each.flatten() for each in found]
        return torch.cat(flat[: len(encoders)]), torch.cat(flat[len(encoders) :])

    plain, doubly = ([gradients(loss, seed) for seed in range(400)] for loss in (model.bound_loss, model.dreg_loss))
    for (_, one), (_, other) in zip(plain[:5], doubly, strict=False):
        torch.testing.assert_close(one, other)  # the decoder's gradient is the same number
    own, reparameterized = (torch.stack([encoder for encoder, _ in each]) for each in (plain, doubly))
    assert within(own - reparameterized, 0.0, 4.5)
    assert reparameterized.var(0).sum() < 0.7 * own.var(0).sum()


def test_two_stochastic_layers_are_the_papers_and_their_weights_are_ratios_of_densities():
    model = IWAE((1, 28, 28), latent_dim=100, upper_dims=(50,))
    sizes = [[layer.out_features for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
             for part in (model.encoder, model.upper_encoders, model.upper_decoders, model.decoder)]  # fmt: skip
    assert sizes == [[200, 200, 200], [100, 100, 100], [100, 100, 200], [200, 200, 784]]
    model = built(IWAE(DIGIT, latent_dim=3, upper_dims=(2,), hidden=(8,), upper_hidden=(5,)))
    x, noise = grey(4), noise_for(model.draws(6), 4)
    seen = model.likelihood.observe(x, noise)
    latents, posteriors = model.infer(model.first(seen), model.latent_noise(noise))
    (h1, h2), ((m1, v1), (m2, v2)) = latents, posteriors
    m0, v0 = model.upper_decoders[0](h2).chunk(2, -1)
    logits = model.decoder(h1.flatten(0, 1)).view(4, 6, *DIGIT)
    joint = torch.distributions.Bernoulli(logits=logits).log_prob(seen[:, None].expand_as(logits)).flatten(2).sum(2)
    joint = joint + Normal(m0, (v0 / 2).exp()).log_prob(h1).sum(2) + Normal(0.0, 1.0).log_prob(h2).sum(2)
    inferred = Normal(m1, (v1 / 2).exp()).log_prob(h1).sum(2) + Normal(m2, (v2 / 2).exp()).log_prob(h2).sum(2)
    torch.testing.assert_close(model.log_weights(seen, latents, posteriors), (joint - inferred).T)


def test_precision_weighted_is_the_product_of_two_normal_laws():
    torch.manual_seed(0)
    mean, log_var, prior_mean, prior_log_var = torch.randn(4, 50, dtype=torch.float64)
    ours, ours_log_var = ladder.precision_weighted((mean, log_var), (prior_mean, prior_log_var))
    precision = (-log_var).exp() + (-prior_log_var).exp()
    torch.testing.assert_close(ours_log_var.exp(), 1 / precision)
    torch.testing.assert_close(ours, (mean * (-log_var).exp() + prior_mean * (-prior_log_var).exp()) / precision)
    z = torch.randn(50, dtype=torch.float64)
    product = Normal(mean, (log_var / 2).exp()).log_prob(z) + Normal(prior_mean, (prior_log_var / 2).exp()).log_prob(z)
    at_mean = Normal(mean, (log_var / 2).exp()).log_prob(ours)
    at_mean = at_mean + Normal(prior_mean, (prior_log_var / 2).exp()).log_prob(ours)
    law = Normal(ours, (ours_log_var / 2).exp())
    torch.testing.assert_close(product - at_mean, law.log_prob(z) - law.log_prob(ours))


@pytest.mark.parametrize(
    "parameters", [{"network": "mlp", "hidden": (12, 8)}, {"network": "conv", "width": 4}], ids=str
)
def test_a_ladders_bound_is_the_mean_of_its_log_weights_and_grows_with_k(parameters):
    torch.manual_seed(0)
    model = LVAE((1, 6, 5), latent_dim=3, latent_channels=1, **parameters).double()
    x = grey(1, (1, 6, 5)).round()
    with torch.no_grad():
        noise = noise_for(model.draws(1) | model.likelihood.draws, 3000)
        elbo = model.log_likelihood(x.expand(3000, *x.shape[1:]), noise)
        one_each = {name: draw[:, None] if name in model.names else draw for name, draw in noise.items()}
        assert within(model.log_likelihood(x.expand(3000, *x.shape[1:]), one_each) - elbo, 0.0)
        model.k_eval = 100
        assert model.likelihood_name.startswith("L_100, ")
        tighter = model.log_likelihood(x.expand(30, *x.shape[1:]), noise_for(model.likelihood_draws, 30))
    assert tighter.mean() > elbo.mean() + 4 * elbo.std() / math.sqrt(3000)


def test_a_ladders_samples_evidence_and_codes():
    torch.manual_seed(0)
    model = LVAE((3, 9, 14), latent_dim=5, layers=2, latent_channels=2, width=4, network="conv").double()
    assert model.latents == [(5,), (2, 3, 4), (2, 3, 4), (2, 5, 7), (2, 5, 7)]
    x = grey(4, (3, 9, 14))
    code = model.encode(x)
    assert code.shape == (4, model.code_dim) == (4, 5 + 2 * 24 + 2 * 70)
    output, layers = model.descend([torch.zeros(4, *latent).double() for latent in model.latents], model.features(x))
    torch.testing.assert_close(model.reconstruct(x), model.likelihood.mean(output))
    for layer in layers:  # evidence can only add to what the prior knows
        assert (layer.posterior[1] <= layer.prior[1]).all()
    with pytest.raises(ConfigError, match="two hidden layers"):
        LVAE((2,), hidden=(8,))


def m2_batch():
    model = built(M2(DIGIT, classes=3, latent_dim=2, hidden=(8, 6), alpha=7.0))
    return model, grey(6), torch.tensor([0, -1, 2, -1, 1, -1]), noise_for(model.likelihood_draws, 6)


def test_m2_sums_the_classes_out():
    model, x, _, noise = m2_batch()
    seen = model.likelihood.observe(x, noise)
    chances = model.classify(seen)
    expected = []
    for item in range(6):
        total = 0.0
        for y in range(3):
            label = torch.tensor([y])
            mean, log_var = model.given(model.encoder(seen[item : item + 1]), label)
            z = mean + (log_var / 2).exp() * noise["z"][item : item + 1]
            output = model.decoder(model.code(z, label))
            bound = torch.distributions.Bernoulli(logits=output).log_prob(seen[item]).sum() - math.log(3)
            bound = bound - kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum()
            total = total + chances[item, y] * (bound - chances[item, y].log())
        expected.append(total)
    torch.testing.assert_close(model.log_likelihood(x, noise), torch.stack(expected))


def test_m2s_best_bound_is_the_mixtures_likelihood():
    bounds = torch.tensor([[-3.0, -1.0, -7.0]]).double()
    torch.testing.assert_close(summed_out(bounds, bounds.log_softmax(1)), bounds.logsumexp(1))


def test_m2s_loss_of_a_mixed_batch_is_the_mean_of_its_items():
    model, x, label, noise = m2_batch()
    loss, parts = model.loss((x, label), at(0, noise))
    seen = model.likelihood.observe(x, noise)
    bounds, log_q = model.bounds(seen, noise["z"]), model.classify(seen).log()
    unlabelled = model.log_likelihood(x, noise)
    each = [-bounds[i, y] - 7 * log_q[i, y] if y >= 0 else -unlabelled[i] for i, y in enumerate(label.tolist())]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    assert parts["labelled"].item() == pytest.approx(0.5)
    alone = [
        model.loss((x[i : i + 1], label[i : i + 1]), at(0, {n: d[i : i + 1] for n, d in noise.items()}))[0]
        for i in range(6)
    ]
    torch.testing.assert_close(loss, torch.stack(alone).mean())
    with pytest.raises(ConfigError, match="labels"):
        M2(DIGIT)


def test_each_row_of_the_vaegan_has_its_own_loss_and_parts():
    torch.manual_seed(0)
    model = VAEGAN((1, 8, 8), latent_dim=3, hidden=(16, 8), feature_std=0.5, gamma=0.5, r1=0.0).double()
    rows = {row.name: row for row in model.objectives()}
    assert {name: row.over for name, row in rows.items()} == {
        name: (name,) for name in ("encoder", "decoder", "discriminator")
    }
    x = grey(6, (1, 8, 8))
    noise = noise_for(rows["decoder"].draws, 6)
    mean, std = model.posterior(x)
    remade, made = model.decode(mean + std * noise["eps"]), model.decode(noise["z"])
    features = torch.nn.Sequential(*list(model.discriminator[0]))
    error = (features(2 * remade - 1) - features(2 * x - 1)).square().sum() / 6 / (2 * 0.25)
    rate = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum() / 6
    real, fakes = torch.sigmoid(model.realness(x)), [torch.sigmoid(model.realness(each)) for each in (remade, made)]
    expected = {
        "encoder": rate + error,
        "decoder": 0.5 * error - sum(fake.log().mean() for fake in fakes),
        "discriminator": -real.log().mean() - sum((1 - fake).log().mean() for fake in fakes),
    }
    for name, row in rows.items():
        torch.testing.assert_close(row.loss(x, at(0, noise))[0], expected[name])


def test_the_penalties_of_the_vaegan_are_at_real_items_and_at_samples():
    torch.manual_seed(0)
    flags: dict[str, Any] = {"latent_dim": 3, "hidden": (16, 8)}
    plain = VAEGAN((1, 8, 8), r1=0.0, **flags).double()
    model = VAEGAN((1, 8, 8), r1=0.3, r2=0.7, **flags).double()
    model.load_state_dict(plain.state_dict())
    row = {row.name: row for row in model.objectives()}["discriminator"]
    x, noise = grey(6, (1, 8, 8)), noise_for(row.draws, 6)
    loss, parts = row.loss(x, at(0, noise))
    for name, items in {"r1": x, "r2": model.decode(noise["z"]).detach()}.items():
        shown = (2 * items - 1).requires_grad_()
        (slopes,) = torch.autograd.grad(model.discriminator(shown).sum(), shown)
        assert parts[name].item() == pytest.approx(slopes.flatten(1).square().sum(1).mean().item())
    game = plain.discriminator_loss(x, at(0, noise))[0]
    assert loss.item() == pytest.approx((game + 0.15 * parts["r1"] + 0.35 * parts["r2"]).item())


def test_a_conditional_vaegan_tells_both_players_the_label_and_infers_it():
    torch.manual_seed(0)
    model = VAEGAN((1, 8, 8), latent_dim=3, hidden=(16, 8), classes=3).double()
    assert (model.code_dim, set(model.prior)) == (6, {"z", "label"})
    x, label = grey(6, (1, 8, 8)), torch.arange(6) % 3
    for row in model.objectives():
        step = at(0, noise_for(row.draws, 6))
        first, second = (row.loss((x, y), step)[0].item() for y in (label, (label + 1) % 3))
        assert math.isfinite(first)
        assert first != second
    each = torch.stack([model.realness(x, torch.full((6,), k)) for k in range(3)])
    torch.testing.assert_close(model.realness(x), each.exp().mean(0).log())
    # The code's label is the one under which the remade item is closest in the discriminator's features.
    code = model.encode(x)
    assert torch.equal(code[:, :3], model.posterior(x)[0])
    errors = []
    for k in range(3):
        remade = model.decode(torch.cat([code[:, :3], torch.eye(3)[k].expand(6, 3)], 1))
        errors.append((model.features(remade) - model.features(x)).square().sum(1))
    assert torch.equal(code[:, 3:].argmax(1), torch.stack(errors).argmin(0))
    torch.testing.assert_close(model.sample({"z": code[:, :3], "label": code[:, 3:].argmax(1)}), model.reconstruct(x))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vae", {"classes": 3, "k_eval": 3, "likelihood": "discretized-logistic"}),
        ("vae", {"free_bits": 0.5, "kl_warmup": 5, "likelihood": "continuous-bernoulli"}),
        ("iwae", {"estimator": "dreg", "upper_dims": (10,)}),
        ("vaegan", {"classes": 3, "width": 4}),
    ],
    ids=str,
)
def test_variants_keep_the_contract(name, parameters):
    assert not [finding for finding in check_model(name, parameters) if finding.passed is False]


def stacked(**flags):
    below = built(VAE(DIGIT, latent_dim=3, hidden=(8,)))
    model = M2(DIGIT, classes=3, encoder=below, latent_dim=2, hidden=(8, 6), **flags)  # type: ignore[arg-type]
    return built(model), grey(6), torch.tensor([0, -1, 2, -1, 1, -1]), noise_for(model.likelihood_draws, 6)


def test_m1_m2s_bound_is_that_of_both():
    """log p(x|z1) + log p(z1) - log q(z1|x), where M2 bounds log p(z1)."""
    model, x, _, noise = stacked()
    m1 = model.below
    seen = m1.likelihood.observe(x, {name.removeprefix("below_"): each for name, each in noise.items()})
    mean, std = m1.posterior(seen)
    z = mean + std * noise["below_z"]
    inner = summed_out(model.bounds(z, noise["z"]), model.classifier(z).log_softmax(1))
    expected = m1.log_density(seen, z) + inner - Normal(mean, std).log_prob(z).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, noise), expected)
    assert model.encode(x).shape == (6, 5)
    assert model.reconstruct(x).shape == x.shape
    assert "Bernoulli" in model.likelihood_name


def test_m1_learns_nothing_in_m2():
    model, x, label, noise = stacked(labelled_share=0.5)
    before = {name: each.clone() for name, each in model.below.state_dict().items()}
    model.train().loss((x, label), at(0, noise))[0].backward()
    assert not model.below.training
    assert all(each.grad is None for each in model.below.parameters())
    assert all(each.grad is not None for each in model.classifier.parameters())
    other = {name: each + 1 for name, each in before.items()}
    model.take(other)
    torch.testing.assert_close(dict(model.below.state_dict()), other)
    with pytest.raises(ConfigError, match="leave --origin out"):
        model.take({})


def test_what_m2_cannot_stand_on():
    for wrong in (AE(DIGIT), VAE(DIGIT, classes=3), IWAE(DIGIT, upper_dims=(2,))):
        with pytest.raises(ConfigError, match="stands on a `vae` or `iwae` without labels"):
            M2(DIGIT, classes=3, encoder=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"shape \(1, 8, 8\), and the data are \(1, 28, 28\)"):
        M2((1, 28, 28), classes=3, encoder=VAE((1, 8, 8)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leave --likelihood and --sigma out"):
        stacked(sigma=0.1)
    with pytest.raises(ConfigError, match="labelled_share is a share"):
        M2(DIGIT, classes=3, labelled_share=1.5)
    with pytest.raises(ConfigError, match="one hidden layer at least"):
        M2(DIGIT, classes=3, hidden=())


def test_m1_m2_trains_resumes_and_loads_from_its_own_files(tmp_path):
    settings = {"batch_size": 16, "sample_every": 0, "labelled": 40}
    below = nacre.train("vae", out=tmp_path / "m1", steps=20, batch_size=16, sample_every=0, latent_dim=4, hidden=(16,))
    flags = {"encoder": str(below.path), "labelled_share": 0.25, "latent_dim": 2, "hidden": (16, 8)}
    nacre.train("m2", out=tmp_path / "whole", steps=12, **flags, **settings)
    half = nacre.train("m2", out=tmp_path / "half", steps=6, **flags, **settings)
    trained = nacre.load(below).module.state_dict()
    shutil.rmtree(tmp_path / "m1")
    nacre.resume(half.path, steps=12)
    a, b = (nacre.load(tmp_path / name) for name in ("whole", "half"))
    for name, each in a.module.state_dict().items():
        assert torch.equal(each, b.module.state_dict()[name]), name
    for name, each in trained.items():
        assert torch.equal(each, a.module.below.state_dict()[name]), name
    assert a.classify(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert a.sample(3).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("size", [32, 64])
def test_a_vaegans_judge_sees_a_difference_from_the_start(size):
    """Layers without norms must not shrink what they are handed: features of different images were once all alike."""
    torch.manual_seed(0)
    model = VAEGAN((1, size, size), width=16)
    apart = model.features(grey(8, (1, size, size)).float()).flatten(1).std(0).mean()
    assert 0.05 < apart < 5
