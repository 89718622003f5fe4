"""Smiles by arithmetic: does the smile direction of the training faces turn a face, and is the face still the same one?

    python benchmarks/arithmetic.py --data smiles-64.tar.gz --vae runs/vae --vaegan runs/vaegan --gan runs/gan [--only NAME …]

Protocol: SMILEs, 64×64 grey, 90 % to train on, 5 % to choose the strength on (at most 80 faces a class), 5 % to test on.
Pictures that occur twice, with one label or with both, are left out of the last two. The direction is the mean code of all
training smiles minus that of all neutral training faces, and codes are the encoder's; a model of smaller faces is given faces
of its size, and what it makes is enlarged bilinearly. A GAN's direction is from the tenth of 2,000 samples that smile least
to the tenth that smiles most, by a ridge regression of the training labels on pixels; the faces that are moved are searched
(60 steps of Adam, 40 of L-BFGS from one start). Method "dfi" is `interpolate_features` in the features of the GAN's
discriminator, from the 100 nearest of 200 training faces of a class to those of the other, in 80 steps, its strength being β.
Neutral faces are moved along the direction and smiling ones against it. What has "kept" in its name is the face itself plus
the change that the method makes to its likeness, x + decode(z + s d) - decode(z): `nacre arithmetic --keep-residual`;
"matched" has, besides, the face's own brightness and contrast (`--keep-colours`), for smiling people of this set are in
better light. Method "pixels" adds the mean difference of the images themselves.
A face is flipped if the referee, which nothing else has seen, calls the result the other class; the flip rate is the mean of
the rates of both classes, for 72 % are neutral. The strength is the smallest of those tried that flips 85 % of the validation
faces, for the 80 % that are asked for of others, or the one that flips most. A face is known again if, of 500 originals, its
own is nearest to the result: in the features of a network with random weights (`rank1`) and in standardised pixels
(`rank1_pixels`). `rank1_of_pixels_at_this_rate` is what method "pixels", matched beside what is matched, scores at the first
of its strengths that flips as many test faces. Of search and dfi there are fewer faces.
Image2Vec: 2,000 samples of the GAN; out of the tenths that the referee is surest of, three smiles, three neutral faces and
three other neutral ones a trial; 20 trials, and a flip is a smile in C - A + B, of means of three.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import nacre
import rows
from nacre import editing, images
from nacre.cli import sheets
from nacre.data import DataSet, DataSettings, load
from nacre.data.dataset import SPLITS
from nacre.editing.dfi import Interpolating, interpolate_features, matched
from nacre.editing.features import features_of
from nacre.engine import pictures
from nacre.metrics.extractors import random_extractor
from nacre.pretrained import Pretrained
from nacre.run.extractors import referee

STRENGTHS = tuple(np.arange(0, 6.01, 0.25).tolist())
METHODS = ("vae", "vaegan", "gan", "dfi", "image2vec")
BETAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
ENOUGH, GALLERY, TRIALS, SAMPLES, SHOWN, EXAMPLES = 0.85, 500, 20, 2000, 10, 200
VALIDATED = 80
SEARCH = editing.Search(restarts=1, adam_steps=60, lbfgs_steps=40)
PICTURE = Path("docs/smiles.png")


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


Moving = Callable[[float], Tensor]
"""A strength ↦ images, (N, 1, 64, 64)."""


@dataclass(frozen=True)
class Method:
    """A way to move faces.

    Attributes:
        name: as it is called in the row.
        mover: of some faces, what becomes of them at a strength: neutral ones along the direction, smiling ones against it.
        strengths: that are tried, from 0 on.
        few: faces of a class that there is time for; half as many of the validation part.
        remakes: whether it shows a likeness of a face, of which the change alone can be taken.
    """

    name: str
    mover: Callable[[Faces], Moving]
    strengths: tuple[float, ...] = STRENGTHS
    few: int = 10**9
    remakes: bool = True

    @property
    def variants(self) -> tuple[str, ...]:
        """What its results are shown with, as their names end."""
        return ("", "_kept", "_matched") if self.remakes else ("", "_matched")


def faces_of(dataset: DataSet) -> list[Faces]:
    """The faces to train on, to choose by and to test on; of the last two, none that occurs twice in the set."""
    _, first, count = np.unique(
        dataset.items.reshape(len(dataset.items), -1), axis=0, return_index=True, return_counts=True
    )
    assert dataset.labels is not None
    smile, found = dataset.labels == dataset.classes.index("smile"), []
    for split in SPLITS:
        rows = dataset.rows(split)
        rows = rows if split == "train" else np.intersect1d(rows, first[count == 1])
        found.append(Faces(images.to_float(torch.from_numpy(dataset.items[rows])), torch.from_numpy(smile[rows])))
    return found


def methods_of(asked: argparse.Namespace, train: Faces) -> list[Method]:
    """Pixels, and what is asked for of the runs that were given."""
    pixels = by_codes(train, lambda x: x.flatten(1), lambda z: z.view(-1, 1, 64, 64).clamp(0, 1))
    found = [Method("pixels", pixels, remakes=False)]
    for name in ("vae", "vaegan"):
        if name in asked.only and (run := getattr(asked, name)):
            found.append(Method(name, by_codes(train, *coding(nacre.load(run)))))
    if asked.gan and "gan" in asked.only:
        found.append(Method("gan", by_search(train, nacre.load(asked.gan)), few=asked.searched))
    if asked.gan and "dfi" in asked.only:
        found.append(Method("dfi", by_features(train, nacre.load(asked.gan)), BETAS, few=asked.searched, remakes=False))
    return found


def coding(model: Pretrained) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """How faces of 64×64 are encoded and decoded, also by a model of smaller ones."""
    if model.shape[1] == 64:
        return model.encode, model.decode
    small = partial(F.interpolate, size=model.shape[1:], mode="area")
    large = partial(F.interpolate, size=64, mode="bilinear")
    return lambda x: model.encode(small(x)), lambda z: large(model.decode(z))


def by_codes(
    train: Faces, encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]
) -> Callable[[Faces], Moving]:
    """Arithmetic with an encoder's codes."""
    way = direction(train, encode(train.items))
    return lambda faces: along(way, encode(faces.items), decode, faces)


