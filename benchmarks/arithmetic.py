"""Smiles by arithmetic: does the smile direction of the training faces turn a face, and is the face still the same one?

    python benchmarks/arithmetic.py --data smiles-64.tar.gz --vae runs/vae --vaegan runs/vaegan --gan runs/gan

Protocol: SMILEs, 64×64 grey, 90 % to train on, 5 % to choose the strength on, 5 % to test on. Pictures that occur twice, with one
label or with both, are left out of the last two. The direction is the mean code of training smiles minus that of training neutral
faces; codes are the encoder's or, for the GAN, found by `nacre.editing.invert` (one search: 60 steps of Adam, 40 of L-BFGS), of
fewer images as the row says. Neutral faces are moved along it and smiling ones against it. A face is flipped if the referee,
which nothing else has seen, calls the result the other class; the flip rate is the mean of the rates of both classes, for 72 %
are neutral. The strength is the smallest of 0, .25 … 4 that flips 80 % of the validation faces, or the one that flips most. A
face is known again if, of 500 originals, its own is nearest to the result: in the features of a network with random weights
(`rank1`) and in standardised pixels (`rank1_pixels`). Method "pixels" adds the mean difference of the images themselves.
Image2Vec: 2,000 samples of the GAN; out of the tenths that the referee is surest of, three smiles, three neutral faces and
three other neutral ones a trial; 20 trials, and a flip is a smile in C - A + B, of means of three.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nacre
import rows
from nacre import editing, images
from nacre.data import DataSet, DataSettings, load
from nacre.engine import pictures
from nacre.metrics.extractors import random_extractor
from nacre.pretrained import Pretrained
from nacre.run.extractors import referee

STRENGTHS = torch.arange(0, 4.01, 0.25)
ENOUGH, GALLERY, TRIALS, SAMPLES = 0.8, 500, 20, 2000
SEARCH = editing.Search(restarts=1, adam_steps=60, lbfgs_steps=40)
PICTURE = Path("docs/smiles.png")

Move = Callable[[Tensor, Tensor], Tensor]
"""Codes (N, D) and one strength each (N,) ↦ images."""


@dataclass(frozen=True)
class Faces:
    """Images (N, 1, 64, 64) in [0, 1], and whether they smile, (N,) bool."""

    items: Tensor
    smile: Tensor

    def __getitem__(self, rows: Any) -> "Faces":
        return Faces(self.items[rows], self.smile[rows])

    def spread(self, count: int) -> "Faces":
        """At most `count` of each class, at equal distances."""
        chosen = [torch.nonzero(self.smile == kind).squeeze(1) for kind in (False, True)]
        return self[torch.cat([rows[:: max(1, -(-len(rows) // count))] for rows in chosen])]


@dataclass(frozen=True)
class Method:
    """A way to move faces: its codes of faces, how they are moved, and how many faces there were to spend."""

    name: str
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    training: int
    held_out: int


def faces_of(dataset: DataSet, split: str) -> Faces:
    """The faces of a split; of those to judge by, none that occurs twice in the set."""
    rows = dataset.rows(split)  # type: ignore[arg-type]
    if split != "train":
        _, first, count = np.unique(
            dataset.items.reshape(len(dataset.items), -1), axis=0, return_index=True, return_counts=True
        )
        rows = np.intersect1d(rows, first[count == 1])
    assert dataset.labels is not None
    smile = torch.from_numpy(dataset.labels[rows] == dataset.classes.index("smile"))
    return Faces(images.to_float(torch.from_numpy(dataset.items[rows])), smile)


def methods_of(asked: argparse.Namespace) -> list[Method]:
    """Pixels, and one method for each run that was given."""
    everything = 10**9
    found = [
        Method("pixels", lambda x: x.flatten(1), lambda z: z.view(-1, 1, 64, 64).clamp(0, 1), everything, everything)
    ]
    for name in ("vae", "vaegan"):
        if run := getattr(asked, name):
            model = nacre.load(run)
            found.append(Method(name, model.encode, model.decode, everything, everything))
    if asked.gan and asked.inverted:
        model = nacre.load(asked.gan)
        found.append(Method("gan", inverting(model), model.decode, asked.inverted, asked.inverted))
    return found


def inverting(model: Pretrained) -> Callable[[Tensor], Tensor]:
    """Codes by search, with a line on how near the images came."""

    def encode(items: Tensor) -> Tensor:
        found = editing.invert(model.module, items, SEARCH)
        print(f"inverted {len(items)} faces: median residual {found.residual.median():.4f}", flush=True)
        return found.codes

    return encode


class Bench:
    """The faces, the referee, and what is measured with them."""

    def __init__(self, data: str) -> None:
        dataset = load(DataSettings(data=data))
        self.referee = referee(dataset)
        self.train, self.validation, test = (faces_of(dataset, split) for split in ("train", "validation", "test"))
        self.test = test[torch.randperm(len(test.items), generator=torch.Generator().manual_seed(0))[:GALLERY]]
        self.smiling = dataset.classes.index("smile")
        self.see = random_extractor(0)

    def smiles(self, items: Tensor) -> Tensor:
        """What the referee says: (N,) bool."""
        return self.chance(items) > 0.5

    def chance(self, items: Tensor) -> Tensor:
        """The referee's probability of a smile."""
        return self.referee.probabilities(items)[:, self.smiling]

    def flipped(self, faces: Faces, moved: Tensor) -> float:
        """Mean over both classes of the share that is now of the other."""
        changed = self.smiles(moved) != faces.smile
        return balanced(changed, faces.smile)

    def known(self, faces: Faces, moved: Tensor) -> dict[str, float]:
        """Mean over both classes of the share whose own original is the nearest of 500."""
        gallery = torch.cat([faces.items, self.others(faces)])
        shares = {}
        for name, see in (("rank1", self.see), ("rank1_pixels", standardised)):
            nearest = torch.cdist(see(moved).double(), see(gallery).double()).argmin(1)
            shares[name] = balanced(nearest == torch.arange(len(moved)), faces.smile)
        return shares

    def others(self, faces: Faces) -> Tensor:
        """Test faces that are not among these."""
        own = {face.numpy().tobytes() for face in faces.items}
        return self.test.items[[row for row, face in enumerate(self.test.items) if face.numpy().tobytes() not in own]]

    def measure(self, method: Method) -> tuple[dict[str, float], Tensor, Tensor]:
        """Its figures on test faces, and ten neutral ones as they are remade and as they are moved."""
        train, validation = self.train.spread(method.training), self.validation.spread(method.held_out // 2)
        test = self.test.spread(method.held_out)
        codes = method.encode(train.items)
        way = codes[train.smile].mean(0) - codes[~train.smile].mean(0)
        codes = method.encode(validation.items)
        rates = [
            self.flipped(validation, move(method, codes, way, validation, strength)) for strength in STRENGTHS.tolist()
        ]
        place = next((place for place, rate in enumerate(rates) if rate >= ENOUGH), int(np.argmax(rates)))
        strength = float(STRENGTHS[place])
        codes = method.encode(test.items)
        remade, moved = (move(method, codes, way, test, each) for each in (0.0, strength))
        values = {
            "strength": strength,
            "validation_flipped": rates[place],
            "flipped": self.flipped(test, moved),
            "flipped_unmoved": self.flipped(test, remade),
            **self.known(test, moved),
            **{f"{name}_unmoved": value for name, value in self.known(test, remade).items()},
            "faces": float(len(test.items)),
            "training_faces": float(len(train.items)),
        }
        ten = torch.nonzero(~test.smile).squeeze(1)[:10]
        return values, remade[ten], moved[ten]

    def image2vec(self, model: Pretrained) -> tuple[dict[str, float], Tensor]:
        """Of 20 trials with means of three samples, the share that smiles, and its neighbours'; and the pictures."""
        codes = editing.random_codes(model.module, SAMPLES, seed=2)
        order = self.chance(model.decode(codes)).argsort()
        tenth, generator = SAMPLES // 10, torch.Generator().manual_seed(0)
        neutral, smiling = order[:tenth], order[-tenth:]
        flips, before, around, shown = [], [], [], []
        for trial in range(TRIALS):
            some = neutral[torch.randperm(tenth, generator=generator)[:6]]
            plus, minus, to = (
                codes[smiling[torch.randperm(tenth, generator=generator)[:3]]],
                codes[some[:3]],
                codes[some[3:]].mean(0),
            )
            result = to + editing.direction(model.module, plus, minus)
            ring = editing.neighbours(model.module, result, seed=trial)
            made = model.decode(torch.cat([to[None], result[None], ring]))
            told = self.smiles(made)
            before.append(told[0].item())
            flips.append((told[1] & ~told[0]).item())
            around.append(told[2:].float().mean().item())
            shown.append(made[:2])
        values = {
            "flipped": float(np.mean(flips)),
            "smiling_before": float(np.mean(before)),
            "neighbours_smiling": float(np.mean(around)),
        }
        return values, torch.cat(shown[:10])


def move(method: Method, codes: Tensor, way: Tensor, faces: Faces, strength: float) -> Tensor:
    """Neutral faces along the direction, smiling ones against it."""
    signs = torch.where(faces.smile, -strength, strength).to(codes)
    return method.decode(codes + signs[:, None] * way)


def balanced(right: Tensor, smile: Tensor) -> float:
    """The mean of two classes' shares."""
    return float((right[smile].double().mean() + right[~smile].double().mean()) / 2)


def standardised(items: Tensor) -> Tensor:
    """Pixels of mean 0 and deviation 1 in each image: their distances are correlations."""
    flat = items.flatten(1).double()
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)


