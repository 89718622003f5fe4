"""nacre beside its peers, in turn, and beside what the machine can do at most.

    pip install -e '.[peers]'
    python benchmarks/peers.py [--data DIR] [--only vae-mlp …] [--rounds 5] [--seconds 2] [--apart]

Each contestant trains a chunk of steps when its turn comes; who begins moves on by one each round. A ratio is taken
within a round, between two chunks that ran seconds apart, and the median of the rounds' ratios is what counts. One row a
work. A peer that is not installed is left out.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rows
from peer_works import WORKS, Contestant, Work

TOGETHER = "One process, whose malloc keeps memory for everybody once nacre has had a turn; "

APART = "Each contestant in a process of its own, where all are set up and it alone ever trains, the others waiting; "

PROTOCOL = (
    "chunks of --seconds in turn, the order moving on by one each round, after a warm-up of each; samples/s; a "
    "ratio is taken within a round, its median over the rounds is given. A chunk in which other programs took more than .05 "
    "cores is run again, up to 5 times, and the least disturbed counts. nacre is its real loop with log.jsonl and "
    "TensorBoard every 100 steps, no pictures and no checkpoints within the chunks; its matrix path holds only for its own "
    "chunks. 'fp32' and 'bf16' keep no average of the weights, as no peer does; 'ema' has nacre's default .999. "
    "'compiled' is --compile on, compilation not counted. Peers are float32 with torch's defaults. Speed only: nothing is "
    "said here of quality. "
)

QUIET, TRIES = 0.05, 5


def raced(work: Work, rounds: int, seconds: float) -> tuple[dict[str, list[float]], list[float]]:
    """Samples a second of each contestant in each round, and in each round the most cores that others took meanwhile."""
    steps = {each.name: paced(each, seconds) for each in work.contestants}
    rates: dict[str, list[float]] = {}
    taken: list[float] = []
    for turn in range(rounds):
        first = turn % len(work.contestants)
        this: dict[str, float] = {}
        worst = 0.0
        for each in work.contestants[first:] + work.contestants[:first]:
            others, took = undisturbed(each, steps[each.name])
            name = each.group or each.name
            this[name] = max(this.get(name, 0.0), each.items * steps[each.name] / took)
            worst = max(worst, others)
        for name, rate in this.items():
            rates.setdefault(name, []).append(rate)
        taken.append(worst)
    return rates, taken


def undisturbed(contestant: Contestant, steps: int) -> tuple[float, float]:
    """Cores that others took, and seconds, of a chunk; one that was disturbed is run again, whatever its time was."""
    found: list[tuple[float, float]] = []
    while not found or (found[-1][0] > QUIET and len(found) < TRIES):
        found.append(contestant.chunk(steps))
    return min(found)


def paced(contestant: Contestant, seconds: float) -> int:
    """Steps that take about `seconds`, a multiple of five (a turn of WGAN-GP); warms up, and compiles, on the way."""
    steps, took = 5, timed(contestant, 5)
    while (took := timed(contestant, steps)) < min(0.5, seconds):
        steps *= 2
    return max(5, 5 * round(seconds * steps / took / 5))


def timed(contestant: Contestant, steps: int) -> float:
    """Seconds that a contestant takes for so many steps."""
    return contestant.chunk(steps)[1]


class Apart(Contestant):
    """A contestant in a process of its own, which waits while the others have their turns."""

    def __init__(self, work: str, data: str | None, one: Contestant) -> None:
        super().__init__(one.name, one.run, one.items, one.group)
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, work, data, one.name), daemon=True)
        self.process.start()

    def chunk(self, steps: int) -> tuple[float, float]:
        self.pipe.send(steps)
        try:
            found: tuple[float, float] = self.pipe.recv()
        except EOFError:
            raise SystemExit(f"the process of '{self.name}' has ended; what it said stands above.") from None
        return found


def serve(pipe: Connection, work: str, data: str | None, name: str) -> None:
    """Run the chunks of one contestant that are asked for, until nobody asks."""
    (one,) = (each for each in WORKS[work](data).contestants if each.name == name)
    with suppress(EOFError):
        while True:
            pipe.send(one.chunk(pipe.recv()))


def ratios(work: Work, rates: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
    """nacre over each peer: of each round, their median, smallest and largest, and the bar."""
    found = {}
    for ours in (name for name in rates if name.startswith("nacre")):
        precision = 0 if "fp32" in ours else 1
        for peer, bars in work.bars.items():
            if peer in rates and bars[precision] is not None:
                each = [a / b for a, b in zip(rates[ours], rates[peer], strict=True)]
                found[f"{ours} / {peer}"] = {**spread(each), "bar": bars[precision]}
    return found


def spread(each: list[float]) -> dict[str, Any]:
    """Median and range."""
    return {"median": statistics.median(each), "low": min(each), "high": max(each), "each": each}


def microseconds_more(work: Work, rates: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
    """nacre's time a step less the bare loop's, round by round."""
    items = work.contestants[0].items
    found = {}
    for ours in (name for name in rates if name.startswith("nacre")):
        pairs = zip(rates[ours], rates["bare"], strict=True)
        found[ours] = {**spread([1e6 * items * (1 / mine - 1 / theirs) for mine, theirs in pairs]), "bar": 60.0}
    return found


def show(rates: Mapping[str, list[float]], compared: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of a work."""
    for name, each in rates.items():
        print(f"  {name:24} {statistics.median(each):12,.0f} samples/s [{min(each):,.0f}, {max(each):,.0f}]")
    for name, of in compared.items():
        print(f"  {name:48} {of['median']:8.2f} [{of['low']:.2f}, {of['high']:.2f}]  bar {of['bar']:g}")


