"""DCGAN on SMILEs, 64×64 grey faces: the picture, the time and the settings; and how generated faces are judged.

    python benchmarks/faces.py --data smiles-64.tar.gz [--out runs/faces]

A run that --out holds already is resumed, or only judged if it is complete. Protocol: 90 % of the images to train on,
mirrored at random; averaged weights of the last step. Samples are numbers 0 to 4,999 of seed 0, and the first 64 of them
are the picture: none was chosen. Fréchet score: the distance (Heusel et al. 2017, eq. 6, in float64) between 5,000 samples
and 5,000 training images in the 256 features of a convolutional network whose weights are random (seed 0) and never
trained: it is no FID, and its unit is arbitrary; the floor is the score of 5,000 other training images. Diversity: mean
Euclidean distance between two of 1,000 samples over that between two of 1,000 training images, in pixels and in features.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nacre
import rows
from nacre import images
from nacre.data import DataSettings, load
from nacre.engine import pictures

JUDGED, PAIRED = 5_000, 1_000
SETTINGS: dict[str, Any] = {
    "width": 32,
    "steps": 2_500,
    "batch_size": 64,
    "precision": "bf16",
    "image_size": 64,
    "sample_every": 0,
    "checkpoint_every": 250,
    "keep": 100,
}
PICTURE = Path("docs/dcgan-faces.png")


class Judge:
    """What 5,000 real faces look like to a convolutional network with random weights.

    Args:
        faces: (N, 1, 64, 64) in [0, 1], at least 10,000: the first half is the reference, the second the floor.
    """

    def __init__(self, faces: Tensor) -> None:
        self.network = random_network()
        self.reference, self.others = (self.features(part) for part in faces[: 2 * JUDGED].split(JUDGED))
        self.pixels_apart = apart(faces[:PAIRED])
        self.features_apart = apart(self.reference[:PAIRED])

    @property
    def floor(self) -> float:
        """The score of real faces that are not the reference."""
        return frechet(self.others, self.reference)

    def __call__(self, faces: Tensor) -> dict[str, float]:
        """Fréchet score and diversity of generated faces (5000, 1, H, W), those of more than 64 pixels averaged down."""
        features = self.features(faces)
        return {
            "frechet": frechet(features, self.reference),
            "diversity_pixels": apart(F.adaptive_avg_pool2d(faces[:PAIRED], 64)) / self.pixels_apart,
            "diversity_features": apart(features[:PAIRED]) / self.features_apart,
        }

    def features(self, faces: Tensor) -> Tensor:
        """(N, 1, H, W) in [0, 1] to (N, 256) float64."""
        with torch.no_grad():
            parts = [self.network(2 * F.adaptive_avg_pool2d(part, 64) - 1) for part in faces.split(250)]
        return torch.cat(parts).double()


def random_network(seed: int = 0) -> nn.Module:
    """Three strided convolutions with ReLU and He et al.'s initial weights, averaged over the quarters of the image."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
        convolution = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        layers += [convolution, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()


def frechet(a: Tensor, b: Tensor) -> float:
    """‖μ_a - μ_b‖² + Tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) of features (N, D) and (M, D), in float64."""
    (mean_a, cov_a), (mean_b, cov_b) = ((x.double().mean(0), torch.cov(x.double().T)) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # (Σ_a Σ_b)^½ has the trace of (Σ_a^½ Σ_b Σ_a^½)^½, which is symmetric.
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared).item()


def apart(items: Tensor) -> float:
    """Mean Euclidean distance between two of (N, …) items."""
    return torch.pdist(items.flatten(1).double()).mean().item()


def training_faces(source: str, size: int = 64) -> Tensor:
    """10,000 training images in a random order, mirrored at random as training shows them: (10000, 1, size, size)."""
    dataset = load(DataSettings(data=source, image_size=(size, size)))
    generator = torch.Generator().manual_seed(0)
    training = torch.from_numpy(dataset.items[dataset.rows("train")])
    chosen = training[torch.randperm(len(training), generator=generator)[: 2 * JUDGED]]
    return images.mirror(images.to_float(chosen), torch.rand(len(chosen), 1, generator=generator))


def trained(model: str, out: Path, **flags: Any) -> nacre.Run:
    """The run, begun or resumed."""
    print(f"nacre train {model} {flags}", flush=True)
    return nacre.train(model, out=out, or_resume=True, **flags)


def main() -> None:
    """Train, judge, and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the images")
    parser.add_argument("--out", type=Path, default=Path("runs/faces"), help="the run")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    run = trained("dcgan", asked.out, data=asked.data, **SETTINGS)
    seconds = rows.training_seconds(run.path)
    judge = Judge(training_faces(asked.data))
    samples = nacre.load(run).sample(JUDGED)
    pictures.save(PICTURE, pictures.page(samples[:64]))
    values = {**judge(samples), "frechet_floor": judge.floor, "train_minutes": seconds / 60}
    print(values)
    protocol = f"{__doc__.split('Protocol: ')[1].strip()} nacre train dcgan, seed 0, {SETTINGS}"
    facts = {"threads": torch.get_num_threads(), "images_seen": run.done * SETTINGS["batch_size"]}
    place = rows.write_row(
        "dcgan-faces", protocol, values, [0], JUDGED, results=asked.results, wall_seconds=seconds, **facts
    )
    print(place)


if __name__ == "__main__":
    main()
