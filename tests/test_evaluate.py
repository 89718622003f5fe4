"""nacre evaluate: every number with interval, floor and protocol; the page; and what it refuses."""

import dataclasses
import html
import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import nacre
from nacre import images, losses, seeds
from nacre.cli import main
from nacre.engine import sampling
from nacre.engine.log import read as read_log
from nacre.engine.validate import spread
from nacre.errors import NacreError
from nacre.metrics.intervals import Estimate
from nacre.metrics.meanings import MEANINGS
from nacre.metrics.verdicts import Verdict
from nacre.run import extractors, report
from nacre.run.evaluation import Row, Settings, classes, evaluate, examine, examined, words
from nacre.run.evaluation.assemble import Examination
from nacre.run.evaluation.subject import subject
from nacre.run.report import charts, svg

OF_SAMPLES = {
    "Fréchet distance",
    "Kernel distance",
    "Precision",
    "Recall",
    "Density",
    "Coverage",
    "Sliced Wasserstein distance",
    "Nearest neighbour: accuracy",
    "Logistic regression: accuracy",
    "Logistic regression: AUC",
    "Logistic regression: bound on the JSD, nats",
    "Copying: C_T",
    "Distance to the nearest training item, ratio",
    "Samples nearer than 99 % of held-out items",
}
OF_IMAGES = {
    "Likeness of samples to each other (MS-SSIM)",
    "Classes captured",
    "Classes: KL from uniform, nats",
    "Referee's confidence",
    "Convolutional network: accuracy",
    "Convolutional network: AUC",
    "Convolutional network: bound on the JSD, nats",
}
OF_A_VAE = {
    "ELBO, nats",
    "L_100, nats",
    "Rate, nats",
    "Distortion, nats",
    "Active units",
    "Reconstruction error",
    "Over-fitting: bound on training items, nats more",
    "Near duplicates within the training set",
}
OF_MODES = {"Modes captured", "Samples of high quality", "Modes: reverse KL, nats", "Modes: spread"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs, a cache that these tests share, and classifiers that are trained in a second."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("evaluate")
        patch.setenv("NACRE_CACHE", str(folder / "cache"))
        patch.setattr(extractors, "STEPS", 40)
        patch.setattr("nacre.metrics.judges.EPOCHS", 3)
        patch.setattr("nacre.run.evaluation.subject.MOST_TRAINING", 1_000)
        yield folder


@pytest.fixture
def shared(place, monkeypatch):
    """The cache of `place`, in the place of the test's own."""
    monkeypatch.setenv("NACRE_CACHE", str(place / "cache"))
    return place


@pytest.fixture(scope="module")
def vae(place):
    settings = {
        "steps": 40,
        "batch_size": 32,
        "sample_every": 0,
        "log_every": 20,
        "validation": 0.2,
        "test": 0.2,
        "signal_every": 20,
    }
    return nacre.train("vae", out=place / "vae", latent_dim=2, hidden=(32,), **settings).path


@pytest.fixture(scope="module")
def gan(place):
    settings = {"steps": 20, "batch_size": 32, "sample_every": 0, "log_every": 10, "signal_every": 10}
    return nacre.train("gan", data="toy:ring8", out=place / "gan", latent_dim=2, hidden=(16,), **settings).path


@pytest.fixture(scope="module")
def of_vae(vae):
    return examine(vae, Settings(samples=120))


@pytest.fixture(scope="module")
def of_gan(gan):
    return examine(gan, Settings(samples=200))


def names(evaluation):
    return {row.name for row in evaluation.rows}


# The rows


def test_a_vae_is_asked_for_all_that_it_can_do(of_vae):
    evaluation = of_vae.evaluation
    assert names(evaluation) == OF_SAMPLES | OF_IMAGES | OF_A_VAE
    assert (evaluation.n, evaluation.model, evaluation.step) == (120, "vae", 40)
    assert evaluation.extractor.startswith("labels-v1/digits-")
    assert evaluation.referee.startswith("referee-v1/digits-")


def test_a_gan_on_a_toy_is_held_against_its_known_modes(of_gan):
    evaluation = of_gan.evaluation
    others = {"Its own discriminator: accuracy", "Near duplicates within the training set"}
    assert names(evaluation) == OF_SAMPLES | OF_MODES | others
    assert evaluation["Modes captured"].floor.value == 8
    assert evaluation.extractor == evaluation.referee == ""
    assert evaluation.equilibrium.startswith("No Nash equilibrium: ")


@pytest.mark.parametrize("which", ["of_vae", "of_gan"])
def test_every_number_has_its_interval_its_floor_and_its_protocol(which, request):
    evaluation = request.getfixturevalue(which).evaluation
    for row in evaluation.rows:
        estimate = row.estimate
        assert estimate.n > 1, row.name
        assert math.isfinite(estimate.value) or row.name == "Modes: reverse KL, nats", row.name
        if math.isfinite(estimate.low):
            assert estimate.low - 1e-12 <= estimate.value <= estimate.high + 1e-12, row.name
        assert len(row.protocol) > 30, row.name
        assert row.protocol.endswith("."), row.name
        assert row.group, row.name
        if row.name in OF_SAMPLES | OF_IMAGES | OF_MODES:
            assert row.floor is not None, row.name
            assert "seed 0" in row.protocol, row.name
    distances = evaluation["Fréchet distance"].protocol
    assert f"{evaluation.n} samples (seed 0) against {evaluation.n} test items" in distances
    assert evaluation.extractor in distances
    assert f"floor: {evaluation.n} validation items" in distances


def test_the_likelihood_adds_up(of_vae):
    """ELBO = -distortion - rate within the noise of one sample, and L_k is over it; KL by latent sums to the rate."""
    evaluation = of_vae.evaluation
    elbo, bound = evaluation["ELBO, nats"].estimate, evaluation["L_100, nats"].estimate
    rate, distortion = evaluation["Rate, nats"].estimate, evaluation["Distortion, nats"].estimate
    assert -rate.value - distortion.value == pytest.approx(elbo.value, abs=3 * elbo.se)
    assert bound.value > elbo.value
    assert sum(each.value for each in evaluation.kl_by_latent) == pytest.approx(rate.value, rel=1e-9)
    assert len(evaluation.kl_by_latent) == 2
    own = nacre.load(evaluation.run).log_likelihood(of_vae.subject.floats(of_vae.subject.held_out_rows))
    assert elbo.value == pytest.approx(float(own.mean()), rel=1e-9)


def opened(run, **settings):
    return subject(run, Settings(samples=200, extractor="random", **settings))


def test_real_items_in_the_samples_place_are_at_the_floor(shared, vae):
    """What is not told from real items must not be said to be worse than them."""
    found = opened(vae)
    found.__dict__["samples"] = found.items(found.dataset.rows("validation")[-200:])
    evaluation = examined(found).evaluation
    worse = [row.name for row in evaluation.rows if row.at_floor is False]
    assert len(worse) <= 2, worse  # of 24 at a level of 5 %
    assert evaluation["Copying: C_T"].at_floor


def test_copies_of_training_items_are_told(shared, vae):
    found = opened(vae)
    found.__dict__["samples"] = found.items(found.train_rows[:200])
    examination = examined(found)
    evaluation = examination.evaluation
    assert evaluation["Distance to the nearest training item, ratio"].estimate.value == 0
    assert evaluation["Copying: C_T"].estimate.value < -3
    for name in (
        "Copying: C_T",
        "Distance to the nearest training item, ratio",
        "Samples nearer than 99 % of held-out items",
    ):
        assert evaluation[name].at_floor is False
    mine, theirs = examination.copying.closest.T
    train = found.items(found.train_rows[theirs.numpy()])
    assert torch.equal(found.samples[mine], train)


def test_collapse_is_told(shared, vae):
    found = opened(vae)
    found.__dict__["samples"] = found.items(found.dataset.rows("validation")[:1]).expand(200, -1, -1, -1).clone()
    evaluation = examined(found).evaluation
    assert evaluation["Recall"].estimate.value < 0.1
    assert evaluation["Likeness of samples to each other (MS-SSIM)"].estimate.value > 0.99
    assert evaluation["Classes captured"].estimate.value == 1
    for name in ("Fréchet distance", "Recall", "Coverage", "Classes: KL from uniform, nats"):
        assert evaluation[name].at_floor is False, name


def test_a_conditional_classifier_is_asked_for_its_classes(shared, place):
    settings = {"steps": 3, "batch_size": 16, "sample_every": 0, "validation": 0.1, "test": 0.1}
    run = nacre.train("m2", out=place / "m2", latent_dim=2, hidden=(8, 8), **settings).path
    evaluation = evaluate(run, samples=40, extractor="random")
    accuracy, asked = evaluation["Accuracy"], evaluation["Samples of the class asked for"]
    assert 0 <= accuracy.estimate.value <= 1
    assert asked.floor.value > asked.estimate.value  # a model of three steps draws no digits
    model = nacre.load(run)
    rows = examine(run, Settings(samples=40, extractor="random")).subject.held_out_rows
    data = extractors_data()
    told = model.classify(torch.from_numpy(data.items[rows]))
    right = float((told.argmax(1).numpy() == data.labels[rows]).mean())
    assert accuracy.estimate.value == pytest.approx(right)


def test_labels_asked_for_are_those_of_the_samples(shared, place, monkeypatch):
    settings = {"steps": 3, "batch_size": 16, "sample_every": 0, "conditional": True}
    found = subject(nacre.train("gan", out=place / "asked", hidden=(8,), **settings).path, Settings(samples=40))
    module, drawn = found.model.module, sampling.draw(found.model.module, range(len(found.held_out)))[1]
    assert torch.equal(sampling.labels_of(module, range(len(drawn)), 0), drawn)
    told = torch.nn.functional.one_hot(drawn)
    (row,) = classes._asked_rows(found, told, "a judge")
    assert row.estimate.value == 1
    monkeypatch.setattr(sampling, "labels_of", lambda *_: (drawn + 1) % 10)  # as another device draws them
    (row,) = classes._asked_rows(found, told, "a judge")
    assert row.estimate.value == 0


def extractors_data():
    from nacre.data import DataSettings, load

    return load(DataSettings(data="digits", validation=0.1, test=0.1))


def test_stacked_digits_are_told_plane_by_plane(shared, vae):
    """A thousand modes by the pinned classifier of digits: a sampler of one image has one of them."""
    found = subject(vae, Settings(samples=60, extractor="random"))
    data = dataclasses.replace(found.dataset, source="stacked-mnist", items=np.zeros((2, 3, 28, 28), np.uint8))
    stacked = dataclasses.replace(found, dataset=data)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8, generator=generator)
    others = torch.randint(0, 256, (60, 3, 28, 28), dtype=torch.uint8, generator=generator)
    rows = {"held_out_rows": found.held_out_rows, "stand_in_rows": found.stand_in_rows}
    stacked.__dict__.update(samples=image.expand(60, -1, -1, -1), stand_ins=others, **rows)
    captured, kl = classes.class_rows(stacked)
    assert captured.estimate.value == 1
    assert kl.estimate.value == pytest.approx(math.log(1000))
    assert captured.floor.value >= 1
    assert "pinned-v1/mnist" in kl.protocol


