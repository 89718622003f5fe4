"""Runs from the outside: exact resume, with real processes and real kills; what is refused, and what is kept."""

import json
import os
import random
import resource
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
from PIL import Image

import nacre
from nacre.engine import checkpoint
from nacre.engine.checkpoint import differences, same
from nacre.engine.lock import locked
from nacre.errors import CheckpointError, ConfigError, DataError, RunError, TrainingError
from nacre.models import CATALOGUE
from nacre.spec import fields, find_class

TINY = {
    name: {"hidden": (16, 16)} if "hidden" in {field.name for field in fields(find_class(name))} else {}
    for name in CATALOGUE
}
TWO_SIDES = {"data_b": "digits", "lr_schedule": "constant", "width": 4, "judge_width": 4}
TINY |= {
    "cyclegan": {**TWO_SIDES, "blocks": 1},
    "pix2pix": TWO_SIDES,
    "stackgan": {"width": 4, "judge_width": 4, "blocks": 0},
}
QUICK = {"steps": 40, "batch_size": 8, "log_every": 7, "sample_every": 0, "checkpoint_every": 10}


def flags(**settings):
    return [
        word
        for name, value in settings.items()
        for word in (
            f"--{name.replace('_', '-')}",
            "[" + ",".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value),
        )
    ]


def command(*words):
    return [sys.executable, "-m", "nacre", *map(str, words)]


def call(*words, **options):
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=120, **options)


def final(run, step):
    return checkpoint.load(Path(run) / "checkpoints", step)


def losses(run):
    return [(line["step"], line["losses"]) for line in nacre.run.session.read_log(Path(run)) if "losses" in line]


def assert_same_run(a, b, step):
    different = differences(final(a, step), final(b, step))
    assert not different, different
    assert losses(a) == losses(b)


# The fast suite resumes these three in test_translation.py and test_stackgan.py.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("cyclegan", "pix2pix", "stackgan") else [])
        for name in CATALOGUE
    ],
)
def test_stopped_at_any_step_and_resumed_is_bit_identical(name, tmp_path):
    whole = nacre.train(name, out=tmp_path / "whole", **QUICK, **TINY[name])
    for stop in (1, 13, 30):
        halves = nacre.train(name, out=tmp_path / f"stop-{stop}", **{**QUICK, "steps": stop}, **TINY[name])
        nacre.resume(halves.path, steps=40)
        different = [path for path in differences(final(whole, 40), final(halves, 40)) if not path.startswith("/best")]
        assert not different, different


