"""Fréchet and kernel distances against closed forms, SciPy and brute force."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from nacre.errors import ConfigError, ShapeError
from nacre.metrics import points
from nacre.metrics.distances import (
    Moments,
    frechet_distance,
    frechet_of_moments,
    kernel_distance,
    kernel_distance_by_subsets,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(mean, covariance, count=200):
    """Points whose sample mean and unbiased covariance are these."""
    z = normal(count, len(mean))
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / (count - 1))).T
    return z @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_of_gaussians_is_the_closed_form():
    """Diagonal, shifted and rotated: ‖δ‖² + Σ (σ₁ - σ₂)², and the general case where the covariances commute."""
    one, two = torch.tensor([1.0, 4, 9]).double(), torch.tensor([4.0, 1, 0.25]).double()
    shift = torch.tensor([0.5, -1, 2]).double()
    expected = float(shift.square().sum() + (one.sqrt() - two.sqrt()).square().sum())
    turn = torch.linalg.qr(normal(3, 3)).Q
    for basis in (torch.eye(3).double(), turn):
        a = exactly(torch.zeros(3).double(), basis @ one.diag() @ basis.T)
        b = exactly(shift, basis @ two.diag() @ basis.T, 300)
        found = frechet_distance(a, b)
        assert found.value.value == pytest.approx(expected, abs=1e-9)
        assert found.means == pytest.approx(float(shift.square().sum()), abs=1e-9)
        assert found.means + found.covariances == found.value.value
    assert frechet_distance(a, a + 3).value.value == pytest.approx(27, abs=1e-9)


@pytest.mark.parametrize(("n", "dim"), [(300, 20), (40, 60)])
def test_frechet_agrees_with_sqrtm(n, dim):
    a, b = normal(n, dim), normal(n + 7, dim, seed=1) @ (torch.eye(dim).double() + 0.1 * normal(dim, dim, seed=2)) + 0.2
    one, two = np.cov(a.T), np.cov(b.T)
    nudge = 0 if n > dim else 1e-12 * np.eye(dim)  # sqrtm of a singular matrix
    root = scipy.linalg.sqrtm((one + nudge) @ (two + nudge)).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(one + two - 2 * root)
    found = frechet_distance(a, b, groups=0)
    assert found.value.value == pytest.approx(expected, rel=1e-9 if n > dim else 1e-4)
    assert ("cannot fill the covariance" in found.caution) == (n <= dim)


def test_frechet_of_equal_sets_is_zero_even_where_the_covariance_is_singular():
    a = normal(30, 100) * 50
    assert abs(frechet_distance(a, a, groups=0).value.value) < 1e-9 * float(a.square().sum(1).mean())


def test_moments_are_the_same_in_every_batch_size_and_order():
    a, b = normal(1000, 12) * 3 + 1e3, normal(900, 12, seed=1) + 1e3
    whole = frechet_distance(a, b, groups=0).value.value
    for size in (1, 7, 1000):
        one, two = (Moments.of_batches(each.split(size)) for each in (a, b))
        assert one.count == 1000
        torch.testing.assert_close(one.covariance, torch.from_numpy(np.cov(a.T)), rtol=1e-10, atol=1e-12)
        assert frechet_of_moments(one, two).value.value == pytest.approx(whole, rel=1e-11)
    assert frechet_of_moments(two, one).value.value == pytest.approx(whole, rel=1e-11)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    one, other = frechet_distance(a, b), frechet_distance(a[order], b.flip(0))
    assert other.value.value == pytest.approx(one.value.value, rel=1e-11)
    assert other.value.se == pytest.approx(one.value.se, rel=1e-9)


def brute_force_mmd(a, b):
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_is_its_definition_in_every_block_and_order(monkeypatch):
    a, b = normal(23, 4), normal(17, 4, seed=1) + 0.5
    expected = brute_force_mmd(a, b)
    whole = kernel_distance(a, b, groups=4)
    assert whole.value.value == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(points, "BLOCK", 60)
    other = kernel_distance(a.flip(0), b.flip(0), groups=4)
    assert other.value.value == pytest.approx(expected, abs=1e-12)
    assert other.value.se == pytest.approx(whole.value.se, abs=1e-12)
    left_out = []
    for g in range(4):
        kept = [each[points.groups(each, 4, 0) != g] for each in (a, b)]
        left_out.append(brute_force_mmd(*kept))
    assert whole.value.se == pytest.approx(math.sqrt(3 / 4 * 4 * np.var(left_out)), abs=1e-12)


def test_kernel_distance_is_unbiased_about_zero_and_its_interval_covers():
    values = [kernel_distance(normal(60, 5, seed=s), normal(60, 5, seed=s + 500)).value for s in range(120)]
    found = np.array([each.value for each in values])
    assert abs(found.mean()) < 3 * found.std() / math.sqrt(120)
    assert (found < 0).mean() > 0.3
    assert np.mean([each.low < 0 < each.high for each in values]) > 0.9


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_standard_errors_are_the_spread_over_draws(measure):
    found = [measure(normal(150, 4, seed=s), normal(150, 4, seed=s + 500) + 0.5).value for s in range(50)]
    spread, claimed = np.std([each.value for each in found]), np.mean([each.se for each in found])
    assert 0.8 * spread < claimed < 1.4 * spread


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
@pytest.mark.parametrize("groups", [0, 1])
def test_without_groups_there_is_no_interval(measure, groups):
    a, b = normal(40, 3, seed=0), normal(50, 3, seed=1)
    bare, whole = measure(a, b, groups=groups).value, measure(a, b, groups=4).value
    assert bare.value == pytest.approx(whole.value)
    assert math.isnan(bare.low)


def test_kernel_distance_by_subsets_is_the_mean_over_subsets():
    a, b = normal(400, 4), normal(300, 4, seed=1) + 0.4
    whole, found = kernel_distance(a, b).value, kernel_distance_by_subsets(a, b, subsets=60, size=80)
    assert (found.subsets, found.subset_size) == (60, 80)
    assert abs(found.value.value - whole.value) < 3 * found.value.se
    assert 0.5 * whole.se < found.value.se < 2.5 * whole.se
    again = kernel_distance_by_subsets(a.flip(0), b.flip(0), subsets=60, size=80)
    assert again.value.value == pytest.approx(found.value.value, abs=1e-12)
    all_items = kernel_distance_by_subsets(a[:300], b, subsets=2)
    assert all_items.value.value == pytest.approx(kernel_distance(a[:300], b).value.value, abs=1e-12)
    assert math.isnan(all_items.value.se)


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="expected 2 or more items, got 1"):
        frechet_distance(normal(1, 3), normal(5, 3))
    with pytest.raises(ShapeError, match="hold 3 numbers each and fake ones 2"):
        kernel_distance(normal(9, 3), normal(9, 2))
    with pytest.raises(ShapeError, match="two items at least, got 1 real"):
        frechet_of_moments(Moments.of(normal(1, 3)), Moments.of(normal(4, 3)))
    with pytest.raises(ShapeError, match="one or more batches"):
        Moments.of_batches([])
    with pytest.raises(ConfigError, match="two or more subsets"):
        kernel_distance_by_subsets(normal(9, 3), normal(9, 3), subsets=1)
