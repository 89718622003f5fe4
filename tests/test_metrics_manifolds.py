"""Precision, recall, density and coverage against their definitions, scikit-learn and closed forms."""

import math
import time

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from nacre.errors import ConfigError
from nacre.metrics import intervals, points
from nacre.metrics.manifolds import expected_coverage, manifolds

NAMES = ("precision", "recall", "density", "coverage")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(found):
    return {name: getattr(found, name).value for name in NAMES}


def brute_force(real, fake, k):
    """By all differences in float64, and scikit-learn's trees for the radii."""

    def radii(each):
        return NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(each).kneighbors()[0][:, -1]

    real, fake = real.numpy(), fake.numpy()
    distances = np.sqrt(np.square(real[:, None] - fake).sum(2))
    in_real, in_fake = distances < radii(real)[:, None], distances < radii(fake)
    return {
        "precision": in_real.any(0).mean(),
        "recall": in_fake.any(1).mean(),
        "density": in_real.sum(0).mean() / k,
        "coverage": in_real.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(500, 500, 5), (60, 35, 3), (35, 60, 1)])
def test_all_four_are_their_definitions_in_every_block_and_order(monkeypatch, n, m, k):
    real, fake = normal(n, 8), normal(m, 8, seed=1) * 0.8 + 0.2
    expected = pytest.approx(brute_force(real, fake, k), abs=1e-12)
    whole = manifolds(real, fake, k=k)
    assert values(whole) == expected
    monkeypatch.setattr(points, "BLOCK", 11 * m)  # blocks that do not divide N
    other = manifolds(real.flip(0), fake.flip(0), k=k)
    assert values(other) == expected
    assert [getattr(other, name) for name in NAMES] == [getattr(whole, name) for name in NAMES]
    assert values(manifolds(real, fake, k=k, groups=0)) == expected


def of_as_many(found):
    """The standard error by Wilson's interval of as many independent items."""
    wilson = intervals.share(found.value * found.n, found.n)
    return (wilson.high - wilson.low) / (2 * intervals.normal_quantile(0.975))


def test_intervals_are_of_the_sets_without_a_group():
    real, fake = normal(90, 3), normal(80, 3, seed=1) * 0.8
    found = manifolds(real, fake, k=3, groups=5)
    real_groups, fake_groups = points.groups(real, 5, 0), points.groups(fake, 5, 0)
    left_out = [values(manifolds(real[real_groups != g], fake[fake_groups != g], k=3, groups=0)) for g in range(5)]
    for name in NAMES:
        expected = math.sqrt(4 / 5 * 5 * np.var([each[name] for each in left_out]))
        least = 0.0 if name == "density" else of_as_many(getattr(found, name))
        assert getattr(found, name).se == pytest.approx(max(expected, least), abs=1e-12)


def test_equal_laws_have_the_expected_density_and_coverage():
    n, m, k, draws = 200, 300, 5, 60
    scores = [manifolds(normal(n, 8, seed=s), normal(m, 8, seed=s + 500), k=k, groups=0) for s in range(draws)]
    for name, expected in (("density", 1.0), ("coverage", expected_coverage(n, m, k))):
        found = np.array([values(each)[name] for each in scores])
        error = found.std(ddof=1) / math.sqrt(draws)
        assert error < 0.01
        assert abs(found.mean() - expected) < 4 * error
    assert expected_coverage(10_000, 10_000) == pytest.approx(0.96877, abs=1e-5)


def test_collapse_has_high_precision_and_low_recall():
    """The direction that torch-fidelity had swapped until 0.4.0 (toshas/torch-fidelity#58)."""
    real = normal(400, 4)
    collapsed = manifolds(real, real[:1] + 0.05 * normal(400, 4, seed=1))
    assert collapsed.precision.value > 0.99
    assert collapsed.recall.value < 0.05
    assert collapsed.coverage.value < 0.2
    noise = manifolds(real, 6 * normal(400, 4, seed=1))
    assert noise.precision.value < 0.1
    assert noise.recall.value > 0.9
    assert set(values(manifolds(real, real + 100)).values()) == {0}


def test_shares_of_none_and_all_have_an_interval():
    real, far = normal(300, 2), normal(200, 2, seed=1) + 100
    nowhere, itself = manifolds(real, far), manifolds(real, real + 1e-9)
    assert (nowhere.recall.value, nowhere.recall.low) == (0.0, 0.0)
    assert nowhere.recall.high == pytest.approx(1.96**2 / (300 + 1.96**2), rel=1e-3)  # Wilson (1927) at 0 of 300
    assert nowhere.precision.high == pytest.approx(1.96**2 / (200 + 1.96**2), rel=1e-3)
    assert itself.coverage.value == 1.0
    assert 0.98 < itself.coverage.low < 1.0
    assert math.isnan(manifolds(real, far, groups=0).recall.high)


@pytest.mark.parametrize("offset", [0.0, 1e3, -0.1])
def test_points_on_an_edge_are_outside_whatever_the_rounding(offset):
    """Copies of real items lie exactly on the balls of those whose k-th neighbour they copy."""
    line = torch.arange(4.0)[:, None].double() + offset  # with k = 1 every radius is 1
    assert set(values(manifolds(line, line[:2] * 0 - torch.tensor([[1.0], [2]]) + offset, k=1, groups=0)).values()) == {
        0
    }
    real = normal(300, 6) / 3 + offset
    copies = manifolds(real, real, k=5, groups=0)
    assert values(copies) == pytest.approx({"precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=1e-12)
    collapsed = manifolds(real, real[:1].expand(50, -1), k=5, groups=0)
    assert collapsed.recall.value == 0  # its own balls have no inside
    assert collapsed.precision.value == 1


def test_standard_errors_are_no_smaller_than_the_spread_over_draws():
    found = [manifolds(normal(150, 4, seed=s), normal(150, 4, seed=s + 500) * 0.8) for s in range(40)]
    for name in NAMES:
        spread = np.std([values(each)[name] for each in found])
        claimed = np.mean([getattr(each, name).se for each in found])
        assert 0.8 * spread < claimed < 2.2 * spread


def test_cautions_and_mistakes():
    assert "300 real items against 200 fakes" in manifolds(normal(300, 2), normal(200, 2)).caution
    assert "200 items are few" in manifolds(normal(200, 2), normal(200, 2)).caution
    with pytest.raises(ConfigError, match="k = 5 for 9 real and 5 fake"):
        manifolds(normal(9, 2), normal(5, 2))


@pytest.mark.slow
def test_gaussians_in_a_thousand_dimensions():
    """10,000 × 1,000-d N(0, I), k = 5, averaged over 5 seeds; published figures are one draw (Naeem et al. 2020)."""
    scores, started = [], time.perf_counter()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        real, fake = torch.randn(2, 10_000, 1_000, generator=generator)
        scores.append(values(manifolds(real, fake)))
    assert time.perf_counter() - started < 5 * 60
    expected = {
        "precision": (0.479, 0.012),
        "recall": (0.476, 0.012),
        "density": (1.0, 0.07),
        "coverage": (0.969, 0.007),
    }
    for name, (center, tolerance) in expected.items():
        assert np.mean([each[name] for each in scores]) == pytest.approx(center, abs=tolerance)
