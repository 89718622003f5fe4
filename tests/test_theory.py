"""What theory says: closed forms, identities, and trained networks held against exact answers."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from nacre import losses, seeds
from nacre.data import pearls
from nacre.data.toys import open_toy
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.errors import ConfigError
from nacre.theory import (
    FixedForger,
    Gaussian,
    Gaussians,
    Uniform,
    against_exact,
    best_value,
    central_region,
    dirac,
    elbo,
    game_value,
    hmc,
    jsd,
    kl,
    logit_of,
    normal,
    optimal_discriminator,
    optimal_logit,
    posterior,
    sample_bounds,
    toy,
    wasserstein,
    wasserstein_of_samples,
)

P, Q = normal(0.0), normal(1.0)


def close(quantity, value, tolerance=1e-9):
    assert quantity.value == pytest.approx(value, abs=tolerance)
    assert abs(quantity.value - value) <= max(quantity.error, 1e-14)
    return quantity.error <= tolerance


def test_divergences_of_gaussians_and_intervals():
    assert close(kl(P, Q), 0.5)
    assert close(kl(normal(1.0, 2.0), normal(-1.0, 0.5)), math.log(0.25) + (4 + 4) / (2 * 0.25) - 0.5)
    assert close(kl(normal((0.0, 1.0), 0.5), normal((2.0, 1.0), 0.5)), 8.0, 1e-7)
    assert close(kl(Uniform(0, 1), Uniform(0, 2)), math.log(2))
    assert kl(Uniform(0, 2), Uniform(0, 1)).value == math.inf
    assert close(jsd(Uniform(0, 1), Uniform(0.25, 1.25)), 0.25 * math.log(2))
    x = P.sample(400_000, np.random.default_rng(0))
    y = Q.sample(400_000, np.random.default_rng(1))
    logit = optimal_logit(P, Q)
    drawn = (np.logaddexp(0, -logit(x)).mean() + np.logaddexp(0, logit(y)).mean()) / 2
    assert jsd(P, Q).value == pytest.approx(math.log(2) - drawn, abs=0.002)


def test_jsd_is_within_log_2_nats_or_one_bit():
    apart = jsd(Uniform(0, 1), Uniform(3, 4))
    assert apart.value == pytest.approx(math.log(2))
    assert (apart.unit, apart.bits.unit) == ("nats", "bits")
    assert apart.bits.value == pytest.approx(1)
    assert jsd(P, P).value == pytest.approx(0, abs=1e-12)
    assert jsd(P, Q).value == pytest.approx(jsd(Q, P).value)
    with pytest.raises(ConfigError, match="a distance"):
        wasserstein(P, Q).bits  # noqa: B018


def test_the_best_discriminator_is_worth_twice_jsd_less_log_4():
    for p, q in ((P, Q), (normal((0.0, 0.0)), normal((1.0, -1.0), 0.5)), (normal(0.0), Gaussians(*_two()))):
        logit = optimal_logit(p, q)
        value, best = game_value(p, q, logit), best_value(p, q)
        assert value.value == pytest.approx(best.value, abs=value.error + best.error + 1e-9)
        assert best.value == pytest.approx(2 * jsd(p, q).value - math.log(4))
        for worse in (lambda x, f=logit: f(x) + 0.1, lambda x, f=logit: 0.9 * f(x)):
            assert game_value(p, q, worse).value < value.value


def _two():
    return np.array([[-2.0], [2.0]]), np.array([0.5, 0.3]), np.array([0.25, 0.75])


def test_the_optimal_discriminator_is_p_over_p_plus_q():
    x = np.linspace(-3, 3, 7)[:, None]
    p, q = np.exp(P.log_density(x)), np.exp(Q.log_density(x))
    assert optimal_discriminator(P, Q)(x) == pytest.approx(p / (p + q))
    assert optimal_logit(P, Q)(x) == pytest.approx(0.5 - x[:, 0])
    inside = optimal_discriminator(Uniform(0, 1), Uniform(0.5, 1.5))(np.array([[0.2], [0.7], [1.2], [2.0]]))
    assert inside[:3] == pytest.approx([1, 0.5, 0])
    assert np.isnan(inside[3])


def test_the_game_is_at_its_global_optimum_where_the_forger_has_the_density_of_the_data():
    best = [best_value(P, normal(mean, std)).value for mean, std in ((0, 1), (0.1, 1), (0, 1.1), (-0.5, 0.7), (5, 1))]
    assert best[0] == pytest.approx(-math.log(4))
    assert min(best[1:]) > best[0] + 1e-3
    assert best[4] == pytest.approx(0, abs=0.04)
    undecided = game_value(P, P, lambda x: np.zeros(len(x)))
    assert undecided.value == pytest.approx(-1.386294361)


def test_wasserstein_tells_how_far_where_jsd_does_not():
    for shift in (1.0, 2.0, 5.0):
        assert jsd(Uniform(0, 1), Uniform(shift, 1 + shift)).value == pytest.approx(math.log(2))
        assert close(wasserstein(Uniform(0, 1), Uniform(shift, 1 + shift)), shift)
    assert close(wasserstein(P, normal(0.0, 2.0)), math.sqrt(2 / math.pi))
    assert close(wasserstein(Uniform(0, 1), Uniform(0.25, 0.75)), 0.125)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=37), generator.normal(size=101)
    assert wasserstein_of_samples(x, y) == pytest.approx(wasserstein_distance(x, y), abs=1e-12)
    many = [each.sample(200_000, generator)[:, 0] for each in (P, normal(0.0, 2.0))]
    assert wasserstein_of_samples(*many) == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)
    with pytest.raises(ConfigError, match="one dimension"):
        wasserstein(toy("ring8"), toy("ring8"))


def test_densities_are_what_they_say():
    ring = toy("ring8")
    points = open_toy("ring8", 0).points.astype(np.float64)
    entropy = math.log(8) + 1 + math.log(2 * math.pi * 0.01**2)  # the modes do not overlap
    assert -ring.log_density(points).mean() == pytest.approx(entropy, abs=0.02)
    assert ring.seen_through(0.01).stds == pytest.approx(np.full(8, 0.01 * math.sqrt(2)))
    mixture = Gaussians(*_two())
    sample = np.sort(mixture.sample(100_000, np.random.default_rng(0))[:, 0])
    assert mixture.cdf(sample) == pytest.approx(np.linspace(0, 1, 100_000), abs=0.01)
    with pytest.raises(ConfigError, match="is not known"):
        toy("swissroll")
    with pytest.raises(ConfigError, match="sum 1"):
        Gaussians(np.zeros((1, 1)), np.ones(1), np.array([0.5]))
    with pytest.raises(ConfigError, match="low end"):
        Uniform(1, 1)
    with pytest.raises(ConfigError, match="one number of dimensions"):
        jsd(P, ring)


def test_a_trained_discriminator_finds_the_exact_one():
    training = Training(steps=1200, batch_size=512, lr_schedule="cosine")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        game = FixedForger((1,), forger=Q, hidden=(16, 16))
    update = Update(game, game.objectives()[0], training)
    for step in range(1200):
        update(step, seeds.noise(seeds.normal(1), 0, "data", rows=range(512), at=step))
    verdict = against_exact(logit_of(game.realness), P, Q)
    assert verdict.region == pytest.approx(central_region(P, Q))
    assert verdict.region == pytest.approx((-1.681, 2.681), abs=0.001)
    assert verdict.logit_error <= 0.1
    assert verdict.best.value == pytest.approx(-1.16345, abs=1e-5)
    assert 0 <= verdict.best.value - verdict.value.value <= 1e-3


def test_a_fixed_forger_makes_points_of_its_density():
    forger = Gaussians(*_two())
    game = FixedForger((1,), forger=forger)
    noise = seeds.noises(game.prior, 0, rows=range(50_000))
    assert (
        wasserstein_of_samples(
            game.sample(noise)[:, 0].double().numpy(), forger.sample(50_000, np.random.default_rng(0))[:, 0]
        )
        < 0.03
    )


@pytest.mark.parametrize("game", dirac.GAMES)
def test_the_dirac_game_is_that_of_the_losses(game):
    """Its velocities are the gradients of the very losses that the models train with."""
    theta, psi = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.7, -1.3))
    data = torch.zeros(1, dtype=torch.float64)

    def critic(x):
        return (psi * x).flatten()

    real, fake = critic(data), critic(theta)
    if game.startswith("wgan"):
        judge, forge = fake.mean() - real.mean(), -fake.mean()
    else:
        judge = losses.discriminator_loss(real, fake)
        saturating = game != "non-saturating"
        forge = (losses.minimax_generator_loss if saturating else losses.non_saturating_generator_loss)(fake)
    if game == "wgan-gp":
        mix = torch.full((1, 1), 0.4, dtype=torch.float64)
        fake_item = theta.detach().view(1, 1)
        judge = judge + 0.25 * losses.gradient_penalty(critic, data.view(1, 1), fake_item, mix)
    if game == "r1":
        judge = judge + 0.5 / 2 * losses.r1_penalty(critic, data.view(1, 1))[0]
    expected = -torch.autograd.grad(forge, theta, retain_graph=True)[0], -torch.autograd.grad(judge, psi)[0]
    found = dirac.velocity(game, np.array([0.7, -1.3]))
    assert found == pytest.approx([float(each) for each in expected], abs=1e-9)


def test_r1_spirals_in_and_plain_circles():
    radius = {game: np.linalg.norm(dirac.path(game, (1, 0.5), steps=1000), axis=1) for game in dirac.GAMES}
    assert radius["plain"] == pytest.approx(np.full(1001, math.sqrt(1.25)), abs=1e-3)
    assert radius["wgan"] == pytest.approx(np.full(1001, math.sqrt(1.25)), abs=1e-3)
    assert radius["r1"][-1] < 1e-6
    assert radius["wgan-gp"][-100:].min() > 0.05
    assert (np.diff(radius["non-saturating"]) <= 1e-12).all()
    assert radius["non-saturating"][-1] > 0.2
    angle = np.unwrap(np.arctan2(*dirac.path("r1", (1, 0.5), steps=400).T[::-1]))
    assert abs(angle[-1] - angle[0]) > 4 * math.pi
    # Near the origin it shrinks as exp(-γ t / 2): Mescheder et al. 2018, lemma 4.1's eigenvalues.
    late = np.linalg.norm(dirac.path("r1", (1e-4, 0.0), steps=1000, step_size=0.02), axis=1)
    assert math.log(late[-1] / late[0]) / 20 == pytest.approx(-0.25, abs=0.03)


def test_simultaneous_steps_run_away_and_alternating_ones_do_not():
    way = {
        method: dirac.path("wgan", (0.5, 0), steps=500, clip=1e9, method=method)
        for method in ("simultaneous", "alternating")
    }
    radius = {method: np.linalg.norm(each, axis=1) for method, each in way.items()}
    assert radius["simultaneous"] == pytest.approx(0.5 * 1.01 ** (np.arange(501) / 2))
    assert radius["alternating"].max() < 0.56
    assert np.abs(dirac.path("wgan", (3, 0), steps=100, clip=0.5)[:, 1]).max() == 0.5
    with pytest.raises(ConfigError, match="the games are"):
        dirac.velocity("lsgan", np.zeros(2))


def linear(latents, seed=0):
    """A linear-Gaussian model, whose posterior has a closed form: x = W z + b + σ ε."""
    generator = torch.Generator().manual_seed(seed)
    weights, x = (torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (latents, 1))
    sigma = 0.5

    def log_likelihood(z):
        return losses.gaussian_log_density(x[:, 0] - z @ weights.T, 0.0, 2 * math.log(sigma))

    covariance = torch.linalg.inv(torch.eye(latents) + weights.T @ weights / sigma**2)
    mean = covariance @ weights.T @ x[:, 0] / sigma**2
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(6, dtype=torch.float64), weights @ weights.T + sigma**2 * torch.eye(6)
    )
    return log_likelihood, mean, covariance, float(marginal.log_prob(x[:, 0]))


@pytest.mark.parametrize("latents", [1, 2])
def test_the_posterior_of_a_linear_model(latents):
    log_likelihood, mean, covariance, evidence = linear(latents)
    q = Gaussian(mean + 0.1, covariance.diagonal().sqrt() * 1.2)
    found = posterior(log_likelihood, latents, q)
    assert found.log_evidence.value == pytest.approx(evidence, abs=1e-8)
    assert torch.allclose(found.mean, mean, atol=1e-8)
    assert torch.allclose(found.covariance, covariance, atol=1e-8)
    exact = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(q.mean, torch.diag(q.std**2)),
        torch.distributions.MultivariateNormal(mean, covariance),
    )
    assert found.kl_from(q).value == pytest.approx(float(exact), abs=1e-7)
    assert elbo(log_likelihood, q).value == pytest.approx(evidence - float(exact), abs=1e-7)


def test_a_narrow_posterior_is_found():
    def log_likelihood(z):
        return -((z - torch.tensor([2.7, -1.1])) / 1e-3).square().sum(1) / 2

    found = posterior(log_likelihood, 2)
    assert found.mean == pytest.approx([2.7, -1.1], abs=1e-5)
    assert found.covariance.diagonal().sqrt() == pytest.approx([1e-3, 1e-3], rel=1e-4)
    with pytest.raises(ConfigError, match="1 or 2 latents"):
        posterior(log_likelihood, 3)


@pytest.fixture(scope="module")
def vae():
    """A small VAE on the digits, trained a little, in float64, with 20 digits that it is asked about."""
    from nacre.data import DataSettings, load
    from nacre.models.vae import VAE

    items = torch.from_numpy(load(DataSettings(data="digits")).items).float() / 255
    torch.manual_seed(0)
    model = VAE((1, 8, 8), latent_dim=2, hidden=(32,), activation="tanh")
    update = Update(model, model.objectives()[0], Training(steps=400, batch_size=128, lr=3e-3))
    for step in range(400):
        chosen = seeds.permutation(0, step, len(items))[:128]
        update(step, items[chosen])
    model = model.double().eval()
    pixels = seeds.noises(model.likelihood.draws, 0, "pixels", rows=range(20), dtype=torch.float64)
    return model, model.likelihood.observe(items[:20].double(), pixels)


def asked(model, x):
    """log p(x|z) of one item, and q(z|x)."""
    with torch.no_grad():
        mean, std = model.posterior(x[None])
    return lambda z: model.log_density(x.expand(len(z), *x.shape), z), Gaussian(mean[0], std[0])


def test_the_evidence_is_the_bound_and_what_it_misses(vae):
    """log p(x) = L + KL(q || p(z|x)) on 20 digits: two quadratures on grids that have nothing in common."""
    model, digits = vae
    gaps = []
    for digit in digits:
        log_likelihood, q = asked(model, digit)
        truth = posterior(log_likelihood, 2, q)
        gap, bound = truth.kl_from(q), elbo(log_likelihood, q)
        assert truth.log_evidence.error + gap.error + bound.error < 1e-3
        assert truth.log_evidence.value == pytest.approx(bound.value + gap.value, abs=1e-3)
        gaps.append(gap.value)
    assert min(gaps) > 1e-3  # q is not the posterior: the identity is no tautology
    assert max(gaps) < 50


def test_the_bound_rises_to_the_evidence_with_its_samples(vae):
    model, digits = vae
    log_likelihood, q = asked(model, digits[0])
    evidence = posterior(log_likelihood, 2).log_evidence.value
    bounds = sample_bounds(log_likelihood, q, (1, 5, 50, 1000))
    values = [bound.value for bound in bounds.values()]
    assert values == sorted(values)
    assert bounds[1].value == pytest.approx(elbo(log_likelihood, q).value, abs=bounds[1].error)
    assert all(bound.value <= evidence + bound.error for bound in bounds.values())
    assert values[-1] == pytest.approx(evidence, abs=0.02)


def test_hmc_has_the_moments_of_the_grid(vae):
    model, digits = vae
    log_likelihood, _ = asked(model, digits[3])
    truth, chains = posterior(log_likelihood, 2), hmc(log_likelihood, 2, chains=64, draws=150, warmup=150)
    assert 0.5 < chains.accepted < 0.99
    for (value, se), exact in ((chains.mean, truth.mean), (chains.covariance, truth.covariance)):
        assert ((value - exact).abs() <= 3 * se).all()
        assert (se < 0.1 * truth.covariance.diagonal().sqrt().max()).all()


def test_hmc_on_a_linear_model_and_off_it():
    log_likelihood, mean, covariance, _ = linear(2)
    chains = hmc(log_likelihood, 2, chains=100, draws=100, warmup=100)
    value, se = chains.mean
    assert ((value - mean).abs() <= 3 * se).all()
    value, se = chains.covariance
    assert ((value - covariance).abs() <= 3 * se).all()
    again = hmc(log_likelihood, 2, chains=100, draws=100, warmup=100)
    assert torch.equal(again.samples, chains.samples)


def test_pearls_are_as_known():
    source = open_toy("pearls", 3)
    assert source.images.shape == (pearls.COUNT, 16, 16, 1)
    assert source.listing.kind == "digits"  # squareness is its own mirror image, and so is a pearl
    images, parameters = pearls.pearls(pearls.COUNT, np.random.default_rng(3))
    assert (images[..., None] == source.images).all()
    assert source.listing.captions[7] == f"radius {parameters[7, 0]:.4f}, squareness {parameters[7, 1]:.4f}"
    assert parameters.mean(0) == pytest.approx([5, 0.3], abs=0.02)
    assert parameters.std(0) == pytest.approx([0.5, 0.1], rel=0.03)
    error = pearls.measure(images) - parameters
    assert np.abs(error.mean(0)).max() < 0.002
    assert error.std(0).max() < 0.02
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == pearls.COUNT
    assert np.abs(images.astype(int) - pearls.draw(parameters)).max() == 1  # rounded, up or down


def test_pearls_of_every_size_and_shape_are_measured():
    made = np.array([(radius, square) for radius in (3.5, 5.0, 6.5) for square in (0.0, 0.3, 0.6, 0.9)])
    images = pearls.draw(made)
    assert pearls.measure(images) == pytest.approx(made, abs=0.06)
    assert pearls.measure(images / 255) == pytest.approx(pearls.measure(images))
    moved = np.roll(images[:6], (1, -1), (1, 2))
    assert pearls.measure(moved) == pytest.approx(pearls.measure(images[:6]))
    assert (pearls.measure(np.zeros((1, 16, 16))) == 0).all()
    discs, squares = images[0] / 255.0, pearls.draw(np.array([[3.5, 0.95]]))[0] / 255.0
    assert discs.sum() == pytest.approx(math.pi * 3.5**2, rel=0.01)
    assert squares.sum() == pytest.approx(49, rel=0.01)
