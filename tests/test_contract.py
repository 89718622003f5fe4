"""The contract, over every model in the catalogue: a new one is tested by existing."""

from pathlib import Path

import pytest

from nacre.contract import CHECKS, _examined, check_model
from nacre.contract.subject import BATCH, Subject, objectives, with_classes
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.models import CATALOGUE
from nacre.run.report.charts import TOGETHER, meaning
from nacre.spec import spec

EXAMPLE = f"{Path(__file__).parent.parent / 'examples' / 'my_model.py'}:TinyLSGAN"


OF_IMAGES = ("cyclegan", "pix2pix", "stackgan")
"""Models that take no vectors, and say so: see test_translation.py and test_stackgan.py."""

SMALL = {
    "cyclegan": {"blocks": 1, "width": 8, "judge_width": 8},
    "pix2pix": {"width": 8, "judge_width": 8},
    "stackgan": {"width": 4, "judge_width": 8, "blocks": 0},
}
"""Fewer layers of the same kinds, where compiling all of them would take a minute."""

NARROW = {"width": 4, "judge_width": 8}
READING = {"words": 16, "matching_steps": 3, "text_dim": 8, "condition_dim": 4}

LONG = ("compiled_equals_eager", "resume_is_exact")
"""Checks that take seconds: in the fast suite at one image shape."""

CASES = [
    pytest.param(name, shape, check, marks=[pytest.mark.slow] if check.__name__ in LONG and shape[0] == 3 else [])
    for name in CATALOGUE
    for shape in ((1, 16, 16), (3, 11, 18), (2,))
    for check in CHECKS
    if shape[1:] or name not in OF_IMAGES
]


@pytest.mark.parametrize(("name", "shape", "check"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_model_keeps(name, shape, check):
    finding = _examined(check, Subject(with_classes(spec(name, SMALL.get(name))), shape, "aot_eager"))
    assert finding.passed is not False, finding.detail


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_report_explains_every_part_of_a_loss(name):
    subject = Subject(with_classes(spec(name, SMALL.get(name))), (1, 16, 16), "aot_eager")
    for objective in objectives(model := subject.build()):
        update = Update(model, objective, Training(steps=1, batch_size=BATCH))
        for part, step in update.micro_batches(0, subject.batch()):
            logged = set(objective.loss(part, step)[1]) - set(objective.hands)
            assert not [name for name in logged if name not in TOGETHER and not meaning(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_model_keeps_the_contract_under_inductor(name):
    findings = check_model(name, SMALL.get(name), shape=(1, 16, 16), backend="inductor")
    assert not [finding for finding in findings if finding.passed is False]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ae", {"network": "conv"}),
        ("vae", {"network": "conv", "likelihood": "gaussian"}),
        ("vae", {"beta": 4.0}),
        ("gan", {"loss": "minimax", "network": "mlp", "r1": 0.0}),
        ("gan", {"reuse_fakes": True, "classes": 3}),
        ("gan", {"reuse_fakes": True, "network": "mlp", "r1": 0.0}),
        ("wgan_gp", {"n_critic": 2, "network": "mlp"}),
        pytest.param("cyclegan", {"network": "unet", "channels_b": 3, **NARROW}, marks=pytest.mark.slow),
        pytest.param("stackgan", {**READING, **NARROW}, marks=pytest.mark.slow),
    ],
)
def test_variants_keep_the_contract(name, parameters):
    failed = [finding for finding in check_model(name, parameters) if finding.passed is False]
    assert not failed


def test_the_example_of_ones_own_model_keeps_the_contract():
    failed = [finding for finding in check_model(EXAMPLE) if finding.passed is False]
    assert not failed


BROKEN = '''
import torch
from torch import nn
from nacre import Objective, networks, normal

class Broken(nn.Module):
    """A model with one fault, chosen by a flag."""
    def __init__(self, shape, *, fault: str = "none"):
        super().__init__()
        self.fault, self.prior = fault, {"z": normal(4)}
        self.generator = networks.decoder(4, shape, kind="mlp", hidden=(8,))
        self.idle = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(4, momentum=0.5)
        self.calls = 0
    def objectives(self):
        over = ("generator", "norm") if self.fault != "idle part" else ("generator", "norm", "idle")
        return [Objective(name="only", loss=self.loss, over=over if self.fault != "no such part" else ("decoder",),
                          draws=self.prior)] + ([] if self.fault in ("uncovered", "idle part") else
               [Objective(name="rest", loss=lambda b, s: (self.idle(torch.ones(1, 2)).square().mean(), {}), over=("idle",))])
    def loss(self, x, step):
        made = self.sample(step.noise)
        if self.fault == "own noise":
            made = made + 0.1 * torch.randn_like(made)
        if self.fault == "not a number":
            made = made / 0
        loss = (made - x).square().mean()
        if self.fault == "moves others":
            with torch.no_grad():
                self.idle.weight += 1
        return loss, {}
    def sample(self, noise):
        self.calls += 1
        z = noise["z"]
        if self.fault == "batch statistics":
            z = z - z.mean(0)
        made = torch.sigmoid(self.generator(self.norm(z)))
        return made * (2 if self.fault == "range" else 1)
'''


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("idle part", "a step of every objective can be taken"),
        ("no such part", "a step of every objective can be taken"),
        ("uncovered", "objectives name parts"),
        ("not a number", "losses are finite"),
        ("moves others", "and no others"),
        ("batch statistics", "does not depend on the batch"),
        ("range", "capabilities give"),
    ],
)
def test_a_broken_model_is_found_out(tmp_path, fault, check):
    (tmp_path / "broken.py").write_text(BROKEN)
    findings = check_model(f"{tmp_path / 'broken.py'}:Broken", {"fault": fault})
    assert any(check in finding.name for finding in findings if finding.passed is False), findings


def test_own_noise_is_pointed_out(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    findings = check_model(f"{tmp_path / 'broken.py'}:Broken", {"fault": "own noise"})
    (finding,) = [f for f in findings if f.name == "losses draw no noise of their own"]
    assert "not on another number of ranks" in finding.detail
