"""Forks: the run itself up to a step, and from there on the run with one thing changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import nacre
from nacre.cli import main
from nacre.engine import checkpoint
from nacre.engine.checkpoint import differences
from nacre.engine.log import read as read_log
from nacre.errors import CheckpointError, ConfigError, DataError, RunError, ShapeError
from nacre.run import fork

QUICK = {"steps": 40, "batch_size": 8, "log_every": 7, "sample_every": 0, "checkpoint_every": 10, "keep": 1}
KINDS = {
    "vae": {"hidden": (16,), "kl_warmup": 25, "lr_schedule": "cosine"},
    "dcgan": {"width": 4},  # batch norms in both players
    "wgan_gp": {"hidden": (16,), "n_critic": 3},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished run of each kind, of which the checkpoints of step 40 and of the best step are left."""
    place, before = tmp_path_factory.mktemp("runs"), os.environ.get("NACRE_CACHE")
    os.environ["NACRE_CACHE"] = str(place / "cache")
    torch.set_num_threads(1)
    for name, parameters in KINDS.items():
        nacre.train(name, out=place / name, **QUICK, **parameters)
    if before is not None:
        os.environ["NACRE_CACHE"] = before
    return place


def state(run, step=40):
    return checkpoint.load(Path(run) / "checkpoints", step)


def losses(run):
    return [(line["step"], line["losses"]) for line in read_log(Path(run)) if "losses" in line]


def assert_same_run(a, b, step=40):
    different = [path for path in differences(state(a, step), state(b, step)) if not path.startswith("/best")]
    assert not different, different
    assert losses(a) == losses(b)


def config(run):
    return yaml.safe_load((Path(run) / "config.yaml").read_text())


def gradients_of(run, step=40):
    return [group for each in state(run, step)["optimizers"].values() for group in each["param_groups"]]


@pytest.mark.parametrize("name", KINDS)
def test_an_unchanged_fork_is_the_run_itself(runs, name, tmp_path):
    kept = checkpoint.steps(runs / name / "checkpoints")
    for at in (0, 27):
        found = fork(runs / name, at=at, out=tmp_path / f"at-{at}")
        assert (found.done, found.steps) == (40, 40)
        assert_same_run(runs / name, found)
        origin = config(found)["forked_from"]
        assert (origin["step"], origin["changed"], origin["run"]) == (at, {}, str(runs / name))
    assert checkpoint.steps(runs / name / "checkpoints") == kept


def test_a_kept_checkpoint_is_not_made_again(runs, tmp_path, caplog):
    shutil.copytree(runs / "vae", tmp_path / "run")
    nacre.resume(tmp_path / "run", steps=40, keep=2, checkpoint_every=20)
    caplog.set_level("INFO")
    fork(tmp_path / "run", at=0, out=tmp_path / "all", keep=9)
    assert "made again" not in caplog.text
    fork(tmp_path / "all", at=20, out=tmp_path / "from-20")
    assert "made again" not in caplog.text
    assert "resuming at step 20" in caplog.text
    assert_same_run(runs / "vae", tmp_path / "from-20")
    fork(tmp_path / "all", at=27, out=tmp_path / "from-27")
    assert "the checkpoint of step 27 was not kept, so steps 20 to 27 are made again" in caplog.text
    assert_same_run(runs / "vae", tmp_path / "from-27")


def test_one_thing_changes_from_the_step_on_and_not_before(runs, tmp_path):
    found = fork(runs / "wgan_gp", at=21, out=tmp_path / "fork", gp_weight=0.0, log_every=3)
    assert config(found)["parameters"]["gp_weight"] == 0.0
    assert config(found)["forked_from"]["changed"]["gp_weight"] == {"was": 10.0, "is": 0.0}
    before, after = dict(losses(runs / "wgan_gp")), dict(losses(found))
    assert [step for step in after if step <= 21] == [7, 14, 21]
    assert all(after[step] == before[step] for step in (7, 14, 21))
    assert after[40] != before[40]
    assert differences(state(runs / "wgan_gp")["model"], state(found)["model"])


