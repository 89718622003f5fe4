"""Anomaly scores: what is of another kind scores higher, and the threshold keeps its promise."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import nacre
from nacre.cli import main
from nacre.data import DataSettings
from nacre.data import load as load_data
from nacre.editing.anomaly import Detector, compressed, method_for
from nacre.errors import CapabilityError, ConfigError, ShapeError
from nacre.spec import spec


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "vae"
    return nacre.train("vae", out=path, latent_dim=4, hidden=(64,), steps=500, batch_size=64, sample_every=0).path


@pytest.fixture(scope="module")
def items():
    dataset = load_data(DataSettings())
    return torch.from_numpy(dataset.items[dataset.rows("test")]).float() / 255


@pytest.fixture(scope="module")
def strange():
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["reconstruction", "inversion", "features", "regret", "likelihood"])
def test_noise_is_found_among_digits(run, items, strange, method):
    detector = Detector(nacre.load(run).module, method, steps=20).fit(items[40:60], items[60:])
    normal, other = detector.scores(items[:12]), detector.scores(strange[:12])
    truth = np.repeat([0, 1], 12)
    assert roc_auc_score(truth, torch.cat([normal, other]).numpy()) > 0.9
    torch.testing.assert_close(detector.scores(strange[3:4]), other[3:4], rtol=1e-3, atol=1e-4)
    assert torch.equal(detector.score_samples(strange[:3]), -detector.scores(strange[:3]))


def test_an_item_that_is_known_is_not_strange_whatever_its_company(items):
    model = spec("gan", {"hidden": (16,)}).build((1, 8, 8)).eval()
    detector = Detector(model, "features", neighbours=1)
    seen = torch.randn(64, 9, generator=torch.Generator().manual_seed(0)) + 1000
    detector._seen = lambda x: seen[: len(x)]
    detector.fit(items[:64], items[:64])
    assert detector.scores(items[:64]).max() < 1e-4
    torch.testing.assert_close(detector.scores(items[:3]), detector.scores(items[:64])[:3], rtol=0, atol=1e-4)


def test_a_discriminator_tells_too(items, strange):
    model = spec("gan", {"hidden": (16,)}).build((1, 8, 8)).eval()
    assert method_for(model, "auto") == "features"
    detector = Detector(model, "realness").fit(items, items)
    assert torch.equal(detector.scores(strange), -model.realness(strange).double())


def test_the_threshold_keeps_its_promise():
    detector = Detector.__new__(Detector)
    generator = torch.Generator().manual_seed(0)
    trials = []
    for _ in range(400):
        detector.held_out_ = torch.randn(99, generator=generator).double().sort().values
        trials.append((detector.p_of(torch.randn(20, generator=generator).double()) <= 0.1).double().mean())
    assert abs(torch.stack(trials).mean() - 0.1) < 0.01
    held = torch.arange(1.0, 100.0).double()
    detector.held_out_ = held
    assert detector.threshold(0.05) == 95
    assert (held > detector.threshold(0.05)).sum() == 4
    assert detector.p_of(torch.tensor([0.5, 50.0, 200.0]).double()).tolist() == [1.0, 0.51, 0.01]
    detector.held_out_ = held[:5]
    assert detector.threshold(0.05) == float("inf")


def test_raw_likelihood_is_never_chosen_by_itself():
    for name in ("vae", "iwae", "lvae"):
        assert method_for(spec(name).build((1, 16, 16)), "auto") == "reconstruction"
    assert method_for(spec("wgan_gp").build((1, 16, 16)), "auto") == "features"


def test_the_regret_is_what_an_own_posterior_gains(run, items):
    model = nacre.load(run).module
    none = Detector(model, "regret", steps=0).scores(items[:8])
    some = Detector(model, "regret", steps=30).scores(items[:8])
    more = Detector(model, "regret", steps=150).scores(items[:8])
    assert none.abs().max() < 1e-6
    assert (some > 0).all()
    assert (more >= some - 0.5).all()


def test_complexity_is_the_length_of_a_compressed_image(strange):
    flat = torch.full((1, 1, 8, 8), 0.5)
    assert compressed(flat) < compressed(strange[:1])
    large = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nats = 3 * 64 * 64 * np.log(256)
    assert (abs(compressed(large) / nats - 1) < 0.02).all()  # noise cannot be compressed
    black_and_white = (large[:, :1] > 0.5).float()
    assert (abs(compressed(black_and_white, bits=True) / (64 * 64 * np.log(2)) - 1) < 0.4).all()  # and a header


def test_complexity_helps_where_likelihood_is_deceived():
    rough = torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    model = spec("vae", {"likelihood": "discretized-logistic", "hidden": (8,)}).build((1, 16, 16)).eval()
    flat = torch.full((5, 1, 16, 16), 0.5)
    likelihood = Detector(model, "likelihood").fit(rough[:5], rough[100:])
    assert (likelihood.scores(flat) < likelihood.held_out_.min()).all()  # a flat image looks more normal than noise
    corrected = Detector(model, "complexity").fit(rough[:5], rough[100:])
    assert (corrected.scores(flat) > corrected.held_out_.max()).all()


def test_heat_maps_show_where(run, items):
    detector = Detector(nacre.load(run).module)
    broken = items[:6].clone()
    broken[:, :, :2, :2] = 1.0
    heat = detector.heat_map(broken)
    assert heat.shape == (6, 8, 8)
    assert (heat[:, :2, :2].mean((1, 2)) > 4 * heat[:, 2:, 2:].mean((1, 2))).all()
    torch.testing.assert_close(heat.mean((1, 2)).double(), detector.scores(broken), rtol=1e-5, atol=1e-7)
    with pytest.raises(ShapeError, match="heat maps are of images"):
        detector.heat_map(torch.rand(3, 5))


def test_what_cannot_be_meant_is_refused(items):
    gan = spec("gan").build((1, 8, 8))
    for method, sentence in (
        ("reconstruction", "GAN does not reconstruct"),
        ("likelihood", "GAN has no likelihood"),
        ("regret", "GAN has no posterior"),
        ("complexity", "GAN has no likelihood of images"),
    ):
        with pytest.raises(CapabilityError, match=sentence):
            Detector(gan, method)
    with pytest.raises(ConfigError, match="a method is one of auto"):
        Detector(gan, "magic")
    with pytest.raises(ConfigError, match="call fit first"):
        Detector(gan, "features").scores(items)


def test_from_the_command_line(run, items, capsys):
    Path("looked-at").mkdir()
    for number in range(6):
        digit = (items[number, 0] * 255).byte().numpy()
        noise = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise if number % 2 else digit).save(f"looked-at/{number}.png")
    assert main(["anomaly", str(run), "looked-at", "--rate", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == "reconstruction"
    assert [row["anomaly"] for row in told["items"][1::2]] == [True, True, True]
    with open("anomalies.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == pytest.approx([row["score"] for row in told["items"]], rel=1e-6)
    with Image.open("anomalies.png") as sheet:
        assert sheet.mode == "RGB"
    assert main(["anomaly", str(run), "looked-at", "--data", "digits", "--method", "features", "--sheet", "none"]) == 0
    for words, sentence in (
        (["looked-at", "--method", "realness"], "VAE has no discriminator"),
        (["looked-at", "--rate", "2"], "--rate takes a share between 0 and 1, as .05; got 2."),
        (["looked-at", "--out", "a.txt"], "--out takes a .csv, got a.txt."),
        (["nowhere"], "nowhere"),
    ):
        assert main(["anomaly", str(run), *words]) == 2
        assert sentence in capsys.readouterr().err


def test_a_threshold_takes_items_that_were_kept_aside(tmp_path, capsys):
    run = nacre.train(
        "ae", out=tmp_path / "ae", hidden=(8,), steps=5, batch_size=8, validation=0.0, sample_every=0
    ).path
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), np.uint8)
    np.save("few.npy", pixels[:10])
    np.save("many.npy", pixels)
    assert main(["anomaly", str(run), "few.npy"]) == 2
    assert "kept no items aside" in capsys.readouterr().err
    assert main(["anomaly", str(run), "few.npy", "--data", "few.npy"]) == 2
    assert "takes 19 held-out ones, and there are 5" in capsys.readouterr().err
    assert main(["anomaly", str(run), "few.npy", "--data", "many.npy", "--rate", "0.1", "--json"]) == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["threshold"])
