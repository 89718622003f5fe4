"""Models that translate are looked at as well: each direction, its judge, and what is said of them."""

import numpy as np
import pytest
import torch
from PIL import Image

import nacre
from nacre import seeds
from nacre.cli import main
from nacre.engine import checkpoint
from nacre.engine.log import read
from nacre.engine.signals import Signals
from nacre.engine.translation_signals import JUDGED, TranslationSignals
from nacre.engine.update import Update
from nacre.metrics.verdicts import Facts, verdicts
from nacre.models.cyclegan import CycleGAN
from nacre.models.pix2pix import Pix2Pix
from nacre.models.stackgan import StackGAN
from nacre.run.diagnose import diagnose

TINY = {"width": 4, "judge_width": 4}
QUICK = {"steps": 12, "batch_size": 2, "sample_every": 0, "log_every": 100, "checkpoint_every": 6}


@pytest.fixture
def both(tmp_path):
    """40 light images, and their negatives under the same names."""
    rng = np.random.default_rng(0)
    for side in ("A", "B"):
        (tmp_path / f"train{side}").mkdir()
    for number in range(40):
        pixels = rng.integers(128, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "trainA" / f"{number}.png")
        Image.fromarray(255 - pixels).save(tmp_path / "trainB" / f"{number}.png")
    return tmp_path


def stripes(count, first=0):
    """Images in [0, 1] of 16 pixels: (count, 1, 16, 16)."""
    rows = seeds.noise(seeds.uniform(1, 16, 1), "stripes", rows=range(first, first + count))
    return rows.expand(-1, -1, -1, 16).contiguous()


def looked(model, made=None, paired=True):
    """A dozen looks at a model whose translations are made by hand."""
    if made is not None:
        model.translate = lambda x, direction: made(x)
    x, y = stripes(300), stripes(200, 300)
    signals = TranslationSignals(model, [], (x, 1 - x), (y, 1 - y), paired).measure()
    return [{"step": 100 * (number + 1), "signals": signals} for number in range(12)]


def said(lines, **facts):
    return {
        verdict.name: verdict
        for verdict in verdicts(lines, Facts(**{"steps": 1200, "train": 9000, "held_out": 200} | facts))
    }


@pytest.mark.parametrize(("model", "directions"), [("cyclegan", ["a2b", "b2a"]), ("pix2pix", ["a2b"])])
def test_a_run_on_two_sides_is_looked_at_and_stays_as_it_is(model, directions, both, tmp_path):
    flags = {"data": str(both), "test": 0.0, "validation": 0.3, **QUICK, **TINY}
    flags |= {"blocks": 1} if model == "cyclegan" else {}
    runs = [nacre.train(model, out=tmp_path / f"run{every}", signal_every=every, **flags) for every in (0, 2)]
    for step in (6, 12):
        states = [checkpoint.load(run.path / "checkpoints", step) for run in runs]
        assert checkpoint.differences(*states) == []
    signals = [line["signals"] for line in read(runs[1].path) if "signals" in line][-1]
    for direction in directions:
        wanted = ("auc", "auc_train", "d_real", "d_fake", "diversity", "distance", "bins")
        assert {f"{direction}/{name}" for name in wanted} <= set(signals)
        assert ("residual" if model == "cyclegan" else "value") in {name.partition("/")[2] for name in signals}
        assert (f"{direction}/explained_train" in signals) == (model == "pix2pix")
    assert diagnose(runs[1].path).verdicts
    again = diagnose(runs[0].path, measure=True).signals
    same = [name for name in again if "/" in name and "bins" not in name]
    assert len(same) > 8 * len(directions)
    for name in same:
        assert again[name] == pytest.approx(signals[name], rel=1e-3, abs=1e-5), name


class Perfect(Pix2Pix):
    """Its judge knows negatives."""

    def realness_of(self, given, wanted, direction):
        return 20 - 4000 * (wanted - (1 - given)).abs().mean((1, 2, 3))


class Blind(Pix2Pix):
    def realness_of(self, given, wanted, direction):
        return torch.zeros(len(wanted))


class Certain(CycleGAN):
    """Its judges, who are drawn to 1 and 0, have light rows for real."""

    def realness_of(self, given, wanted, direction):
        return (wanted.flatten(1).std(1) > 0.01).float()


def model_of(kind):
    torch.manual_seed(0)
    return kind((1, 16, 16), **TINY)


