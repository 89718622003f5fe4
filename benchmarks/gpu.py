"""How fast nacre trains on a GPU, beside what the GPU can do at most: the models at 32 and 64 pixels.

    python benchmarks/gpu.py [--device cuda] [--seconds 5] [--only gan-64 …]

One row: images/s, useful TFLOP/s, their fraction of the bfloat16 matrix-product ceiling measured in the same run, and the
most memory taken. It runs on a CPU as well (`--device cpu --seconds 0.2 --batch-size 8`), which only shows that it runs.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import rows
from nacre.data import DataSettings, load
from nacre.engine import numerics
from nacre.engine.settings import Training
from nacre.errors import NacreError
from nacre.run.session import Session, build, compile_or_not
from nacre.run.streams import stream_of
from nacre.spec import spec

MODELS = {"vae": {}, "gan": {"width": 64}, "wgan_gp": {}}
IMAGES = 4096


def main() -> None:
    """Measure, print and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--only", nargs="+", help="names like gan-64")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    device = numerics.device_for(asked.device)
    ceiling = products(device, asked.seconds)
    print(f"bfloat16 matrix products: {ceiling / 1e12:.1f} TFLOP/s")
    found: dict[str, dict[str, Any]] = {}
    for size, name, precision, compiled in itertools.product((32, 64), MODELS, ("fp32", "bf16"), ("off", "on")):
        label = f"{name}-{size}"
        if asked.only and label not in asked.only:
            continue
        key = f"{label} {precision}{' compiled' if compiled == 'on' else ''}"
        training = Training(
            steps=10**6, batch_size=asked.batch_size, device=asked.device, precision=precision, compile=compiled
        )
        try:
            found[key] = measured(name, size, training, device, asked.seconds)
        except NacreError as error:
            found[key] = {"failed": str(error)}
            print(f"{key}: {error}")
            continue
        found[key]["fraction of the ceiling"] = found[key]["useful FLOP/s"] / ceiling
        print(f"{key}: " + ", ".join(f"{what} {value:.4g}" for what, value in found[key].items()))
    protocol = (
        f"Random {IMAGES} RGB images in memory; steps of {asked.batch_size} through nacre's updates (gradients and optimizer, "
        "no average, no log), after a warm-up, the device waited for at the end. Useful FLOP are those of one step's "
        "matrix products and convolutions as torch counts them. The ceiling is a bfloat16 product of two 8192×8192 matrices."
    )
    values = {
        f"{key}: {what}": value for key, each in found.items() for what, value in each.items() if what != "failed"
    }
    failed = {key: each["failed"] for key, each in found.items() if "failed" in each}
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    extra = {"device": device_name, "ceiling": ceiling, "failed": failed}
    print(rows.write_row("gpu", protocol, values, [0], IMAGES, results=asked.results, **extra))


def measured(name: str, size: int, training: Training, device: torch.device, seconds: float) -> dict[str, float]:
    """Images/s and what goes with them, of one model."""
    batch = training.batch_size or 0
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, size, size), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "pixels.npy", pixels)
        dataset = load(DataSettings(data=str(Path(folder) / "pixels.npy")))
    chosen = spec(name, {"network": "conv", **MODELS[name]})
    model = build(chosen, dataset.shape, 0, device)
    session = Session(chosen, dataset, training, model, stream_of(dataset, training, device, model))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with numerics.applied(device):
        updates = compile_or_not(session, training.compile)
        turns = max(update.objective.when[0] + 1 for update in updates)

        def play(step: int) -> None:
            items = session.stream.batch(step)
            for update in updates:
                if step in update.objective.when:
                    update(step, items)

        flops = flops_of(session, turns)
        for step in range(3 * turns):
            play(step)
        wait(device)
        begun, done = time.perf_counter(), 3 * turns
        while time.perf_counter() - begun < seconds or done % turns:
            play(done)
            done += 1
        wait(device)
        took = time.perf_counter() - begun
    steps = done - 3 * turns
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
    return {"images/s": steps * batch / took, "useful FLOP/s": flops * steps / turns / took, "GiB": memory}


def flops_of(session: Session, turns: int) -> float:
    """Operations of one turn of every objective."""
    eager = compile_or_not(session, "off")
    with Operations() as counter:
        for step in range(turns):
            for update in eager:
                if step in update.objective.when:
                    update.accumulated(step, session.stream.batch(step))
    return counter.total


class Operations(TorchDispatchMode):
    """Adds up operations by torch's table; its own counter follows modules and cannot follow a second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def products(device: torch.device, seconds: float) -> float:
    """Operations a second of large bfloat16 matrix products."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    wait(device)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(10):
            torch.mm(a, b)
        done += 10
        wait(device)
    return 2 * size**3 * done / (time.perf_counter() - begun)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
