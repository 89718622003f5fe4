"""The Parzen-window likelihood of MNIST: real images, and centroids of a k-means that beat them, and every GAN.

    python benchmarks/parzen.py [--data DIR] [--seeds 0 1 2] [--centroids 10000]

Protocol: 10,000 images stand for samples, pixels in [0, 1]. σ is the best on the first 1,000 of the last 10,000 training
images (as in the code of Goodfellow et al. 2014), out of their ten candidates from .1 to 1, or out of the finer .15, .16 … .20.
Samples come from the first 50,000 training images: 10,000 of them at random, one draw a seed, or as many centroids of a
k-means of all. The score is the mean over the test images; of these too there are two habits, all 10,000 and the first
1,000 or 3,000, and they differ by more than models do.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import rows
from nacre.data import DataSettings, load
from nacre.metrics import parzen, points

SAMPLES, LEARNED, CHOOSING = 10_000, 50_000, 1_000
FINER = tuple(number / 100 for number in range(15, 21))
FIRST = (1_000, 3_000, 10_000)
PUBLISHED = {
    "GAN (Goodfellow et al. 2014)": 225,
    "GMMN + autoencoder (Li et al. 2015)": 282,
    "true data (Theis et al. 2016)": 243,
    "k-means (Theis et al. 2016)": 313,
}
PROTOCOL = (
    "MNIST in [0, 1]; 10,000 samples out of the first 50,000 training images: real ones at random, one draw a seed, or the "
    "centroids of a k-means of all 50,000 (Lloyd's algorithm, 3 steps from random images, seed 0); sigma the best on training "
    "images 50,000 to 50,999, out of logspace(-1, 0, 10) ('grid') or .15, .16 ... .20 ('finer'); mean log-density in nats of "
    "the first 1,000, the first 3,000 and all 10,000 test images"
)


def judged(samples: Tensor, validation: Tensor, test: Tensor, sigmas: tuple[float, ...]) -> dict[str, float]:
    """The chosen σ, and mean and standard error of the score on the first test images and on all."""
    sigma = sigmas[int(parzen.log_densities(validation, samples, sigmas).mean(1).argmax())]
    scores = parzen.log_densities(test, samples, [sigma])[0]
    found = {"sigma": sigma}
    for count in FIRST:
        part = scores[:count]
        found |= {f"first_{count}": part.mean().item(), f"first_{count}_se": (part.std() / count**0.5).item()}
    return found


def main() -> None:
    """Score, print, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST's idx files; by default $NACRE_DATA/mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--centroids", type=int, default=SAMPLES)
    asked = parser.parse_args()
    dataset = load(DataSettings(data=f"mnist:{asked.data}" if asked.data else "mnist", validation=0.0))
    train, test = (torch.from_numpy(dataset.items[dataset.rows(part)]).flatten(1) for part in ("train", "test"))
    learned, validation = (part.double() / 255 for part in (train[:LEARNED], train[LEARNED:][:CHOOSING]))
    test = test.double() / 255
    values: dict[str, float | list[float]] = {}
    for seed in asked.seeds:
        chosen = torch.randperm(LEARNED, generator=torch.Generator().manual_seed(seed))[:SAMPLES]
        for name, sigmas in (("grid", parzen.SIGMAS), ("finer", FINER)):
            found = judged(learned[chosen], validation, test, sigmas)
            print(f"seed {seed}, {name}: {found}", flush=True)
            for key, value in found.items():
                values.setdefault(f"real_{name}_{key}", []).append(value)  # type: ignore[union-attr]
    begun = time.perf_counter()
    centroids, _ = points.k_means(learned, asked.centroids, steps=3)
    seconds = time.perf_counter() - begun
    for name, sigmas in (("grid", parzen.SIGMAS), ("finer", FINER)):
        found = judged(centroids, validation, test, sigmas)
        print(f"k-means, {name}: {found}", flush=True)
        values |= {f"k_means_{name}_{key}": value for key, value in found.items()}
    values |= {"k_means_centroids": asked.centroids, "k_means_seconds": seconds}
    print(rows.write_row("parzen", PROTOCOL, values, asked.seeds, len(test), published=PUBLISHED))


if __name__ == "__main__":
    main()