def test_the_new_settings_of_an_optimizer_win(tmp_path):
    run = nacre.train("gan", out=tmp_path / "run", **QUICK, hidden=(8,), discriminator_hidden=(8,))
    still = fork(run, at=40, out=tmp_path / "still", steps=45, lr=1e-30, ema=0.0, r1=0.5, beta1=0.9)
    assert not differences(list(run_weights(run, 40)), list(run_weights(still, 45)))
    assert {(group["lr"], group["betas"][0]) for group in gradients_of(still, 45)} == {(1e-30, 0.9)}
    # One step by hand: the moments are those of the run, their decay and the rate are the fork's.
    one = fork(run, at=40, out=tmp_path / "one", steps=41, lr=1e-2, beta1=0.75)
    for objective, old in state(run)["optimizers"].items():
        new = state(one, 41)["optimizers"][objective]
        assert old["param_groups"][0]["betas"][0] != 0.75
        for index, moment in new["state"].items():
            gradient = (moment["exp_avg"] - 0.75 * old["state"][index]["exp_avg"]) / 0.25
            second = old["param_groups"][0]["betas"][1]
            square = second * old["state"][index]["exp_avg_sq"] + (1 - second) * gradient**2
            assert torch.allclose(moment["exp_avg_sq"], square, rtol=1e-3, atol=1e-9)


def test_who_plays_first_may_change(tmp_path):
    run = nacre.train("gan", out=tmp_path / "run", **QUICK, hidden=(8,), discriminator_hidden=(8,))
    turned = fork(run, at=40, out=tmp_path / "turned", steps=45, reuse_fakes=True)
    assert config(turned)["parameters"]["reuse_fakes"]
    assert {name for _, each in losses(turned) for name in each} == {name for _, each in losses(run) for name in each}


def run_weights(run, step):
    return state(run, step)["model"].values()


def test_an_average_can_begin_and_end(runs, tmp_path):
    without = fork(runs / "vae", at=20, out=tmp_path / "without", ema=0.0, steps=30)
    assert state(without, 30)["average"] is None
    begun = fork(without, at=30, out=tmp_path / "begun", ema=0.5, steps=31)
    average, model = state(begun, 31)["average"], state(begun, 31)["model"]
    started = state(without, 30)["model"]
    assert all(((average[name] - started[name]).abs() <= (model[name] - started[name]).abs()).all() for name in model)


@pytest.mark.parametrize("flags", [{"seed": 5}, {"batch_size": 16}, {"clip": 0.1}, {"beta": 4.0}, {"split_seed": 3}])
def test_what_fits_the_weights_may_change(runs, tmp_path, flags):
    found = fork(runs / "vae", at=35, out=tmp_path / "fork", **flags)
    assert losses(found)[:5] == losses(runs / "vae")[:5]
    assert losses(found)[5] != losses(runs / "vae")[5]
    assert set(config(found)["forked_from"]["changed"]) == set(flags)


@pytest.mark.parametrize("flags", [{"hidden": (17,)}, {"latent_dim": 3}, {"likelihood": "gaussian"}])
def test_another_network_is_refused(runs, tmp_path, flags):
    with pytest.raises(
        ConfigError, match=r"optimizers of .*--(hidden|latent-dim|likelihood) would make others.*--init-from"
    ):
        fork(runs / "vae", at=20, out=tmp_path / "fork", **flags)
    assert not (tmp_path / "fork").exists()


