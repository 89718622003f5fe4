"""How long `nacre evaluate` takes of a run, part by part, and how much memory.

    python benchmarks/evaluate.py RUN [--samples 10000]

The bar is three minutes for 10,000 samples of a 28×28 model on two cores. Processor seconds are measured beside those of the
clock: on a machine that is shared they say what it would be alone, at most, for they grow too where others use the caches.
The extractor and the referee are trained once for a data set; whether they were is in the row.
"""

import argparse
import os
import resource
import time
from typing import Any

import torch

import rows
from nacre.run import extractors
from nacre.run.evaluation import Settings, assemble, examine
from nacre.run.place import stem


class Stopwatch:
    """Stands in for the progress bar, and notes the seconds of each part."""

    def __init__(self, *_: Any) -> None:
        self.name = "opening"
        self.since = time.perf_counter(), time.process_time()

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *_: object) -> None:
        self.set_description("")

    def set_description(self, name: str) -> None:
        """A part begins."""
        now = time.perf_counter(), time.process_time()
        wall, processor = PARTS.get(self.name, (0.0, 0.0))
        PARTS[self.name] = (wall + now[0] - self.since[0], processor + now[1] - self.since[1])
        self.name, self.since = name.removeprefix("evaluating: "), now

    def update(self) -> None:
        """A part is done."""


PARTS: dict[str, tuple[float, float]] = {}


def counted_training() -> list[str]:
    """The kinds of classifiers that are trained from now on."""
    kinds: list[str] = []
    train = extractors.train

    def noted(dataset: Any, kind: str, seed: int = 0) -> Any:
        kinds.append(kind)
        return train(dataset, kind, seed)

    extractors.train = noted
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=10_000)
    asked = parser.parse_args()
    assemble.bar = Stopwatch
    trained = counted_training()
    load = os.getloadavg()[0]
    begun = time.perf_counter(), time.process_time()
    evaluation = examine(asked.run, Settings(samples=asked.samples)).evaluation
    wall, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
    values = {
        "seconds": wall,
        "processor_seconds": processor,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    protocol = (
        f"nacre evaluate of {evaluation.model} on {stem(evaluation.data)} at step {evaluation.step:,}, {evaluation.n:,} samples, "
        f"all {len(evaluation.rows)} numbers; {torch.get_num_threads()} threads; "
        f"load average of the machine {load:.1f} before and {os.getloadavg()[0]:.1f} after; extractor and referee "
        f"{'were trained within' if trained else 'came from the cache'}"
    )
    parts = {name: {"seconds": part[0], "processor_seconds": part[1]} for name, part in PARTS.items()}
    numbers = {row.name: [row.estimate.value, row.floor.value if row.floor else None] for row in evaluation.rows}
    print(rows.write_row("evaluate", protocol, values, [0], evaluation.n, parts=parts, value_and_floor=numbers))


if __name__ == "__main__":
    main()
