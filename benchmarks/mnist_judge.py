"""The judge of MNIST samples: a small classifier, and what its classes and features say of a set of images.

    python benchmarks/mnist_judge.py --data MNIST_FOLDER samples.npy

prints the verdict as JSON. The classifier is trained on the first call (two minutes on two cores) on 50,000 training
images and cached. The other 10,000, which it never saw, stand for a perfect generator: their figures against the test
images are the ceiling of the metrics at that N, and every figure of the samples is printed beside it. (Images that the
classifier was trained on would not do: they score a little higher than new ones.) The ceiling of density is under 1 and
that of coverage under its expectation for equal laws, because MNIST's two parts do differ.

What the figures do not say: confidence alone means nothing, for uniform noise has all of it; recall and coverage fall
steeply with blur that an eye hardly sees; copies of one sample shrink its own balls, so repeats count against recall.
Figures of two judges cannot be compared: a published row carries the judge's `sha256`.
"""

import argparse
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn
from torch.nn import functional as F

from nacre.files import whole_file
from nacre.metrics.manifolds import manifolds

CLASSES = 10
FEATURES = 128
NEIGHBORS = 5
REFERENCES = 10_000
MINIMUM_ACCURACY = 0.992
RECIPE = "1"  # of data split, network and training; another number makes another judge
EPOCHS, BATCH, PEAK_RATE, SHIFT = 10, 250, 3e-3, 2

Part = dict[str, float]


class Labelled(NamedTuple):
    """Images (N, 28, 28) uint8 and their classes (N,) int64."""

    images: Tensor
    labels: Tensor


class Digits(NamedTuple):
    """MNIST in three parts: what the classifier learns from, the perfect generator's samples, the reference."""

    train: Labelled
    held_out: Labelled
    test: Labelled


class Reading(NamedTuple):
    """What the classifier says of N images: probabilities (N, 10) and features (N, 128), both float64."""

    probabilities: Tensor
    features: Tensor


class Network(nn.Module):
    """Three convolutions and one hidden layer, whose activations are the features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(1, 16, 5),
            nn.MaxPool2d(2),
            *convolution(16, 32, 3),
            nn.MaxPool2d(2),
            *convolution(32, 64, 3),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 28, 28) uint8 to logits (N, 10) and features (N, 128)."""
        inputs = images[:, None].float().div(255).contiguous(memory_format=torch.channels_last)
        features = self.features(inputs)
        return self.head(features), features


def convolution(inputs: int, outputs: int, size: int) -> tuple[nn.Module, ...]:
    """A convolution that keeps height and width, normalized and rectified."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


class Judge:
    """A trained classifier with the real images that samples are held against; of `digits.train` it keeps the labels."""

    def __init__(self, network: Network, digits: Digits) -> None:
        self.network = network.eval()
        self.sha256 = weights_sha256(network)
        self._train_labels = torch.cat([digits.train.labels, digits.held_out.labels])
        self._test_labels = digits.test.labels
        self._held_out = self.read(digits.held_out.images)
        self._test = self.read(digits.test.images)
        self._real: dict[int, Part] = {}

    @property
    def test_accuracy(self) -> float:
        """The share of test images whose class the classifier names."""
        return (self._test.probabilities.argmax(1) == self._test_labels).double().mean().item()

    @property
    def identity(self) -> dict[str, str | float]:
        """What tells this judge from another."""
        return {"recipe": RECIPE, "sha256": self.sha256, "test_accuracy": self.test_accuracy}

    def read(self, images: Tensor) -> Reading:
        """Class probabilities and features of (N, 28, 28) uint8 images."""
        with torch.inference_mode():
            logits, features = zip(*map(self.network, images.split(500)), strict=True)
        return Reading(torch.cat(logits).double().softmax(1), torch.cat(features).double())

    def __call__(self, samples: Tensor | np.ndarray) -> dict[str, Any]:
        """Judge samples, uint8 (N, 28, 28) or (N, 1, 28, 28), N > 5.

        Precision, recall, density and coverage depend on N: those of the samples and of real images ("real") are both
        taken with min(N, 10,000) images ("n_features"), drawn at random if there are more, against the test images.

        Returns:
            Numbers, lists and dictionaries of them, ready for JSON. KL divergences are in nats.
        """
        images = checked(samples)
        reading = self.read(images)
        counts = reading.probabilities.argmax(1).bincount(minlength=CLASSES).numpy()
        count = min(len(images), len(self._held_out.features))
        own = prdc(self._test.features, some(reading.features, count))
        real = self.real(count)
        return {
            "n": len(images),
            "judge": self.identity,
            "histogram": counts.tolist(),
            "kl_uniform": kl_uniform(counts),
            "kl_floor": self.kl_floor(len(images)),
            **self._confidence(reading),
            "neighbors": NEIGHBORS,
            "n_features": count,
            **own,
            "real": real,
            **{f"{name}_ratio": own[name] / real[name] for name in ("recall", "coverage")},
        }

    def real(self, count: int) -> Part:
        """Precision, recall, density and coverage of `count` held-out real images against the test images."""
        if count not in self._real:
            self._real[count] = prdc(self._test.features, self._held_out.features[:count])
        return self._real[count]

    def kl_floor(self, count: int) -> dict[str, Any]:
        """What a perfect sampler of MNIST's own classes scores at N = `count`, and the bias from counting alone."""
        return {
            "train": kl_of_draws(self._train_labels, count),
            "test": kl_of_draws(self._test_labels, count),
            "bias": (CLASSES - 1) / (2 * count),
        }

    def _confidence(self, reading: Reading) -> Part:
        own, real = (each.probabilities.amax(1) for each in (reading, self._test))
        return {
            "confidence_median": own.quantile(0.5).item(),
            "confidence_real_median": real.quantile(0.5).item(),
            "confidence_real_p10": real.quantile(0.1).item(),
        }


