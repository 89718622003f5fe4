"""Modes of labelled sets: what perfect samples score, what collapse does, and stacked digits channel by channel."""

import math

import pytest
import torch

from nacre.errors import ShapeError
from nacre.metrics.class_modes import class_modes, stacked_classes


def uniform(count, classes, seed=0):
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def test_perfect_samples_of_stacked_mnist_score_the_floor():
    found = [class_modes(uniform(26_000, 1000, seed), 1000) for seed in range(20)]
    values = torch.tensor([each.kl.value for each in found])
    assert float(values.mean()) == pytest.approx(0.0194, abs=0.0006)
    assert found[0].floor == pytest.approx(999 / 52_000)
    assert float(values.std()) == pytest.approx(math.sqrt(2 * 999) / 52_000, rel=0.5)
    assert all(each.captured == each.of == 1000 for each in found)
    assert all(each.kl.low < found[0].floor < each.kl.high for each in found)
    assert {each.caution for each in found} == {""}


def test_collapse_shows():
    found = class_modes(uniform(5000, 30), 1000)
    assert (found.captured, found.of, found.kl.n) == (30, 1000, 5000)
    assert found.kl.value == pytest.approx(math.log(1000 / 30), abs=0.01)
    assert class_modes(torch.full((500,), 3), 10).kl.value == pytest.approx(math.log(10))
    assert found.counts.sum() == 5000
    assert "5,000 samples are few for 1,000 classes: take 10,000" in found.caution


def test_the_interval_of_uneven_classes_covers():
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
    truth = float((shares * (4 * shares).log()).sum())
    covered = 0
    for seed in range(60):
        labels = torch.multinomial(shares, 800, True, generator=torch.Generator().manual_seed(seed))
        estimate = class_modes(labels, 4).kl
        covered += estimate.low < truth < estimate.high
    assert 51 <= covered <= 60
    one, other = class_modes(labels, 4).kl, class_modes(labels.flip(0).numpy(), 4).kl
    assert one.value == other.value
    assert one.se == pytest.approx(other.se, rel=1e-9)


def test_stacked_digits_are_read_from_red_to_blue():
    """A classifier that reads off how bright an image is."""
    digits = torch.tensor([[4, 1, 7], [0, 0, 9], [9, 8, 0]])
    images = (digits / 9).view(3, 3, 1, 1).expand(-1, -1, 4, 4)

    def classify(x):
        assert x.shape[1:] == (1, 4, 4)
        return -(x.mean((1, 2, 3))[:, None] * 9 - torch.arange(10)).abs()

    assert stacked_classes(classify, images).tolist() == [417, 9, 980]
    assert stacked_classes(classify, images.repeat(500, 1, 1, 1)).tolist() == [417, 9, 980] * 500
    with pytest.raises(ShapeError, match=r"expected images \(N, 3, H, W\), got \(3, 1, 4, 4\)"):
        stacked_classes(classify, images[:, :1])


def test_labels_out_of_range():
    with pytest.raises(ShapeError, match="labels from 0 to 9, got from 0 to 10"):
        class_modes(torch.tensor([0, 10]), 10)
    with pytest.raises(ShapeError, match="got none"):
        class_modes(torch.tensor([]), 10)
