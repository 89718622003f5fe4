"""The ground floor, against closed forms and other implementations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from nacre import images, losses, schedules, seeds


@pytest.mark.parametrize(
    "draw",
    [seeds.normal(3), seeds.uniform(3), seeds.uniform(2, 4), seeds.uniform(1), seeds.coarse(5), seeds.coarse(2, 2)],
    ids=str,
)
def test_noise_rows_are_the_same_whoever_draws_them(draw):
    address = (7, "elbo", "z")
    whole = seeds.noise(draw, *address, at=100, rows=range(200))
    assert whole.shape == (200, *draw.shape)
    assert len(whole.unique()) > 0.98 * whole.numel()
    for rows in (range(0, 1), range(10, 70), range(63, 65), range(128, 200), range(199, 200), range(5, 5)):
        assert torch.equal(seeds.noise(draw, *address, at=100, rows=rows), whole[rows.start : rows.stop])


@pytest.mark.parametrize("draw", [seeds.normal(4), seeds.uniform(4)], ids=str)
def test_noise_differs_by_every_part_of_its_address(draw):
    addresses = [(0, "a", "z"), (1, "a", "z"), (0, "b", "z"), (0, "a", "y"), (0, 1, "a", "z")]
    moments = [(address, at) for address in addresses for at in (0, 1, 2, 10**6)]
    drawn = {tuple(seeds.noise(draw, *address, at=at, rows=range(1)).flatten().tolist()) for address, at in moments}
    assert len(drawn) == len(moments)


def test_noise_of_neighbouring_steps_and_rows_is_independent():
    for draw in (seeds.normal(64), seeds.uniform(64), seeds.coarse(64)):
        steps = torch.stack([seeds.noise(draw, 0, "a", at=at, rows=range(40)).flatten() for at in range(40)]).double()
        correlations = torch.corrcoef(steps) - torch.eye(40)
        assert correlations.abs().max() < 5 / math.sqrt(steps.shape[1])


def test_noise_has_its_law():
    normal = seeds.noise(seeds.normal(50), "law", rows=range(2000)).double()
    assert abs(normal.mean()) < 4 / math.sqrt(1e5)
    assert abs(normal.std() - 1) < 4 / math.sqrt(2e5)
    uniform = seeds.noise(seeds.uniform(50), "law", rows=range(2000)).double()
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 / math.sqrt(12e5)


def test_coarse_noise_binarizes_every_grey_level_rightly():
    levels = torch.arange(256) / 255
    values = (torch.arange(65536).float() * (1 / 65535)).clamp(max=65534 / 65535)  # all that it can be
    drawn = seeds.noise(seeds.coarse(64), "coarse", rows=range(4000))
    assert torch.isin(drawn, values).all()
    assert abs(drawn.double().mean() - 0.5) < 4 / math.sqrt(12 * drawn.numel())
    ones = (values[:, None] < levels).double().mean(0)
    assert (ones - levels).abs().max() < 2e-5
    assert ones[0] == 0
    assert ones[255] == 1


def test_drawing_leaves_the_ambient_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    seeds.noise(seeds.normal(2), 0, rows=range(5))
    assert torch.equal(torch.rand(2), expected)


def test_permutations_are_permutations_and_change_with_the_epoch():
    first, second = seeds.permutation(5, 0, 100), seeds.permutation(5, 1, 100)
    assert sorted(first) == sorted(second) == list(range(100))
    assert list(first) != list(second)
    assert list(first) == list(seeds.permutation(5, 0, 100))


def test_kl_closed_form_values():
    zero = torch.zeros(1, 1)
    assert losses.kl_to_standard_normal(zero, zero).item() == 0
    assert losses.kl_to_standard_normal(zero + 1, zero).item() == pytest.approx(0.5)
    assert losses.kl_to_standard_normal(zero, zero + 1).item() == pytest.approx((math.e - 2) / 2)


def test_kl_against_torch_and_monte_carlo():
    torch.manual_seed(0)
    mean, log_var = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    posterior, prior = Normal(mean, (log_var / 2).exp()), Normal(torch.zeros(()).double(), torch.ones(()).double())
    ours = losses.kl_to_standard_normal(mean, log_var)
    torch.testing.assert_close(ours, kl_divergence(posterior, prior).sum(1))
    z = posterior.sample((200_000,))
    terms = (posterior.log_prob(z) - prior.log_prob(z)).sum(2)
    assert ((terms.mean(0) - ours).abs() < 4 * terms.std(0) / math.sqrt(len(terms))).all()


def test_likelihoods_against_torch():
    torch.manual_seed(1)
    output, x = torch.randn(4, 3, 2, dtype=torch.float64), torch.rand(4, 3, 2, dtype=torch.float64)
    log_std = torch.tensor(-1.3, dtype=torch.float64)
    expected = -Normal(output, log_std.exp()).log_prob(x).sum((1, 2))
    torch.testing.assert_close(losses.gaussian_nll(output, log_std, x), expected)
    binary = (x > 0.5).double()
    expected = -Bernoulli(logits=output).log_prob(binary).sum((1, 2))
    torch.testing.assert_close(losses.bernoulli_nll(output, binary), expected)


def test_losses_of_the_game_at_its_equilibrium():
    half = torch.zeros(5)
    assert losses.discriminator_loss(half, half).item() == pytest.approx(math.log(4))
    assert losses.non_saturating_generator_loss(half).item() == pytest.approx(math.log(2))
    assert losses.minimax_generator_loss(half).item() == pytest.approx(-math.log(2))


def test_adversarial_losses_against_binary_cross_entropy():
    torch.manual_seed(2)
    real, fake = torch.randn(9), torch.randn(9)
    bce = F.binary_cross_entropy_with_logits
    expected = bce(real, torch.ones(9)) + bce(fake, torch.zeros(9))
    torch.testing.assert_close(losses.discriminator_loss(real, fake), expected)
    torch.testing.assert_close(losses.non_saturating_generator_loss(fake), bce(fake, torch.ones(9)))
    torch.testing.assert_close(losses.minimax_generator_loss(fake), -bce(fake, torch.zeros(9)))


def test_gradient_penalty_of_a_linear_critic():
    weight = torch.tensor([[3.0], [4.0]])
    real, fake, mix = torch.rand(6, 2), torch.rand(6, 2), torch.rand(6, 1)
    penalty = losses.gradient_penalty(lambda x: x @ weight, real, fake, mix)
    assert penalty.item() == pytest.approx((5 - 1) ** 2, rel=1e-5)


def test_gradient_penalty_has_finite_gradients_where_the_slope_is_zero():
    weight = torch.zeros(2, 1, requires_grad=True)
    penalty = losses.gradient_penalty(lambda x: x @ weight, torch.rand(3, 2), torch.rand(3, 2), torch.rand(3, 1))
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert gradient.isfinite().all()


def test_gradient_penalty_mixes_with_one_number_an_item():
    seen = []
    real, fake, mix = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.tensor([[0.25], [0.75]])
    losses.gradient_penalty(lambda x: seen.append(x.detach()) or x.flatten(1).sum(1), real, fake, mix)
    assert torch.equal(seen[0], mix.view(2, 1, 1, 1).expand(2, 1, 2, 2))


def test_r1_penalty_of_a_linear_discriminator():
    weight = torch.tensor([[3.0], [4.0]])
    x = torch.rand(6, 2)
    penalty, logits = losses.r1_penalty(lambda x: x @ weight, x)
    assert penalty.item() == pytest.approx(25)
    assert torch.equal(logits, x @ weight)


def test_grey_levels_survive_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(images.to_uint8(images.to_float(levels)), levels)


def test_dequantized_levels_keep_to_their_intervals():
    levels = images.to_float(torch.arange(256, dtype=torch.uint8))
    low, high = images.dequantize(levels, torch.zeros(256)), images.dequantize(levels, torch.full((256,), 0.9999))
    assert torch.equal((low * 256).round(), torch.arange(256.0))
    assert (high < (torch.arange(256) + 1) / 256).all()


def test_binarize_draws_with_the_grey_value_as_the_chance():
    grey = torch.full((20_000, 1), 0.3)
    drawn = images.binarize(grey, seeds.noise(seeds.uniform(1), "binarize", rows=range(20_000)))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 20_000))
    assert torch.equal(images.binarize(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.9999])), torch.tensor([0.0, 1.0]))


def test_mirror_flips_left_and_right_only_where_told():
    batch = torch.arange(12).view(2, 1, 2, 3)
    flipped = images.mirror(batch, torch.tensor([[0.2], [0.7]]))
    assert torch.equal(flipped[0], batch[0].flip(-1))
    assert torch.equal(flipped[1], batch[1])


def test_grid_lays_out_row_by_row():
    page = images.grid(torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 2, 2), columns=3, gap=1)
    assert page.shape == (7, 10)
    assert page[1, 1] == 0
    assert page[4, 7] == 255
    assert images.grid(torch.rand(2, 3, 4, 5), gap=0).shape[2] == 3


def test_schedules():
    assert [schedules.factor("constant", step, 100, 4) for step in (0, 1, 3, 50)] == [0.25, 0.5, 1, 1]
    assert schedules.factor("linear", 55, 100, 10) == pytest.approx(0.5)
    assert schedules.factor("cosine", 50, 100, 0) == pytest.approx(0.5)
    assert schedules.factor("cosine", 100, 100, 0) == pytest.approx(0)


def test_a_weight_is_annealed_along_half_a_cosine():
    at = [float(schedules.annealed(torch.tensor(step), 0.5, 0.1, 10)) for step in (0, 5, 10, 99)]
    assert at == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert schedules.annealed(torch.tensor(7), 0.5, 0.1, 0) == 0.5


def test_average_decay_starts_short_and_ends_long():
    decays = [schedules.average_decay(0.999, step) for step in range(20_000)]
    assert decays[0] == pytest.approx(0.1)
    assert all(np.diff(decays) >= 0)
    assert decays[-1] == 0.999


def test_one_tall_image_is_a_page_of_its_own_size():
    assert images.grid(torch.zeros(1, 1, 21, 16), gap=0).shape == (21, 16)
    assert images.grid(torch.zeros(2, 3, 50, 10), gap=0).shape == (50, 20, 3)
