"""The toy densities: their parameters, and that a perfect sampler scores what theory says."""

import numpy as np
import pytest

from data_helpers import open_set
from nacre.data.toys import COUNT, MIXTURES, SWISSROLL_NOISE, swissroll

WITHIN_THREE_SIGMA = 1 - np.exp(-4.5)  # of a round Gaussian in the plane: 98.89 %


def distances(points, centers):
    return np.linalg.norm(points[:, None] - centers[None], axis=2)


@pytest.mark.parametrize(("name", "modes", "sigma"), [("ring8", 8, 0.01), ("grid25", 25, 0.05)])
def test_mixtures(name, modes, sigma):
    found, mixture = open_set(f"toy:{name}"), MIXTURES[name]
    assert found.items.shape == (COUNT, 2)
    assert found.items.dtype == np.float32
    assert (mixture.centers.shape, mixture.sigma) == ((modes, 2), sigma)
    away = distances(found.items.astype(float), mixture.centers)
    assert (away.argmin(1) == found.labels).all()
    assert (away.min(1) <= 3 * sigma).mean() == pytest.approx(WITHIN_THREE_SIGMA, abs=0.002)
    assert np.bincount(found.labels).tolist() == [COUNT // modes] * modes
    assert len(found.classes) == len(set(found.classes)) == modes
    assert (found.items - mixture.centers[found.labels]).std() == pytest.approx(sigma, rel=0.01)
    assert (found.kind, found.mirror) == ("vectors", False)


def test_neighbours_on_the_ring_are_equally_far_apart():
    centers = MIXTURES["ring8"].centers
    gaps = np.linalg.norm(centers - np.roll(centers, 1, 0), axis=1)
    assert gaps == pytest.approx(2 * np.sin(np.pi / 8))
    assert np.linalg.norm(centers, axis=1) == pytest.approx(1)


def test_the_grid_is_that_of_the_paper():
    expected = {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert set(map(tuple, MIXTURES["grid25"].centers.tolist())) == expected


def test_swissroll_is_that_of_scikit_learn():
    from sklearn.datasets import make_swiss_roll

    truth = make_swiss_roll(500, noise=SWISSROLL_NOISE, random_state=3)[0][:, [0, 2]] / 7.5
    assert swissroll(500, np.random.RandomState(3)) == pytest.approx(truth.astype(np.float32), abs=1e-6)
    assert open_set("toy:swissroll").labels is None


def test_the_seed_decides_the_points():
    one, two = open_set("toy:ring8"), open_set("toy:ring8", split_seed=1)
    assert one.fingerprint == open_set("toy:ring8").fingerprint
    assert (one.items != two.items).any()


def test_the_seed_decides_the_pearls_of_any_size():
    one, other = (open_set("toy:pearls", image_size=8, split_seed=seed) for seed in (0, 1))
    assert (one.items != other.items).any()
    assert (open_set("toy:pearls", image_size=8, split_seed=0).items == one.items).all()
