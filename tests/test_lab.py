"""The lab: what its frames show is right, and the command writes them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nacre import seeds
from nacre.cli import main
from nacre.data.toys import MIXTURES
from nacre.lab import ring
from nacre.lab.page import BLUE, GREEN, ORANGE, Page, Panel, two_sided
from nacre.lab.play import moments
from nacre.lab.ring import COUNTED, Plane
from nacre.lab.subjects import SUBJECTS
from nacre.spec import fields
from nacre.theory import best_value, jsd, normal, optimal_logit, toy

WHITE = [255, 255, 255]


def answer(capsys, *words):
    code = main(["lab", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def looked_at(capsys, *words):
    """The last frame's numbers, and the first and last page of a folder."""
    code, out, err = answer(capsys, *words, "--json", "--out", "pages")
    assert code == 0, err
    pages = []
    for path in sorted(Path("pages").iterdir()):
        with Image.open(path) as image:
            pages.append(np.asarray(image))
    facts = json.loads(out)
    assert facts["out"] == "pages"
    return facts, pages


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_counted_density_is_that_of_the_samples():
    """JSD as the game shows it: of blurred densities, counted from samples, against quadrature."""
    plane = Plane("ring8")
    p = plane.data_density()
    area = ((plane.span[1] - plane.span[0]) / len(p)) ** 2
    assert p.sum() * area == pytest.approx(1, abs=1e-6)
    generator = np.random.default_rng(0)
    same = plane.density_of(MIXTURES["ring8"].sample(COUNTED, generator)[0].astype(float))
    assert plane.divergence(p, same) == pytest.approx(0, abs=0.005)
    wide = normal((0.1, 0.0), 0.3)
    found = plane.divergence(p, plane.density_of(wide.sample(COUNTED, generator)))
    blurred = toy("ring8").seen_through(plane.width), wide.seen_through(plane.width)
    assert found == pytest.approx(jsd(*blurred).value, abs=0.005)
    far = plane.density_of(np.full((COUNTED, 2), 50.0))
    assert plane.divergence(p, far) == pytest.approx(math.log(2), abs=1e-6)


def test_the_field_is_blue_where_it_looks_real():
    colours = two_sided(np.array([[0.0, 0.5, 1.0, np.nan]]))[0].astype(int)
    assert colours[1].tolist() == WHITE
    assert colours[2, 2] > colours[2, 0]
    assert colours[0, 0] > colours[0, 2]
    assert len(set(colours[3])) == 1


def test_panels_draw_where_they_should():
    page = Page(200, 120)
    panel = Panel(page, (20, 20, 180, 100), (0, 1), (-1, 1))
    panel.dots(np.array([[0.75, 0.5], [2.0, 0.0]]), BLUE, 4)
    panel.line(np.array([[0.0, -0.5], [0.5, -0.5]]), ORANGE, 3)
    pixels = np.asarray(page.finished()).astype(int)
    assert pixels[40, 140] == pytest.approx(BLUE, abs=8)  # 20 + .75 × 160, and 100 - .75 × 80
    assert pixels[80, 60] == pytest.approx(ORANGE, abs=8)
    assert (pixels[:, 182:] == 255).all()


def test_moments_are_closer_together_at_first():
    found = moments(1000, 11)
    assert (found[0], found[-1], len(found)) == (0, 1000, 11)
    assert (np.diff(found, 2) >= -1).all()
    assert moments(2, 50) == [0, 1, 2]


def test_the_game_on_the_ring_as_a_gif(capsys):
    code, out, err = answer(capsys, "--data", "ring8", "--steps", 30, "--count", 3, "--hidden", 32)
    assert code == 0, err
    assert "of 8 modes" in out
    assert "-log 4 + 2 JSD" in out
    with Image.open("lab-ring8.gif") as image:
        assert (image.n_frames, image.size) == (3, (720, 600))
        image.seek(2)
        assert image.info["duration"] == 3000
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    assert len(colours) > 20
    for ink in (BLUE, ORANGE, GREEN):  # a palette must not merge what tells lines apart
        assert np.abs(colours - ink).max(1).min() < 12


class Players:
    """A forger of a known density, and the best discriminator against him."""

    def __init__(self, forged):
        self.prior = {"z": seeds.normal(2)}
        self.forged, self.logit = forged, optimal_logit(toy("ring8"), forged)

    def eval(self):
        return self

    def sample(self, noise):
        return noise["z"] * float(self.forged.stds[0])

    def realness(self, x):
        if x.requires_grad:  # where the arrows point
            return -x.square().sum(1)
        return torch.from_numpy(self.logit(x.double().numpy()))