def test_an_autoencoder_is_asked_for_reconstructions_alone(shared, place):
    run = nacre.train("ae", out=place / "ae", steps=3, batch_size=16, hidden=(8,), sample_every=0).path
    examination = examine(run, Settings(samples=30))
    assert names(examination.evaluation) == {"Reconstruction error"}
    assert examination.evaluation.extractor == ""
    assert "Reconstructions" in report.page(examination)


def test_numbers_do_not_depend_on_the_batch_size(shared, vae):
    one, other, whole = (evaluate(vae, samples=30, extractor="random", batch_size=size) for size in (1, 7, 1000))
    for row in whole.rows:
        for less in (one, other):
            assert less[row.name].estimate.value == pytest.approx(row.estimate.value, rel=1e-5, abs=1e-6), row.name


def test_another_seed_takes_other_samples_and_other_items(shared, vae):
    first, second = (subject(vae, Settings(samples=40, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first.samples, second.samples)
    assert not torch.equal(first.held_out, second.held_out)


def test_annealed_importance_sampling_is_over_the_bound(shared, vae, monkeypatch):
    monkeypatch.setattr("nacre.run.evaluation.bounds.DISTRIBUTIONS", 60)
    monkeypatch.setattr("nacre.run.evaluation.bounds.CHAINS", 8)
    found = subject(vae, Settings(samples=20, ais=6))
    from nacre.run.evaluation import bounds

    (row,) = bounds.annealed_rows(found)
    own = nacre.load(vae).log_likelihood(found.floats(spread(found.held_out_rows, 6))).mean()
    assert row.estimate.value > float(own)
    assert row.estimate.n == 6


def test_rate_is_of_the_posterior_that_the_bound_is_of(of_vae, shared, vae):
    found = subject(vae, Settings(samples=120))
    module, x = found.model.module, found.floats(found.held_out_rows)
    noise = seeds.noises(module.likelihood.draws, 0, "likelihood", rows=range(len(x)))
    mean, std = module.posterior(module.likelihood.observe(x, noise))  # binarized, as the bound sees them
    rate = losses.kl_per_latent(mean, 2 * std.log()).sum(1).mean()
    assert of_vae.evaluation["Rate, nats"].estimate.value == pytest.approx(float(rate), rel=1e-5)


def test_some_items_are_of_all_classes_though_a_folder_gives_them_in_order(shared, vae, monkeypatch):
    from nacre.run.evaluation import bounds
    from nacre.run.report import pictures

    for module, name, value in ((bounds, "WEIGHED", 60), (bounds, "DISTRIBUTIONS", 2), (pictures, "POINTS", 60)):
        monkeypatch.setattr(module, name, value)
    found, asked = subject(vae, Settings(samples=500, ais=60)), []
    labels = found.dataset.labels
    rows, train = (each[labels[each].argsort()] for each in (found.held_out_rows, found.train_rows[::2]))
    found.__dict__.update(held_out_rows=rows, train_rows=train)
    monkeypatch.setattr(
        type(found), "floats", lambda self, rows: asked.append(rows) or images.to_float(self.items(rows))
    )
    assert len([*bounds.likelihood_rows(found), *bounds.annealed_rows(found), *pictures.latent_figures(found)]) == 6
    assert [len(each) for each in asked] == [len(rows), len(rows), 60, 60, 60]
    assert [len(np.unique(labels[each])) for each in asked] == [10] * 5
    shown = found.dataset.items[spread(rows, pictures.SHOWN)]
    assert torch.equal(pictures._some(found, pictures.SHOWN), torch.from_numpy(shown))


def test_a_critic_is_judged_alike_in_whatever_order_the_files_come():
    from nacre.run.evaluation.judges import _accuracy

    generator = torch.Generator().manual_seed(0)
    of_class = 3 * torch.randn(10, generator=generator, dtype=torch.float64)
    real, fake = (of_class.repeat_interleave(200) + torch.randn(2000, generator=generator) for _ in range(2))
    mixed = fake[torch.randperm(2000, generator=generator)]
    assert _accuracy(real, mixed, False) == _accuracy(real, fake, False)
    assert _accuracy(real, mixed, False)[0] == pytest.approx(0.5, abs=0.03)
    assert _accuracy(real, real - 9, False)[0] > 0.8


# What a number is worth


def row_of(value, floor, better, se=0.01, floor_se=0.01):
    def estimate(middle, spread):
        return Estimate(middle, spread, middle - 2 * spread, middle + 2 * spread, 100)

    return Row("a", estimate(value, se), None if floor is None else estimate(floor, floor_se), better, "p", "")


@pytest.mark.parametrize(
    ("value", "floor", "better", "expected"),
    [
        (0.50, 0.51, "higher", True),
        (0.40, 0.51, "higher", False),
        (0.60, 0.51, "higher", True),
        (0.60, 0.51, "lower", False),
        (0.40, 0.51, "lower", True),
        (0.40, 0.51, "floor", False),
        (0.60, 0.51, "floor", False),
        (0.52, 0.51, "floor", True),
        (0.52, None, "floor", None),
    ],
)
def test_a_number_is_at_its_floor_unless_it_is_worse_beyond_chance(value, floor, better, expected):
    assert row_of(value, floor, better).at_floor is expected


def test_numbers_are_printed_with_the_digits_that_they_are_known_to():
    assert words.number(12.3456, 0.34) == "12.35"
    assert words.number(12.3456, 21) == "12"
    assert words.number(0.00123456, 0.00004) == "0.001235"
    assert words.number(8.0) == "8"
    assert words.number(math.nan) == words.NOTHING
    assert words.interval(Estimate(1.0, math.nan, math.nan, math.nan, 3)) == words.NOTHING


def test_too_few_items_are_said_to_be_few(of_vae, shared, vae):
    assert not any("instead of" in note for note in of_vae.evaluation.notes)
    assert "take 1,000 or more" in of_vae.evaluation["Precision"].caution
    evaluation = evaluate(vae, samples=500, extractor="random")
    assert evaluation.samples == 500
    assert evaluation.n < 450
    sentence = f"{evaluation.n} samples instead of 500, since there are no more test items."
    assert sentence in evaluation.notes
    assert sentence in evaluation["Fréchet distance"].caution
    assert evaluation["Fréchet distance"].estimate.n == 2 * evaluation.n


def test_the_floor_takes_training_items_where_validation_items_end(shared, vae):
    evaluation = evaluate(vae, samples=30, extractor="random", split="validation")
    assert "floor: 30 training items" in evaluation["Fréchet distance"].protocol
    assert evaluation["Copying: C_T"].floor is None


# The command and its page


def test_the_command_prints_a_table_and_writes_a_page(shared, gan, capsys, tmp_path):
    assert main(["evaluate", str(gan), "--samples", "60"]) == 0
    out = capsys.readouterr().out
    assert "Fréchet distance" in out
    assert "95 % interval" in out
    assert "No Nash equilibrium" in out
    assert (gan / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["evaluate", str(gan), "--samples", "60", "--json", "--out", str(tmp_path / "x" / "page.html")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema_version"] == 1
    assert {"run", "model", "data", "split", "samples", "seed", "rows", "n", "notes", "verdicts"} <= told.keys()
    for row in told["rows"]:
        assert set(row) == {"name", "estimate", "floor", "better", "protocol", "caution", "group", "at_floor"}
        assert set(row["estimate"]) == {"value", "se", "low", "high", "n"}
    assert (tmp_path / "x" / "page.html").exists()


class Balance(HTMLParser):
    """Checks that what is opened is closed, and gathers what is loaded from elsewhere."""

    VOID = ("meta", "img", "col")

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("which", ["of_vae", "of_gan"])
def test_the_page_stands_alone(which, request):
    page = report.page(request.getfixturevalue(which))
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in parser.loads)
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    assert not parser.tags & {"script", "link", "iframe", "object"}
    for anchor in re.findall(r'href="#(\w+)"', page):
        assert f'id="{anchor}"' in page


def test_the_page_says_everything(of_vae, of_gan):
    page = report.page(of_vae)
    for row in of_vae.evaluation.rows:
        assert row.name.replace("'", "&#x27;") in page
        assert words.value_of(row.estimate) in page
    for heading in ("Samples", "Numbers", "Does it copy?", "Reconstructions", "Latent space", "Training"):
        assert f"<h2>{heading}</h2>" in page
    assert "KL(q(z|x) || p(z)) of each latent" in page
    assert "A walk in each row" in page
    assert "What the latent plane decodes to" in page
    assert "Codes of 120 test items" in page
    assert page.count("data:image/png") == 8
    toy = report.page(of_gan)
    assert "200 samples over 200 test items" in toy
    assert "Losses" in toy
    assert "data:image/png" not in toy


def test_names_of_the_user_are_text_in_the_page(of_gan):
    evil = '<img src=x onerror="alert(1)">'
    evaluation = dataclasses.replace(of_gan.evaluation, data=evil, run=evil, notes=(evil,))
    page = report.page(Examination(evaluation, of_gan.subject, None))
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_what_the_diagnosis_says_comes_first(of_gan):
    verdict = Verdict("healthy", "good", 20, "none of the signals is <out> of its range", {}, "go on")
    evaluation = dataclasses.replace(of_gan.evaluation, verdicts=(verdict,))
    page = report.page(Examination(evaluation, of_gan.subject, None))
    assert page.index("Healthy:</b> none of the signals is &lt;out&gt;") < page.index("Fréchet distance")
    table = words.text(evaluation)
    assert table.index("Healthy: none of the signals") < table.index("Fréchet distance")
    assert evaluation.as_dict()["verdicts"][0]["title"] == "healthy"


def test_what_was_measured_is_said_though_the_page_cannot_be_written(shared, gan, capsys):
    words = ["evaluate", str(gan), "--samples", "60", "--out", "/proc/nacre/page.html"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "Fréchet" in out
    assert "/proc/nacre/page.html cannot be written" in err
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["report"] is None


def test_commands_in_the_page_can_be_pasted(of_gan):
    advice = (
        "go slower: nacre fork 'a b' --at 0 --lr 0.0001; or limit them: nacre fork 'a b' --at 0 --clip 1; as <ever>"
    )
    evaluation = dataclasses.replace(
        of_gan.evaluation, run="a b", verdicts=(Verdict("divergence", "bad", 20, "it fell", {}, advice),)
    )
    asked = {
        "extractor": "labels",
        "checkpoint": "best",
        "data": "my data",
        "model": "m.py:M",
        "ais": 5,
        "device": "auto",
    }
    of = dataclasses.replace(of_gan.subject, settings=Settings(samples=200, **asked))

    def commands(page):
        found = re.findall("<code[^>]*>(.*?)</code>", page)
        return [html.unescape(re.sub("<[^>]*>", "", each)) for each in found]

    slower, clipped, again = commands(report.page(Examination(evaluation, of, None)))
    assert slower == "nacre fork 'a b' --at 0 --lr 0.0001"
    assert clipped == "nacre fork 'a b' --at 0 --clip 1"
    assert shlex.split(again) == [
        *("nacre", "evaluate", "a b", "--samples", "200", "--seed", "0", "--split", "test", "--extractor", "labels"),
        *("--data", "my data", "--checkpoint", "best", "--model", "m.py:M", "--ais", "5"),
    ]
    assert "<span>--lr 0.0001</span>" in report.page(Examination(evaluation, of, None))


def test_standing_takes_what_is_known_of_chance():
    def row(estimate, floor):
        return Row("a number", estimate, floor, "lower", "", "")

    unknown, exact = math.nan, Estimate(4.5, math.nan, math.nan, math.nan, 10)
    assert row(Estimate(4.5, unknown, unknown, unknown, 10), exact).at_floor is True
    assert row(Estimate(4.6, unknown, unknown, unknown, 10), exact).at_floor is False
    assert row(Estimate(5.0, unknown, 4.0, 6.0, 10), Estimate(4.5, unknown, 4.0, 5.2, 10)).at_floor is True
    none, some = Estimate(0.0, 0.0, 0.0, 0.039, 95), Estimate(5 / 95, 0.023, 0.023, 0.117, 95)
    assert row(some, none).at_floor is True  # 1.7 standard errors apart


def test_charts_of_signals_say_what_they_show(vae, gan):
    docs = (Path(__file__).parent.parent / "docs" / "diagnose.md").read_text(encoding="utf-8")
    counted = {"items", "held_out", "latents", "judged"}  # the same all along: no chart
    for run in (vae, gan):
        signals = next(line["signals"] for line in read_log(run) if "signals" in line)
        numbers = {name.partition("/")[0] for name, value in signals.items() if not isinstance(value, list)}
        assert numbers - counted <= MEANINGS.keys()
    assert not [name for name in MEANINGS if f"`{name}" not in docs]


def test_both_directions_of_a_translation_share_a_chart():
    log = [{"step": at, "signals": {f"{way}/auc": 0.5 + at / 10 for way in ("a2b", "b2a")}} for at in (1, 2)]
    (chart,) = charts.of_signals(log)
    assert "<figcaption>auc<span" in chart
    assert "ranks a held-out item over a sample" in chart
    assert chart.count("polyline") == 2
    assert "a2b" in chart
    assert "b2a" in chart


def test_ticks_are_round_and_curves_leave_out_what_is_no_number():
    assert svg.ticks(0.0, 1.0, 4) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert svg.ticks(-3, 17_800, 4) == pytest.approx([0, 5000, 10000, 15000])
    x = np.arange(1000.0)
    y = np.where(x % 3 == 0, np.nan, np.sin(x))
    drawn = svg.curves("a < b", [svg.Series("one", x, y), svg.Series("two", x[:1], y[1:2])])
    assert "nan" not in drawn
    assert "a &lt; b" in drawn


# What cannot be evaluated


def refused(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments)])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("nacre: ")]
    assert code in (1, 2)
    assert len(lines) == 1
    return lines[0]


def test_what_cannot_be_evaluated_ends_in_one_sentence(shared, vae, gan, capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    assert "is no model folder" in refused(capsys, tmp_path / "photos")
    assert "say --data SOURCE" in refused(capsys, vae / "model")
    assert "samples must be 20 or more" in refused(capsys, vae, "--samples", "3")
    assert "takes an .html" in refused(capsys, vae, "--out", "page.pdf")
    assert "give data of that shape" in refused(capsys, gan, "--data", "digits")
    assert "--split takes" in refused(capsys, gan, "--split", "train")
    assert "the extractor is" in refused(capsys, vae, "--extractor", "dinov9", "--samples", "20")
    few = nacre.train("vae", out=tmp_path / "few", steps=2, batch_size=8, hidden=(4,), sample_every=0, test=0.0).path
    assert "choose --split validation" in refused(capsys, few)


def test_a_model_of_the_users_own_is_run_only_when_it_is_named(shared, tmp_path, capsys):
    code = tmp_path / "mine.py"
    code.write_text(OWN_MODEL)
    run = nacre.train(f"{code}:Mean", out=tmp_path / "own", data="toy:ring8", steps=2, batch_size=8).path
    assert "a model of somebody's own" in refused(capsys, run)
    evaluation = evaluate(run, samples=40, model=f"{code}:Mean")
    assert evaluation["Reconstruction error"].estimate.value > 0


OWN_MODEL = '''
import torch
from torch import nn
from nacre import Objective


class Mean(nn.Module):
    """Takes every item for the same one."""

    def __init__(self, shape):
        super().__init__()
        self.middle = nn.Parameter(torch.zeros(shape))

    def objectives(self):
        return [Objective(name="mean", loss=self.loss, over=("",))]

    def loss(self, x, step):
        return (x - self.middle).square().mean(), {}

    def reconstruct(self, x):
        return self.middle.expand_as(x)
'''


def test_a_model_that_does_nothing_of_all_this_is_told(shared, tmp_path, capsys):
    code = tmp_path / "mute.py"
    code.write_text(OWN_MODEL.replace("def reconstruct", "def restore"))
    run = nacre.train(f"{code}:Mean", out=tmp_path / "mute", data="digits", steps=2, batch_size=8, sample_every=0).path
    assert "there is nothing to evaluate" in refused(capsys, run, "--model", f"{code}:Mean")


def test_data_that_are_not_the_runs_own_say_nothing_of_copies(shared, gan, capsys):
    evaluation = evaluate(gan, samples=60, data="toy:grid25")
    assert "Copying: C_T" not in names(evaluation)
    assert any("Not the run's own data" in note for note in evaluation.notes)
    assert evaluation["Modes captured"].floor.value <= 25


def test_a_model_folder_is_held_against_data_that_are_named(shared, vae):
    evaluation = evaluate(vae / "model", samples=40, data="digits", extractor="random")
    assert names(evaluation) >= {"Fréchet distance", "ELBO, nats"}
    assert evaluation.step == 40
    with pytest.raises(NacreError):
        evaluate(vae / "model", samples=40)