def checked(samples: Tensor | np.ndarray) -> Tensor:
    """Samples as (N, 28, 28), or a ValueError that says what they are instead."""
    images = samples.cpu() if isinstance(samples, Tensor) else torch.from_numpy(np.array(samples))
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.dtype != torch.uint8 or images.shape[1:] != (28, 28) or len(images) <= NEIGHBORS:
        came = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"expected more than {NEIGHBORS} uint8 images (N, 28, 28) or (N, 1, 28, 28), not {came}")
    return images


def some(rows: Tensor, count: int) -> Tensor:
    """`count` rows at random, always the same ones: samples may come sorted by class."""
    if len(rows) == count:
        return rows
    return rows[torch.from_numpy(np.random.default_rng(0).choice(len(rows), count, replace=False))]


# ── the metrics ──


def kl_uniform(counts: np.ndarray) -> float:
    """KL(empirical ‖ uniform) = Σ p log(K p), in nats, of class counts (K,); an empty class adds nothing."""
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log(len(counts) * shares)).sum())


def kl_of_draws(labels: Tensor, count: int, draws: int = 2_000) -> Part:
    """Mean and standard deviation of `kl_uniform` over sets of `count` labels drawn with replacement.

    With replacement, because that is what a generator with the right class frequencies does, at any N.
    """
    frequencies = labels.bincount(minlength=CLASSES).numpy() / len(labels)
    scores = [kl_uniform(row) for row in np.random.default_rng(0).multinomial(count, frequencies, size=draws)]
    return {"mean": float(np.mean(scores)), "sd": float(np.std(scores, ddof=1))}


def prdc(real: Tensor, fake: Tensor, neighbors: int = NEIGHBORS) -> Part:
    """Precision, recall, density and coverage of features (M, D) against real ones (N, D), without intervals."""
    found = manifolds(real, fake, k=neighbors, groups=0)
    return {name: getattr(found, name).value for name in ("precision", "recall", "density", "coverage")}


# ── the classifier ──


def open_judge(data: Path | None = None, weights: Path | None = None, seed: int = 0) -> Judge:
    """The judge, its classifier trained first if `weights` is absent.

    Args:
        data: the folder of MNIST's four idx files, gzipped or not; by default `$NACRE_DATA/mnist`.
        weights: the safetensors file to read or to make; by default one for this recipe and seed in `$NACRE_CACHE`
            or `~/.cache/nacre`.
        seed: of the initial weights, the order of the images and their shifts.
    """
    digits = load_digits(data or default_data())
    path = weights or default_weights(seed)
    if not path.exists():
        save(Judge(train(digits.train, seed), digits), path)
    return Judge(load(path), digits)


def default_data() -> Path:
    """`$NACRE_DATA/mnist`, or a ValueError that asks for it."""
    if "NACRE_DATA" not in os.environ:
        raise ValueError("expected the folder of MNIST's idx files, or one that holds it as `mnist` in $NACRE_DATA")
    return Path(os.environ["NACRE_DATA"], "mnist")


