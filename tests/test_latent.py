"""A Gaussian mixture over codes: an autoencoder that generates."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

import nacre
from nacre.cli import main
from nacre.errors import CapabilityError, CheckpointError, ConfigError
from nacre.latent import LatentMixture, fit_codes, spread


@dataclass(frozen=True)
class Itself:
    """A model whose codes are its items."""

    def encode(self, items):
        return torch.as_tensor(items)

    def decode(self, codes):
        return torch.as_tensor(codes)


def three_blobs(count=3000):
    generator = np.random.default_rng(0)
    which = generator.choice(3, count, p=[0.5, 0.3, 0.2])
    means = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 900.0]])
    return means[which] + generator.normal(size=(count, 2)) * [1.0, 100.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The lecture's: 64 dimensions to two."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    settings = {
        "hidden": (128, 64),
        "steps": 1200,
        "batch_size": 128,
        "lr": 3e-3,
        "lr_schedule": "cosine",
        "sample_every": 0,
    }
    return nacre.train("ae", data="digits", out=out, latent_dim=2, compile="off", **settings)


def nearest(points, others):
    """Distances of points to the nearest of others."""
    return torch.cdist(points.flatten(1).double(), others.flatten(1).double()).min(1).values


def neighbour_ratio(samples, train, held_out):
    """Median distance to the nearest training item, over that of held-out items: 0 for copies, about 1 for new items."""
    return (nearest(samples, train).median() / nearest(held_out, train).median()).item()


def test_bic_finds_the_components_and_the_fit_is_the_density():
    x = three_blobs()
    weights, means, covariances, bic = fit_codes(x, components=[1, 2, 3, 5])
    assert min(bic, key=bic.get) == len(weights) == 3
    order = np.argsort(-weights)
    assert weights[order] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert means[order] == pytest.approx(np.array([[0, 0], [8, 0], [0, 900]]), abs=12)
    assert covariances[order[0]] == pytest.approx(np.diag([1.0, 1e4]), rel=0.15, abs=15)
    assert bic[1] == pytest.approx(GaussianMixture(1).fit(x).bic(x), rel=1e-6), "BIC is of the codes as they are"


def test_samples_have_the_mixtures_moments():
    mixture = LatentMixture.fit(Itself(), three_blobs(), components=3)
    drawn = mixture.sample(20_000, seed=1)
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    covariance = torch.einsum("k,kij->ij", mixture.weights, mixture.covariances + away[:, :, None] * away[:, None])
    error = covariance.diagonal().sqrt() / 20_000**0.5
    assert bool(((drawn.mean(0) - mean).abs() < 4 * error).all())
    torch.testing.assert_close(drawn.T.cov().diagonal(), covariance.diagonal(), rtol=0.05, atol=0)


def test_number_i_of_a_seed_is_the_same_whatever_the_count():
    mixture = LatentMixture.fit(Itself(), three_blobs(), components=3)
    whole = mixture.sample(200, seed=4)
    torch.testing.assert_close(mixture.sample(7, seed=4), whole[:7])
    torch.testing.assert_close(mixture.sample(50, seed=4, first=150), whole[150:])
    assert not torch.equal(mixture.sample(7, seed=5), whole[:7])


def test_a_saved_mixture_comes_back(tmp_path):
    mixture = LatentMixture.fit(Itself(), three_blobs(), components=[2, 3])
    mixture.save(tmp_path / "m.safetensors", of="these codes")
    again, facts = LatentMixture.load(tmp_path / "m.safetensors", Itself())
    assert torch.equal(again.sample(9), mixture.sample(9))
    assert again.bic == mixture.bic
    assert facts == {"of": "these codes"}
    (tmp_path / "m.safetensors").write_bytes(b"no mixture")
    with pytest.raises(CheckpointError, match="delete it"):
        LatentMixture.load(tmp_path / "m.safetensors", Itself())


def test_new_digits_out_of_two_dimensions(run):
    """The lecture's example: the samples look like digits to a classifier, and are no copies of those trained on."""
    from nacre.data import DataSettings, load
    from nacre.images import to_float

    dataset = load(DataSettings(data="digits"))
    train, held_out = (
        to_float(torch.from_numpy(dataset.items[dataset.rows(split)])) for split in ("train", "validation")
    )
    mixture = LatentMixture.fit(nacre.load(run), train)
    assert len(mixture.weights) >= 8, "ten digits are no single Gaussian"
    samples = mixture.sample(500, seed=0)
    assert samples.shape == (500, 1, 8, 8)
    assert 0 <= samples.min() <= samples.max() <= 1
    assert 0.5 < neighbour_ratio(samples, train, held_out) < 1.5
    assert nearest(samples, train).min() > 0.25 * nearest(held_out, train).min()
    assert neighbour_ratio(train[:100], train, held_out) < 1e-6, "the test would see copies"
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert neighbour_ratio(noise, train, held_out) > 1.5, "and what is no digit"


def test_the_command_fits_once_and_keeps_the_mixture(run, capsys, monkeypatch):
    assert main(["sample", str(run.path), "--prior", "gmm", "-n", "9", "--out", "a.npz", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["count"], answer["schema_version"]) == (9, 1)
    assert (run.path / "mixture.safetensors").is_file()

    def refit(*arguments, **options):
        raise AssertionError("the mixture lies beside the run")

    monkeypatch.setattr(LatentMixture, "of_codes", refit)
    assert main(["sample", str(run.path), "--prior", "gmm", "-n", "4", "--out", "b.npz"]) == 0
    assert np.array_equal(np.load("a.npz")["images"][:4], np.load("b.npz")["images"])
    with pytest.raises(AssertionError, match="beside the run"):
        main(["sample", str(run.path), "--prior", "gmm", "--components", "3", "--out", "c.npz"])


def test_a_mixture_that_cannot_be_kept_is_used_all_the_same(run, capsys, monkeypatch):
    def refuse(*arguments, **facts):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(LatentMixture, "save", refuse)
    words = ["sample", str(run.path), "--prior", "gmm", "--components", "2", "-n", "9", "--out", "a.npz"]
    assert main(words) == 0
    assert np.load("a.npz")["images"].shape == (9, 1, 8, 8)
    assert "the mixture is not kept, for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--components", "3"], "add --prior gmm"),
        (["--prior", "gmm", "--components", "many"], "--components takes 'auto' or a number, got 'many'"),
        (["--prior", "gmm", "--components", "0"], "must be 1 or more, got 0"),
        (["--prior", "gmm", "--components", "9000"], "needs as many items at least, got 1605"),
        (["--prior", "gmm", "--label", "3"], "knows no labels"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(run, capsys, words, sentence):
    assert main(["sample", str(run.path), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_model_without_an_encoder_says_so(tmp_path):
    run = nacre.train("gan", out=tmp_path / "gan", steps=2, batch_size=8, sample_every=0, hidden=(8,))
    with pytest.raises(CapabilityError, match="does not encode"):
        LatentMixture.fit(nacre.load(run), torch.rand(9, 1, 8, 8))


def test_a_large_set_is_spread_evenly():
    assert np.array_equal(spread(5), np.arange(5))
    rows = spread(60_000)
    assert len(np.unique(rows)) == 20_000
    assert (rows[0], rows[-1]) == (0, 59_999)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        fit_codes(np.zeros((3, 2)), components=[])
