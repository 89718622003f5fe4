"""MS-SSIM against an independent computation, and what it says of collapse and noise."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from nacre.errors import ConfigError, ShapeError
from nacre.metrics.diversity import WEIGHTS, diversity, ms_ssim, ssim


def pictures(count, size, seed=0, channels=1):
    """Smooth random images in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(count, channels, size, size))
    kernel = np.exp(-(np.linspace(-2, 2, 7) ** 2))
    smooth = correlate1d(correlate1d(noise, kernel / kernel.sum(), 2), kernel / kernel.sum(), 3)
    return torch.from_numpy(np.clip(0.5 + smooth, 0, 1))


def reference(a, b, scales, window=11):
    """One channel, with SciPy: luminance at the coarsest scale, contrast and structure at all."""
    offsets = np.arange(window) - window // 2
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    margin = window // 2

    def blur(x):
        blurred = correlate1d(correlate1d(x, kernel / kernel.sum(), 0), kernel / kernel.sum(), 1)
        return blurred[margin : x.shape[0] - margin, margin : x.shape[1] - margin]

    weights, result = np.array(WEIGHTS[:scales]), 1.0
    for scale, weight in enumerate(weights / weights.sum()):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, both = blur(a**2) - mean_a**2, blur(b**2) - mean_b**2, blur(a * b) - mean_a * mean_b
        term = (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)
        if scale == scales - 1:
            term = term * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        result *= max(0.0, term.mean()) ** weight
        a, b = (x[: len(x) // 2 * 2, : len(x) // 2 * 2] for x in (a, b))
        a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
    return result


@pytest.mark.parametrize(("size", "scales", "window"), [(176, 5, 11), (64, 3, 11), (29, 2, 11), (11, 1, 11), (8, 1, 7)])
def test_ms_ssim_is_that_of_another_implementation(size, scales, window):
    a, b = pictures(2, size), pictures(2, size, seed=1)
    mixed = 0.7 * a + 0.3 * b
    found = ms_ssim(a, mixed)
    for one, other, value in zip(a, mixed, found, strict=True):
        assert float(value) == pytest.approx(reference(one[0].numpy(), other[0].numpy(), scales, window), abs=1e-10)
    assert (diversity(torch.cat([a, b]), pairs=2).scales, diversity(torch.cat([a, b]), pairs=2).window) == (
        scales,
        window,
    )


def test_ssim_is_ms_ssim_of_one_scale_and_may_be_negative():
    a = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    near = (a + 0.1).clamp(0, 1)
    torch.testing.assert_close(ssim(a, near), ms_ssim(a, near), rtol=0, atol=1e-12)
    torch.testing.assert_close(ssim(a, a), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (ssim(a, 1 - a) < 0).all()


def test_ms_ssim_is_symmetric_bounded_and_one_for_equal_images():
    a, b = pictures(5, 32, channels=3), pictures(5, 32, seed=1, channels=3)
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(ms_ssim(a, b), ms_ssim(b, a), rtol=0, atol=1e-12)
    assert (ms_ssim(a, 1 - a) == 0).all()  # negative structure, whose real power does not exist
    single = torch.stack([ms_ssim(a[:, [c]], b[:, [c]]) for c in range(3)]).mean(0)
    torch.testing.assert_close(ms_ssim(a, b), single, rtol=0, atol=1e-12)
    assert float(ms_ssim((a * 255).round().byte(), a).min()) > 0.999


def test_diversity_tells_collapse_and_does_not_mind_order():
    real = pictures(80, 16)
    collapsed = real[:2].repeat(40, 1, 1, 1)
    found, other = diversity(real), diversity(real.flip(0))
    assert (found.pairs, found.similarity.n) == (40, 40)
    assert other.similarity.value == pytest.approx(found.similarity.value, abs=1e-12)
    assert diversity(collapsed).similarity.low > found.similarity.high
    truth = float(
        ms_ssim(real.repeat_interleave(80, 0), real.repeat(80, 1, 1, 1)).view(80, 80)[*np.triu_indices(80, 1)].mean()
    )
    assert found.similarity.low < truth < found.similarity.high


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="images"):
        diversity(torch.zeros(9, 4))
    with pytest.raises(ShapeError, match="4 or more items, got 3"):
        diversity(torch.zeros(3, 1, 8, 8))
    with pytest.raises(ShapeError, match="one shape"):
        ms_ssim(torch.zeros(3, 1, 8, 8), torch.zeros(3, 1, 8, 9))
    with pytest.raises(ConfigError, match="pairs must be 2"):
        diversity(torch.zeros(9, 1, 8, 8), pairs=1)
