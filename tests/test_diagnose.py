"""`nacre diagnose`, and runs that stop on a verdict: from the command line to the log and back."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

import nacre
from nacre.cli import main
from nacre.engine import checkpoint
from nacre.engine.validate import spread, validate
from nacre.errors import ConfigError, TrainingError
from nacre.metrics import remedies
from nacre.models.ae import AE
from nacre.models.vaegan import VAEGAN
from nacre.run.diagnose import diagnose
from nacre.run.fork import fork

QUICK = {"steps": 40, "batch_size": 16, "sample_every": 0, "log_every": 10, "checkpoint_every": 20, "signal_every": 4}

MINE = """
import torch
from nacre.models.gan import GAN

class Stuck(GAN):
    def __init__(self, shape, *, latent_dim: int = 4, hidden: tuple[int, ...] = (8,)):
        super().__init__(shape, latent_dim=latent_dim, hidden=hidden)

    def decode(self, z):
        return super().decode(0 * z)
"""


def write(line, path):
    with (path / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def stuck(tmp_path):
    """A model whose samples are all the same, by construction."""
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}:Stuck"


def answer(capsys, *words):
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_a_fork_on_other_data_is_judged_by_its_own_looks(tmp_path):
    """Signals of two sets of data are not compared: a game's kinds of items are others, and so is what a bound can come to."""
    game = nacre.train("gan", data="toy:ring8", out=tmp_path / "ring", hidden=(8,), latent_dim=2, **QUICK)
    grid = fork(game.path, at=20, out=tmp_path / "grid", data="toy:grid25", steps=60)
    bins = {line["step"]: len(line["signals"]["bins"]) for line in grid.history if "signals" in line}
    assert set(bins.values()) == {8, 25}
    told = diagnose(grid.path)
    assert told.looks == sum(step > 20 for step in bins)
    again = fork(grid.path, at=40, out=tmp_path / "slower", lr=1e-5)
    assert diagnose(again.path).looks == sum("signals" in line and line["step"] > 20 for line in again.history)


def test_a_collapsed_run_is_told_as_it_trains_and_diagnosed_after(stuck, tmp_path, capsys, caplog):
    run = nacre.train(stuck, data="toy:ring8", out=tmp_path / "run", **QUICK)
    assert caplog.text.count("mode collapse: samples lack") == 1
    code, out, _ = answer(capsys, "diagnose", run.path)
    assert code == 0
    assert "MODE COLLAPSE, since step" in out
    command = next(line.strip() for line in out.splitlines() if line.startswith("    nacre fork"))
    assert shlex.split(command)[1:4] == ["fork", str(run.path), "--model"]
    assert main([*shlex.split(command)[1:], f"--out={tmp_path / 'cured'}"]) == 0  # what is advised can be done
    capsys.readouterr()
    code, out, _ = answer(capsys, "diagnose", run.path, "--json")
    facts = json.loads(out)
    assert facts["schema_version"] == 1
    assert not facts["healthy"]
    assert (facts["step"], facts["steps"], facts["looks"]) == (40, 40, 10)
    collapse = next(verdict for verdict in facts["verdicts"] if verdict["name"] == "collapse")
    assert collapse["title"] == "mode collapse"
    assert collapse["evidence"]["diversity"] == 0
    assert not diagnose(run.path).healthy


def test_a_run_stops_on_a_verdict_is_saved_and_goes_on(stuck, tmp_path, capsys):
    place, words = tmp_path / "run", [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    code, out, _ = answer(
        capsys, "train", stuck, "--data=toy:ring8", f"--out={place}", "--stop-on=divergence,collapse", *words
    )
    assert code == 3
    assert "stopped and saved at step 24 of 40, on mode collapse: samples lack" in out
    assert checkpoint.steps(place / "checkpoints") == [20, 24]
    code, out, _ = answer(capsys, "resume", place, f"--model={stuck}")
    assert code == 0, out
    assert "done: 40 steps" in out
    whole = nacre.train(stuck, data="toy:ring8", out=tmp_path / "whole", **QUICK)
    states = [checkpoint.load(path / "checkpoints", 40) for path in (place, whole.path)]
    assert checkpoint.differences(*states) == []
    assert nacre.train(stuck, data="toy:ring8", out=tmp_path / "api", stop_on=("collapse",), **QUICK).stopped


def test_a_verdict_at_the_last_step_stops_nothing(stuck, tmp_path, capsys):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in {**QUICK, "steps": 24}.items()]
    code, out, _ = answer(
        capsys, "train", stuck, "--data=toy:ring8", f"--out={tmp_path / 'run'}", "--stop-on=collapse", *words
    )
    assert code == 0
    assert "done: 24 steps" in out


