"""BEGAN on SMILEs, grey faces of 64×64 and 128×128 pixels: its balance, its measure, diversity against γ; DCGAN beside it.

    python benchmarks/began.py --data smiles-64.tar.gz [--out runs/began] [--dcgan runs/faces]

Runs that --out holds already are resumed, or only judged if they are complete; --dcgan is the run of benchmarks/faces.py.
Protocol: judged as in benchmarks/faces.py. At 64×64 a first run with γ = .5 is gone on with (--init-from) under each γ, the
learning rate falling to zero in both parts. Balance: L(G(z)) ÷ L(x), means over the last 500 steps, against γ; k over the
same steps, by means of 50. M: its mean over the same steps over its mean over the first run's steps 951 to 1,000. DCGAN: the
checkpoint that has seen the number of images nearest to BEGAN's. 128×128: one run of its own, of the same images upsampled.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

import faces
import nacre
import rows
from nacre.engine import checkpoint, pictures

COMMON: dict[str, Any] = {
    "lr": 6e-4,
    "lr_schedule": "linear",
    "precision": "bf16",
    "log_every": 50,
    "sample_every": 500,
    "checkpoint_every": 500,
    "signal_every": 1_000,
}
FIRST: dict[str, Any] = {
    "gamma": 0.5,
    "balance_rate": 0.02,
    "width": 16,
    "image_size": 64,
    "steps": 3_000,
    "batch_size": 16,
}
BRANCH: dict[str, Any] = {"balance_rate": 0.05, "width": 16, "image_size": 64, "steps": 2_000, "batch_size": 16}
LARGE: dict[str, Any] = {
    "gamma": 0.5,
    "balance_rate": 0.05,
    "width": 16,
    "image_size": 128,
    "steps": 8_000,
    "batch_size": 8,
    "lr": 4e-4,
}
RUNS: dict[str, dict[str, Any]] = {
    "0.5": {**BRANCH, "gamma": 0.5},
    "0.3": {**BRANCH, "gamma": 0.3},
    "0.7": {**BRANCH, "gamma": 0.7},
    "0.5-128": LARGE,
}
LATE = 500
"""The balance is read off so many last steps."""

BY_GAMMA = ("0.3", "0.5", "0.7")
COMPARED = Path("docs/began-gamma.png")
"""Two lines of faces for each γ, of the same latents."""

PICTURES = {"0.5": Path("docs/began-faces.png"), "0.5-128": Path("docs/began-faces-128.png")}


def trained(name: str, data: str, out: Path) -> list[nacre.Run]:
    """The runs that lead to the weights of `name`, begun or resumed: the last one has them."""
    if RUNS[name] is LARGE:
        return [faces.trained("began", out / name, data=data, **{**COMMON, **LARGE})]
    first = faces.trained("began", out / "first", data=data, **COMMON, **FIRST)
    return [first, faces.trained("began", out / name, data=data, init_from=first, **COMMON, **RUNS[name])]


def balance(first: list[dict[str, Any]], last: list[dict[str, Any]], gamma: float) -> dict[str, float]:
    """What the logs say of the game between the two players: of the run that has step 1,000, and of the last one."""
    early, own = ([line for line in log if "losses" in line] for log in (first, last))
    late = [line["losses"] for line in own if line["step"] > own[-1]["step"] - LATE]
    at_1000 = next(line["losses"] for line in early if line["step"] >= 1_000)

    def mean(name: str) -> float:
        return statistics.mean(losses[f"discriminator/{name}"] for losses in late)

    ratio, k = mean("fake") / mean("real"), [losses["discriminator/k"] for losses in late]
    return {
        "ratio": ratio,
        "ratio_over_gamma": ratio / gamma,
        "real_loss": mean("real"),
        "k_mean": statistics.mean(k),
        "k_least": min(k),
        "k_most": max(k),
        "measure": mean("m_global"),
        "measure_over_step_1000": mean("m_global") / at_1000["discriminator/m_global"],
    }


def beside(run: Path, images_seen: int) -> tuple[nacre.Pretrained, int]:
    """The checkpoint of a DCGAN run that has seen about so many images, and how many it has."""
    batch = faces.SETTINGS["batch_size"]
    step = min(checkpoint.steps(run / "checkpoints"), key=lambda step: abs(step * batch - images_seen))
    return nacre.load(run, checkpoint=str(step)), step * batch


def main() -> None:
    """Train, judge, and write the row and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the images")
    parser.add_argument("--out", type=Path, default=Path("runs/began"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--dcgan", type=Path, help="the run of benchmarks/faces.py")
    parser.add_argument("--train-only", action="store_true", help="leave the judging to another call")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    runs = {name: trained(name, asked.data, asked.out) for name in asked.only}
    if asked.train_only:
        return
    if set(BY_GAMMA) <= set(runs):
        each = [nacre.load(runs[name][-1]).sample(16) for name in BY_GAMMA]
        pictures.save(COMPARED, pictures.page(torch.cat(each), columns=8))
    judge = faces.Judge(faces.training_faces(asked.data))
    values: dict[str, float] = {"frechet_floor": judge.floor}

    def note(name: str, found: dict[str, float]) -> None:
        print(name, ", ".join(f"{key} {value:.4f}" for key, value in found.items()), flush=True)
        values.update({f"{name}/{key}": value for key, value in found.items()})

    for name, path in runs.items():
        samples = nacre.load(path[-1]).sample(faces.JUDGED)
        seen = RUNS[name]["batch_size"] * sum(run.done for run in path)
        minutes = sum(rows.training_seconds(run.path) for run in path) / 60
        found = balance(path[0].history, path[-1].history, RUNS[name]["gamma"])
        note(name, found | judge(samples) | {"images_seen": seen, "train_minutes": minutes})
        if name in PICTURES:
            pictures.save(PICTURES[name], pictures.page(samples[:64]))
        if asked.dcgan:
            peer, images_seen = beside(asked.dcgan, seen)
            note(f"dcgan-beside-{name}", judge(peer.sample(faces.JUDGED)) | {"images_seen": images_seen})
    seconds = sum(rows.training_seconds(run) for run in {run.path for path in runs.values() for run in path})
    judging, own = (text.split("Protocol: ")[1].strip() for text in (faces.__doc__, __doc__))
    protocol = (
        f"{own} {judging} nacre train began, seed 0, {COMMON}; first {FIRST}; then {RUNS}; DCGAN: {faces.SETTINGS}"
    )
    facts = {"threads": torch.get_num_threads()}
    print(
        rows.write_row(
            "began-faces", protocol, values, [0], faces.JUDGED, results=asked.results, wall_seconds=seconds, **facts
        )
    )


if __name__ == "__main__":
    main()