def by_search(train: Faces, model: Pretrained) -> Callable[[Faces], Moving]:
    """Arithmetic with latents that are searched for, along the direction in which samples smile."""
    codes = editing.random_codes(model.module, SAMPLES, seed=3)
    order = ridge(train)(model.decode(codes)).argsort()
    way = codes[order[-SAMPLES // 10 :]].mean(0) - codes[order[: SAMPLES // 10]].mean(0)

    def mover(faces: Faces) -> Moving:
        found = editing.invert(model.module, faces.items, SEARCH)
        print(f"inverted {len(faces.items)} faces: median residual {found.residual.median():.4f}", flush=True)
        return along(way, found.codes, model.decode, faces)

    return mover


def ridge(train: Faces) -> Callable[[Tensor], Tensor]:
    """How much images smile, by a ridge regression on standardised pixels of a quarter of the size."""

    def seen(items: Tensor) -> Tensor:
        return standardised(F.avg_pool2d(items, 2))

    x, y = seen(train.items), train.smile.double() - 0.5
    weights = torch.linalg.solve(x.T @ x + len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return lambda items: seen(items) @ weights


def by_features(train: Faces, model: Pretrained) -> Callable[[Faces], Moving]:
    """Deep feature interpolation in what the model's discriminator sees."""
    few, see = train.spread(EXAMPLES), features_of(model.module, "discriminator")
    neutral, smiling = few.items[~few.smile], few.items[few.smile]

    def mover(faces: Faces) -> Moving:
        def moved(strength: float) -> Tensor:
            how, result = Interpolating(strength=strength, steps=80), faces.items.clone()
            for kind, source, target in ((False, neutral, smiling), (True, smiling, neutral)):
                chosen = faces.smile == kind
                if strength and chosen.any():
                    result[chosen] = interpolate_features(see, faces.items[chosen], source, target, how).images
            return result

        return moved

    return mover


def direction(faces: Faces, codes: Tensor) -> Tensor:
    """From neutral faces to smiling ones, in the space of their codes."""
    return codes[faces.smile].mean(0) - codes[~faces.smile].mean(0)


def along(way: Tensor, codes: Tensor, decode: Callable[[Tensor], Tensor], faces: Faces) -> Moving:
    """Codes moved by a strength, neutral faces' along the direction and smiling ones' against it."""
    signs = torch.where(faces.smile, -1.0, 1.0).to(codes)[:, None]
    return lambda strength: decode(codes + strength * signs * way)


def keeping(faces: Faces, made: Moving) -> Moving:
    """The faces themselves with the change that is made to their likeness."""
    return lambda strength: (faces.items + made(strength) - made(0.0)).clamp(0, 1)


def matching(faces: Faces, made: Moving) -> Moving:
    """The same, with the brightness and contrast of the faces."""
    kept = keeping(faces, made)
    return lambda strength: matched(kept(strength), faces.items)


VARIANTS: dict[str, Callable[[Faces, Moving], Moving]] = {
    "": lambda faces, made: made,
    "_kept": keeping,
    "_matched": matching,
}


class Bench:
    """The faces, the referee, and what is measured with them."""

    def __init__(self, asked: argparse.Namespace) -> None:
        dataset = load(DataSettings(data=asked.data))
        self.referee = referee(dataset)
        self.train, self.validation, test = faces_of(dataset)
        self.test = test[torch.randperm(len(test.items), generator=torch.Generator().manual_seed(0))[:GALLERY]]
        self.smiling = dataset.classes.index("smile")
        self.see = random_extractor(0)
        self.shown = self.test[torch.nonzero(~self.test.smile).squeeze(1)[:SHOWN]]
        self.methods = methods_of(asked, self.train)
        self.curves: dict[bool, list[dict[str, float]]] = {}

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

    def measure(self, method: Method) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Its figures on test faces, and what becomes of ten neutral ones, by name."""
        validation, test = self.validation.spread(min(VALIDATED, method.few // 2)), self.test.spread(method.few)
        sets = (validation, test, self.shown)
        remade: list[Moving] = [cache(method.mover(faces)) for faces in sets]
        values = {"faces": float(len(test.items)), "validation_faces": float(len(validation.items))}
        page = {}
        for suffix in method.variants:
            tried, tested, shown = map(VARIANTS[suffix], sets, remade)
            strength, rate = self.strength(method, validation, tried)
            found = self.figures(test, tested(strength)) | {"strength": strength, "validation_flipped": rate}
            if not suffix:
                found |= {f"{name}_unmoved": value for name, value in self.figures(test, tested(0.0)).items()}
            values |= {f"{name}{suffix}": value for name, value in found.items()}
            page[f"{method.name}{suffix}"] = shown(strength)
        return values, page

    def strength(self, method: Method, faces: Faces, made: Moving) -> tuple[float, float]:
        """The smallest strength that flips enough, or the one that flips most, and its rate."""
        rates = []
        for strength in method.strengths:
            rates.append(self.flipped(faces, made(strength)))
            if rates[-1] >= ENOUGH:
                break
        place = int(np.argmax(rates))
        return method.strengths[place], rates[place]

    def figures(self, faces: Faces, moved: Tensor) -> dict[str, float]:
        """How many are flipped, and how many known again."""
        return {"flipped": self.flipped(faces, moved), **self.known(faces, moved)}

    def of_pixels_at(self, rate: float, match: bool) -> float:
        """How many test faces are known again where the mean difference of pixels flips as many, in steps of one quarter.

        If it never flips as many, at the strength that flips most.
        """
        if match not in self.curves:
            (pixels,) = (method for method in self.methods if method.name == "pixels")
            made = pixels.mover(self.test)
            made = matching(self.test, made) if match else made
            self.curves[match] = [self.figures(self.test, made(strength)) for strength in pixels.strengths[4:]]
        enough = [each["rank1"] for each in self.curves[match] if each["flipped"] >= rate]
        return enough[0] if enough else max(self.curves[match], key=lambda each: each["flipped"])["rank1"]

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
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="beside pixels")
    parser.add_argument(
        "--searched", type=int, default=20, help="test faces of a class that search and dfi are tried on"
    )
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    bench = Bench(asked)
    accuracy = balanced(bench.smiles(bench.test.items) == bench.test.smile, bench.test.smile)
    values: dict[str, float] = {"referee_balanced_accuracy": accuracy}
    print(values, flush=True)
    page = {"given": bench.shown.items}
    for method in bench.methods:
        found, shown = bench.measure(method)
        for suffix in method.variants:
            found[f"rank1_of_pixels_at_this_rate{suffix}"] = bench.of_pixels_at(
                found[f"flipped{suffix}"], suffix == "_matched"
            )
        print(method.name, found, flush=True)
        values |= {f"{method.name}_{name}": value for name, value in found.items()}
        page |= shown
    if asked.gan and "image2vec" in asked.only:
        found, pairs = bench.image2vec(nacre.load(asked.gan))
        print("image2vec", found, flush=True)
        values |= {f"image2vec_{name}": value for name, value in found.items()}
        page |= {"samples C": pairs[::2], "C - A + B": pairs[1::2]}
    pictures.save(PICTURE, figure(page))
    protocol = str(__doc__).split("Protocol: ")[1].strip()
    runs = {name: nacre.load(run).facts for name in ("vae", "vaegan", "gan") if (run := getattr(asked, name))}
    facts: dict[str, Any] = {"runs": runs, "referee": bench.referee.name, "load_average": os.getloadavg()[0]}
    print(rows.write_row("smile-arithmetic", protocol, values, [0], GALLERY, results=asked.results, **facts))


def figure(page: dict[str, Tensor]) -> np.ndarray:
    """A row of ten faces each, with its name under the first: (height, width) uint8."""
    captions = [word for name in page for word in [name.replace("_", ", "), *[""] * (SHOWN - 1)]]
    return sheets.captioned(torch.cat(list(page.values())), captions, SHOWN)[:, :, 0]


if __name__ == "__main__":
    main()
