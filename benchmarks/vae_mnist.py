"""The VAE on MNIST with default flags: test ELBO in nats, dynamic binarization, Bernoulli likelihood.

    python benchmarks/vae_mnist.py --data DIR [--seeds 0 1 2]

Protocol: trained on the training images less 5 % for validation, for the default number of steps; the averaged weights
of the last step are judged on all 10,000 test images, one latent and one binarization an image, repeated over three
binarizations. It is a bound on log p(x), not an importance-weighted estimate.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import nacre
import rows
from nacre import images
from nacre.data import DataSettings, load
from nacre.engine import pictures

PROTOCOL = (
    "MNIST, dynamic binarization, Bernoulli likelihood; default flags (MLP 784-512-256-32 and back, batch 128, Adam 1e-3, "
    "EMA .999); ELBO in nats with one latent an image on all 10,000 test images, mean over 3 binarizations; averaged "
    "weights of the last step; one value a seed"
)


def main() -> None:
    """Train, judge, and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    source = f"mnist:{asked.data}"
    test = _test_images(source)
    elbos, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in asked.seeds:
            begun = time.perf_counter()
            run = nacre.train("vae", data=source, seed=seed, out=Path(folder) / str(seed), sample_every=0)
            seconds.append(time.perf_counter() - begun)
            model = nacre.load(run)
            draws = [model.log_likelihood(test, seed=draw).mean().item() for draw in range(3)]
            elbos.append(sum(draws) / len(draws))
            print(f"seed {seed}: test ELBO {elbos[-1]:.2f} nats, {seconds[-1]:.0f} s")
        pictures.save(
            Path("docs/vae-mnist.png"), pictures.page(nacre.load(Path(folder) / str(asked.seeds[0])).sample(64))
        )
    values = {"test_elbo_nats": elbos, "train_seconds": seconds}
    print(rows.write_row("vae-mnist", PROTOCOL, values, asked.seeds, len(test), wall_seconds=sum(seconds)))


def _test_images(source: str) -> torch.Tensor:
    dataset = load(DataSettings(data=source))
    return images.to_float(torch.from_numpy(dataset.items[dataset.rows("test")]))


if __name__ == "__main__":
    main()
