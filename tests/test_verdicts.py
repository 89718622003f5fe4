"""What is said of a run: rules on histories that are written by hand, and on models that are made ill by hand."""

import math
import re
import shlex

import pytest
import torch

from nacre import seeds
from nacre.engine.alarm import Alarm, glimpse
from nacre.engine.settings import DISEASES, Training
from nacre.engine.signals import Signals
from nacre.errors import ConfigError
from nacre.metrics import remedies
from nacre.metrics.verdicts import NAMES, Facts, verdicts
from nacre.models.gan import GAN
from nacre.models.vae import VAE
from nacre.seeds import normal

GAME = {
    **{
        "lost": 0.0,
        "diversity": 0.98,
        "coverage": 0.93,
        "nearest": 1.0,
        "copies": 0.05,
        "judge": 0.6,
        "distance": 0.08,
    },
    **{"outside": 0.0, "unreached": 0.0, "piled": 0.0, "drift": 0.1, "dead/generator": 0.1, "dead/discriminator": 0.0},
    **{"d_real": 0.6, "d_train": 0.61, "d_fake": 0.4, "auc": 0.72, "auc_train": 0.52, "accuracy": 0.65},
    **{"value": -1.2, "jsd": 0.09, "pull": 4.0, "passed": 0.6, "bins": [0.25, 0.25, 0.25, 0.25]},
}
CODES = {
    **{"lost": 0.0, "diversity": 0.9, "coverage": 0.8, "nearest": 1.0, "copies": 0.05, "judge": 0.8, "distance": 0.1},
    **{"outside": 0.0, "unreached": 0.0, "piled": 0.0, "dead/encoder": 0.3, "dead/decoder": 0.1, "outside_remade": 0.0},
    **{"explained": 0.7, "explained_train": 0.72, "gain": 1.0, "sharpness": 0.8, "elbo": -90.0, "elbo_train": -88.0},
    **{"kl": [3.0, 2.0, 2.5, 0.001], "rate": 7.5, "active": 3, "latents": 4},
}


def history(base, count=12, **changes):
    """Signals every 100 steps; a change is a value, or a function of the number of the look."""
    lines = []
    for number in range(count):
        told = {name: value(number) if callable(value) else value for name, value in changes.items()}
        lines.append({"step": 100 * (number + 1), "signals": {**base, **told}})
    return lines


def said(lines, **facts):
    return {verdict.name: verdict for verdict in verdicts(lines, Facts(**{"steps": 1200, "train": 50_000, **facts}))}


def hops(number):
    return [float(kind == number % 4) for kind in range(4)]


ILL = [
    ("collapse", GAME, {"lost": 0.9, "diversity": 0.2}),
    ("collapse", GAME, {"lost": 0.3, "diversity": 0.01}),
    ("partial-collapse", GAME, {"lost": 0.5}),
    ("partial-collapse", GAME, {"lost_classes": 0.1}),
    ("strong-discriminator", GAME, {"auc": 1.0, "d_real": 0.999, "d_fake": 0.001, "value": -0.002}),
    ("strong-discriminator", GAME, {"auc": 0.999, "d_fake": 0.03, "passed": 0.004, "value": -0.1}),
    ("weak-discriminator", GAME, {"auc": 0.5, "judge": 0.99, "distance": 0.8}),
    ("oscillation", GAME, {"bins": hops}),
    ("divergence", GAME, {"distance": lambda number: 0.2 if number < 6 else 2.5}),
    ("divergence", CODES, {"elbo_train": lambda number: -120 + 3 * number if number < 6 else -1e4}),
    ("divergence", CODES, {"explained": -3.0, "explained_train": -3.0}),
    ("divergence", GAME, {"finite": lambda number: 1.0 if number < 8 else 0.0}),
    ("overfit-discriminator", GAME, {"auc_train": 0.9, "d_train": 0.9}),
    ("posterior-collapse", CODES, {"rate": 0.02, "kl": [0.0, 0.015, 0.005, 0.0]}),
    ("blurry-decoder", CODES, {"explained": 0.05, "explained_train": 0.05}),
    ("memorization", GAME, {"nearest": 0.2, "copies": 0.9}),
    ("dead-units", CODES, {"dead/decoder": 0.95}),
    ("value-range", GAME, {"outside": 0.5}),
    ("value-range", CODES, {"unreached": 0.5, "piled": 0.6}),
    ("batchnorm-drift", GAME, {"drift": 1.2}),
]


@pytest.mark.parametrize(("batch_size", "told"), [(16, False), (256, True)])
def test_what_was_seen_once_is_not_known_by_heart(batch_size, told):
    lines = history(GAME, nearest=0.6, copies=0.7)
    assert ("memorization" in said(lines, train=50_000, settings={"batch_size": batch_size})) is told