def test_other_data_of_the_same_shape(runs, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (100, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", pixels)
    found = fork(runs / "vae", at=14, out=tmp_path / "fork", data=str(tmp_path / "noise.npy"))
    assert dict(losses(found))[14] == dict(losses(runs / "vae"))[14]
    assert config(found)["fingerprint"] != config(runs / "vae")["fingerprint"]
    assert state(found)["best"][0] > 14  # what other data were judged by is no measure of it
    np.save(tmp_path / "wide.npy", pixels.reshape(50, 8, 16))
    with pytest.raises(ShapeError, match=r"is of items of 1×8×8 and .* has 1×8×16"):
        fork(runs / "vae", at=14, out=tmp_path / "other", data=str(tmp_path / "wide.npy"))


def test_data_that_have_moved(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (100, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", pixels)
    run = nacre.train("vae", data=str(tmp_path / "noise.npy"), out=tmp_path / "run", **QUICK, hidden=(8,))
    (tmp_path / "noise.npy").rename(tmp_path / "moved.npy")
    found = fork(run, at=17, out=tmp_path / "fork", data=str(tmp_path / "moved.npy"))
    assert_same_run(run, found)


def test_two_sides_that_have_moved_before_the_first_steps_were_made_again(tmp_path):
    rng = np.random.default_rng(0)
    for side in "ab":
        np.save(tmp_path / f"{side}.npy", rng.integers(0, 255, (60, 1, 8, 8), dtype=np.uint8))
    tiny = {"width": 4, "judge_width": 4, "blocks": 1, "lr_schedule": "constant", "signal_every": 0}
    settings = {**QUICK, "steps": 4, "checkpoint_every": 4, **tiny}
    run = nacre.train("cyclegan", data="a.npy", data_b="b.npy", out=tmp_path / "run", **settings)
    found = fork(run, at=2, out=tmp_path / "fork")
    shutil.rmtree(found.path / "checkpoints")
    for side in "ab":
        (tmp_path / f"{side}.npy").rename(tmp_path / f"moved-{side}.npy")
    nacre.resume(found, data="moved-a.npy", data_b="moved-b.npy")
    assert_same_run(run, found, 4)


def test_data_that_are_no_longer_what_they_were(runs, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (100, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", pixels)
    run = fork(runs / "vae", at=40, out=tmp_path / "run", data=str(tmp_path / "noise.npy"), steps=42)
    np.save(tmp_path / "noise.npy", 255 - pixels)
    for flags in ({}, {"mirror": True}):
        with pytest.raises(DataError, match=r"noise.npy are not what .*run was trained on"):
            fork(run, at=41, out=tmp_path / "fork", **flags)


def test_steps_that_a_fork_cannot_have(runs, tmp_path):
    with pytest.raises(ConfigError, match="from 0 to 40; got 41"):
        fork(runs / "vae", at=41)
    with pytest.raises(ConfigError, match="from 0 to 40; got -1"):
        fork(runs / "vae", at=-1)
    with pytest.raises(ConfigError, match="needs --steps of more than 40"):
        fork(runs / "vae", at=40)
    with pytest.raises(ConfigError, match="a fork is a run of its own"):
        fork(runs / "vae", at=20, out=runs / "vae", overwrite=True)
    with pytest.raises(ConfigError, match="did you mean 'latent_dim'"):
        fork(runs / "vae", at=20, latent_dims=3)
    assert_same_run(runs / "vae", runs / "vae")


def test_a_fork_of_a_fork_knows_all_that_came_before(runs, tmp_path):
    first = fork(runs / "vae", at=12, out=tmp_path / "first", beta=3.0, lr_schedule="constant")
    second = fork(first, at=25, out=tmp_path / "second", free_bits=0.5)
    for step in checkpoint.steps(tmp_path / "second" / "checkpoints"):
        shutil.rmtree(tmp_path / "second" / "checkpoints" / f"step-{step:08d}")
    shutil.copytree(tmp_path / "second", tmp_path / "again")
    shutil.rmtree(tmp_path / "first")  # it has all that it takes
    nacre.resume(tmp_path / "again")
    third = fork(tmp_path / "second", at=40, out=tmp_path / "third", steps=43)
    assert losses(third)[:6] == losses(tmp_path / "again")[:6] == losses(second)[:6]
    assert dict(losses(third))[7] == dict(losses(runs / "vae"))[7]
    with pytest.raises(ConfigError, match=r"up to step 25 .*second shares the steps of .*first; fork that one at 24"):
        fork(tmp_path / "second", at=24)


def test_weights_from_elsewhere_cannot_be_made_again(runs, tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", init_from=runs / "vae", **{**QUICK, "validation": 0.0}, hidden=(16,))
    with pytest.raises(
        CheckpointError, match=r"started from the weights of .*vae .*no checkpoint at step 20 .*are: 40"
    ):
        fork(run, at=20)
    kept = nacre.train("vae", out=tmp_path / "kept", init_from=runs / "vae", **{**QUICK, "keep": 9}, hidden=(16,))
    assert_same_run(kept, fork(kept, at=5, out=tmp_path / "fork"))


def test_a_damaged_checkpoint_is_passed_over(runs, tmp_path, caplog):
    shutil.copytree(runs / "vae", tmp_path / "run")
    for damaged in (tmp_path / "run" / "checkpoints").glob("*/state.pt"):
        damaged.write_bytes(damaged.read_bytes()[:100])
    assert_same_run(runs / "vae", fork(tmp_path / "run", at=30, out=tmp_path / "fork"))


def test_a_fork_that_is_in_use_or_damaged(runs, tmp_path):
    found = fork(runs / "vae", at=39, out=tmp_path / "fork")
    with pytest.raises(ConfigError, match="holds a run already"):
        fork(runs / "vae", at=39, out=found.path)
    fork(runs / "vae", at=38, out=found.path, overwrite=True)
    assert config(found)["forked_from"]["step"] == 38
    written = (found.path / "config.yaml").read_text()
    (found.path / "config.yaml").write_text(written.replace("  step: 38", "  step: soon"))
    with pytest.raises(RunError, match="forked_from is missing or of the wrong type"):
        nacre.resume(found.path)


@pytest.mark.parametrize("at", [13, 40])
def test_killed_before_its_first_checkpoint_it_goes_on(runs, tmp_path, at):
    """A real process and a real kill: while it makes the steps before the fork again, and after it has copied the fork's."""
    words = ["fork", str(runs / "vae"), "--at", str(at), "--out", "fork", "--lr-schedule", "constant", "--lr", "1e-3"]
    words += ["--steps", "1000000", "--checkpoint-every", "1000000", "--sample-every", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "nacre", *words], stderr=subprocess.PIPE, env=environment)
    until, log = time.monotonic() + 60, tmp_path / "fork" / "log.jsonl"
    while not (log.exists() and (at == 13 or '"step": 49' in log.read_text())) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    whole = fork(runs / "vae", at=at, out="whole", steps=60, lr_schedule="constant", lr=1e-3)
    settings = (tmp_path / "fork" / "config.yaml").read_text().replace("steps: 1000000", "steps: 60", 1)
    (tmp_path / "fork" / "config.yaml").write_text(settings)
    assert nacre.resume("fork").done == 60
    assert_same_run(whole, "fork", 60)


def test_the_command(runs, capsys, monkeypatch):
    shutil.copytree(runs / "vae", "run")
    assert main(["fork", "run", "--at", "33", "--lr", "1e-5"]) == 0
    assert "done: 40 steps in run-at-33-1; next: nacre sample run-at-33-1" in capsys.readouterr().out
    assert main(["fork", "run", "--at", "33"]) == 0
    assert_same_run("run", "run-at-33-2")
    assert main(["fork", "run"]) == 2
    assert "say at which step: nacre fork run --at STEP" in capsys.readouterr().err
    assert main(["fork", "run", "--at", "33", "--latent-dims", "3"]) == 2
    assert "did you mean '--latent-dim'?" in capsys.readouterr().err
    assert main(["fork", "nowhere", "--at", "3"]) == 2
    assert json.loads(json.dumps(config("run-at-33-1")["forked_from"]["changed"])) == {"lr": {"was": None, "is": 1e-5}}


@pytest.mark.slow
def test_a_fork_by_two_ranks(runs, tmp_path):
    one = fork(runs / "vae", at=33, out=tmp_path / "one")
    two = fork(runs / "vae", at=33, out=tmp_path / "two", devices=2)
    for name, weight in state(one)["model"].items():
        assert torch.allclose(state(two)["model"][name], weight, atol=1e-4), name
