"""Anomaly scores: one digit normal and nine anomalous, and the failure of likelihoods between two sets of images.

    NACRE_DATA=DIR python benchmarks/anomaly.py digits [--steps 1000] [--digits 0 1 …]
    NACRE_DATA=DIR python benchmarks/anomaly.py leave-one-out [--steps 1000] [--digits 0 1 …]
    NACRE_DATA=DIR python benchmarks/anomaly.py fashion [--steps 2000]

`digits`, Deep SVDD's protocol (Ruff et al. 2018): for each digit a VAE learns its training images, and every method's AUROC
is over test images of all digits, the digit's own against the rest; the averaged weights of the last step, nothing is chosen
by the test images. `leave-one-out` turns it round: the model learns nine digits, and the tenth is the anomaly. `fashion`: a
VAE with a likelihood of grey levels learns Fashion-MNIST, and its test images are told from MNIST's (Nalisnick et al. 2019).
Under an AUROC of one half a score is deceived.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

import rows
from nacre.data import DataSettings, load
from nacre.editing.anomaly import Detector
from nacre.estimator import VAE

METHODS = ("reconstruction", "features", "regret", "complexity", "likelihood")
DEEP_SVDD = (98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5)
"""Percent, by digit: Ruff et al. 2018, table 1."""


def main() -> None:
    """Train, score, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "leave-one-out", "fashion"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--digits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--count", type=int, default=2000, help="test images (of each set)")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    if asked.what != "fashion":
        digits(asked.what, asked.digits, asked.steps or 1000, asked.count, asked.results)
    else:
        fashion(asked.steps or 2000, asked.count, asked.results)


def digits(what: str, chosen: list[int], steps: int, count: int, results: Path) -> None:
    """One digit normal and nine anomalous, or one anomalous and nine normal."""
    train, labels = images("mnist", "train")
    test, truth = images("mnist", "test", count)
    left_out = what == "leave-one-out"
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    for digit in chosen:
        begun = time.perf_counter()
        own = train[(labels == digit) != left_out]
        settings = {"latent_dim": 16, "hidden": (256,), "steps": steps, "batch_size": 128}
        model = VAE(random_state=0, **settings).fit(own.numpy()).model_.module
        for method, scores in scored(model, METHODS, own, test).items():
            found[method].append(roc_auc_score((truth != digit) != left_out, scores.numpy()))
        told = {method: round(values[-1], 4) for method, values in found.items()}
        print(digit, told, f"{time.perf_counter() - begun:.0f} s", flush=True)
    learned, judged = ("all digits but one", "it the anomaly") if left_out else ("one digit", "it against the others")
    protocol = (
        f"VAE, latent 16, one hidden layer of 256, Bernoulli likelihood, {steps} steps of 128 on the training images of "
        f"{learned}, seed 0, last weights; AUROC over the first {len(test)} test images of MNIST, {judged}, for the digits "
        f"{chosen}, which stand where seeds do."
    )
    if not left_out:
        published = np.mean([DEEP_SVDD[digit] for digit in chosen])
        protocol += f" Deep SVDD (one-class, all 10,000 test images), the same digits: {published:.1f} %."
    print(rows.write_row(f"anomaly-{what}", protocol, found, chosen, len(test), results=results))


def fashion(steps: int, count: int, results: Path) -> None:
    """Trained on Fashion-MNIST, tested on MNIST."""
    train, _ = images("fashion-mnist", "train")
    inside, outside = images("fashion-mnist", "test", count)[0], images("mnist", "test", count)[0]
    settings = {"likelihood": "discretized-logistic", "latent_dim": 32, "hidden": (512, 256)}
    fitted = VAE(steps=steps, batch_size=128, random_state=0, **settings).fit(train.numpy())
    truth = np.repeat([0, 1], [len(inside), len(outside)])
    scores = scored(fitted.model_.module, METHODS, train, torch.cat([inside, outside]))
    values = {method: roc_auc_score(truth, each.numpy()) for method, each in scores.items()}
    print({method: round(value, 4) for method, value in values.items()})
    protocol = (
        f"VAE, {settings}, {steps} steps of 128 on Fashion-MNIST's training images, seed 0, last weights; AUROC of the first "
        f"{len(outside)} test images of MNIST as anomalies against the first {len(inside)} of Fashion-MNIST."
    )
    print(rows.write_row("anomaly-fashion", protocol, values, [0], len(truth), results=results))


def scored(model: torch.nn.Module, methods: tuple[str, ...], normal: Tensor, items: Tensor) -> Mapping[str, Tensor]:
    """Every method's scores."""
    return {
        method: Detector(model, method, steps=50).fit(normal[:1000], normal[1000:1100]).scores(items)  # type: ignore[arg-type]
        for method in methods
    }


def images(source: str, split: str, count: int | None = None) -> tuple[Tensor, np.ndarray]:
    """Images of a split in [0, 1], and their labels."""
    dataset = load(DataSettings(data=source, validation=0.0))
    chosen = dataset.rows(split)[:count]  # type: ignore[arg-type]
    assert dataset.labels is not None
    return torch.from_numpy(np.ascontiguousarray(dataset.items[chosen])).float() / 255, dataset.labels[chosen]


if __name__ == "__main__":
    main()