def test_translations_as_they_should_be_are_healthy():
    found = said(looked(model_of(Blind), lambda x: 1 - x))
    assert set(found) == {"healthy"}
    assert found["healthy"].evidence["a2b/auc"] == 0.5


def test_a_judge_that_is_never_wrong_or_blind():
    found = said(looked(model_of(Perfect), lambda x: 0.95 - 0.9 * x))
    assert set(found) == {"strong-discriminator"}
    assert found["strong-discriminator"].sentence.startswith("a2b: D(x) is 1.000 on real items")
    assert (
        "--judge-width"
        in said(looked(model_of(Perfect), lambda x: 0.95 - 0.9 * x), settings=TINY)["strong-discriminator"].advice
    )
    found = said(looked(model_of(Blind), lambda x: x / 4 + 0.75), settings={"judge_width": 32, "l1": 100.0})
    assert "weak-discriminator" in found
    assert "from translations" in found["weak-discriminator"].sentence
    assert "--l1 10; or take a larger judge, in a new run with --judge-width 64" in found["weak-discriminator"].advice


def test_each_direction_is_judged_for_itself():
    model = model_of(Certain)
    lines = looked(model, lambda x: 0 * x + 0.5, paired=False)
    found = verdicts(lines, Facts(steps=1200, train=9000, held_out=200))
    assert {"collapse", "strong-discriminator"} <= {verdict.name for verdict in found}
    for name in ("collapse", "strong-discriminator"):
        assert [v.sentence[:4] for v in found if v.name == name] == ["a2b:", "b2a:"]
    assert "translations vary 0.00 times as much as the data" in said(lines)["collapse"].sentence
    assert "--cycle 20" in said(lines, settings={"cycle": 10.0})["collapse"].advice


def test_translations_out_of_range_and_without_numbers():
    assert {"value-range", "divergence"} <= set(said(looked(model_of(Blind), lambda x: 6 * x - 9)))
    found = said(looked(model_of(Blind), lambda x: x / 0 - x / 0))
    assert found["divergence"].sentence == "a2b: some outputs are no longer numbers"


def test_pairs_that_are_known_by_heart_are_too_few():
    seen = stripes(JUDGED)

    def learned(x):
        known = torch.stack([(seen - item).abs().amax((1, 2, 3)).amin() < 1e-6 for item in x])
        return torch.where(known[:, None, None, None], 1 - x, 0.5 + 0 * x + 0.1 * (0.5 - x))

    lines = looked(model_of(Blind), learned)
    found = said(lines, train=300)
    assert "translations explain" in found["little-data"].sentence
    assert "little-data" not in said(lines, train=9000)


# Objectives that come later.


def test_what_is_not_trained_yet_is_not_looked_at():
    torch.manual_seed(0)
    model = StackGAN((1, 16, 16), words=4, text_dim=8, condition_dim=4, latent_dim=4, matching_steps=50, **TINY)
    updates = [Update(model, objective, nacre_training()) for objective in model.objectives()]
    signals = Signals(model, model, updates, stripes(64), stripes(64, 64), 0)
    early, late = signals.measure(50), signals.measure(51)
    assert not [name for name in early if not name.startswith(("lr/", "gradient/"))]
    assert {"auc", "value", "diversity"} <= set(late)


def nacre_training():
    from nacre.engine.settings import Training

    return Training(steps=100, batch_size=2)


def test_a_game_that_begins_late_is_young_for_longer():
    quiet = [{"step": 100 * number, "signals": {"gradient/matching": 1.0}} for number in range(1, 16)]
    ill = {"lost": 0.9, "diversity": 0.5}
    game = [{"step": 100 * number, "signals": ill} for number in range(16, 31)]
    assert said(quiet + game[:3], steps=3000) == {}
    assert said([{**line, "signals": ill} for line in quiet] + game[:3], steps=3000)
    assert "collapse" in said(quiet + game, steps=3000)


def test_an_evaluation_says_where_translations_are_judged(both, tmp_path, capsys):
    flags = {"data": str(both), "test": 0.0, "validation": 0.3, **QUICK, **TINY}
    run = nacre.train("pix2pix", out=tmp_path / "run", signal_every=0, **flags)
    assert main(["evaluate", str(run.path)]) == 2
    assert f"how its translations stand says nacre diagnose {run.path}" in capsys.readouterr().err
    assert main(["diagnose", str(run.path)]) == 0
    assert "--measure looks at its checkpoints instead" in capsys.readouterr().out
