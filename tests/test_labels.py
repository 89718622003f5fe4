"""Labels: how they reach a model, how few of them can be kept, and what is said when there are none."""

import numpy as np
import pytest
import torch

import nacre
from nacre import seeds
from nacre.data import DataSettings, load
from nacre.data.stream import Stream
from nacre.engine import pictures
from nacre.errors import CapabilityError, ConfigError, DataError
from nacre.run import config as configuration

MEANS = '''
import torch
from torch import nn
from nacre import Objective, normal
from nacre.seeds import category

class Means(nn.Module):
    """The mean image of each class, and a classifier by distance to it."""
    supervised = True

    def __init__(self, shape, *, classes: int = 0):
        super().__init__()
        self.classes = classes
        self.means = nn.ModuleList([nn.Embedding(classes, 64)])
        self.prior = {"z": normal(1), "label": category(classes)}

    def objectives(self):
        return [Objective(name="distance", loss=self.distance, over=("means",))]

    def distance(self, batch, step):
        x, y = batch
        return (x.flatten(1) - self.means[0](y)).square().sum(1).mean(), {}

    def classify(self, x):
        return (-(x.flatten(1)[:, None] - self.means[0].weight).square().sum(2)).softmax(1)

    def sample(self, noise):
        return self.means[0](noise["label"]).clamp(0, 1).view(-1, 1, 8, 8)
'''


@pytest.fixture
def means(tmp_path):
    file = tmp_path / "means.py"
    file.write_text(MEANS)
    return f"{file}:Means"