@pytest.mark.parametrize("base", [GAME, CODES])
def test_nothing_is_said_of_the_healthy(base):
    (verdict,) = said(history(base)).values()
    assert (verdict.name, verdict.severity, verdict.advice) == ("healthy", "good", "")


@pytest.mark.parametrize(("name", "base", "changes"), ILL)
def test_each_disease_is_told_with_its_number_and_what_to_do(name, base, changes):
    found = said(history(base, **changes))
    assert set(found) - {"blurry-decoder"} == {name} - {"blurry-decoder"}
    verdict = found[name]
    assert verdict.severity == "bad"
    assert verdict.title == NAMES[name]
    assert verdict.evidence
    assert name in ("divergence",) or re.search(r"\d", verdict.sentence)
    assert verdict.advice


def test_too_little_data_is_told_of_small_sets_only():
    gap = history(CODES, explained=0.4, explained_train=0.9)
    assert set(said(gap, train=100)) == {"little-data"}
    assert set(said(gap, train=50_000)) == {"healthy"}
    assert set(said(history(GAME, auc_train=0.9), train=200)) == {"little-data", "overfit-discriminator"}


def test_a_bound_that_falls_on_other_items_alone_is_no_divergence():
    lines = history(CODES, elbo=lambda number: -90 - 50.0 * number)
    assert set(said(lines, train=100)) == {"little-data"}


def test_a_few_held_out_items_prove_little():
    """With ten of them, three in four is chance."""
    lines = history(GAME, auc_train=0.75)
    assert set(said(lines, held_out=10)) == {"healthy"}
    assert set(said(lines, held_out=1000)) == {"overfit-discriminator"}


def test_a_verdict_says_since_when():
    lines = history(GAME, lost=lambda number: 0.9 if number >= 5 else 0.0)
    assert said(lines)["collapse"].step == 600


def test_one_bad_look_is_no_verdict():
    assert set(said(history(GAME, lost=lambda number: 0.9 * (number == 11)))) == {"healthy"}


def test_the_young_are_not_judged_and_those_who_improve_are_given_time():
    ill = history(GAME, lost=0.9)
    assert said(ill[:5]) == {}
    assert said(ill, steps=100_000) == {}
    improving = history(GAME, lost=lambda number: 0.9 - 0.03 * number)
    assert set(said(improving, steps=5000)) == {"healthy"}
    assert set(said(improving, steps=1200)) == {"partial-collapse"}


@pytest.mark.parametrize(
    ("base", "name", "changes"),
    [
        (CODES, "explained", lambda number: -2.0 + 0.11 * number),
        (GAME, "distance", lambda number: 4.0 - 0.2 * number),
    ],
)
def test_what_gets_better_has_not_diverged_at_its_end_either(base, name, changes):
    improving = history(base, **{name: changes, "dead/decoder": 0.1})
    found = said(improving, steps=1200)
    assert "divergence" not in found
    assert name != "explained" or "blurry-decoder" in found  # which it is, all the same
    for each in improving:  # but where next to all units are dead, an offset is all that gets better
        each["signals"]["dead/decoder"] = 0.95
    assert "divergence" in said(improving, steps=1200)


