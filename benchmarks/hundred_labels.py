"""100 labels of MNIST and 60,000 images: how many of the 10,000 test images are classified wrongly.

    python benchmarks/hundred_labels.py mlp|conv|m2 --data mnist:DIR [--draws 0 1 2] [--out RUNS]
    python benchmarks/hundred_labels.py m2 --data fashion-mnist:DIR --draws 0 --flags '{"latent_dim": 10}'

Protocol: 10 labels of each class, drawn by --split-seed 0 to 9 (a draw is also the seed of its run); no image is kept
aside, no other label is used for anything, nothing is stopped early; averaged weights of the last step; the error on all
test images, one value a draw. Settings are nacre's defaults or were fixed on Fashion-MNIST, by the second command.

`mlp` and `conv` are the lecture's recipe. A denoising autoencoder is trained on all training images without labels, once
for all draws, for no draw can change it. For each draw `transfer` trains a head on all its layers but the last, frozen,
and after that head and layers at a lower rate. "From nothing" is the same layers, head, steps and labels, but the layers
start at random and all learn at the head's rate from the first step on. `m2` sees labelled and unlabelled images
together, one run a draw.

Every run is kept under --out and is not trained again by a second call.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import nacre
import rows
from nacre.data import DataSet, DataSettings, load

LABELS = 100
COMMON = {"validation": 0.0, "sample_every": 0, "checkpoint_every": 1000, "keep": 1, "compile": "off"}
PUBLISHED = "M1 + transductive SVM 11.82 %, M2 11.97 %, M1 + M2 3.33 % (Kingma et al. 2014)"


@dataclass(frozen=True)
class Recipe:
    """What is trained once without labels, what is trained for each draw, and what it is held to.

    Attributes:
        classifier: the model that sees labels.
        flags: of the classifier.
        encoder: flags of the autoencoder whose layers it reuses, if it reuses any.
    """

    classifier: str
    flags: dict[str, Any]
    asked: str
    encoder: dict[str, Any] = field(default_factory=dict)


TRANSFER = {"steps": 1500, "batch_size": 50, "frozen_steps": 500, "dropout": 0.5}
FROM_NOTHING = {"frozen_steps": 0, "finetune_lr": 1e-3}
DENOISING = {
    "latent_dim": 32,
    "noise": "masking",
    "noise_level": 0.75,
    "batch_size": 128,
    "lr_schedule": "cosine",
    "precision": "bf16",
}

RECIPES = {
    "mlp": Recipe(
        "transfer",
        TRANSFER,
        "≤ 15 %, and ≤ .65 of the same net without pretraining",
        {"network": "mlp", "hidden": (1000, 500), "steps": 10_000, **DENOISING},
    ),
    "conv": Recipe("transfer", TRANSFER, "reported", {"network": "conv", "width": 16, "steps": 4_000, **DENOISING}),
    "m2": Recipe(
        "m2",
        {
            "network": "mlp",
            "hidden": (256, 128),
            "latent_dim": 50,
            "alpha": 60.0,
            "steps": 8000,
            "batch_size": 128,
            "lr_schedule": "cosine",
            "precision": "bf16",
        },
        "≤ 8 %",
    ),
}


def main() -> None:
    """Train all draws, judge them, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("--data", default="mnist", help="mnist:DIR, or fashion-mnist:DIR to choose settings on")
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--out", type=Path, default=Path("runs/hundred-labels"), help="folder of the runs")
    parser.add_argument("--flags", type=json.loads, default={}, help="to be changed, of the classifier; JSON")
    parser.add_argument("--encoder-flags", type=json.loads, default={}, help="to be changed, of the autoencoder; JSON")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    recipe, data = RECIPES[asked.recipe], asked.data.partition(":")[0]
    changed = asked.encoder_flags | asked.flags
    place = asked.out / data / "-".join([asked.recipe, *(f"{name}-{value}" for name, value in changed.items())])
    job = Job(recipe.classifier, asked.data, place, recipe.flags | asked.flags, recipe.encoder | asked.encoder_flags)
    values, times = job.transferred(asked.draws) if job.encoder else job.learned(asked.draws)
    for name, each in values.items():
        print(f"{name}: {rows.summary(each, asked.draws)}")
    facts = {"model": job.model, "flags": COMMON | job.flags, "encoder": COMMON | job.encoder, **times}
    protocol = f"{data}: {' '.join(__doc__.split('Protocol: ')[1].split())}"
    name = f"hundred-labels-{asked.recipe}" + (f"-{data}" if data != "mnist" else "")
    count = len(dataset_of(asked.data, 0).rows("test"))
    known = {"asked": recipe.asked, "published": PUBLISHED}
    print(rows.write_row(name, protocol, values, asked.draws, count, results=asked.results, **facts, **known))


