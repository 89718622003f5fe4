"""Several processes: the same result as one, and an orderly end when one of them is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import nacre
from nacre.engine import checkpoint
from nacre.engine.ranks import ALONE, Ranks
from nacre.engine.settings import Training
from nacre.errors import ConfigError, RunError
from nacre.run import fork, launch
from ranks_worker import results

HERE = Path(__file__).parent
TINY = ["vae", "--latent-dim", "2", "--hidden", "[16]", "--batch-size", "16", "--sample-every", "0"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def together(size, folder):
    """What each of `size` ranks came to."""
    port = str(launch._free_port())
    command = [sys.executable, str(HERE / "ranks_worker.py")]
    processes = [subprocess.Popen([*command, str(rank), str(size), port, str(folder)]) for rank in range(size)]
    assert [process.wait(300) for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_model_comes_to_the_same_on_several_ranks(tmp_path, size):
    alone = results(ALONE)
    for rank in together(size, tmp_path):
        for case, expected in alone.items():
            for kind, values in expected.items():
                torch.testing.assert_close(rank[case][kind], values, rtol=1e-10, atol=1e-10, msg=f"{case}: {kind}")


def test_a_batch_is_split_evenly_or_refused():
    parts = [Ranks(rank, 3).part(10) for rank in range(3)]
    assert [row for part in parts for row in part] == list(range(10))
    Ranks(0, 4).check(16, 2)
    with pytest.raises(ConfigError, match="multiple of 8"):
        Ranks(0, 4).check(20, 2)


def test_alone_nothing_is_launched(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with launch.joined(Training(), torch.device("cpu"), {}) as ranks:
        assert ranks.size == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"devices": 0}, "--devices must be 1 or more"), ({"nodes": 0}, "--nodes must be greater than 0")],
)
def test_devices_that_cannot_be(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Training(**settings)


def test_nodes_need_an_address(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(ConfigError, match="--nodes 2 needs MASTER_ADDR"),
        launch.joined(Training(nodes=2), torch.device("cpu"), {}),
    ):
        pass


def test_two_processes_train_resume_and_write_once(tmp_path):
    told = {"hidden": (16,), "latent_dim": 2, "batch_size": 16, "sample_every": 0, "log_every": 5}
    one = nacre.train("vae", out=tmp_path / "one", steps=20, **told)
    two = command("train", *TINY, "--log-every", "5", "--steps", "12", "--out", tmp_path / "two", "--devices", "2")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("done: ") == 1
    assert "2 ranks share every batch, 8 items each" in two.stderr
    again = command("resume", tmp_path / "two", "--steps", "20", "--devices", "1")
    assert again.returncode == 0, again.stderr
    assert "trained by 2 ranks so far and by 1 rank now" in again.stderr
    lines = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "losses" in line] == [5, 10, 12, 15, 20]
    last, same = (state(run)["model"] for run in (tmp_path / "one", tmp_path / "two"))
    for name, values in last.items():
        torch.testing.assert_close(same[name], values, rtol=1e-4, atol=1e-4)
    assert one.score.value == pytest.approx(lines[-1]["validation"]["value"], rel=1e-4)


def test_before_a_run_begins_no_rank_tries_more_than_its_part(tmp_path, monkeypatch):
    """The whole batch may be too large for one device."""
    told = {"hidden": (16,), "batch_size": 16, "sample_every": 0, "signal_every": 0}
    run = nacre.train("vae", out=tmp_path / "run", steps=2, **told)
    tried = []

    def trial(session):
        tried.append(len(session.stream.batch(0)))
        raise KeyboardInterrupt  # before the other ranks are started

    for module in ("start", "fork"):
        monkeypatch.setattr(sys.modules[f"nacre.run.{module}"], "trial", trial)
    with pytest.raises(KeyboardInterrupt):
        nacre.train("vae", out=tmp_path / "new", devices=4, **told)
    with pytest.raises(KeyboardInterrupt):
        fork(run.path, at=1, devices=4)
    assert tried == [4, 4]


def test_for_what_the_first_rank_does_alone_the_others_have_patience(monkeypatch):
    told = []

    def broadcast(message, source, group):
        assert (source, group) == (0, "long")
        if message[0] is None:  # asked for by a rank that follows
            message[:] = told.pop(0)
        else:
            told.append(list(message))

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    first, second = (Ranks(rank, 2, "short", "long", beat=0.05) for rank in range(2))
    assert first.first(lambda: time.sleep(0.5) or 7) == 7
    assert len(told) > 2
    assert told[0] == [False, None, None]
    assert second.first(lambda: 8) == 7
    assert not told
    with pytest.raises(ConfigError, match="no such file"):
        first.first(lambda: raised(ConfigError("no such file")))
    with pytest.raises(RunError, match="no such file") as repeated:
        second.first(lambda: 8)
    assert repeated.value.told


def raised(error):
    raise error


SLOW = """
import time
from pathlib import Path
from nacre.models.ae import AE