def main() -> None:
    """Measure every method, and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the images")
    for name in ("vae", "vaegan", "gan"):
        parser.add_argument(f"--{name}", help="a run of this model on them")
    parser.add_argument(
        "--inverted", type=int, default=40, help="faces of a class that latents are searched for, of each set"
    )
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    bench = Bench(asked.data)
    accuracy = balanced(bench.smiles(bench.test.items) == bench.test.smile, bench.test.smile)
    values: dict[str, float] = {"referee_balanced_accuracy": accuracy}
    print(values, flush=True)
    page = []
    for method in methods_of(asked):
        found, remade, moved = bench.measure(method)
        print(method.name, found, flush=True)
        values |= {f"{method.name}_{name}": value for name, value in found.items()}
        if method.name != "pixels":
            page += [remade, moved]
    if asked.gan:
        found, pairs = bench.image2vec(nacre.load(asked.gan))
        print("image2vec", found, flush=True)
        values |= {f"image2vec_{name}": value for name, value in found.items()}
        page += [pairs[::2], pairs[1::2]]
    pictures.save(PICTURE, pictures.page(torch.cat(page), columns=10))
    protocol = str(__doc__).split("Protocol: ")[1].strip()
    runs = {name: nacre.load(run).facts for name in ("vae", "vaegan", "gan") if (run := getattr(asked, name))}
    facts: dict[str, Any] = {"runs": runs, "referee": bench.referee.name, "load_average": os.getloadavg()[0]}
    print(rows.write_row("smile-arithmetic", protocol, values, [0], GALLERY, results=asked.results, **facts))


if __name__ == "__main__":
    main()
