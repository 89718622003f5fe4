"""A linear autoencoder against PCA on MNIST: the same subspace and the same error, found by gradients alone.

    python benchmarks/linear_ae.py [--data DIR] [--seeds 0 1 2]

Protocol: `ae` with linear activations, no hidden layer, 16 codes and the squared error on all 60,000 training images,
pixels in [0, 1]. Two weight matrices and two biases, started as torch starts any linear layer, and Adam: nothing is
centred, whitened or taken from the data beforehand; the biases learn the mean. The reference is the eigendecomposition
of the 60,000 images' covariance in float64.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import nacre
import rows
from nacre.data import DataSettings, load

CODES = 16
TRAINING = {"steps": 5000, "batch_size": 512, "lr": 3e-3, "lr_schedule": "cosine", "validation": 0.0, "sample_every": 0}
PROTOCOL = (
    "MNIST, 60,000 training images in [0, 1]; nacre train ae --latent-dim 16 --activation linear --hidden [] --loss mse "
    "--steps 5000 --batch-size 512 --lr 3e-3 --lr-schedule cosine --validation 0, averaged weights of the last step; no "
    "centring and no whitening, torch's initial weights; relative gap of the mean squared error to PCA's and the largest "
    "principal angle between the decoder's columns and the first 16 principal directions, both on the training images in "
    "float64; one value a seed"
)


@dataclass(frozen=True)
class Principal:
    """PCA of items (N, D) in float64.

    Attributes:
        mean: (D,).
        directions: (D, k), orthonormal.
        mse: mean squared error of a number when items are projected onto them.
    """

    mean: Tensor
    directions: Tensor
    mse: float


def pca(items: Tensor, k: int) -> Principal:
    """The first k principal components of items (N, D)."""
    centred = items - items.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(items))
    return Principal(items.mean(0), vectors[:, -k:], values[:-k].sum().item() / items.shape[1])


def compare(model: torch.nn.Module, items: Tensor, exact: Principal) -> tuple[float, float]:
    """Relative gap of the mean squared error, and the largest principal angle in radians.

    The decoder's numbers are taken as they are, without the clamp that keeps reconstructions within [0, 1].
    """
    encode, decode = model.encoder[-1].double(), model.decoder[0].double()
    with torch.no_grad():
        mse = (decode(encode(items)) - items).square().mean().item()
        basis = torch.linalg.qr(decode.weight).Q
        # The sine of the angle: its cosine would lose what is below 1e-8.
        away = basis - exact.directions @ (exact.directions.T @ basis)
    return mse / exact.mse - 1, torch.linalg.matrix_norm(away, 2).clamp(max=1).asin().item()


def main() -> None:
    """Train, compare, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST's idx files; by default $NACRE_DATA/mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    source = f"mnist:{asked.data}" if asked.data else "mnist"
    dataset = load(DataSettings(data=source, validation=0.0))
    items = torch.from_numpy(dataset.items[dataset.rows("train")]).flatten(1).double() / 255
    exact = pca(items, CODES)
    print(f"PCA of {len(items):,} images: mean squared error {exact.mse:.6f}")
    gaps, angles, seconds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in asked.seeds:
            begun = time.perf_counter()
            linear = {"activation": "linear", "hidden": (), "loss": "mse", "latent_dim": CODES}
            run = nacre.train("ae", data=source, seed=seed, out=Path(folder) / str(seed), **linear, **TRAINING)
            seconds.append(time.perf_counter() - begun)
            gap, angle = compare(nacre.load(run).module, items, exact)
            gaps, angles = [*gaps, gap], [*angles, angle]
            print(f"seed {seed}: gap {gap:.1e}, angle {angle:.1e} rad, {seconds[-1]:.0f} s")
    values = {"relative_mse_gap": gaps, "largest_angle_rad": angles, "train_seconds": seconds, "pca_mse": exact.mse}
    print(rows.write_row("linear-ae", PROTOCOL, values, asked.seeds, len(items), wall_seconds=sum(seconds)))


if __name__ == "__main__":
    main()