class Slow(AE):
    def __init__(self, shape, *, hidden: tuple[int, ...] = (8,)):
        super().__init__(shape, hidden=hidden)

    def reconstruct(self, x):
        Path(__file__).with_name("looking").touch()
        time.sleep(3)
        return super().reconstruct(x)
"""


@pytest.mark.slow
def test_a_look_may_take_longer_than_a_rank_may_be_silent(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["--steps", "2", "--signal-every", "1", "--sample-every", "2", "--batch-size", "16", "--timeout", "2"]
    done = command("train", tmp_path / "slow.py:Slow", *words, "--out", tmp_path / "run", "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert "done: 2 steps" in done.stdout


@pytest.mark.slow
def test_a_first_rank_that_falls_silent_while_it_looks_is_lost(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW.replace("sleep(3)", "sleep(300)"))
    words = ["--steps", "2", "--signal-every", "1", "--batch-size", "16", "--timeout", "4", "--checkpoint-every", "1"]
    process = start("train", tmp_path / "slow.py:Slow", *words, "--out", tmp_path / "run", "--devices", "2")
    wait_until((tmp_path / "looking").exists, 60)
    child = child_of(process)
    time.sleep(6)  # longer than a rank may be silent
    assert Path(f"/proc/{child}").exists()
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: "Z" in Path(f"/proc/{child}/stat").read_text().split()[2], 30)
    os.kill(process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert "rank 1 lost contact with the others" in err
    assert "Traceback" not in err


def test_a_rank_that_ends_before_all_have_met_ends_the_others(tmp_path):
    process = start("train", *TINY, "--steps", "10000000", "--out", tmp_path / "run", "--devices", "2")
    wait_until(lambda: children(process), 60)
    os.kill(child_of(process), signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "one of the ranks ended before all had met" in err
    assert "Traceback" not in err


def test_ranks_with_other_settings_are_refused(tmp_path):
    port, out = str(launch._free_port()), tmp_path / "run"
    processes = []
    for rank in range(2):
        place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(start("train", *TINY, "--steps", "20", "--out", out, "--seed", rank, env=os.environ | place))
    ends = [process.communicate(timeout=90)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert all("rank 1 has other data or settings than rank 0" in err for err in ends)
    assert not out.exists()


@pytest.mark.parametrize(
    ("names", "follows"),
    [
        ({"RANK": "3"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1", "MASTER_ADDR": "a"}, True),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1", "RANK": "1"}, True),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0"}, False),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, False),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}, True),
    ],
)
def test_only_a_rank_among_others_keeps_quiet(monkeypatch, names, follows):
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert launch.is_follower() is follows


def test_ranks_that_are_no_numbers(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "x")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="should be numbers"), launch.joined(Training(), torch.device("cpu"), {}):
        pass


@pytest.mark.parametrize("strategy", ["nccl", "mpi"])
def test_a_way_to_talk_that_there_is_not_is_refused_before_ranks_are_started(monkeypatch, strategy):
    monkeypatch.setattr(torch.distributed, "is_mpi_available", lambda: False)
    training = Training(devices=2, batch_size=16, strategy=strategy)
    refused = pytest.raises(ConfigError, match=f"--strategy {strategy} is for")
    with refused, launch.joined(training, torch.device("cpu"), {}):
        pass


def test_a_batch_that_does_not_divide_is_refused_before_ranks_are_started():
    refused = command("train", *TINY, "--devices", "3")
    assert refused.returncode == 2
    assert refused.stderr.count("does not divide into 3 ranks") == 1


def test_what_all_ranks_refuse_is_told_once(tmp_path):
    run = tmp_path / "run"
    assert command("train", *TINY, "--steps", "5", "--out", run, "--devices", "2").returncode == 0
    written = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(written.replace("threads: 1", "threads: 1000"))
    refused = command("resume", run, "--steps", "10")
    assert refused.returncode == 2
    assert refused.stderr.count("would not be bit-identical here: threads (was 1000, is 1)") == 1


@pytest.mark.parametrize("lost", ["first", "second"])
@pytest.mark.slow
def test_a_lost_rank_ends_the_others_with_a_sentence(tmp_path, lost):
    run = tmp_path / "run"
    words = ["train", *TINY, "--steps", "10000000", "--checkpoint-every", "50", "--out", run, "--devices", "2"]
    process = start(*words)
    wait_for(run, 100)
    child = child_of(process)
    os.kill(child if lost == "second" else process.pid, signal.SIGKILL)
    begun = time.monotonic()
    _, err = process.communicate(timeout=60)
    wait_until(lambda: not Path(f"/proc/{child}").exists(), 60)
    assert time.monotonic() - begun < 60
    assert process.returncode == (1 if lost == "second" else -signal.SIGKILL)
    sentences = [line for line in err.splitlines() if line.startswith("nacre: ")]
    assert len(sentences) == 1, err
    assert f"rank {int(lost == 'first')} lost contact with the others" in sentences[0]
    assert "Traceback" not in err
    reached = checkpoint.steps(run / "checkpoints")[-1]
    again = command("resume", run, "--steps", str(reached + 10))
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_signal_to_one_rank_saves_the_run(tmp_path):
    run = tmp_path / "run"
    process = start("train", *TINY, "--steps", "10000000", "--out", run, "--devices", "2", "--checkpoint-every", "50")
    wait_for(run, 50)
    os.kill(child_of(process), signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "stopped and saved at step" in out


@pytest.mark.slow
def test_torchrun_brings_a_run_back_bit_identical(tmp_path):
    def words(run):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        told = ["--steps", "5000", "--checkpoint-every", "100", "--out", str(run), "--or-resume"]
        return [*torchrun, "--max-restarts", "2", "-m", "nacre", "train", *TINY, *told]

    undisturbed = subprocess.run(words(tmp_path / "a"), capture_output=True, text=True, timeout=600)
    assert undisturbed.returncode == 0, undisturbed.stderr
    process = subprocess.Popen(words(tmp_path / "b"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "b", 200)
    os.kill(child_of(process), signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "resuming at step" in err, err
    assert out.count("done: ") == 1
    assert not checkpoint.differences(state(tmp_path / "a"), state(tmp_path / "b"))


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "nacre", *map(str, words)], capture_output=True, text=True, timeout=120
    )


def start(*words, env=None):
    command = [sys.executable, "-m", "nacre", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def state(run):
    folder = run / "checkpoints"
    return checkpoint.load(folder, checkpoint.steps(folder)[-1])


def wait_for(run, step):
    wait_until(lambda: (checkpoint.steps(run / "checkpoints") or [0])[-1] >= step, 90)


def wait_until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def child_of(process):
    """The newest python process that `process` started."""
    return max(children(process))


def children(process):
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