@pytest.mark.parametrize(
    "name", [name if name == "vae" else pytest.param(name, marks=pytest.mark.slow) for name in CATALOGUE]
)
def test_a_signal_saves_and_the_rest_is_bit_identical(name, tmp_path):
    nacre.train(name, out=tmp_path / "whole", **{**QUICK, "steps": 1500, "checkpoint_every": 500}, **TINY[name])
    words = [
        "train",
        name,
        "--out",
        tmp_path / "run",
        *flags(**{**QUICK, "steps": 1500, "checkpoint_every": 500}, **TINY[name]),
    ]
    words += flags(data="digits")
    process = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=one_thread()
    )
    wait_for(tmp_path / "run" / "log.jsonl", lines=3)
    process.send_signal(signal.SIGTERM if name == "gan" else signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (143 if name == "gan" else 130), err
    assert f"nacre resume {tmp_path / 'run'}" in out
    stopped = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    assert 0 < stopped < 1500
    assert call("resume", tmp_path / "run", env=one_thread()).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run", 1500)


def test_a_script_ends_where_it_is_interrupted(tmp_path, monkeypatch):
    """Two trainings in a row: Ctrl-C in the first must not start the second."""
    from nacre.engine import loop

    original = loop.train

    def interrupted(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **keywords)

    monkeypatch.setattr(loop, "train", interrupted)
    with pytest.raises(nacre.Interrupted) as stop:
        nacre.train("ae", out=tmp_path / "run", **QUICK, **TINY["ae"])
    assert (stop.value.run.done, stop.value.run.steps, stop.value.signal) == (1, 40, signal.SIGINT)
    monkeypatch.undo()
    assert nacre.resume(tmp_path / "run").done == 40


def test_a_script_ends_where_it_is_interrupted_though_nothing_was_left_to_do(tmp_path, monkeypatch):
    """Ctrl-C while the last pictures are drawn."""
    from nacre.engine import pictures

    original = pictures.final_pages

    def interrupted(model):
        os.kill(os.getpid(), signal.SIGINT)
        return original(model)

    monkeypatch.setattr(pictures, "final_pages", interrupted)
    with pytest.raises(nacre.Interrupted, match="at step 40 of 40, in") as stop:
        nacre.train("ae", out=tmp_path / "run", **QUICK, **TINY["ae"])
    assert (stop.value.run.done, stop.value.signal) == (40, signal.SIGINT)


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_is_bit_identical(times, tmp_path):
    """`kill -9` again and again, with a checkpoint at every other step so that many kills fall into its writing."""
    steps = 100 * times
    settings = {**QUICK, "steps": steps, "checkpoint_every": 2, "log_every": 3, **TINY["gan"], "data": "digits"}
    nacre.train("gan", out=tmp_path / "whole", **settings)
    moments = random.Random(0)
    process = subprocess.Popen(
        command("train", "gan", "--out", tmp_path / "run", *flags(**settings)), env=one_thread(), **SILENT
    )
    wait_for(tmp_path / "run" / "config.yaml")
    kills = 0
    while kills < times:
        time.sleep(moments.uniform(0, 0.2))
        assert process.poll() is None, "the run ended before it could be killed"
        process.kill()
        process.wait()
        kills += 1
        before = checkpoint.steps(tmp_path / "run" / "checkpoints")
        process = subprocess.Popen(command("resume", tmp_path / "run"), env=one_thread(), **SILENT)
        wait_for(tmp_path / "run" / "checkpoints", beyond=before[-1] if before else 0, process=process)
    assert process.wait(timeout=120) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run", steps)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def one_thread():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_for(path, lines=0, beyond=-1, process=None):
    """Until a file exists and has so many lines, or a folder a checkpoint beyond a step."""
    for _ in range(6000):
        if process is not None and process.poll() is not None:
            return
        if path.is_dir() and checkpoint.steps(path) and checkpoint.steps(path)[-1] > beyond:
            return
        if path.is_file() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not come")


def test_killed_before_the_first_checkpoint_starts_over(tmp_path):
    nacre.train("ae", out=tmp_path / "whole", **QUICK, **TINY["ae"])
    nacre.train("ae", out=tmp_path / "run", **QUICK, **TINY["ae"])
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert nacre.resume(tmp_path / "run").done == 40
    assert_same_run(tmp_path / "whole", tmp_path / "run", 40)


def test_same_seed_same_run_and_another_seed_another(tmp_path):
    a, b, c = (
        nacre.train("vae", out=tmp_path / n, **QUICK, **TINY["vae"], seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert_same_run(a, b, 40)
    assert not same(final(a, 40)["model"]["encoder.1.weight"], final(c, 40)["model"]["encoder.1.weight"])


def test_what_is_written_down_changes_nothing_in_the_weights(tmp_path):
    plain = nacre.train("gan", out=tmp_path / "plain", **QUICK, **TINY["gan"])
    busy = {**QUICK, "log_every": 1, "sample_every": 3, "checkpoint_every": 4, "keep": 1}
    watched = nacre.train("gan", out=tmp_path / "watched", **busy, **TINY["gan"])
    for part in ("model", "average", "optimizers"):
        assert not differences(final(plain, 40)[part], final(watched, 40)[part])


def test_config_repeats_a_run_and_flags_override_it(tmp_path):
    first = nacre.train("vae", out=tmp_path / "first", **QUICK, **TINY["vae"], latent_dim=3)
    again = nacre.train(config=first.path / "config.yaml", out=tmp_path / "again")
    assert_same_run(first, again, 40)
    other = nacre.train(config=first.path, out=tmp_path / "other", latent_dim=5, epochs=0.02)
    config = yaml.safe_load((other.path / "config.yaml").read_text())
    assert config["parameters"]["latent_dim"] == 5
    assert config["training"]["steps"] == other.done == 5


def test_a_run_holds_what_it_promises(tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", **{**QUICK, "sample_every": 20}, latent_dim=2, hidden=(16,))
    for name in (
        "config.yaml",
        "log.jsonl",
        "samples.png",
        "reconstructions.png",
        "latent_map.png",
        "model/config.json",
        "model/model.safetensors",
        "model/README.md",
        "samples/samples-00000020.png",
    ):
        assert (run.path / name).stat().st_size, name
    assert list((run.path / "events").glob("events.out.tfevents.*"))
    assert not (run.path / "run.lock").exists()
    steps = checkpoint.steps(run.path / "checkpoints")
    assert steps[-3:] == [20, 30, 40]
    assert len(steps) <= 4
    assert run.score.higher_is_better
    assert run.score.name.startswith("ELBO")
    numerics = yaml.safe_load((run.path / "config.yaml").read_text())["numerics"]
    assert set(numerics) == {"device", "precision", "compile", "matmul", "threads", "ranks", "torch", "instructions"}


def test_the_best_checkpoint_is_kept(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 200, "keep": 1}, **TINY["ae"])
    values = {line["step"]: line["validation"]["value"] for line in run.history if "validation" in line}
    best = min(values, key=values.get)
    assert set(checkpoint.steps(run.path / "checkpoints")) == {best, 200}
    assert final(run, 200)["best"] == [best, values[best]]


def test_without_out_runs_get_readable_unique_names():
    first, second = (nacre.train("ae", **{**QUICK, "steps": 2}, **TINY["ae"]) for _ in range(2))
    assert [str(first.path), str(second.path)] == ["runs/ae-digits-1", "runs/ae-digits-2"]


def test_resume_refuses_changed_hyper_parameters_by_name(tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", **QUICK, **TINY["vae"])
    with pytest.raises(ConfigError, match=r"--lr \(was None, is 0.1\), --latent-dim \(was 32, is 7\)"):
        nacre.resume(run.path, lr=0.1, latent_dim=7)
    with pytest.raises(ConfigError, match="did you mean 'latent_dim'"):
        nacre.resume(run.path, latent_dims=7)
    assert nacre.resume(run.path, latent_dim=32, steps=45, log_every=5).done == 45
    with pytest.raises(ConfigError, match="has done 45 steps already, got --steps 30"):
        nacre.resume(run.path, steps=30)
    assert nacre.resume(run.path).done == 45


def test_resume_refuses_more_steps_where_the_schedule_depends_on_them(tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", **QUICK, **TINY["vae"], lr_schedule="cosine")
    with pytest.raises(ConfigError, match="cosine learning rate schedule"):
        nacre.resume(run.path, steps=80)


def test_the_command_that_started_a_run_by_epochs_goes_on_with_it(tmp_path):
    told = {"epochs": 0.1, "batch_size": 8, "sample_every": 0, "lr_schedule": "cosine", "out": tmp_path / "run"}
    first, again = (nacre.train("vae", or_resume=True, **told, **TINY["vae"]) for _ in range(2))
    assert (again.done, again.steps) == (first.done, first.steps)
    with pytest.raises(ConfigError, match="cosine learning rate schedule"):
        nacre.resume(first.path, epochs=0.2)


def test_resume_refuses_other_numerics_by_name(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config["numerics"]["torch"] = "1.0"
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"torch \(was 1.0, is"):
        nacre.resume(run.path, steps=20)
    assert nacre.resume(run.path, steps=20, accept_changes=True).done == 20


def test_resume_applies_the_recorded_threads(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    torch.set_num_threads(2)
    nacre.resume(run.path, steps=20)
    assert torch.get_num_threads() == 1


def test_resume_refuses_data_that_changed(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(0, 255, (60, 8, 8)).astype(np.uint8))
    run = nacre.train("ae", data=str(tmp_path / "x.npy"), out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    np.save(tmp_path / "x.npy", rng.integers(0, 255, (61, 8, 8)).astype(np.uint8))
    with pytest.raises(DataError, match="are not what"):
        nacre.resume(run.path, steps=20)


def test_init_from_takes_the_weights_alone(tmp_path):
    first = nacre.train("vae", out=tmp_path / "first", **QUICK, **TINY["vae"])
    second = nacre.train(
        "vae", out=tmp_path / "second", init_from=first.path, **{**QUICK, "steps": 20, "keep": 9}, **TINY["vae"], seed=5
    )
    start, weights = final(second, 0), nacre.load(first).module.state_dict()
    assert start["step"] == 0
    assert all(torch.equal(start["model"][name], weights[name]) for name in weights)
    with pytest.raises(ConfigError, match="do not fit this model"):
        nacre.train("vae", out=tmp_path / "third", init_from=first.path, **QUICK, hidden=(17,))
    assert not (tmp_path / "third").exists()


def test_existing_runs_are_not_overwritten_unasked(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    with pytest.raises(ConfigError, match="holds a run already"):
        nacre.train("ae", out=run.path, **QUICK, **TINY["ae"])
    with pytest.raises(ConfigError):
        nacre.train("ae", out=run.path, overwrite=True, latent_dims=3)
    assert final(run, 10)["step"] == 10
    assert nacre.train("ae", out=run.path, overwrite=True, **{**QUICK, "steps": 5}, **TINY["ae"]).done == 5
    assert checkpoint.steps(run.path / "checkpoints") == [5]


@pytest.mark.parametrize("config", [None, "a: 1", "model: vae", "not: [yaml"])
def test_overwrite_never_touches_what_is_not_a_run(config, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    if config:
        (tmp_path / "photos" / "config.yaml").write_text(config)
    with pytest.raises(ConfigError, match="is not a run of nacre"):
        nacre.train("ae", out=tmp_path / "photos", overwrite=True, **QUICK)
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_overwrite_removes_only_what_nacre_wrote(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 5}, **TINY["ae"])
    (run.path / "notes.txt").write_text("mine")
    for name in ("a2b.png", "b2a.png", "mixture.safetensors"):
        (run.path / name).touch()
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(run.path / "events")
    (run.path / "events").symlink_to(tmp_path / "elsewhere")
    nacre.train("ae", out=run.path, overwrite=True, **{**QUICK, "steps": 5}, **TINY["ae"])
    assert (run.path / "notes.txt").read_text() == "mine"
    assert not [*run.path.glob("?2?.png"), *run.path.glob("mixture.*")]
    assert (tmp_path / "elsewhere").is_dir()


def test_a_run_that_is_half_removed_is_still_a_run(tmp_path, monkeypatch):
    run, remove = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 5}, **TINY["ae"]), shutil.rmtree

    def killed(path, **options):
        if path.name == "model":
            raise KeyboardInterrupt
        remove(path, **options)

    again = {**QUICK, "steps": 3, "out": run.path, "overwrite": True}
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            nacre.train("ae", **again, **TINY["ae"])
    assert nacre.train("ae", **again, **TINY["ae"]).done == 3


MINE = """
import torch
from torch import nn
from nacre import Objective
class Mine(nn.Module):
    def __init__(self, shape, *, fault: str = "none"):
        super().__init__()
        self.part, self.fault = nn.Linear(1, 1), fault
    def objectives(self):
        over = ("nothing",) if self.fault == "over" else ("part",)
        row = Objective(name="only", loss=self.loss, over=over)
        return {"empty": [], "twice": [row, row]}.get(self.fault, [row])
    def loss(self, x, step):
        if self.fault == "raises":
            raise ValueError("a bug of mine")
        error = self.part(torch.ones(2, 1)).square()
        if self.fault == "no gradient":
            error = error.detach()
        if self.fault == "no number":
            return error, {}
        return error.mean(), {"each": error.flatten()} if self.fault == "part" else {}
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}:Mine"


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ("over", ConfigError, "is over 'nothing'"),
        ("empty", ConfigError, "has no objectives"),
        ("raises", ValueError, "a bug of mine"),
        ("part", ConfigError, r"'each' of objective 'only' should be one number, got a tensor of shape \(2,\)"),
        ("no gradient", ConfigError, "the loss of objective 'only' has no gradient"),
        ("no number", ConfigError, "the loss of objective 'only' should be one number"),
        ("twice", ConfigError, "several objectives called 'only'"),
    ],
)
def test_a_model_that_cannot_train_costs_no_older_run(fault, error, sentence, mine, tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    with pytest.raises(error, match=sentence):
        nacre.train(mine, fault=fault, out=run.path, overwrite=True, **QUICK)
    assert final(run, 10)["step"] == 10
    assert nacre.load(run).shape == (1, 8, 8)


def test_a_configuration_cannot_make_nacre_run_code(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    (tmp_path / "run.yaml").write_text(f"model: {tmp_path / 'evil.py'}:X\n")
    with pytest.raises(ConfigError, match="runs only when you name it"):
        nacre.train(config=tmp_path / "run.yaml")
    assert not (tmp_path / "owned").exists()


def test_ones_own_model_may_be_edited_or_moved_but_not_unnoticed(mine, tmp_path):
    run = nacre.train(mine, out=tmp_path / "run", **{**QUICK, "steps": 10})
    moved = shutil.copy(tmp_path / "mine.py", tmp_path / "elsewhere.py")
    assert nacre.resume(run.path, model=f"{moved}:Mine", steps=20).done == 20
    Path(moved).write_text(MINE + "# edited\n")
    with pytest.raises(ConfigError, match="edited since"):
        nacre.resume(run.path, model=f"{moved}:Mine", steps=30)
    assert nacre.resume(run.path, model=f"{moved}:Mine", steps=30, accept_changes=True).done == 30


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("class Mine(: pass", "cannot be imported .SyntaxError"),
        ("import nowhere_to_be_found", "cannot be imported .ModuleNotFoundError"),
        (
            MINE.replace('fault: str = "none"', "seed: int = 1").replace(", fault", ", 0"),
            "seed of .* are flags of nacre's already",
        ),
        (MINE.replace('fault: str = "none"', "fault: str"), "need a default each"),
    ],
)
def test_ones_own_model_that_cannot_be_read(text, sentence, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        nacre.train(f"{tmp_path / 'bad.py'}:Mine", **QUICK)


def test_init_from_without_a_checkpoint_does_not_start_over_from_noise(tmp_path):
    first = nacre.train("ae", out=tmp_path / "first", **{**QUICK, "steps": 5}, **TINY["ae"])
    second = nacre.train("ae", out=tmp_path / "second", init_from=first.path, **{**QUICK, "steps": 5}, **TINY["ae"])
    shutil.rmtree(second.path / "checkpoints")
    with pytest.raises(CheckpointError, match="was started from the weights of"):
        nacre.resume(second.path)


def test_a_run_from_weights_of_another_that_was_killed_at_once_starts_over(tmp_path):
    first = nacre.train("ae", out=tmp_path / "first", **{**QUICK, "steps": 5}, **TINY["ae"])
    told = {**QUICK, "steps": 5, **TINY["ae"], "or_resume": True}
    whole = nacre.train("ae", out=tmp_path / "whole", init_from=first.path, **told)
    shutil.copytree(whole.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ConfigError, match=r"was started with --init-from .*first and has no checkpoint"):
        nacre.train("ae", out=tmp_path / "run", **told)
    again = nacre.train("ae", out=tmp_path / "run", init_from=first.path, **told)
    assert_same_run(whole, again, 5)
    assert nacre.train("ae", out=tmp_path / "run", **told).done == 5  # with a checkpoint it goes on


def test_config_repeats_the_weights_that_a_run_started_from(tmp_path):
    settings = {**QUICK, "steps": 5, **TINY["ae"]}
    first = nacre.train("ae", out=tmp_path / "first", **settings)
    second = nacre.train("ae", out=tmp_path / "second", init_from=first.path, seed=5, **settings)
    again = nacre.train(config=second.path, out=tmp_path / "again")
    assert_same_run(second, again, 5)
    assert yaml.safe_load((again.path / "config.yaml").read_text())["init_from"] == str(first.path)
    fork = nacre.run.fork(first, at=3, out=tmp_path / "fork")
    with pytest.raises(ConfigError, match="repeats a run from its start, and this one is a fork"):
        nacre.train(config=fork.path, out=tmp_path / "third")


def test_a_missing_model_folder_comes_back(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 5}, **TINY["ae"])
    shutil.rmtree(run.path / "model")
    nacre.resume(run.path)
    assert nacre.load(run).shape == (1, 8, 8)


def test_checkpoints_of_a_newer_version_are_refused_and_kept(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 20}, **TINY["ae"])
    manifest = run.path / "checkpoints" / "step-00000020" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match="upgrade nacre"):
        nacre.resume(run.path, steps=30)
    assert checkpoint.steps(run.path / "checkpoints") == [10, 20]


def test_checkpoints_that_are_all_damaged_are_not_started_over_unasked(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 20}, **TINY["ae"])
    for state in run.path.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="is whole; remove them all to start over"):
        nacre.resume(run.path, steps=30)


def test_a_pickled_checkpoint_is_never_executed(tmp_path):
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 20}, **TINY["ae"])
    folder = run.path / "checkpoints" / "step-00000020"
    torch.save({"step": Evil()}, folder / "state.pt")
    digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "step": 20, "sha256": {"state.pt": digest}}))
    assert checkpoint.load_latest(run.path / "checkpoints")[0]["step"] == 10
    assert pickle.dumps(Evil())
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"numerics": None},
        {"fingerprint": 3},
        {"model": ["vae"]},
        {"format": "x"},
        {"numerics": 3},
        {"training": []},
    ],
)
def test_a_damaged_configuration_is_one_sentence(damage, tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 5}, **TINY["ae"])
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    (run.path / "config.yaml").write_text(yaml.safe_dump({**config, **damage}))
    with pytest.raises((CheckpointError, ConfigError)):
        nacre.resume(run.path)


def test_data_that_moved_are_found_again_and_remembered(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    np.save(tmp_path / "photos" / "x.npy", rng.integers(0, 255, (60, 8, 8)).astype(np.uint8))
    run = nacre.train("ae", data="photos/x.npy", out=tmp_path / "run", **{**QUICK, "steps": 5}, **TINY["ae"])
    monkeypatch.chdir("/")
    assert nacre.resume(run.path, steps=6).done == 6
    shutil.move(tmp_path / "photos", tmp_path / "pictures")
    assert nacre.resume(run.path, steps=7, data=str(tmp_path / "pictures" / "x.npy")).done == 7
    assert nacre.resume(run.path, steps=8).done == 8
    assert str(tmp_path) not in (run.path / "model" / "README.md").read_text()


def test_runs_inside_a_folder_of_photos_are_not_data(tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for index in range(30):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path / "photos")
    run = nacre.train("ae", data=".", **{**QUICK, "steps": 5, "sample_every": 2}, **TINY["ae"])
    assert nacre.resume(run.path, steps=8).done == 8


def test_a_start_that_crashed_leaves_a_usable_directory(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".config.yaml.k7q2x9ab").touch()
    assert nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 5}, **TINY["ae"]).done == 5


def test_a_run_in_use_is_one_sentence(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    with locked(run.path):
        result = call("resume", run.path)
        assert json.loads((run.path / "run.lock").read_text())["process"] == os.getpid()
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"is in use by process {os.getpid()} on" in result.stderr


def test_a_checkpoint_cut_in_half_falls_back_to_the_one_before(tmp_path, caplog):
    whole = nacre.train("gan", out=tmp_path / "whole", **QUICK, **TINY["gan"])
    run = nacre.train("gan", out=tmp_path / "run", **{**QUICK, "steps": 30}, **TINY["gan"])
    state = run.path / "checkpoints" / "step-00000030" / "state.pt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    nacre.resume(run.path, steps=40)
    assert "step-00000030 is damaged (its checksum does not match). Going on from the one before." in caplog.text
    different = [path for path in differences(final(whole, 40), final(run, 40)) if not path.startswith("/best")]
    assert not different


def test_a_run_of_a_newer_version_is_refused(tmp_path):
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    (run.path / "config.yaml").write_text(yaml.safe_dump({**config, "format": 99, "nacre": "9.9"}))
    with pytest.raises(CheckpointError, match=r"made by nacre 9\.9 .* upgrade nacre"):
        nacre.resume(run.path)
    shared = json.loads((run.path / "model" / "config.json").read_text())
    (run.path / "model" / "config.json").write_text(json.dumps({**shared, "format": 99}))
    with pytest.raises(CheckpointError, match="upgrade nacre"):
        nacre.load(run.path)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """No file may grow beyond half a checkpoint, which is what a full disk does to the next one."""
    run = nacre.train("ae", out=tmp_path / "run", **{**QUICK, "steps": 10}, **TINY["ae"])
    size = (run.path / "checkpoints" / "step-00000010" / "state.pt").stat().st_size

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    result = call("resume", run.path, "--steps", "40", preexec_fn=small_files, env=one_thread())
    assert result.returncode == 1
    assert "could not write" in result.stderr
    assert "the checkpoint of step 10 is intact" in result.stderr
    assert "Traceback" not in result.stderr
    assert checkpoint.steps(run.path / "checkpoints") == [10]
    assert nacre.resume(run.path, steps=40).done == 40


@pytest.mark.parametrize("place", ["/proc/nacre/run", "file/run"])
def test_an_output_that_cannot_be_written_is_one_sentence(place, tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(RunError, match="cannot be written"):
        nacre.train("ae", out=place, **QUICK, **TINY["ae"])


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nfrom nacre import Objective\n"
        "class Explodes(nn.Module):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__()\n"
        "        self.part = nn.Linear(1, 1)\n"
        "    def objectives(self):\n"
        "        return [Objective(name='only', loss=self.loss, over=('part',))]\n"
        "    def loss(self, x, step):\n"
        "        bad = torch.where(step.index >= 25, torch.nan, 1.0)\n"
        "        return self.part(torch.ones(1, 1)).square().mean() * bad, {}\n"
    )
    with pytest.raises(TrainingError, match="'loss' of objective 'only' became nan at step 25"):
        nacre.train(f"{tmp_path / 'mine.py'}:Explodes", out=tmp_path / "run", **QUICK)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [10, 20]
    assert all(value.isfinite().all() for value in final(tmp_path / "run", 20)["model"].values())


def test_compiled_training_resumes_bit_identically(tmp_path):
    whole = nacre.train("wgan_gp", out=tmp_path / "whole", compile="on", **{**QUICK, "steps": 12}, **TINY["wgan_gp"])
    halves = nacre.train("wgan_gp", out=tmp_path / "halves", compile="on", **{**QUICK, "steps": 7}, **TINY["wgan_gp"])
    nacre.resume(halves.path, steps=12)
    for part in ("model", "average", "optimizers"):
        assert not differences(final(whole, 12)[part], final(halves, 12)[part])


def test_a_model_is_chosen_by_the_data(tmp_path, caplog):
    caplog.set_level("INFO", logger="nacre")
    nacre.train(data="digits", out=tmp_path / "digits", **QUICK)
    assert "no model named: vae, because 1,6" in caplog.text
    nacre.train(data="toy:ring8", out=tmp_path / "ring", **{**QUICK, "steps": 6})
    assert "no model named: wgan_gp, because the data are vectors" in caplog.text


def test_two_kinds_of_images_choose_a_model_that_translates(tmp_path, caplog):
    caplog.set_level("INFO", logger="nacre")
    rng = np.random.default_rng(0)
    for side in "ab":
        np.save(tmp_path / f"{side}.npy", rng.integers(0, 255, (20, 1, 8, 8), dtype=np.uint8))
    two = {"data": str(tmp_path / "a.npy"), "data_b": str(tmp_path / "b.npy")}
    run = nacre.train(out=tmp_path / "run", steps=1, batch_size=1, signal_every=0, sample_every=0, **two)
    assert "no model named: cyclegan, because there are two kinds of images" in caplog.text
    assert 'model.translate(images, "a2b")' in (run.path / "model" / "README.md").read_text()


def test_a_set_smaller_than_the_usual_batch_gets_a_smaller_one(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "few.npy", rng.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8))
    run = nacre.train("vae", data=str(tmp_path / "few.npy"), steps=2, sample_every=0, out=tmp_path / "run")
    assert yaml.safe_load((run.path / "config.yaml").read_text())["training"]["batch_size"] == 32


def test_a_player_that_never_has_its_turn_is_named(tmp_path, caplog):
    nacre.train("wgan", data="toy:ring8", steps=3, batch_size=8, sample_every=0, out=tmp_path / "run")
    assert "3 steps hold no turn for generator" in caplog.text


def test_files_that_are_skipped_are_named(tmp_path, caplog):
    for number in range(8):
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    nacre.train("ae", data=str(tmp_path), max_bad=0.5, steps=1, hidden=(8,), sample_every=0, out=tmp_path / "run")
    assert "1 file left out that cannot be read: broken.png (not an image)" in caplog.text
