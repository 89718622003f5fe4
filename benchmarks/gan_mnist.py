"""The GAN with DCGAN networks on MNIST with default flags, judged by an independent classifier.

    python benchmarks/gan_mnist.py --data DIR [--seeds 0]

Protocol: trained on the training images less 5 % for validation; 10,000 samples of the averaged weights of the last
step. The judge (benchmarks/mnist_judge.py) is a convolutional classifier that never met nacre: class histogram against
uniform, confidence against that on real test images, precision, recall, density and coverage (k = 5) in its features
against the 10,000 test images, and the same four for 10,000 training images it was not trained on.
"""

import argparse
import tempfile
import time
from pathlib import Path

import nacre
import rows
from mnist_judge import open_judge
from nacre import images
from nacre.engine import pictures

PROTOCOL = (
    "MNIST 28x28; default flags; 10,000 samples of the averaged weights of the last step; judge: convolutional classifier "
    "(benchmarks/mnist_judge.py), k = 5, references: 10,000 test images; real: 10,000 training images"
)
KEPT = (
    "kl_uniform",
    "confidence_median",
    "precision",
    "recall",
    "density",
    "coverage",
    "recall_ratio",
    "coverage_ratio",
)


def main() -> None:
    """Train, judge, and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--judge", type=Path, default=None, help="where the judge's weights are kept")
    asked = parser.parse_args()
    judge = open_judge(data=asked.data, weights=asked.judge)
    verdicts, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in asked.seeds:
            begun = time.perf_counter()
            run = nacre.train(
                "gan", data=f"mnist:{asked.data}", seed=seed, out=Path(folder) / str(seed), sample_every=0
            )
            seconds.append(time.perf_counter() - begun)
            samples = nacre.load(run).sample(10_000)
            verdicts.append(judge(images.to_uint8(samples).numpy()))
            print(f"seed {seed}, {seconds[-1]:.0f} s: " + ", ".join(f"{k} {verdicts[-1][k]:.4f}" for k in KEPT))
            if seed == asked.seeds[0]:
                pictures.save(Path("docs/gan-mnist.png"), pictures.page(samples[:64]))
    values = {name: [verdict[name] for verdict in verdicts] for name in KEPT} | {"train_seconds": seconds}
    real = {k: verdicts[0][k] for k in ("judge", "real", "kl_floor", "confidence_real_p10", "confidence_real_median")}
    print(rows.write_row("gan-mnist", PROTOCOL, values, asked.seeds, 10_000, wall_seconds=sum(seconds), reference=real))


if __name__ == "__main__":
    main()
