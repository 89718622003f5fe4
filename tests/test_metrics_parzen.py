"""Parzen windows against scikit-learn, and the reason why nobody should rank by them."""

import pytest
import torch
from sklearn.neighbors import KernelDensity

from nacre.errors import ConfigError
from nacre.metrics import points
from nacre.metrics.parzen import SIGMAS, k_means_parzen, parzen


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_parzen_is_that_of_scikit_learn_in_every_block_and_order(monkeypatch):
    samples, validation, test = normal(70, 5), normal(40, 5, seed=1), normal(30, 5, seed=2)
    expected = max((KernelDensity(bandwidth=sigma).fit(samples).score(validation), sigma) for sigma in SIGMAS)
    found = parzen(samples, validation, test)
    assert found.sigma == expected[1]
    scores = KernelDensity(bandwidth=found.sigma, rtol=1e-12).fit(samples).score_samples(test)
    assert found.log_likelihood.value == pytest.approx(scores.mean(), abs=1e-9)
    assert found.log_likelihood.se == pytest.approx(scores.std(ddof=1) / 30**0.5, abs=1e-9)
    monkeypatch.setattr(points, "BLOCK", 200)
    other = parzen(samples.flip(0), validation.flip(0), test.flip(0))
    assert other.log_likelihood.value == pytest.approx(found.log_likelihood.value, abs=1e-12)


def test_k_means_beats_the_data_themselves():
    """On noisy clusters centroids score more than as many real items, though they are no samples of anything."""
    centers = 4 * normal(8, 20)
    data = centers.repeat(150, 1) + normal(1_200, 20, seed=1)
    train, validation, test = data[:800], data[800:1_000], data[1_000:]
    sigmas = [0.5, 0.7, 1.0, 1.4, 2.0]
    real = parzen(train[:80], validation, test, sigmas=sigmas)
    gamed = k_means_parzen(train, validation, test, 80, sigmas=sigmas)
    assert gamed.log_likelihood.low > real.log_likelihood.high
    assert "k-means scores more" in real.caution


def test_cautions_and_mistakes():
    a = normal(20, 2)
    assert "first or last candidate" in parzen(a, a + 9, a, sigmas=[0.1, 0.2]).caution
    assert "first or last candidate" not in parzen(a, a, a, sigmas=[0.1]).caution
    with pytest.raises(ConfigError, match="standard deviations over zero"):
        parzen(a, a, a, sigmas=[0.1, 0.0])
