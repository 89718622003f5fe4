"""Intervals cover as often as they say; points, distances and random subsets do not mind the order of rows."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.cluster import KMeans

from nacre.errors import ConfigError, ShapeError
from nacre.metrics import intervals, points
from nacre.metrics.floors import floor
from nacre.metrics.points import BLOCK


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mean_has_the_t_interval_of_scipy():
    values = normal(12)
    estimate = intervals.mean(values)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (estimate.low, estimate.high, estimate.n) == (pytest.approx(low), pytest.approx(high), 12)
    with pytest.raises(ConfigError, match="two values at least, got 1"):
        intervals.mean(values[:1])


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (8, 8), (51, 60), (1, 2000)])
def test_share_has_the_wilson_interval_of_scipy(successes, trials):
    ours = intervals.share(successes, trials)
    theirs = stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-15), pytest.approx(theirs.high))


def test_jackknife_of_a_mean_is_its_standard_error():
    values = normal(200)
    parts = values.view(200, 1)
    left_out = torch.stack([torch.cat([parts[:g], parts[g + 1 :]]).mean() for g in range(200)])
    estimate = intervals.jackknife(float(values.mean()), left_out, 200)
    assert estimate.se == pytest.approx(float(values.std()) / math.sqrt(200))
    assert math.isnan(intervals.jackknife(1.0, left_out[:0], 200).low)


def test_bootstrap_covers_the_median_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        estimate = intervals.bootstrap(lambda x: float(x.median()), normal(81, seed=seed), draws=100, seed=seed)
        covered += estimate.low < 0 < estimate.high
    assert 51 <= covered <= 60


def test_bootstrap_does_not_depend_on_the_order_of_rows():
    a, b = normal(50), normal(40, seed=1)

    def of(x, y):
        return float(x.mean() - y.std())

    one, other = (
        intervals.bootstrap(of, a, b, draws=50),
        intervals.bootstrap(of, a.flip(0), b[torch.randperm(40)], draws=50),
    )
    assert (one.low, one.high) == (pytest.approx(other.low, abs=1e-12), pytest.approx(other.high, abs=1e-12))


def test_normal_tail_and_quantile():
    assert intervals.normal_tail(1.2) == pytest.approx(stats.norm.sf(1.2))
    assert intervals.normal_quantile(0.95) == pytest.approx(1.6449, abs=1e-4)


def test_items_are_checked():
    assert points.items(np.arange(6, dtype=np.uint8).reshape(3, 1, 2)).dtype == torch.float64
    with pytest.raises(ShapeError, match="1 of 2 items hold NaN"):
        points.items(torch.tensor([[1.0, 2], [math.nan, 1]]))
    with pytest.raises(ShapeError, match="expected 4 or more items, got 2"):
        points.items(torch.zeros(2, 3), least=4)
    with pytest.raises(ShapeError, match="real items hold 3 numbers each and fake ones 2"):
        points.alike(real=torch.zeros(2, 3), fake=torch.zeros(2, 2))
    with pytest.raises(ShapeError, match=r"grey levels 0\.\.255 beside other numbers"):
        points.alike(real=torch.zeros(2, 3, dtype=torch.uint8), fake=torch.zeros(2, 3))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_distances_are_exact_whatever_the_block(monkeypatch, offset):
    a, b = normal(31, 5) + offset, normal(17, 5, seed=1) + offset
    b[3] = a[7]
    true = (a[:, None] - b).square().sum(2)
    for size in (1, 40, BLOCK):
        monkeypatch.setattr(points, "BLOCK", size)
        for rows, squared, slack in points.distance_blocks(a, b):
            assert ((squared - true[rows]).abs() <= slack).all()
        i, j = torch.cartesian_prod(torch.arange(31), torch.arange(17)).T
        pairs = points.between(a, b, i, j).view(31, 17)
        assert pairs[7, 3] == 0
        torch.testing.assert_close(pairs, true, rtol=1e-12, atol=0)
        assert torch.equal(points.between(a, b, i[100:101], j[100:101]), pairs.flatten()[100:101])


def test_neighbors_are_those_of_a_sorted_list(monkeypatch):
    monkeypatch.setattr(points, "BLOCK", 100)
    a, b = normal(40, 3), normal(25, 3, seed=1)
    index, squared = points.neighbors(a, b, count=4)
    true = (a[:, None] - b).square().sum(2).sort(1)
    assert torch.equal(index, true.indices[:, :4])
    torch.testing.assert_close(squared, true.values[:, :4], rtol=1e-12, atol=0)
    own, _ = points.neighbors(a, count=39)
    assert all(sorted(row) == [j for j in range(40) if j != i] for i, row in enumerate(own.tolist()))


def test_random_subsets_hold_the_same_items_however_the_rows_lie():
    a = normal(60, 4)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    assert torch.equal(a[points.shuffled(a, 3)], a[order][points.shuffled(a[order], 3)])
    assert not torch.equal(points.shuffled(a, 3), points.shuffled(a, 4))
    assert torch.equal(points.groups(a, 7, 0)[order], points.groups(a[order], 7, 0))
    assert points.groups(a, 7, 0).bincount().tolist() == [9] * 4 + [8] * 3


def test_k_means_finds_what_scikit_learn_finds():
    centers = torch.tensor([[0.0, 0], [9, 0], [0, 9], [9, 9]]).double()
    data = centers.repeat_interleave(50, 0) + normal(200, 2)
    runs = (points.k_means(data, 4, seed=seed) for seed in range(8))
    inertia = min(float((data - found[labels]).square().sum()) for found, labels in runs)
    assert inertia == pytest.approx(KMeans(4, n_init=8, random_state=0).fit(data.numpy()).inertia_)


def test_floor_takes_spare_items_or_halves():
    real, spare = normal(30, 2), normal(20, 2, seed=1) + 5

    def sizes(a, b):
        return len(a), len(b), float(b.mean())

    whole = floor(sizes, real, 10, spare=spare)
    assert whole.result[:2] == (30, 10)
    assert whole.result[2] > 3
    assert not whole.caution
    half = floor(sizes, real, 25)
    assert half.result[:2] == (15, 15) == (half.n_real, half.n_fake)
    assert "15 real items against 15, not 30 against 25" in half.caution
    seen = []
    floor(lambda a, b: seen.append((a, b)), real, 10)
    assert torch.equal(torch.cat(seen[0]).sort(0).values, real.sort(0).values)
