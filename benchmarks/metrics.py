"""The metrics on sets of which the answer is known: equal laws, copies, noise, and published averages.

    python benchmarks/metrics.py [--data DIR] [--seeds 0 1 2 3 4] [--size 10000]

Protocol, three parts. Precision, recall, density and coverage of two sets of 10,000 × 1,000 standard normal numbers, k = 5,
one pair a seed; intervals are left out, as in the published figures, and the seconds are of the processor. MNIST's test
images in random halves, of every class alike: judges, Fréchet and kernel distance in the features of the pinned
classifier; and the same judges on noise. Copies: training images in the place of samples, and held-out ones.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import rows
from nacre.data import DataSet, DataSettings, load
from nacre.metrics import classifiers, distances, judges, manifolds, memorization, twosample

DIMENSIONS = 1_000
EACH = 2_000
"""Images of either set that the judges are given: half of them train, so that 2,000 test."""

SPLITS = 5
HALVES = 10
BATCHES = (1, 7, 1_000)
PUBLISHED = {"precision": 0.479, "recall": 0.476, "density": 1.0, "coverage": 0.969}
OF_GAUSSIANS = (
    "precision, recall, density, coverage of 10,000 x 1,000-d N(0, I) against as many, k = 5, float64, exact, without intervals, "
    "processor seconds, one value a seed"
)
OF_KERNEL = (
    "kernel distance in the 128 features of the pinned MNIST classifier, 5,000 test images against the other 5,000, for ten "
    "ways to halve: at random, and at random with every class shared alike; mean, deviation, share of intervals that hold 0"
)
OF_IMAGES = (
    "halves: MNIST's test images, in halves at random with every class shared alike; judges on 2,000 of either half, 5 splits, "
    "tested on 2,000: leave-one-out 1-NN on pixels, logistic regression on the 128 features of the pinned MNIST classifier, "
    "convolutional network on pixels; the same on 2,000 images of uniform noise; Frechet and kernel distance of the 5,000 "
    "features of either half, the kernel's for ten ways to halve, also at random whatever the class; Frechet distance of the "
    "features of all, read in batches of 1, 7 and 1,000, to those of the first 10,000 training images; C_T: 2,000 training "
    "images copied, and 2,000 test images, in the place of samples, against 2,000 other test images and 10,000 training "
    "images, pixels"
)


def gaussians(seeds: list[int], size: int) -> dict[str, list[float]]:
    """The four shares where their averages have been published, and the seconds that they take."""
    found: dict[str, list[float]] = {name: [] for name in (*PUBLISHED, "processor_seconds")}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        real, fake = (torch.randn(size, DIMENSIONS, generator=generator, dtype=torch.float64) for _ in range(2))
        begun = time.process_time()
        result = manifolds.manifolds(real, fake, k=5, groups=0)
        found["processor_seconds"].append(time.process_time() - begun)
        for name in PUBLISHED:
            found[name].append(getattr(result, name).value)
        print(f"seed {seed}: { ({name: round(each[-1], 4) for name, each in found.items()}) }", flush=True)
    return found


def halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the items at random, each with half of every class."""
    generator, parts = np.random.default_rng(seed), ([], [])
    for label in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == label))
        for part, chosen in zip(parts, np.array_split(own, 2), strict=True):
            part.append(chosen)
    first, second = (generator.permutation(np.concatenate(part)) for part in parts)
    return first, second


def judged(name: str, real: Tensor, fake: Tensor, features: tuple[Tensor, Tensor]) -> dict[str, float]:
    """What three judges say of two sets of images."""
    nearest = twosample.nearest_neighbor_test(real.flatten(1), fake.flatten(1))
    found = {f"{name}_1nn": nearest.accuracy.value, f"{name}_1nn_p": nearest.p_value}
    logistic = twosample.classifier_test(*features, judges.logistic, splits=SPLITS)
    convolutional = twosample.classifier_test(real, fake, judges.convolutional, splits=SPLITS)
    for judge, told in (("logistic", logistic), ("conv", convolutional)):
        found |= {f"{name}_{judge}": told.accuracy.value, f"{name}_{judge}_p": told.p_value}
        found |= {f"{name}_{judge}_low": told.accuracy.low, f"{name}_{judge}_high": told.accuracy.high}
    print(found, flush=True)
    return found


