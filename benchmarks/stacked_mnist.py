"""Stacked MNIST: how many of a thousand kinds of image a generator makes, with packing and without.

    python benchmarks/stacked_mnist.py [--models dcgan:1 dcgan:2] [--steps 2000] [--width 16] [--seeds 0]

Protocol of VEEGAN and PacGAN (Srivastava et al. 2017; Lin et al. 2018) as far as the sampling goes: 128,000 stacks of three
training digits, 26,000 samples of the last weights, each channel's digit told by a classifier of MNIST; a mode is captured
if any sample is taken for it, and KL is that of the samples' modes from uniform ones. The training is far shorter than
theirs (50 epochs of 128,000, two steps of a generator with 64 filters for one of the discriminator), which is why the
published figures can stand beside these and not be compared with them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import nacre
import rows
from nacre.data import DataSettings, load
from nacre.images import to_float, to_uint8
from nacre.metrics import classifiers
from nacre.metrics.class_modes import ClassModes, class_modes, stacked_classes

SAMPLES = 26_000
PUBLISHED = {
    "dcgan (Lin et al. 2018)": {"modes": 78.9, "kl": 4.50},
    "pacdcgan2 (Lin et al. 2018)": {"modes": 1000, "kl": 0.06},
    "dcgan (Srivastava et al. 2017)": {"modes": 99, "kl": 3.40},
    "veegan (Srivastava et al. 2017)": {"modes": 150, "kl": 2.95},
}
PROTOCOL = (
    "stacked MNIST, 28x28, 26,000 samples of the averaged weights of the last step, brought to 256 levels; digits told by the "
    "pinned MNIST classifier (test accuracy {accuracy:.4f}); nacre train MODEL --pack m --width {width} --batch-size 64 --steps "
    "{steps} ({epochs:.1f} epochs of 128,000; published: 50), otherwise default flags; one value a seed"
)


def judge() -> tuple[classifiers.Classifier, float]:
    """The pinned classifier of MNIST, and its accuracy on test digits."""
    network, card = classifiers.load(Path(classifiers.__file__).with_name("pinned") / "mnist.safetensors")
    assert card.accuracy is not None
    return network.eval(), card.accuracy


def main() -> None:
    """Train, count, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST's idx files; by default $NACRE_DATA/mnist")
    parser.add_argument("--models", nargs="+", default=["dcgan:1", "dcgan:2"], help="names, each with its --pack")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    source = f"stacked-mnist:{asked.data}" if asked.data else "stacked-mnist"
    network, accuracy = judge()
    dataset = load(DataSettings(data=source), progress=True)
    test = torch.from_numpy(dataset.items[dataset.rows("test")])

    def counted(items: torch.Tensor) -> ClassModes:
        return class_modes(stacked_classes(network.logits, to_float(items)), 1000)

    real = counted(test)
    print(f"real stacks: {real.captured} modes, KL {real.kl.value:.4f}", flush=True)
    values: dict[str, float | list[float]] = {"real_modes": real.captured, "real_kl": real.kl.value}
    values |= {"kl_floor": real.floor, "judge_accuracy": accuracy}
    for name in asked.models:
        model, _, pack = name.partition(":")
        for seed in asked.seeds:
            begun, busy = time.perf_counter(), time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                settings = {"pack": int(pack or 1), "width": asked.width, "steps": asked.steps, "batch_size": 64}
                out = Path(folder) / "run"
                run = nacre.train(model, data=source, out=out, seed=seed, sample_every=0, **settings)
                samples = to_uint8(nacre.load(run).sample(SAMPLES, seed=seed))
            found = counted(samples)
            told = {"modes": found.captured, "kl": found.kl.value, "seconds": time.perf_counter() - begun}
            told["processor_seconds"] = time.process_time() - busy
            print(f"{name}, seed {seed}: {told}", flush=True)
            for key, value in told.items():
                values.setdefault(f"{model}{pack}_{key}", []).append(float(value))  # type: ignore[union-attr]
    protocol = PROTOCOL.format(
        accuracy=accuracy, width=asked.width, steps=asked.steps, epochs=asked.steps * 64 / 128_000
    )
    print(rows.write_row("stacked-mnist", protocol, values, asked.seeds, SAMPLES, published=PUBLISHED))


if __name__ == "__main__":
    main()