def test_what_fell_and_recovers_a_little_has_diverged():
    fallen = history(CODES, explained=lambda number: [-0.6, -2.0, -3.0, -2.5][number // 3])
    assert "divergence" in said(fallen, steps=1200)


def test_a_game_that_settles_does_not_oscillate():
    def settling(number):
        moved = 1 - 0.03 * number if number % 2 else 0.0
        return [1 - moved, moved]

    told = history(GAME, bins=settling)
    assert "oscillation" not in said(told, steps=2400)
    assert "oscillation" in said(told, steps=1200)  # it has ended as it is
    assert "within 100 steps, " in said(told, steps=1200)["oscillation"].sentence


@pytest.mark.parametrize(
    ("name", "base", "changes", "since"),
    [
        ("oscillation", GAME, {"bins": lambda number: hops(max(number, 5))}, 600),
        ("oscillation", GAME, {"bins": hops}, 100),
        ("divergence", GAME, {"finite": lambda number: 1.0 if number < 8 else 0.0}, 900),
        ("value-range", GAME, {"outside": lambda number: 0.5 if number >= 4 else 0.0}, 500),
        (
            "value-range",
            CODES,
            {
                "unreached": lambda number: 0.5 if number >= 4 else 0.0,
                "piled": lambda number: 0.6 if number >= 6 else 0.0,
            },
            700,
        ),
        ("little-data", CODES, {"explained_train": lambda number: 0.71 if number < 5 else 0.95}, 600),
    ],
)
def test_it_is_since_the_first_look_at_which_the_rule_holds(name, base, changes, since):
    verdict = said(
        history(base, **changes), train=1000, settings={"r1": 0.0, "augment": False}, saved=range(100, 1200, 100)
    )[name]
    assert verdict.step == since
    if name == "oscillation":
        assert f"--at {since}" in verdict.advice


def test_gradients_alone_prove_no_health():
    assert said(history({"gradient/translator": 1.0, "lr/translator": 1e-3})) == {}


def test_a_run_that_failed_has_diverged():
    (verdict,) = said([], failure="'loss' of objective 'elbo' became nan at step 7; try less.").values()
    assert verdict.name == "divergence"
    assert "became nan at step 7" in verdict.sentence
    assert "--lr" in verdict.advice


@pytest.mark.parametrize(
    ("objective", "expected"), [("generator", "--lr 1e-05"), ("discriminator", "--lr 4e-05"), ("other", "--lr 4e-05")]
)
def test_slower_is_slower_than_the_run_was(objective, expected):
    lines = history(GAME, **{"lr/generator": 1e-4, "lr/discriminator": 4e-4})
    lines.append({"step": 1300, "signals": {"finite": 0.0}})
    (verdict,) = said(lines, failure=f"'loss' of objective '{objective}' became nan at step 7; try less.").values()
    assert expected in verdict.advice
    (verdict,) = said([], failure="it became nan; try less.").values()
    assert "--lr 0.0001" not in verdict.advice  # which may be what it had


def test_commands_stand_alone():
    """Whatever is advised, what follows "nacre" can be pasted."""
    games = {"r1": 0.0, "pack": 1, "n_critic": 5, "judge_width": 64, "l1": 100.0, "activation": "relu", "lr": 1e-3}
    codes = {"beta": 4.0, "kl_warmup": 0, "free_bits": 0.0, "lr": 1e-3, "augment": False, "ema": 0.99}
    found = 0
    for settings in (
        games,
        codes,
        {"gp_weight": 10.0, "n_critic": 5, "lr": 1e-3},
        {"cycle": 10.0, "lr": 1e-3},
        {"lr": 1e-3},
    ):
        facts = Facts("'runs/a; or b'", 1200, settings=settings)
        for name in set(NAMES) - {"healthy"}:
            told = list(remedies.choices(getattr(remedies, name.replace("-", "_"))(facts, 500, {})))
            assert all(reason and "nacre fork" not in reason for reason, _ in told)
            for words in (shlex.split(command) for _, command in told if command):
                found += 1
                assert words[0] == "nacre"
                assert words[2] == "runs/a; or b"
                assert all(flag.startswith("--") for flag in words[3::2])
                assert len(words) % 2
    assert found > 50
    assert list(remedies.choices("rest; or go: nacre fork a --lr 1; more words; or less")) == [
        ("rest", ""),
        ("go", "nacre fork a --lr 1"),
        ("more words", ""),
        ("less", ""),
    ]


def test_latents_are_named():
    found = said(history(CODES, rate=0.03, kl=[0.0, 0.0, 0.02, 0.0]))["posterior-collapse"]
    assert "z0-z1, z3" in found.sentence
    assert found.evidence["silent"] == [0, 1, 3]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        (
            "oscillation",
            {"r1": 0.0, "loss": "non-saturating"},
            "nacre fork RUN --at 300 --r1 1",
        ),  # Mescheder et al. 2018
        ("oscillation", {"r1": 0.5}, "--r1 5"),
        ("collapse", {"gp_weight": 10.0, "n_critic": 5, "pack": 1}, "--n-critic 10"),
        ("strong_discriminator", {"loss": "minimax", "r1": 0.0}, "--loss non-saturating"),
        ("weak_discriminator", {"r1": 100.0}, "--r1 10"),
        ("weak_discriminator", {"gamma": 100.0, "gamma_steps": 0}, "--gamma 10"),
        ("weak_discriminator", {"gamma": 1.0, "r1": 0.1, "r2": 0.0}, "--lr 0.00025"),  # VAE/GAN's γ is no penalty
        ("overfit_discriminator", {"augment": False, "r1": 0.0}, "--augment true"),
        ("posterior_collapse", {"beta": 50.0, "kl_warmup": 0}, "--beta 1"),
        ("posterior_collapse", {"beta": 1.0, "kl_warmup": 0, "free_bits": 0.0}, "--kl-warmup 300"),
        ("dead_units", {"lr": 0.1}, "--lr 0.01"),
        ("batchnorm_drift", {"ema": 0.999}, "--ema 0"),
    ],
)
def test_advice_is_a_command_that_the_model_knows(name, settings, expected):
    facts = Facts(steps=1200, settings=settings, saved=(300, 600, 900))
    assert expected in getattr(remedies, name)(facts, 500, {"lr/generator": 5e-4})


