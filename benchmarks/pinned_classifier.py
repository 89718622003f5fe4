"""The pinned classifiers of MNIST and Fashion-MNIST, whose weights come with nacre: trained, checked and written.

    python benchmarks/pinned_classifier.py --mnist FOLDER --fashion-mnist FOLDER

They are trained as the extractor `labels` is, on the training split of nacre's default settings (95 % of the published
training images), and stored as float16; their accuracy is that of the stored weights on the 10,000 published test images. A
run takes a minute or two on one core a data set. Other weights are other numbers: whoever runs this again changes the names
of all numbers that were taken in their features.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from nacre.data import DataSettings, load
from nacre.metrics import classifiers
from nacre.run.extractors import card_of, train

FOLDER = Path(__file__).resolve().parents[1] / "src" / "nacre" / "metrics" / "pinned"
LEAST = {"mnist": 0.985, "fashion-mnist": 0.89}
"""Accuracy that is worth shipping."""


def write(name: str, source: Path, out: Path, seed: int) -> Path:
    """Train one, and write its weights with their card."""
    dataset = load(DataSettings(data=f"{name}:{source}"))
    network = train(dataset, "pinned", seed).half().float()  # what is stored is what is judged
    card = card_of(network, dataset, "pinned", seed)
    if (card.accuracy or 0) < LEAST[name]:
        raise SystemExit(f"{name}: accuracy {card.accuracy}, expected {LEAST[name]} or more")
    path = out / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    card = classifiers.store(network, dataclasses.replace(card, data=name), path, half=True)
    print(json.dumps({"name": card.name, **dataclasses.asdict(card), "bytes": path.stat().st_size}), flush=True)
    return path


def main() -> None:
    """Write those whose data are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in classifiers.PINNED:
        parser.add_argument(f"--{name}", type=Path, help=f"folder of {name}'s idx files")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and shifts")
    asked = parser.parse_args()
    for name in classifiers.PINNED:
        source = getattr(asked, name.replace("-", "_"))
        if source is not None:
            write(name, source, asked.out, asked.seed)


if __name__ == "__main__":
    main()
