"""The exact figures that benchmarks/parallel_lines.py stands on, and that WGAN-GP's critic reaches them."""

import pytest
import torch

from nacre.engine.settings import Training
from nacre.models.gan import GAN
from nacre.models.wgan import WGAN
from nacre.models.wgan_gp import WGANGP


@pytest.fixture(scope="module")
def lines(script):
    return script("parallel_lines")


def built(lines, model_class, theta, seed=0, **parameters):
    torch.manual_seed(seed)
    model = model_class((2,), latent_dim=1, **parameters)
    model.generator = lines.Line(theta)
    return model


@pytest.mark.parametrize("theta", [0.5, 2.0])
@pytest.mark.parametrize("weight", [10.0, 0.1])
def test_of_all_functions_the_best_has_the_formulas_gap_and_one_slope_if_pairs_share_their_height(lines, theta, weight):
    gap, slopes = lines.optimum(theta, weight, shared=True, cells=8)
    assert gap == pytest.approx(theta + theta**2 / (2 * weight), rel=1e-5)
    assert slopes.flatten().tolist() == pytest.approx([1 + theta / (2 * weight)] * slopes.numel(), rel=1e-3)


def test_with_independent_heights_the_best_function_has_a_larger_gap_than_the_formula(lines):
    coarse, slopes = lines.optimum(0.5, 0.1, shared=False, cells=24)
    fine, _ = lines.optimum(0.5, 0.1, shared=False, cells=32)
    assert coarse == pytest.approx(fine, rel=2e-3)
    assert fine > 1.08 * 1.75
    assert slopes.min() > 1  # so that the penalty's side that was left out had nothing to say


def test_the_density_of_an_interpolates_height_is_that_of_samples(lines):
    mix = torch.tensor([[0.1], [0.5], [0.8]])
    y = torch.rand(2, 1, 200_000, generator=torch.Generator().manual_seed(0))
    for share, heights in zip(mix, (mix * y[0] + (1 - mix) * y[1]), strict=True):
        found = torch.histc(heights, 20, 0, 1) / len(heights) * 20
        exact = lines.density(share, lines.midpoints(2000).squeeze(1)).view(20, 100).mean(1)
        torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


def test_the_critic_of_wgan_gp_overshoots_by_the_formula_and_its_slope_tells_the_distance(lines):
    model = built(lines, WGANGP, 1.0, gp_weight=1.0, hidden=(32, 32))
    lines.train(model, Training(steps=500, batch_size=64, lr=4e-3, lr_schedule="cosine"), players=1)
    gap = lines.gap_of(model, 1.0)
    assert gap == pytest.approx(1.5, rel=0.02)
    assert gap / lines.slopes_of(model, 1.0).mean().item() == pytest.approx(1, rel=0.02)
    assert model.generator.theta.item() == 1


def test_the_generator_of_wgan_arrives_at_the_real_line(lines):
    model = built(lines, WGAN, 0.5, clip_value=0.1, hidden=(32,))
    lines.train(model, Training(steps=1500, batch_size=64, lr=5e-3, lr_schedule="cosine"), players=2)
    assert abs(model.generator.theta.item()) < 0.05


def test_a_discriminators_bound_is_log_two_apart_and_nothing_at_zero(lines):
    for theta, exact in [(0.0, 0.0), (1.0, 0.6931)]:
        model = built(lines, GAN, theta, loss="minimax", r1=0.0, hidden=(32,))
        lines.train(model, Training(steps=300, batch_size=64, lr=1e-2, lr_schedule="cosine"), players=1)
        heights = lines.midpoints(500)
        with torch.no_grad():
            loss = model.game(model.realness(lines.line(0.0, heights)), model.realness(lines.line(theta, heights)))
        assert 0.693147 - loss.item() / 2 == pytest.approx(exact, abs=0.01)


def test_a_line_through_the_origin(lines):
    exact = lines.through_origin([1, 2, 4], [0.5, 1, 2])
    assert (exact["K"], exact["r2"], exact["r2_origin"]) == pytest.approx((0.5, 1, 1))
    bent = lines.through_origin([1, 2, 4], [1, 1, 1.001])
    assert bent["r2"] < 0 < bent["r2_origin"] < 0.9