@dataclass(frozen=True)
class Job:
    """A recipe as it is run: on which data, in which folder, with which flags."""

    model: str
    source: str
    place: Path
    flags: dict[str, Any]
    encoder: dict[str, Any]

    def learned(self, draws: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Errors and seconds of one run a draw."""
        errors, seconds = [], []
        for draw in draws:
            run = self.classifier(f"draw{draw}", draw, {})
            errors, seconds = [*errors, self.error(run, draw)], [*seconds, seconds_of(run)]
            print(f"draw {draw}: {errors[-1]:.2f} %, trained in {seconds[-1]:.0f} s", flush=True)
        return {"error_percent": errors, "train_seconds": seconds}, {}

    def transferred(self, draws: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Errors with and without pretraining, their ratio, and seconds."""
        encoder = train("ae", self.source, self.place / "encoder", **self.encoder)
        errors, plain, seconds = [], [], []
        for draw in draws:
            run = self.classifier(f"draw{draw}", draw, {"encoder": str(encoder)})
            once = self.encoder | {"seed": draw, "steps": 1, "lr": 1e-12}
            blank = train("ae", self.source, self.place / f"blank{draw}", **once)
            nothing = self.classifier(f"nothing{draw}", draw, {"encoder": str(blank), **FROM_NOTHING})
            errors, plain = [*errors, self.error(run, draw)], [*plain, self.error(nothing, draw)]
            seconds = [*seconds, seconds_of(run)]
            print(f"draw {draw}: {errors[-1]:.2f} %, from nothing {plain[-1]:.2f} %", flush=True)
        values = {
            "error_percent": errors,
            "error_from_nothing_percent": plain,
            "train_seconds": seconds,
            "ratio_of_means": statistics.mean(errors) / statistics.mean(plain),
        }
        return values, {"from_nothing": FROM_NOTHING, "pretrain_seconds": seconds_of(encoder)}

    def classifier(self, name: str, draw: int, flags: dict[str, Any]) -> Path:
        """The run of the model that sees the labels of a draw."""
        few = {"labelled": LABELS, "split_seed": draw, "seed": draw}
        return train(self.model, self.source, self.place / name, **few, **self.flags | flags)

    def error(self, run: Path, draw: int) -> float:
        """Test images that are classified wrongly, in percent."""
        dataset = dataset_of(self.source, draw)
        test = dataset.rows("test")
        named = nacre.load(run).classify(torch.from_numpy(dataset.items[test])).argmax(1).numpy()
        return float(100 * (named != dataset.labels[test]).mean())


def train(model: str, source: str, out: Path, **flags: Any) -> Path:
    """A run, complete: begun, gone on with, or only found."""
    flags = COMMON | flags
    if not (out / "model").exists() or nacre.Run(out, 0, 0).history[-1]["step"] < flags["steps"]:
        print(f"nacre train {model} --data {source} {flags}", flush=True)
        nacre.train(model, data=source, out=out, or_resume=True, **flags)
    return out


def dataset_of(source: str, draw: int) -> DataSet:
    """The data with the labels of a draw."""
    return load(DataSettings(data=source, validation=0.0, labelled=LABELS, split_seed=draw))


def seconds_of(run: Path) -> float:
    """Seconds that the training of a run took, by its log: the speed of each stretch times its images."""
    done, total = 0.0, 0.0
    for line in nacre.Run(run, 0, 0).history:
        if "images_per_s" in line:
            total += 1000 * (line["kimg"] - done) / line["images_per_s"]
            done = line["kimg"]
    return total


if __name__ == "__main__":
    main()