class Greys(torch.nn.Module):
    """Draws images of one grey a class."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.prior = {"z": seeds.normal(2)} | ({"label": seeds.category(classes)} if classes else {})
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def sample(self, noise):
        grey = noise["label"] / self.classes if self.classes else noise["z"][:, 0].sigmoid()
        return grey.view(-1, 1, 1, 1).expand(-1, 1, 56, 56)


def cells(page):
    """One pixel of each image on a page of images of 56 pixels, a gap of 2 between them."""
    return page[30::58, 30::58]


def test_the_page_of_a_conditional_model_has_a_column_a_class():
    held_out = torch.zeros(4, 1, 56, 56)
    ((name, page),) = pictures.pages(Greys(10), held_out, seed=0)
    assert name == "samples"
    assert cells(page).shape == (6, 10)
    assert (cells(page) == np.rint(255 * np.arange(10) / 10)).all()
    ((_, page),) = pictures.pages(Greys(3), held_out, seed=0)
    assert (cells(page) == np.rint(255 * np.arange(3) / 3)).all()
    assert len(cells(page)) == 21
    ((_, page),) = pictures.pages(Greys(20), held_out, seed=0)  # too wide for a page: in reading order
    assert (cells(page).flatten() == np.rint(255 * (np.arange(64) % 20) / 20)).all()
    ((_, page),) = pictures.pages(Greys(0), held_out, seed=0)
    assert cells(page).shape == (8, 8)
    assert len(np.unique(cells(page))) > 30


def test_labels_are_drawn_by_address_and_evenly():
    draw = seeds.category(10)
    labels = seeds.noise(draw, 0, "label", rows=range(10_000))
    assert labels.dtype == torch.int64
    assert labels.shape == (10_000,)
    assert torch.equal(seeds.noise(draw, 0, "label", rows=range(37, 91)), labels[37:91])
    counts = torch.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert int((counts - 1000).abs().max()) < 120


def test_a_batch_carries_the_labels_of_its_items():
    items = np.arange(50, dtype=np.float32)[:, None]
    x, y = Stream(items, np.arange(50), 20, labels=np.arange(50) % 7).batch(3)
    assert torch.equal(y, x[:, 0].long() % 7)


def test_where_labels_are_few_each_batch_has_its_share_of_them():
    labels = np.full(1000, -1)
    labels[:30] = np.arange(30) % 3
    stream = Stream(np.arange(1000, dtype=np.float32)[:, None], np.arange(1000), 16, labels=labels, labelled_share=0.5)
    seen = []
    for step in range(15):
        x, y = stream.batch(step)
        assert torch.equal(y, torch.from_numpy(labels)[x[:, 0].long()])
        assert int((y >= 0).sum()) >= 8
        assert bool((y[::2] >= 0).all())
        seen += x[::2, 0].tolist()
    # Four epochs of the 30: each comes up as often as any other.
    assert np.bincount(np.array(seen, int), minlength=30).tolist() == [4] * 30
    everywhere = Stream(np.zeros((40, 1), np.float32), np.arange(40), 8, labels=np.zeros(40, int), labelled_share=0.5)
    assert everywhere.labelled is None
    with pytest.raises(DataError, match="no item to train on has one"):
        Stream(np.zeros((40, 1), np.float32), np.arange(40), 8, labels=np.full(40, -1))


def test_few_labels_are_balanced_and_the_judges_have_none():
    every = load(DataSettings(data="digits"))
    few = load(DataSettings(data="digits", labelled=50))
    labels = few.labels
    train, validation, test = (few.rows(split) for split in ("train", "validation", "test"))
    assert np.bincount(labels[train][labels[train] >= 0], minlength=10).tolist() == [5] * 10
    assert (labels[validation] == -1).all()
    assert np.array_equal(labels[test], every.labels[test])
    assert few.fingerprint != every.fingerprint
    other = load(DataSettings(data="digits", labelled=50, split_seed=1))
    assert not np.array_equal(other.labels >= 0, labels >= 0)
    with pytest.raises(DataError, match="multiple"):
        load(DataSettings(data="digits", labelled=55))
    with pytest.raises(DataError, match="there are"):
        load(DataSettings(data="digits", labelled=17_000))


def test_a_model_of_labels_trains_classifies_and_samples_a_class(means, tmp_path):
    run = nacre.train(means, out=tmp_path / "run", steps=1500, sample_every=0, lr=0.01, batch_size=64)
    assert run.score.name == "accuracy"
    assert run.score.value > 0.8
    model = nacre.load(run, model=means)
    assert model.classes == [str(digit) for digit in range(10)]
    assert torch.equal(model.sample(3, label=7), model.sample(3, label="7"))
    sevens = model.sample(2, label=7)
    assert model.classify(sevens).argmax(1).tolist() == [7, 7]
    with pytest.raises(ConfigError, match="knows the classes"):
        model.sample(2, label=10)


def test_items_without_a_label_are_left_out_for_a_model_that_needs_one(means, tmp_path):
    run = nacre.train(means, out=tmp_path / "run", steps=3, sample_every=0, batch_size=20, labelled=20)
    assert run.score is None or run.score.name != "accuracy"
    with pytest.raises(DataError, match="--batch-size 20 or less"):
        nacre.train(means, out=tmp_path / "two", steps=3, batch_size=64, labelled=20)


def test_epochs_and_the_usual_batch_are_of_the_items_that_are_trained_on(means, tmp_path, caplog):
    caplog.set_level("INFO", logger="nacre")
    run = nacre.train(means, out=tmp_path / "run", epochs=2, sample_every=0, labelled=40)
    assert configuration.recorded(run.path)["training"]["batch_size"] == 32
    assert run.steps == 3
    assert "40 items of 1×8×8 to train on" in caplog.text


def test_sentences_where_labels_are_missing(means, tmp_path):
    points = tmp_path / "points.npy"
    np.save(points, np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32))
    with pytest.raises(ConfigError, match=r"has none; take a folder of one folder a class"):
        nacre.train(means, data=str(points), steps=2, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="ae cannot be conditioned"):
        nacre.train("ae", steps=2, out=tmp_path / "run", conditional=True)
    run = nacre.train("ae", steps=2, out=tmp_path / "ae", sample_every=0)
    with pytest.raises(CapabilityError, match="does not classify"):
        nacre.load(run).classify(torch.zeros(1, 1, 8, 8))
