"""How a run is set up: compiled or not, how much it writes, where its time went, started again by a scheduler."""

import json
import re

import pytest
import yaml

import nacre
from nacre.data import DataSettings, load
from nacre.engine import numerics
from nacre.engine.settings import Training
from nacre.errors import ConfigError
from nacre.run.session import resolve
from nacre.spec import spec

QUICK = {"steps": 40, "batch_size": 8, "log_every": 7, "sample_every": 0, "checkpoint_every": 10}
TINY = {"hidden": (16,)}


def test_compiling_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(numerics, "WORTH_COMPILING", 12)
    run = nacre.train("wgan_gp", out=tmp_path / "run", **{**QUICK, "steps": 12}, **TINY)
    monkeypatch.setattr(numerics, "WORTH_COMPILING", 10**9)
    nacre.resume(run.path, steps=14)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["numerics"]["compile"] == "on"


def test_what_cannot_be_compiled(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(numerics, "WORTH_COMPILING", 1)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from nacre import Objective\n"
        "class Asks(nn.Module):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__()\n"
        "        self.part = nn.Linear(1, 1)\n"
        "    def objectives(self):\n"
        "        return [Objective(name='only', loss=self.loss, over=('part',))]\n"
        "    def loss(self, x, step):\n"
        "        value = self.part(x.flatten()[:1, None]).square().mean()\n"
        "        return (value if value > 0 else -value), {}\n"
    )
    mine = f"{tmp_path / 'mine.py'}:Asks"
    run = nacre.train(mine, out=tmp_path / "run", **QUICK)
    assert "going on without" in caplog.text
    assert yaml.safe_load((run.path / "config.yaml").read_text())["numerics"]["compile"] == "off"
    with pytest.raises(ConfigError, match="cannot be compiled"):
        nacre.train(mine, out=tmp_path / "other", compile="on", **QUICK)
    assert not (tmp_path / "other").exists()


def test_a_run_says_where_its_time_went(tmp_path, caplog):
    caplog.set_level("INFO", logger="nacre")
    run = nacre.train("vae", out=tmp_path / "run", profile=True, **QUICK, **TINY)
    assert re.search(r"images/s; .*forward and backward \d+\.\d%", caplog.text)
    shares = next(line["shares"] for line in run.history if "shares" in line)
    assert set(shares) == {"data", "forward and backward", "optimizer", "average", "writing"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    events = json.loads((run.path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "ProfilerStep#15" for event in events)


def test_a_long_run_does_not_write_more():
    dataset = load(DataSettings())
    chosen = spec("vae")
    settled = [resolve(Training(steps=steps), chosen, dataset) for steps in (1_000, 50_000, 1_000_000)]
    assert [training.log_every for training in settled] == [100, 100, 1000]
    assert [training.sample_every for training in settled] == [1000, 1000, 20_000]
    assert resolve(Training(steps=10**6, log_every=7, sample_every=0), chosen, dataset).log_every == 7


def test_one_command_starts_or_goes_on(tmp_path):
    told = {**QUICK, **TINY, "out": tmp_path / "run", "or_resume": True}
    assert nacre.train("vae", **{**told, "steps": 12}).done == 12
    again = nacre.train("vae", **{**told, "steps": 25})
    assert (again.done, again.steps) == (25, 25)
    assert [line["step"] for line in again.history if "losses" in line][-1] == 25
    with pytest.raises(ConfigError, match="hyper-parameters"):
        nacre.train("vae", **{**told, "lr": 0.5})
