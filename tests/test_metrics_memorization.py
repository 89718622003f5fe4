"""The data-copying test keeps its level, sees copies, and names them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from nacre.errors import ConfigError, ShapeError
from nacre.metrics import points
from nacre.metrics.memorization import mann_whitney, memorization, near_duplicates


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rounded", [False, True])
def test_mann_whitney_is_that_of_scipy(rounded):
    a, b = normal(40), normal(55, seed=1) + 0.3
    if rounded:
        a, b = (a * 2).round(), (b * 2).round()
    expected = stats.mannwhitneyu(a, b, alternative="less", use_continuity=False, method="asymptotic")
    assert stats.norm.cdf(mann_whitney(a, b)) == pytest.approx(expected.pvalue, rel=1e-10)
    assert mann_whitney(torch.ones(9), torch.ones(4)) == 0


def test_perfect_samples_get_uniform_p_values_and_a_ratio_of_one():
    found = [
        memorization(normal(120, 3, seed=s), normal(110, 3, seed=s + 300), normal(100, 3, seed=s + 600), cells=4)
        for s in range(40)
    ]
    p_values = [each.p_value for each in found]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean([each.ratio.low < 1 < each.ratio.high for each in found]) > 0.88
    assert np.std([each.z for each in found]) == pytest.approx(1, abs=0.25)
    assert np.mean([each.copies for each in found]) < 0.04


def test_copies_are_seen_and_named():
    train, held_out = normal(200, 4), normal(200, 4, seed=1)
    samples = normal(200, 4, seed=2)
    samples[:150] = train[:150] + 0.01 * normal(150, 4, seed=3)
    samples[7] = train[160]
    found = memorization(samples, held_out, train, closest=3)
    assert found.c_t < -3
    assert found.p_value < 1e-6
    assert 0.7 < found.copies < 0.85
    assert found.ratio.high < 0.5
    assert found.closest[0].tolist() == [7, 160]
    assert found.distances[0] == 0
    assert all(sample == item for sample, item in found.closest[1:].tolist())
    assert (found.n, found.n_held_out, found.n_train, found.caution) == (200, 200, 200, "")
    far = memorization(3 * normal(200, 4, seed=2), held_out, train)
    assert far.c_t > 3
    assert far.p_value > 0.999
    assert far.ratio.low > 1


def test_copying_in_one_cell_only_is_seen_by_cells():
    """Meehan et al. (2020), section 4.2: under-fitting elsewhere hides it from the test of the whole space."""
    shift = torch.tensor([30.0, 0])
    train, held_out = (torch.cat([normal(300, 2, seed=s), normal(300, 2, seed=s + 1) + shift]) for s in (0, 2))
    samples = torch.cat([train[:300] + 0.001, 2 * normal(300, 2, seed=5) + shift])
    found, whole = memorization(samples, held_out, train, cells=2), memorization(samples, held_out, train, cells=1)
    assert found.cells == (2, 2)
    one, other = (
        memorization(samples[part], held_out[part], train[part], cells=1) for part in (slice(300), slice(300, None))
    )
    assert found.c_t == pytest.approx((one.c_t + other.c_t) / 2)
    assert one.c_t < -3 < 3 < other.c_t
    assert whole.cells == (1, 1)


def test_nothing_depends_on_the_order_of_rows():
    train, held_out, samples = normal(150, 3), normal(140, 3, seed=1), normal(130, 3, seed=2)
    found = memorization(samples, held_out, train, cells=3)
    other = memorization(samples.flip(0), held_out.flip(0), train.flip(0), cells=3)
    assert other.c_t == pytest.approx(found.c_t, abs=1e-12)
    assert other.ratio.low == pytest.approx(found.ratio.low, abs=1e-12)
    assert torch.equal(other.closest, torch.tensor([129, 149]) - found.closest)


def test_grey_levels_are_taken_as_they_are():
    train, held_out, samples = ((40 * normal(60, 1, 2, 2, seed=s) + 128).clamp(0, 255).byte() for s in range(3))
    found = memorization(samples, held_out, train)
    assert found.c_t == pytest.approx(memorization(samples.float(), held_out.float(), train.float()).c_t, abs=1e-12)
    with pytest.raises(ShapeError, match=r"training items are torch\.uint8 and sampled ones torch\.float32"):
        memorization(samples / 255, held_out, train)


def test_few_items_and_mistakes():
    few = memorization(normal(9, 2), normal(9, 2, seed=1), normal(9, 2, seed=2))
    assert math.isnan(few.c_t)
    assert "no cell has 10 samples and 10 held-out items (9 and 9 in all)" in few.caution
    with pytest.raises(ShapeError, match="training items hold 3 numbers each and unseen ones 2"):
        memorization(normal(9, 3), normal(9, 2), normal(9, 3))
    with pytest.raises(ConfigError, match="cells must be 1 or more, got 0"):
        memorization(normal(9, 3), normal(9, 3), normal(9, 3), cells=0)


def test_near_duplicates_are_found():
    train = normal(300, 6) + 1e4
    train[20], train[5], train[250] = train[10], train[7] + 1e-3, train[10]
    found = near_duplicates(train)
    assert (found.exact, found.near, found.n) == (3, 5, 300)
    assert {tuple(pair) for pair in found.pairs.tolist()} >= {(5, 7), (10, 20), (10, 250)}
    assert found.distances[:2].tolist() == [0, 0]
    assert found.distances[-1] == pytest.approx(1e-3 * math.sqrt(6), rel=1e-4)
    assert near_duplicates(train, most=1).pairs.tolist() == [[10, 20]]
    assert near_duplicates(normal(300, 6)).near == 0
    some = near_duplicates(train, probed=150, seed=3)
    looked_at = points.shuffled(train.double(), 3)[:150].tolist()
    assert some.n == 150
    assert some.exact == len({10, 20, 250} & set(looked_at)) > 0
    assert some.near == len({5, 7, 10, 20, 250} & set(looked_at))
    blank = near_duplicates(torch.zeros(4, 2))
    assert (blank.exact, blank.near, blank.threshold) == (4, 4, 0)