def test_at_the_best_discriminator_the_game_is_worth_what_theory_says():
    forged = normal((0.0, 0.0), 0.7)
    pages = list(ring.frames(Players(forged), Plane("ring8"), iter([0, 7]), 7, 0))
    assert [facts["step"] for _, facts in pages] == [0, 7]
    exact, facts = best_value(toy("ring8"), forged), pages[0][1]
    assert facts["value"] == pytest.approx(exact.value, abs=0.02)
    assert facts["best_value"] == pytest.approx(2 * facts["jsd_nats"] - math.log(4))
    assert facts["best_value"] < exact.value  # densities that are blurred are nearer to each other
    assert facts["jsd_bits"] == pytest.approx(facts["jsd_nats"] / math.log(2))
    assert pages[0][0].size == (720, 600)


def test_the_forger_of_pearls(capsys):
    facts, pages = looked_at(capsys, "--data", "pearls", "--steps", 20, "--count", 2, "--batch-size", 16)
    assert facts["real_radius"] == pytest.approx(5, abs=0.1)
    assert facts["real_squareness_std"] == pytest.approx(0.1, abs=0.02)
    assert 0 <= facts["forged_radius"] <= 10
    assert pages[0].shape == (568, 760, 3)
    assert (pages[0] != pages[1]).any()


def test_a_discriminator_on_its_way(capsys):
    facts, _ = looked_at(capsys, "discriminator", "--mean", 2, "--steps", 150, "--batch-size", 256, "--count", 2)
    assert facts["best_value"] == pytest.approx(best_value(normal(), normal(2.0)).value)
    assert 0 < facts["missing"] < 0.05
    assert facts["logit_error"] < 2
    assert facts["region"][0] < 0 < 2 < facts["region"][1]


def test_the_posterior_of_one_digit(capsys):
    facts, pages = looked_at(capsys, "vae", "--steps", 60, "--count", 2, "--hidden", 32, "--index", 3)
    assert facts["log_p"] == pytest.approx(facts["elbo"] + facts["kl"], abs=1e-3)
    assert facts["elbo"] < facts["bound_50"] < facts["log_p"] + 0.05
    assert facts["hmc_off"] < 4
    assert facts["hmc_mean"] == pytest.approx(facts["mean"], abs=0.05)
    assert facts["q_std"] == pytest.approx(facts["std"], abs=0.5)
    assert np.abs(np.array(facts["mean"]) - facts["q_mean"]).max() < 1
    assert len(pages) == 2


def test_the_dirac_gan(capsys):
    facts, pages = looked_at(capsys, "dirac", "--count", 3, "--steps", 400)
    start = math.hypot(1.2, 0.6)
    assert facts["plain"] == pytest.approx(start, abs=0.01)
    assert facts["wgan"] == pytest.approx(start, abs=0.01)
    assert facts["r1"] < 0.01
    assert (pages[-1] != pages[0]).any()
    runaway, _ = looked_at(capsys, "dirac", "--count", 2, "--method", "simultaneous", "--step-size", 0.3)
    assert runaway["plain"] > 2 * start


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gan"], "the lab has game, discriminator, vae, dirac"),
        (["--data", "swissroll"], "whose density is known"),
        (["--loss", "hinge"], "--loss takes non-saturating|minimax"),
        (["vae", "--data", "digits", "--index", "100000"], "--index takes one of"),
        (["dirac", "--out", "game.mp4"], "--out takes a .gif or a folder"),
        (["dirac", "--count", "1"], "count must be 2 or more"),
        (["dirac", "--gamma", "1"], "has no '--gamma'"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, capsys):
    code, out, err = answer(capsys, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_every_subject_explains_itself(capsys):
    for name, subject in SUBJECTS.items():
        with pytest.raises(SystemExit):
            main(["lab", name, "--help"])
        out = capsys.readouterr().out
        assert all(field.flag in out for field in fields(subject))


def test_watching_does_not_disturb_the_ambient_generator(capsys):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    answer(capsys, "discriminator", "--steps", 2, "--count", 2, "--out", "d.gif")
    assert torch.equal(torch.rand(3), expected)
