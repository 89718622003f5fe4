"""Modes of a known mixture: what a perfect sampler scores, and what each failure does to the score."""

import math

import numpy as np
import pytest

from nacre.data.toys import MIXTURES
from nacre.metrics.modes import modes

RING = MIXTURES["ring8"]


@pytest.mark.parametrize(("toy", "kl"), [("ring8", 0.0014), ("grid25", 0.0048)])
def test_a_perfect_sampler_scores_its_known_values(toy, kl):
    mixture = MIXTURES[toy]
    generator = np.random.default_rng(0)
    centers = mixture.centers
    found = []
    for _ in range(200):
        points = centers[generator.integers(len(centers), size=2500)] + mixture.sigma * generator.normal(size=(2500, 2))
        found.append(modes(points, centers, mixture.sigma))
    assert all(each.captured == each.of == len(centers) for each in found)
    assert np.mean([each.high_quality for each in found]) == pytest.approx(1 - math.exp(-4.5), abs=5e-4)
    assert np.mean([each.reverse_kl for each in found]) == pytest.approx(kl, rel=0.1)
    assert np.mean([each.spread for each in found]) == pytest.approx(1, abs=0.01)


def test_each_failure_shows():
    points, labels = RING.sample(2500, np.random.default_rng(1))
    collapsed = modes(points[labels == 3], RING.centers, RING.sigma)
    assert (collapsed.captured, collapsed.of) == (1, 8)
    assert collapsed.reverse_kl == pytest.approx(math.log(8))
    concentrated = modes((points + RING.centers[labels]) / 2, RING.centers, RING.sigma)
    assert concentrated.high_quality > 0.9999
    assert concentrated.spread == pytest.approx(0.5, abs=0.02)
    apart = modes(points * 1.1, RING.centers, RING.sigma)
    assert apart.high_quality == 0
    assert apart.captured == 0
    uneven = modes(np.concatenate([points, points[labels == 0]]), RING.centers, RING.sigma)
    shares = np.array([2 / 9] + [1 / 9] * 7)
    assert uneven.reverse_kl == pytest.approx((shares * np.log(8 * shares)).sum(), abs=2e-3)
