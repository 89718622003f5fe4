"""What grows with what: ranks, images, steps.

    python benchmarks/scale.py [--only ranks images steps start cold] [--results DIR]

ranks:  the step time on 1, 2 and 4 processes of this machine, beside the model of docs/scale.md, whose constants (a step on
        a share of the batch beside others on theirs, latency and bandwidth of a mean over ranks) are measured in the same run.
images: images/s with 10^4, 10^5 and 10^6 images in the data set.
steps:  size of the log and resident memory over 10^6 steps of a tiny model.
start:  seconds from the start of `nacre sample RUN` to the file, for a 28×28 model.
cold:   the same of one image in and one image out, for a 64×64 VAE: `reconstruct`, and `arithmetic` by a saved direction.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

import rows
from nacre.engine.ranks import Ranks
from nacre.run import launch

ALL = ("ranks", "images", "steps", "start", "cold")
STEPS, BATCH = 300, 256
NACRE = [sys.executable, "-m", "nacre"]
VAE = ["vae", "--hidden", "[400]", "--latent-dim", "20", "--network", "mlp", "--sample-every", "0", "--compile", "off"]


def main() -> None:
    """Measure what was asked for; one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10**6, help="of the long run")
    parser.add_argument("--collective", nargs=3, metavar=("RANK", "SIZE", "PORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.collective:
        return print(json.dumps(collective(*map(int, asked.collective))))
    with tempfile.TemporaryDirectory() as folder:
        if "ranks" in asked.only:
            print(ranks(Path(folder), asked.rounds, asked.results))
        if "images" in asked.only:
            print(images(Path(folder), asked.rounds, asked.results))
        if "steps" in asked.only:
            print(steps(Path(folder), asked.steps, asked.results))
        if "start" in asked.only:
            print(start(Path(folder), asked.rounds, asked.results))
        if "cold" in asked.only:
            print(cold(Path(folder), asked.rounds, asked.results))
    return None


def ranks(folder: Path, rounds: int, results: Path) -> Path:
    """Step time by the number of processes, measured and by the model."""
    data = pixels(folder / "small.npy", 20_000)
    found: dict[str, list[float]] = {f"{size}: {each}": [] for size in (1, 2, 4) for each in ("measured s", "apart s")}
    messages: dict[int, list[tuple[float, float]]] = {2: [], 4: []}
    for turn in range(rounds):
        for size in (1, 2, 4):
            run = folder / f"ranks-{turn}-{size}"
            train(data, run, STEPS, "--batch-size", str(BATCH), "--devices", str(size))
            found[f"{size}: measured s"].append(step_time(run))
            parts = {
                folder / f"apart-{turn}-{size}-{part}": ["--batch-size", str(BATCH // size)] for part in range(size)
            }
            at_once(data, parts)
            found[f"{size}: apart s"].append(statistics.mean(map(step_time, parts)))
        for size, seen in messages.items():
            seen.append(all_reduces(size))
    values = {name: statistics.median(times) for name, times in found.items()}
    parameters = 784 * 400 * 2 + 400 * 60 + 400 + 40 + 400 + 784
    for size, seen in messages.items():
        latency, bandwidth = (statistics.median(each) for each in zip(*seen, strict=True))
        message = latency + 2 * (size - 1) / size * 4 * parameters / bandwidth
        values |= {f"{size}: latency s": latency, f"{size}: bandwidth B/s": bandwidth, f"{size}: message s": message}
        values[f"{size}: predicted s"] = values[f"{size}: apart s"] + message
    for name, value in values.items():
        print(f"{name}: {value:.4g}")
    protocol = (
        f"VAE MLP 784-400-20, whole batch {BATCH}, {STEPS} steps, one thread a process, gloo; the median over {rounds} rounds of "
        "the median step of the log's lines after the first. Apart: as many processes at once, each training on its share of "
        "a batch and talking to nobody; mean over them. Latency and bandwidth: means of 8 B and 4 MB over as many processes, "
        "joined and parted as in a step. Predicted: docs/scale.md with these."
    )
    return rows.write_row(
        "scale-ranks",
        protocol,
        values,
        [0],
        rounds,
        results=results,
        measured=found,
        cores=os.cpu_count(),
        load_average=os.getloadavg()[0],
    )


def images(folder: Path, rounds: int, results: Path) -> Path:
    """Images/s by the size of the data set."""
    found: dict[int, list[float]] = {10**4: [], 10**5: [], 10**6: []}
    sources = {count: pixels(folder / f"{count}.npy", count) for count in found}
    for turn in range(rounds):
        for count, rates in found.items():
            run = train(sources[count], folder / f"images-{turn}-{count}", STEPS * 3, "--batch-size", "128")
            rates.append(128 / step_time(run))
    values = {f"{count} images: images/s": statistics.median(rates) for count, rates in found.items()}
    shares = {f"{count} images: share of data": data_share(folder / f"images-0-{count}") for count in found}
    print(values | shares)
    protocol = (
        f"VAE MLP 784-400-20, batch 128, random 28×28 images from .npy files, {STEPS * 3} steps, median of the log's lines after "
        f"the first; median of {rounds} interleaved rounds."
    )
    return rows.write_row("scale-images", protocol, values | shares, [0], rounds, results=results, measured=found)


def steps(folder: Path, count: int, results: Path) -> Path:
    """Log and memory over a long run."""
    run = folder / "long"
    tiny = ["--hidden", "[4]", "--latent-dim", "2", "--n-critic", "1", "--batch-size", "8", "--compile", "off"]
    settings = ["--steps", str(count), "--checkpoint-every", str(count // 10), "--out", str(run)]
    command = [*NACRE, "train", "wgan_gp", "--data", "toy:ring8", *tiny, *settings]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    memory: dict[int, float] = {}
    while process.poll() is None:
        time.sleep(0.5)
        reached = [int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")]
        if reached and max(reached) not in memory:
            memory[max(reached)] = resident(process.pid)
    assert process.returncode == 0, process.returncode
    log = (run / "log.jsonl").stat().st_size
    lines = len((run / "log.jsonl").read_text().splitlines())
    whole = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    seen = [each for each in memory.values() if each]
    values = {
        "log, bytes": log,
        "log, lines": lines,
        "run directory, bytes": whole,
        "resident at the first checkpoint, bytes": seen[0],
        "resident at the last, bytes": seen[-1],
        "microseconds a step": 1e6 * (time.perf_counter() - begun) / count,
    }
    print(values)
    protocol = f"wgan_gp on toy:ring8, hidden 4, n_critic 1, {count:,} steps of 8, default logging, one process."
    return rows.write_row("scale-steps", protocol, values, [0], 1, results=results, memory=memory)


def start(folder: Path, rounds: int, results: Path) -> Path:
    """Seconds from the start of a process to its answer."""
    run = train(pixels(folder / "start.npy", 1000), folder / "start", 50)
    commands = {
        "nacre sample RUN": ["sample", str(run), "--out", str(folder / "drawn.png")],
        "nacre --help": ["--help"],
    }
    protocol = f"28×28 VAE MLP, from process start to exit, median of {rounds} after one to warm the page cache."
    return timed("scale-start", protocol, commands, rounds, results)


def cold(folder: Path, rounds: int, results: Path) -> Path:
    """Seconds from the start of a process to one image, from one image, by a convolutional VAE for 64×64."""
    model = ["vae", "--compile", "off", "--sample-every", "0"]
    run = train(pixels(folder / "cold.npy", 256, 64), folder / "cold", 3, model=model)
    face, way, out = (str(folder / name) for name in ("face.png", "way.safetensors", "out.png"))
    Image.fromarray(np.load(folder / "cold.npy")[0, 0]).save(face)
    arithmetic = ["arithmetic", str(run), "--plus"]
    subprocess.run([*NACRE, *arithmetic, "1", "--minus", "2", "--save-direction", way], check=True, capture_output=True)
    commands = {
        "nacre reconstruct RUN face.png": ["reconstruct", str(run), face, "--out", out],
        "nacre arithmetic RUN --plus way.safetensors --to face.png": [*arithmetic, way, "--to", face, "--out", out],
    }
    protocol = (
        f"64×64 grey convolutional VAE with default flags, one image in and a PNG out; from process start to exit, import "
        f"included, median of {rounds} after one to warm the page cache; nothing else is kept between them."
    )
    return timed("scale-cold", protocol, commands, rounds, results)


def timed(name: str, protocol: str, commands: dict[str, list[str]], rounds: int, results: Path) -> Path:
    """The row of how long commands take, the processor's seconds beside the clock's."""
    found: dict[str, list[float]] = {command: [] for command in commands}
    spent: dict[str, list[float]] = {command: [] for command in commands}
    for _ in range(rounds + 1):
        for command, words in commands.items():
            begun, before = time.perf_counter(), os.times()
            subprocess.run([*NACRE, *words], check=True, capture_output=True)
            found[command].append(time.perf_counter() - begun)
            after = os.times()
            spent[command].append(
                after.children_user + after.children_system - before.children_user - before.children_system
            )
    values = {f"{command}, s": statistics.median(each[1:]) for command, each in found.items()}
    values |= {f"{command}, processor s": statistics.median(each[1:]) for command, each in spent.items()}
    print(values)
    return rows.write_row(
        name, protocol, values, [0], rounds, results=results, measured=found, load_average=os.getloadavg()[0]
    )


def pixels(path: Path, count: int, size: int = 28) -> Path:
    """A file of random images."""
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 256, (count, 1, size, size), np.uint8))
    return path


def train(data: Path, run: Path, count: int, *words: str, model: Sequence[str] = VAE) -> Path:
    """A run of nacre's, in processes of its own with one thread each."""
    at_once(data, {run: words}, count, model)
    return run


def at_once(data: Path, runs: Mapping[Path, Sequence[str]], count: int = STEPS, model: Sequence[str] = VAE) -> None:
    """Runs of nacre's that are started together, each with flags of its own."""
    quiet = ["--log-every", "25", "--checkpoint-every", str(10**9), "--steps", str(count)]
    command = [*NACRE, "train", *model, "--data", str(data), *quiet]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [*command, *words, "--out", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        for run, words in runs.items()
    ]
    failed = [process.returncode for process in started if process.wait()]
    assert not failed, failed


def step_time(run: Path) -> float:
    """Seconds a step: the median over the lines of the log but the first."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rates = [line["images_per_s"] for line in lines if "images_per_s" in line][1:]
    batch = 1000 * next(line["kimg"] / line["step"] for line in lines if "kimg" in line)
    return batch / statistics.median(rates)


def data_share(run: Path) -> float:
    """Share of the time that went into data."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["shares"]["data"] for line in lines if "shares" in line][-1]


def all_reduces(size: int) -> tuple[float, float]:
    """Latency in seconds and bandwidth in bytes/s of a mean over `size` processes."""
    port = str(launch._free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--collective", str(rank), str(size), port],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    return answers[0][0], answers[0][1]


def collective(rank: int, size: int, port: int) -> list[float]:
    """One rank's share in measuring means over ranks."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    ranks = Ranks(rank, size, dist.group.WORLD)
    small, large = (statistics.median([one_mean(ranks, count) for _ in range(60)][10:]) for count in (2, 2**20))
    dist.destroy_process_group()
    bandwidth = 2 * (size - 1) / size * 4 * 2**20 / max(1e-9, large - small)
    return [small, bandwidth]


def one_mean(ranks: Ranks, count: int) -> float:
    """Seconds for the mean over the ranks of two tensors of together so many numbers."""
    halves = torch.ones(count).chunk(2)
    begun = time.perf_counter()
    ranks.mean(halves)
    return time.perf_counter() - begun


def resident(process: int) -> float:
    """Resident memory of a process in bytes; 0 if it is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main()