def main() -> None:
    """Race, and write a row a work."""
    asked = arguments(__doc__ or "", list(WORKS), apart=True)
    for name in asked.only:
        work = WORKS[name](asked.data)
        if asked.apart:
            work.contestants = [Apart(name, asked.data, each) for each in work.contestants]
        print(measured(work, asked.rounds, asked.seconds, asked.results, apart=asked.apart))
        for each in work.contestants:
            if isinstance(each, Apart):
                each.pipe.close()
                each.process.join()


def arguments(description: str, names: Sequence[str], *, apart: bool = False) -> argparse.Namespace:
    """What a race is told: the data, which of its works, and for how long."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of MNIST's idx files; by default $NACRE_DATA/mnist, or random pixels")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a chunk, about")
    if apart:
        parser.add_argument("--apart", action="store_true", help="each contestant in a process of its own")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    return parser.parse_args()


def measured(work: Work, rounds: int, seconds: float, results: Path, *, apart: bool = False) -> Path:
    """Race a work, print its table, and write its row."""
    begun = time.perf_counter()
    print(f"{work.name}: {work.facts}")
    rates, taken = raced(work, rounds, seconds)
    compared = microseconds_more(work, rates) if work.name == "engine" else ratios(work, rates)
    show(rates, compared)
    print(f"  most cores taken by others, round by round: {', '.join(f'{each:.2f}' for each in taken)}")
    values = {f"{who} samples/s": statistics.median(each) for who, each in rates.items()}
    facts = {
        **work.facts,
        "compared": compared,
        "rounds": rates,
        "chunk_seconds": seconds,
        "cores_taken": taken,
        "peers": {package: rows.version_of(package) for package in ("pythae", "jax", "optax", "pillow")},
    }
    took = time.perf_counter() - begun
    values |= {who: of["median"] for who, of in compared.items()}
    protocol = (APART if apart else TOGETHER) + PROTOCOL + work.protocol
    name = f"peers-{'apart-' if apart else ''}{work.name}"
    return rows.write_row(name, protocol, values, [0], rounds, results=results, wall_seconds=took, **facts)


if __name__ == "__main__":
    main()