def default_weights(seed: int) -> Path:
    """Where the classifier of this recipe and `seed` is cached."""
    cache = Path(os.environ.get("NACRE_CACHE") or Path.home() / ".cache" / "nacre")
    return cache / "judges" / f"mnist-{RECIPE}-seed{seed}.safetensors"


def train(digits: Labelled, seed: int) -> Network:
    """Train the classifier with Adam, its rate falling linearly to zero, on images shifted by up to two pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network().to(memory_format=torch.channels_last)  # a third faster on a CPU
        optimizer = torch.optim.Adam(network.parameters(), lr=PEAK_RATE)
        steps = EPOCHS * -(-len(digits.labels) // BATCH)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / steps, total_iters=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(digits.labels)).split(BATCH):
                logits, _ = network(shifted(digits.images[rows]))
                optimizer.zero_grad()
                F.cross_entropy(logits, digits.labels[rows]).backward()
                optimizer.step()
                decay.step()
    return network


def shifted(images: Tensor) -> Tensor:
    """Move each of (N, 28, 28) images by its own random whole pixels, at most `SHIFT` each way, black coming in."""
    count, size = len(images), images.shape[-1]
    padded = F.pad(images, (SHIFT,) * 4)
    rows, columns = torch.randint(2 * SHIFT + 1, (2, count, 1)) + torch.arange(size)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def save(judge: Judge, path: Path) -> None:
    """Cache the classifier with its accuracy and hash; a RuntimeError if it is not good enough to judge."""
    if judge.test_accuracy < MINIMUM_ACCURACY:
        raise RuntimeError(f"expected a classifier of accuracy {MINIMUM_ACCURACY}, not {judge.test_accuracy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in judge.network.state_dict().items()}
    notes = {name: str(value) for name, value in judge.identity.items()}
    with whole_file(path) as aside:
        aside.write_bytes(serialized(tensors, metadata=notes))


def load(path: Path) -> Network:
    """Read a cached classifier; a ValueError if it is of another recipe or its weights are not those saved."""
    with safe_open(path, framework="pt") as file:
        notes, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = Network().to(memory_format=torch.channels_last)
    if notes["recipe"] != RECIPE:
        raise ValueError(
            f"expected a judge of recipe {RECIPE}, not {notes['recipe']}: name another file for its weights"
        )
    network.load_state_dict(tensors)
    if weights_sha256(network) != notes["sha256"]:
        raise ValueError("the judge's weights are damaged: delete their file, and it is trained again")
    return network


def weights_sha256(network: Network) -> str:
    """A hash of the weights alone: a safetensors file may write its notes in any order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


# ── the data ──


def load_digits(folder: Path) -> Digits:
    """MNIST from its idx files, the training images split at random, always the same way."""
    images, labels = read_labelled(folder, "train")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    held_out, learned = order[:REFERENCES], order[REFERENCES:]
    return Digits(
        train=Labelled(images[learned], labels[learned]),
        held_out=Labelled(images[held_out], labels[held_out]),
        test=read_labelled(folder, "t10k"),
    )


def read_labelled(folder: Path, part: str) -> Labelled:
    """The images and labels of "train" or "t10k"."""
    images, labels = (read_idx(folder / f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    return Labelled(torch.from_numpy(images), torch.from_numpy(labels).long())


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes, `path` or `path`.gz: 0, 0, 8, ndim, then ndim big-endian sizes, then the data."""
    packed = path.with_name(path.name + ".gz")
    content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path.name} is not an idx file of unsigned bytes")
    shape = np.frombuffer(content, ">i4", content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape).copy()


def main() -> None:
    """Print a verdict."""
    parser = argparse.ArgumentParser(description="Judge MNIST samples.")
    parser.add_argument("samples", type=Path, nargs="?", help=".npy, uint8 (N, 28, 28); without, real images only")
    parser.add_argument("--data", type=Path, help="folder of MNIST's idx files; by default $NACRE_DATA/mnist")
    parser.add_argument("--weights", type=Path, help="file of the trained classifier, made if absent")
    parser.add_argument("--seed", type=int, default=0, help="of the classifier's training")
    options = parser.parse_args()
    judge = open_judge(options.data, options.weights, options.seed)
    real_only = {"judge": judge.identity, "real": judge.real(REFERENCES)}
    print(json.dumps(judge(np.load(options.samples)) if options.samples else real_only, indent=2))


if __name__ == "__main__":
    main()
