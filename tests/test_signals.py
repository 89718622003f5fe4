"""What is measured while a model trains: it changes nothing, and its numbers are what they say they are."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nacre
from nacre import seeds
from nacre.engine import checkpoint, signals
from nacre.engine.ranks import Ranks, synchronise
from nacre.engine.settings import Training
from nacre.engine.signals import Signals
from nacre.engine.update import Update
from nacre.metrics import glance
from nacre.models.gan import GAN
from nacre.models.vae import VAE
from nacre.models.wgan_gp import WGANGP
from nacre.seeds import normal

QUICK = {"steps": 12, "batch_size": 8, "sample_every": 0, "log_every": 100, "checkpoint_every": 6}


def measured(run):
    return [line for line in map(json.loads, (run.path / "log.jsonl").read_text().splitlines()) if "signals" in line]


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("gan", {"network": "conv", "width": 4, "image_size": 16}),  # batch norm in both players
        ("wgan_gp", {"hidden": (16,)}),
        ("vae", {"hidden": (16,), "latent_dim": 3}),
    ],
)
def test_measuring_changes_nothing_that_is_trained(model, flags, tmp_path):
    runs = [nacre.train(model, out=tmp_path / str(every), signal_every=every, **QUICK, **flags) for every in (0, 5)]
    assert not measured(runs[0])
    assert [line["step"] for line in measured(runs[1])] == [5, 10, 12]
    for step in (6, 12):
        states = [checkpoint.load(run.path / "checkpoints", step) for run in runs]
        assert checkpoint.differences(*states) == []


def test_what_is_logged_can_be_read_by_anyone(tmp_path):
    run = nacre.train("gan", out=tmp_path / "run", signal_every=6, hidden=(16,), **QUICK)
    (_, last) = measured(run)
    found = last["signals"]
    assert found["items"] + found["held_out"] > 1600
    assert math.isclose(sum(found["bins"]), 1, abs_tol=1e-3)
    assert {"d_real", "d_train", "d_fake", "auc", "value", "jsd", "accuracy", "pull", "passed"} <= set(found)
    assert {"lost", "coverage", "diversity", "nearest", "gradient/generator", "lr/generator"} <= set(found)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "events")).Reload()
    (_, scalar) = events.Scalars("signals/value")
    assert scalar.value == pytest.approx(found["value"], rel=1e-4)


def game(model, real, **changes):
    """The signals of a game without updates."""
    return Signals(model, model, changes.pop("updates", []), real[:400], real[400:], 0)


def ring(count=800):
    angles = 2 * math.pi * (torch.arange(count) % 8) / 8
    noise = seeds.noise(normal(2), "ring", rows=range(count))
    return torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * noise


def test_the_value_is_that_of_the_held_out_batch():
    torch.manual_seed(0)
    model, real = GAN((2,), hidden=(16,)), ring()
    found = game(model, real).measure()
    fake = model.sample({"z": seeds.noise(model.prior["z"], 0, "signals", "z", rows=range(256))}).detach()
    on_real, on_fake = (model.discriminator(x).double().detach() for x in (real[400:656], fake))
    value = float(on_real.sigmoid().log().mean() + (1 - on_fake.sigmoid()).log().mean())
    assert found["value"] == pytest.approx(value, rel=1e-4)
    assert found["jsd"] == pytest.approx((value + math.log(4)) / 2, rel=1e-3)
    assert found["d_real"] == pytest.approx(float(on_real.sigmoid().mean()), rel=1e-4)
    right = (float((on_real > 0).double().mean()) + float((on_fake < 0).double().mean())) / 2
    assert found["accuracy"] == pytest.approx(right, abs=1e-4)


def test_what_the_generator_is_told_is_exact():
    """With the gradient of a known loss in place, `passed` is its norm over that of the mean realness."""
    torch.manual_seed(0)
    model, real = GAN((2,), hidden=(16,), loss="minimax"), ring()
    updates = [Update(model, objective, Training(steps=1, batch_size=64)) for objective in model.objectives()]
    noise = {"z": seeds.noise(model.prior["z"], 0, "signals", "z", rows=range(64))}
    own = list(model.generator.parameters())
    logit = model.realness(model.sample(noise))
    whole = torch.autograd.grad(logit.mean(), own, retain_graph=True)
    told = torch.autograd.grad(-F.softplus(logit).mean(), own)
    for parameter, gradient in zip(own, told, strict=True):
        parameter.grad = gradient
    norms = [torch.cat([g.flatten() for g in each]).norm() for each in (told, whole)]
    found = game(model, real, updates=updates).measure()
    assert found["passed"] == pytest.approx(float(norms[0] / norms[1]), rel=1e-3)
    assert found["gradient/generator"] == pytest.approx(float(norms[0]), rel=1e-3)
    x = model.sample(noise).detach().requires_grad_()
    slope = torch.autograd.grad(model.realness(x).sum(), x)[0].norm(dim=1).mean()
    spread = real[400:].var(0, unbiased=False).sum().sqrt()
    assert found["pull"] == pytest.approx(float(slope * spread), rel=1e-3)


def test_a_linear_critic_estimates_the_distance_that_it_sees():
    """Of slope 3 along one axis, it says how far the means are apart along it, whatever its scale."""
    model = WGANGP((2,), hidden=(4,))
    model.realness = lambda x: 3 * x[:, 0]
    model.sample = lambda noise: torch.stack([5 + 0 * noise["z"][:, 0], noise["z"][:, 1]], 1)
    real = ring()
    found = game(model, real).measure()
    assert found["slope"] == pytest.approx(3, rel=1e-4)
    assert found["wasserstein"] == pytest.approx(float(real[400:656, 0].mean()) - 5, rel=1e-3)


def test_a_judge_of_packs_is_not_asked_about_copies():
    found = game(GAN((2,), hidden=(16,), pack=2), ring()).measure()
    assert "d_real" not in found
    assert "bins" in found


def test_latents_are_measured_one_by_one():
    torch.manual_seed(0)
    model, items = VAE((1, 8, 8), latent_dim=3, hidden=(16,)), torch.rand(600, 1, 8, 8)
    with torch.no_grad():
        last = model.encoder[-1]
        last.weight[[1, 4]], last.bias[[1, 4]] = 0, 0  # z1 is the prior's
    found = game(model, items).measure()
    model.requires_grad_(False)
    seen = model.likelihood.observe(
        items[400:600], seeds.noises(model.likelihood.draws, 0, "likelihood", rows=range(200))
    )
    mean, std = model.posterior(seen)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), torch.distributions.Normal(0, 1))
    assert found["kl"] == pytest.approx(kl.mean(0).tolist(), rel=1e-3)
    assert found["kl"][1] == 0
    assert found["rate"] == pytest.approx(float(kl.sum(1).mean()), rel=1e-3)
    remade = model.reconstruct(items[400:600])
    explained = 1 - float(
        (remade - items[400:600]).square().sum() / (items[400:600] - items[400:600].mean(0)).square().sum()
    )
    assert found["explained"] == pytest.approx(explained, rel=1e-3)


def test_norms_by_the_batch_are_those_of_training_and_remember_nothing():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    model = model.append(nn.BatchNorm1d(2, affine=False))
    items = torch.randn(16, 1, 8, 8)
    expected = model.train()(items).detach()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    with signals.by_batch(model):
        torch.testing.assert_close(model(items), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not torch.allclose(model(items), expected)


def test_one_rank_measures_without_the_others():
    """Norms that talk to all ranks do not while one measures, and do again afterwards."""
    model = GAN((1, 16, 16), network="conv", width=4)
    synchronise(model, Ranks(0, 2, group=None))  # there is no group to talk to
    talking = [norm.forward for norm in signals.batch_norms(model)]
    found = game(model, torch.rand(600, 1, 16, 16)).measure()
    assert "drift" in found
    assert [norm.forward for norm in signals.batch_norms(model)] == talking


def test_dead_units_are_counted_by_part():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 3))
            self.decoder = nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2))
            nn.init.constant_(self.encoder[0].bias[:6], -100)

        def reconstruct(self, x):
            return self.decoder(self.encoder(x))

    torch.manual_seed(0)
    model = Two()
    for part in (model.encoder, model.decoder):
        nn.init.constant_(part[0].weight, 0.1)
        nn.init.constant_(part[0].bias, 1)
    nn.init.constant_(model.encoder[0].bias[:6], -100)
    found = game(model, ring()).measure()
    assert found["dead/encoder"] == pytest.approx(0.6)
    assert found["dead/decoder"] == 0


def test_a_model_that_cannot_be_looked_at_is_trained_all_the_same(tmp_path, caplog):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from nacre import Objective, normal\n"
        "class Shy(nn.Module):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__()\n"
        "        self.part = nn.Linear(64, 64)\n"
        "        self.prior = {'z': normal(64)}\n"
        "    def objectives(self):\n"
        "        return [Objective(name='only', loss=self.loss, over=('part',))]\n"
        "    def loss(self, x, step):\n"
        "        return self.part(x.flatten(1)).square().mean(), {}\n"
        "    def sample(self, noise):\n"
        "        if len(noise['z']) not in (0, 8, 64):\n"
        "            raise ValueError('in eights, please')\n"
        "        return self.part(noise['z']).view(-1, 1, 8, 8)\n"
        "    def realness(self, x):\n"
        "        return self.sample({'z': x.flatten(1)}).flatten(1).sum(1)\n"
    )
    run = nacre.train(
        f"{tmp_path / 'mine.py'}:Shy", out=tmp_path / "run", signal_every=4, **{**QUICK, "validation": 0.0}
    )
    assert run.done == 12
    assert caplog.text.count("going on without signals: Shy cannot be measured (in eights, please)") == 1


# A glance at samples.


def test_classes_that_are_too_many_or_unknown_are_left_out():
    real = ring(4096)
    for labels in (torch.arange(2048), torch.zeros(2048, dtype=torch.int64), torch.full((2048,), -1)):
        assert "lost_classes" not in glance.Reference(real[:2048], real[2048:2560], labels).judge(real[:100])


def test_good_samples_look_good_at_a_glance():
    real, samples = ring(4096), ring(9000)[8200:8712]
    found = glance.Reference(real[:2048], real[2048:2560]).judge(samples)
    assert found["lost"] == 0
    assert found["coverage"] == pytest.approx(0.969, abs=0.04)
    assert found["diversity"] == pytest.approx(1, abs=0.05)
    assert found["nearest"] == pytest.approx(1, abs=0.3)
    assert found["copies"] == pytest.approx(0.05, abs=0.05)
    assert found["judge"] == pytest.approx(0.5, abs=0.08)
    assert found["distance"] < 0.1
    assert found["outside"] == found["unreached"] == 0


def test_lost_modes_are_lost():
    """Whatever the samples look like within a mode, a mode is one kind, and without it an eighth is lost."""
    real = ring(4096)
    reference = glance.Reference(real[:2048], real[2048:2560], torch.arange(2048) % 8)
    for kept in range(1, 9):
        found = reference.judge(ring(4096)[2560:][torch.arange(1536) % 8 < kept][:200])
        assert found["lost"] == pytest.approx(1 - kept / 8, abs=0.02)
        assert found["lost_classes"] == pytest.approx(1 - kept / 8, abs=0.02)
    assert reference.judge(torch.zeros(100, 2))["diversity"] == 0


def test_copies_are_copies():
    real = ring(4096)
    reference = glance.Reference(real[:2048], real[2048:2560])
    found = reference.judge(real[:512] + 1e-4)
    assert found["nearest"] < 0.05
    assert found["copies"] > 0.8


def test_near_points_far_from_the_middle_are_told_apart():
    torch.manual_seed(0)
    sides = 5000 * torch.tensor([-1.0, 1.0]).repeat(1280)[:, None]
    real = sides + torch.randn(2560, 2)
    reference = glance.Reference(real[:2048], real[2048:])
    good, copied = (reference.judge(each) for each in (sides[:512] + torch.randn(512, 2), real[:512]))
    assert good["copies"] < 0.1
    assert good["judge"] == pytest.approx(0.5, abs=0.1)
    assert copied["nearest"] == 0
    assert copied["copies"] == 1


def test_numbers_out_of_range():
    items = seeds.noise(seeds.uniform(1, 8, 8), "range", rows=range(600))
    reference = glance.Reference(items[:400], items[400:])
    assert reference.judge(2 * items[:100] - 1)["outside"] == pytest.approx(0.5, abs=0.03)
    pressed = reference.judge(items[:100].clamp(0.4, 0.6))
    assert pressed["unreached"] == pytest.approx(0.8, abs=0.05)
    assert pressed["piled"] == pytest.approx(0.8, abs=0.05)


def test_large_images_are_made_small_and_few_are_enough():
    items = torch.rand(40, 3, 50, 30)
    found = glance.Reference(items[:30], items[30:]).judge(torch.rand(10, 3, 50, 30))
    assert np.isfinite(list(found.values())).all()


def test_above_is_the_chance_of_being_above():
    a, b = torch.tensor([1.0, 2, 3, 3]), torch.tensor([0.0, 3, 2, 5, 1])
    brute = (a[:, None] > b).double() + (a[:, None] == b).double() / 2
    assert glance.above(a, b) == pytest.approx(float(brute.mean()), abs=1e-12)
