"""How a run is set up: compiled or not, how much it writes, where its time went, started again by a scheduler."""

import json
import re

import pytest
import torch
import yaml

import nacre
from nacre.data import DataSettings, load
from nacre.engine import checkpoint, numerics
from nacre.engine.clock import Clock
from nacre.engine.settings import Training
from nacre.errors import ConfigError
from nacre.run import config as configuration
from nacre.run import start
from nacre.run.plan import plan
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


@pytest.mark.parametrize(("steps", "traced"), [(26, range(15, 25)), (13, range(6, 13)), (2, range(1, 2))])
def test_a_short_run_is_profiled_as_well(steps, traced, tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", profile=True, **{**QUICK, "steps": steps}, **TINY)
    names = {event.get("name") for event in json.loads((run.path / "trace.json").read_text())["traceEvents"]}
    assert {name for name in names if str(name).startswith("ProfilerStep")} == {f"ProfilerStep#{n}" for n in traced}


def test_a_long_run_does_not_write_more():
    dataset = load(DataSettings())
    chosen = spec("vae")
    model = chosen.build(dataset.shape)
    settled = [resolve(Training(steps=steps), chosen, dataset, model) for steps in (1_000, 50_000, 1_000_000)]
    assert [training.log_every for training in settled] == [100, 100, 1000]
    assert [training.sample_every for training in settled] == [1000, 1000, 20_000]
    assert resolve(Training(steps=10**6, log_every=7, sample_every=0), chosen, dataset, model).log_every == 7


@pytest.mark.parametrize(
    ("steps", "batch_size", "every"),
    [(1_000, 64, 100), (50_000, 64, 781), (8_000, 8, 500), (20_000, 8, 512), (10_000, 1, 625), (500, 1, 100)],
)
def test_looks_are_rarer_where_batches_are_small(steps, batch_size, every):
    chosen, dataset = spec("vae"), load(DataSettings(data="digits"))
    training = Training(steps=steps, batch_size=batch_size)
    assert resolve(training, chosen, dataset, chosen.build(dataset.shape)).signal_every == every


def test_one_command_starts_or_goes_on(tmp_path):
    told = {**QUICK, **TINY, "out": tmp_path / "run", "or_resume": True}
    assert nacre.train("vae", **{**told, "steps": 12}).done == 12
    again = nacre.train("vae", **{**told, "steps": 25})
    assert (again.done, again.steps) == (25, 25)
    assert [line["step"] for line in again.history if "losses" in line][-1] == 25
    with pytest.raises(ConfigError, match="hyper-parameters"):
        nacre.train("vae", **{**told, "lr": 0.5})


def test_going_on_with_something_else_is_refused(tmp_path):
    told = {**QUICK, **TINY, "out": tmp_path / "run", "or_resume": True}
    nacre.train("vae", **told)
    with pytest.raises(ConfigError, match="is a run of 'vae' and 'gan' was asked for"):
        nacre.train("gan", out=tmp_path / "run", or_resume=True)
    with pytest.raises(ConfigError, match="drop --conditional"):
        nacre.train("vae", conditional=True, **told)
    with pytest.raises(ConfigError, match="drop one of them"):
        nacre.train("vae", overwrite=True, **told)
    with pytest.raises(ConfigError, match="give --out"):
        nacre.train("vae", or_resume=True, **TINY)


def test_a_finished_run_says_so(tmp_path, caplog):
    nacre.train("vae", out=tmp_path / "run", **QUICK, **TINY)
    with caplog.at_level("INFO", "nacre"):
        nacre.resume(tmp_path / "run")
    assert "steps were done before" in caplog.text
    assert not re.search(r"(?<![\d,])0 images/s", caplog.text)


def test_a_longer_run_writes_by_its_own_length(tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", steps=20, sample_every=0, **TINY)
    written = configuration.recorded(run.path)
    assert written["training"]["log_every"] is None
    dataset = load(DataSettings())
    asked = configuration.request("vae", {"steps": 1_000_000}, written)
    chosen = asked.spec("vae")
    assert resolve(asked.training, chosen, dataset, chosen.build(dataset.shape)).log_every == 1000


def test_shares_of_a_line_are_of_its_own_stretch():
    clock = Clock()
    clock.spent = {"data": 3.0, "optimizer": 1.0}
    before = dict(clock.spent)
    clock.spent = {"data": 3.0, "optimizer": 2.0, "writing": 3.0}
    assert clock.shares(before) == {"data": 0.0, "optimizer": 0.25, "writing": 0.75}


def test_a_write_that_is_interrupted_is_no_full_disk(tmp_path, monkeypatch):
    def interrupted(state, file):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos")

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 1, {})


def test_threads_are_those_of_the_run_only_for_as_many_ranks(tmp_path, monkeypatch):
    nacre.train("vae", out=tmp_path / "run", **QUICK, **TINY)
    written = configuration.recorded(tmp_path / "run")
    written["numerics"]["ranks"] = 2
    configuration.write(tmp_path / "run", written)
    applied = []
    monkeypatch.setattr(start.numerics, "apply", applied.append)
    nacre.resume(tmp_path / "run")
    assert not applied
    assert configuration.recorded(tmp_path / "run")["numerics"]["ranks"] == 1
    nacre.resume(tmp_path / "run")
    assert len(applied) == 1


@pytest.mark.parametrize(
    ("model", "flags", "unused"),
    [
        ("gan", {"width": 8}, ["--width"]),
        ("gan", {"hidden": (16,)}, []),
        ("gan", {"network": "conv", "width": 8}, []),
        ("gan", {"network": "conv", "width": 8, "hidden": (16,)}, ["--hidden"]),
        ("vae", {"hidden": (512, 256)}, []),  # the default, said aloud
        ("wgan_gp", {"network": "conv", "critic_hidden": (16,)}, ["--critic-hidden"]),
    ],
)
def test_sizes_of_layers_that_the_network_does_not_have_are_told(caplog, model, flags, unused):
    caplog.set_level("INFO", logger="nacre")
    plan(configuration.request(model, {"data": "digits", **flags}, {}))
    assert re.findall(r"(--[\w-]+) changes nothing", caplog.text) == unused