def test_codes_that_say_something_are_drawn_where_they_are():
    """A VAE whose codes carry nats lacks no information when its samples lack kinds of items."""
    facts = Facts(settings={"beta": 1.0, "kl_warmup": 0})
    assert "nacre sample RUN --prior gmm" in remedies.collapse(facts, 500, {"rate": 25.0})
    assert "--kl-warmup" in remedies.collapse(facts, 500, {"rate": 0.1})


# Live.


def test_each_verdict_is_told_once_and_again_when_it_comes_back():
    alarm = Alarm(Facts(steps=3000))
    told, over = {}, []
    for line in history(GAME, count=30, lost=lambda number: 0.9 if number < 10 or number > 20 else 0.0):
        for verdict in alarm.hear(line["step"], line["signals"], ()):
            told.setdefault(verdict.name, []).append(line["step"])
        over += [line["step"] for verdict in alarm.over if verdict.name == "collapse"]
    assert [len(steps) for steps in told.values()].count(2) == 1
    first, second = told["collapse"]
    assert len(over) == 1
    assert first < over[0] < second
    assert alarm.stopped is None


def test_a_verdict_stops_the_run_unless_it_was_known():
    ill = history(GAME, lost=0.9)
    alarm = Alarm(Facts(steps=1200), ("collapse",))
    for line in ill:
        alarm.hear(line["step"], line["signals"], ())
    assert alarm.stopped is not None
    assert alarm.stopped.name == "collapse"
    again = Alarm(Facts(steps=1200), ("collapse",), list(ill))
    again.hear(1300, ill[-1]["signals"], ())
    assert again.stopped is None


def test_what_can_stop_a_run():
    assert Training(stop_on=("collapse", "divergence")).stop_on == ("collapse", "divergence")
    with pytest.raises(ConfigError, match=r"--stop-on takes collapse, .*got 'sadness'"):
        Training(stop_on=("sadness",))
    with pytest.raises(ConfigError, match="--signal-every 0 switches them off"):
        Training(stop_on=("collapse",), signal_every=0)
    assert "healthy" not in DISEASES


def test_the_progress_line_is_short():
    assert glimpse({"d_real": 0.71, "d_fake": 0.3, "value": -1.1, "lost": 0.0}) == {
        "D(x)": "0.71",
        "D(G(z))": "0.3",
        "V": "-1.1",
    }
    assert glimpse({"rate": 20.0, "elbo": -100.0, "explained": 0.8}) == {"rate": "20", "distortion": "80"}
    assert glimpse({"value": None}) == {}


# Models made ill by hand, measured.


def ring(first, count):
    angles = 2 * math.pi * (torch.arange(count) % 8) / 8
    noise = seeds.noise(normal(2), "ring", rows=range(first, first + count))
    return torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * noise


class Forger(GAN):
    """Samples of the ring's first `modes` modes, by hand."""

    modes = 8

    def sample(self, noise):
        angles = (noise["z"][:, 2].abs() * 1e4).long() % self.modes * 2 * math.pi / 8
        return torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * noise["z"][:, :2]


@pytest.mark.parametrize(("modes", "expected"), [(8, {"healthy"}), (6, {"partial-collapse"}), (1, {"collapse"})])
def test_a_generator_that_is_made_to_collapse(modes, expected):
    torch.manual_seed(0)
    model = Forger((2,), latent_dim=3, hidden=(8,))
    model.modes = modes
    labels = torch.arange(2048) % 8
    found = Signals(model, model, [], ring(0, 2048), ring(2048, 512), 0, labels).measure()
    found |= {"auc": 0.7, "d_fake": 0.4, "d_real": 0.6}  # its judge has learned nothing, and is not what this is about
    lines = [{"step": 100 * number, "signals": found} for number in range(1, 13)]
    assert set(said(lines)) == expected


def test_a_posterior_that_is_made_to_collapse():
    torch.manual_seed(0)
    items = torch.rand(700, 1, 8, 8)
    model = VAE((1, 8, 8), latent_dim=3, hidden=(16,))
    with torch.no_grad():
        model.encoder[-1].weight.zero_()
        model.encoder[-1].bias.zero_()
    found = Signals(model, model, [], items[:400], items[400:], 0).measure()
    lines = [{"step": 100 * number, "signals": found} for number in range(1, 13)]
    assert {"posterior-collapse", "blurry-decoder"} <= set(said(lines))
    assert "z0-z2" in said(lines)["posterior-collapse"].sentence