def test_runs_without_signals_get_a_sentence_and_can_be_measured(tmp_path, capsys):
    run = nacre.train("vae", out=tmp_path / "run", **{**QUICK, "signal_every": 0}, hidden=(16,), latent_dim=2)
    code, out, _ = answer(capsys, "diagnose", run.path)
    assert code == 0
    assert "has no signals in its log" in out
    assert len(out.splitlines()) == 1
    found = diagnose(run.path, measure=True)
    assert found.looks == 2
    assert found.verdicts
    assert {"kl", "explained", "lost"} <= set(found.signals)
    before = nacre.train("vae", out=tmp_path / "same", **{**QUICK, "signal_every": 20}, hidden=(16,), latent_dim=2)
    logged = diagnose(before.path).signals
    assert found.signals["kl"] == pytest.approx(logged["kl"], rel=1e-4)
    assert found.signals["lost"] == logged["lost"]


def test_a_short_run_that_has_ended_is_told_what_to_do(tmp_path, capsys):
    run = nacre.train("vae", out=tmp_path / "run", **{**QUICK, "signal_every": 20}, hidden=(16,), latent_dim=2)
    found = diagnose(run.path)
    assert not found.verdicts
    assert not found.healthy
    _, out, _ = answer(capsys, "diagnose", run.path)
    assert "has ended, and 2 looks in 40 steps are too few" in out
    assert "train anew with --signal-every 3" in out
    assert f"nacre diagnose {run.path} --measure" in out
    assert out.strip() == json.loads(answer(capsys, "diagnose", run.path, "--json")[1])["note"]
    _, out, _ = answer(capsys, "diagnose", run.path, "--measure")
    assert "2 looks\n\n" in out  # and a verdict


def test_a_young_run_is_not_judged(tmp_path, capsys):
    run = nacre.train("vae", out=tmp_path / "run", **{**QUICK, "signal_every": 20}, hidden=(16,), latent_dim=2)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("steps: 40\n", "steps: 4000\n"))
    _, out, _ = answer(capsys, "diagnose", run.path)
    assert "too young to be judged: 2 looks up to step 40 of 4,000" in out


def test_a_short_run_that_still_gets_better_has_not_diverged(tmp_path):
    flags = {**QUICK, "steps": 60, "batch_size": 64, "signal_every": 10}
    run = nacre.train("vae", data="digits", out=tmp_path / "run", hidden=(16,), latent_dim=2, **flags)
    names = {verdict.name for verdict in diagnose(run.path).verdicts}
    assert "divergence" not in names
    assert "blurry-decoder" in names


def test_a_run_that_ended_in_no_numbers_has_diverged(tmp_path):
    place = tmp_path / "run"
    with pytest.raises(TrainingError):
        nacre.train("ae", data="toy:ring8", out=place, **QUICK, hidden=(16,), lr=1e30)
    (verdict,) = diagnose(place).verdicts
    assert verdict.name == "divergence"
    assert "--clip 1" in verdict.advice
    commands = [command for _, command in remedies.choices(verdict.advice) if command]
    assert len(commands) >= 2
    for number, command in enumerate(commands):  # as they stand, they can be typed
        fork = [*shlex.split(command)[1:], f"--out={tmp_path / f'fork-{number}'}", "--lr=1e-3"]
        assert main(list(dict.fromkeys(fork))) == 0


def test_what_is_no_run_cannot_be_diagnosed(tmp_path):
    with pytest.raises(ConfigError, match="there is no run"):
        diagnose(tmp_path)


# The best checkpoint.


def test_a_model_that_samples_is_judged_by_its_samples():
    """Also if it reconstructs: a good autoencoder of which every sample is the same is a bad generator."""
    torch.manual_seed(0)
    items = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8).numpy()
    rows = torch.arange(64).numpy()
    model = VAEGAN((1, 8, 8), hidden=(16,), latent_dim=2)
    score = validate(model, items, rows)
    assert score.name == "sliced Wasserstein distance of samples"
    model.sample = lambda noise: torch.from_numpy(items[: len(noise["z"])]) / 255
    better = validate(model, items, rows)
    assert better.beats(score.value)
    assert "reconstruction error" in validate(AE((1, 8, 8), hidden=(16,)), items, rows).name


def test_what_is_looked_at_is_drawn_from_all_that_is_held_out():
    """A folder's images come class by class: the first of them are of one class."""
    rows = np.arange(5000)
    chosen = spread(rows, 2000)
    assert len(set(chosen)) == 2000
    assert chosen.mean() == pytest.approx(2499.5, abs=100)
    assert np.array_equal(chosen, spread(rows, 2000))
    assert np.array_equal(spread(rows, 5000), rows)
    assert spread(rows, 5000, shuffle=True)[:500].mean() == pytest.approx(2499.5, abs=200)


@pytest.mark.slow
def test_ranks_stop_on_a_verdict_together(stuck, tmp_path):
    """One of them reads the signals; all save, and leave in order."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    told = [
        "train",
        stuck,
        "--data=toy:ring8",
        f"--out={tmp_path / 'run'}",
        "--stop-on=collapse",
        "--devices=2",
        *words,
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "nacre", *told], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout.count("stopped and saved at step 30 of 40, on mode collapse") == 1
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [20, 30]