def on_images(dataset: DataSet) -> dict[str, float]:
    """Equal laws, noise, batch sizes and copies."""
    extract = classifiers.pinned("mnist")
    train, test = (torch.from_numpy(dataset.items[dataset.rows(part)]) for part in ("train", "test"))
    assert dataset.labels is not None
    labels = dataset.labels[dataset.rows("test")]
    features = extract(test)
    a, b = halves(labels, 0)
    first, second = test[a], test[b]
    found = judged("halves", first[:EACH], second[:EACH], (features[a[:EACH]], features[b[:EACH]]))
    noise = torch.randint(0, 256, (EACH, *test.shape[1:]), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found |= judged("noise", first[:EACH], noise, (features[a[:EACH]], extract(noise)))
    frechet = distances.frechet_distance(features[a], features[b])
    found |= {"halves_frechet": frechet.value.value, "halves_frechet_high": frechet.value.high}
    found["noise_kernel"] = distances.kernel_distance(features[a[:EACH]], extract(noise)).value.value
    found |= kernels(features, labels)
    return found | batches(extract, train[:10_000], test) | copies(train, first, second)


def kernels(features: Tensor, labels: np.ndarray) -> dict[str, float]:
    """The kernel distance of halves: independent ones, whose mean is zero, and halves that share every class alike."""
    found = {}
    for name, classes in (("halves", np.zeros_like(labels)), ("stratified", labels)):
        told = [
            distances.kernel_distance(*(features[half] for half in halves(classes, seed))) for seed in range(HALVES)
        ]
        values = torch.tensor([each.value.value for each in told], dtype=torch.float64)
        found |= {f"{name}_kernel": float(values.mean()), f"{name}_kernel_sd": float(values.std())}
        found[f"{name}_kernel_holding_zero"] = sum(each.value.low <= 0 <= each.value.high for each in told) / HALVES
    print(found, flush=True)
    return found


def batches(extract: classifiers.Extractor, train: Tensor, test: Tensor) -> dict[str, float]:
    """The Fréchet distance of the same images, read in batches of several sizes."""
    reference = distances.Moments.of(extract(train))
    values = []
    for size in BATCHES:
        moments = distances.Moments.of_batches(extract(part, batch_size=size) for part in torch.split(test, 997))
        values.append(distances.frechet_of_moments(reference, moments).value.value)
        print(f"batches of {size}: {values[-1]:.9f}", flush=True)
    return {"frechet_test": values[0], "frechet_batch_spread": (max(values) - min(values)) / values[0]}


def copies(train: Tensor, first: Tensor, second: Tensor) -> dict[str, float]:
    """C_T of copies, and of images that are as new as the held-out ones."""
    known, held_out = train[:10_000].flatten(1), second[:EACH].flatten(1)
    found = {}
    for name, samples in (("copies", known[:EACH]), ("new", first[:EACH].flatten(1))):
        told = memorization.memorization(samples, held_out, known)
        found |= {f"{name}_c_t": told.c_t, f"{name}_p": told.p_value, f"{name}_ratio": told.ratio.value}
    print(found, flush=True)
    return found


def main() -> None:
    """Measure, and write a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST's idx files; by default $NACRE_DATA/mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--only", choices=["images", "gaussians", "kernel"])
    asked = parser.parse_args()
    source = DataSettings(data=f"mnist:{asked.data}" if asked.data else "mnist", validation=0.0)
    if asked.only == "kernel":
        dataset = load(source)
        assert dataset.labels is not None
        test = dataset.rows("test")
        found = kernels(classifiers.pinned("mnist")(dataset.items[test]), dataset.labels[test])
        print(rows.write_row("metrics-kernel", OF_KERNEL, found, [0], len(test)))
    if asked.only in (None, "images"):
        begun = time.perf_counter()
        found = on_images(load(source))
        seconds = time.perf_counter() - begun
        print(rows.write_row("metrics-images", OF_IMAGES, found, [0], EACH, wall_seconds=seconds))
    if asked.only in (None, "gaussians"):
        begun = time.perf_counter()
        found = gaussians(asked.seeds, asked.size)
        seconds = time.perf_counter() - begun
        row = {"wall_seconds": seconds, "published": PUBLISHED}
        print(rows.write_row("metrics-gaussians", OF_GAUSSIANS, found, asked.seeds, asked.size, **row))


if __name__ == "__main__":
    main()
