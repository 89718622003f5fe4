"""Data larger than memory should be: a million 64×64 colour images (12 GB) in one .npy file.

    python benchmarks/large.py [--count 1000000] [--folder DIR] [--results DIR]

Batches of 64 are read in the order of training, from the mapped file and from a part of it in memory, by turns.
Anonymous memory (RssAnon) is what the process itself takes; pages of the mapped file are the system's to drop.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import rows
from nacre.data import DataSettings, load
from nacre.data.stream import Stream
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.run.session import build
from nacre.spec import spec

BATCH, SHAPE, IN_MEMORY = 64, (3, 64, 64), 50_000


def main() -> None:
    """Make the file, read it, write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to put 12 GB; by default the system's temporary folder")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        os.environ["NACRE_CACHE"] = f"{folder}/cache"
        path = synthetic(Path(folder) / "images.npy", asked.count)
        begun = time.perf_counter()
        dataset = load(DataSettings(data=str(path)))
        opening = time.perf_counter() - begun
        begun = time.perf_counter()
        dataset = load(DataSettings(data=str(path)))
        again = time.perf_counter() - begun
        train = dataset.rows("train")
        mapped = Stream(dataset.items, train, BATCH)
        memory_before = anonymous()
        begun = time.perf_counter()
        warm(mapped, asked.count)
        first_rate = asked.count / (time.perf_counter() - begun)
        small = np.array(dataset.items[:IN_MEMORY])
        resident = Stream(small, np.arange(len(small)), BATCH)
        memory = anonymous() - small.nbytes
        rates = [(rate(mapped, turn), rate(resident, turn)) for turn in range(asked.rounds)]
        update = vae()
        trained = [(rate(mapped, turn, update), rate(resident, turn, update)) for turn in range(5)]
    values = {
        "opening the first time, s": opening,
        "opening again, s": again,
        "RssAnon after reading, bytes": memory,
        "RssAnon before, bytes": memory_before,
        "peak resident, bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "batches alone, first pass, images/s": first_rate,
        "batches alone, mapped, images/s": statistics.median(a for a, _ in rates),
        "batches alone, in memory, images/s": statistics.median(b for _, b in rates),
        "batches alone, ratio": statistics.median(a / b for a, b in rates),
        "training, mapped, images/s": statistics.median(a for a, _ in trained),
        "training, in memory, images/s": statistics.median(b for _, b in trained),
        "training, ratio": statistics.median(a / b for a, b in trained),
    }
    for name, value in values.items():
        print(f"{name}: {value:.4g}")
    protocol = (
        f"{asked.count:,} synthetic images {SHAPE} uint8 in one .npy file, used where it lies; page cache warm as far as "
        f"memory goes; Stream batches of {BATCH} in training order: one pass, on which every page is met for the first time, "
        f"then {asked.rounds} interleaved rounds of 1,000 batches (training: 5 of 100, of a VAE 12,288-256-32), against the "
        f"same over {IN_MEMORY:,} of them in memory. The in-memory copy is subtracted from RssAnon."
    )
    print(rows.write_row("large", protocol, values, [0], asked.count, results=asked.results, rounds=rates))


def synthetic(path: Path, count: int) -> Path:
    """Distinct images without much entropy, written in pieces."""
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *SHAPE))
    noise = np.random.default_rng(0).integers(0, 256, (1009, *SHAPE), np.uint8)
    for start in range(0, count, 1000):
        numbers = np.arange(start, min(start + 1000, count))
        block = noise[numbers % len(noise)]
        block[:, 0, 0, :4] = numbers.astype("<u4")[:, None].view(np.uint8)
        out[start : start + len(block)] = block
    out.flush()
    return path


def warm(stream: Stream, count: int) -> None:
    """Read each image once, so that what can be in the page cache is."""
    for step in range(count // BATCH):
        stream.batch(step)


def vae() -> Update:
    """A model that is quick for images of this size."""
    model = build(spec("vae", {"network": "mlp", "hidden": (256,)}), SHAPE, 0)
    return Update(model, model.objectives()[0], Training(steps=10**6, batch_size=BATCH))


def rate(stream: Stream, turn: int, update: Update | None = None) -> float:
    """Images a second over 1,000 batches, or over 100 steps of training."""
    count = 100 if update else 1000
    begun = time.perf_counter()
    for step in range(turn * count, (turn + 1) * count):
        batch = stream.batch(step)
        if update:
            update(step, batch)
    return count * BATCH / (time.perf_counter() - begun)


def anonymous() -> float:
    """Bytes of anonymous memory of this process, as Linux tells."""
    status = Path("/proc/self/status").read_text()
    return next(1024.0 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
