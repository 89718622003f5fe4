"""One kind of images into another: emoji of two styles, and drawings and photos of clothes, beside ways that learn nothing.

    python benchmarks/translation.py emoji train --data emoji-noto-64.zip --data-b emoji-twemoji-64.zip --runs runs/translation
    python benchmarks/translation.py emoji judge --data emoji-noto-64.zip --data-b emoji-twemoji-64.zip --runs runs/translation
    NACRE_DATA=DIR python benchmarks/translation.py clothes train --runs runs/translation      # and judge

`train` begins the runs of a table below or goes on with them (--only NAME … for some); `judge` judges those that are there.

Emoji: Noto (A) and Twemoji (B) at 32×32 pixels, 2,348 of either to train on (some of them kept aside to validate with), in
which every emoji occurs in both styles and training is never told so; judged on the 205 emoji that both sets keep aside, whose
counterparts are known. Averaged weights of the last step; nothing is chosen by the 205. Distances to the true counterpart: L1
in [0, 1]; 1 - SSIM (11 pixels, σ = 1.5); Euclidean distance in the features of a referee, a classifier of group and style (18
classes) trained on the training images of both sets and used for nothing else, and of a network with random weights. A ratio
is the mean distance over the mean distance of the input as it is, its interval the bootstrap's over the images. Histograms: a
curve for each channel that gives the source set's levels the target set's distribution. Nearest: the training image of the
target style that has the least squared distance to the input. Nearest pair: the counterpart of the nearest training image of
the input's own style, which takes pairs, as pix2pix does. The style is said by two judges (style.py), each trained on the
training images of both: a forest of 300 trees that sees colours and edges, and five networks that see shading and forms and
know no exact colours. The row says how many of the held-out emoji, and of copies of them with noise, blur or few
colours, each knows.
Ablations are judged at an early step, beside the main run's checkpoint there, up to which the learning rate is the same in
all.

Emoji-64: the same at 64×64, by `cyclegan` with its default flags; longer, in bfloat16 and with a judge of smaller patches; and
for 9,000 steps like that with λ = 2, a weaker cycle, which was chosen by the style of validation pairs at 2,500 steps; and for
8,000 steps of 4 with judges of edges (κ = 32) through noise of two levels of 255, tried before, with noise and without, for 6,000
steps on validation pairs. The style's networks lift steps between pixels alike, the forest counts them by size.

Clothes: Fashion-MNIST, 28×28. A is drawings, the lines where Sobel's gradient exceeds a fifth of its largest value in the image,
of training images 0 to 9,999; B is training images 10,000 to 19,999, so that no pair exists. Judged on the first 1,000 test
images in the features of nacre's pinned classifier, which training never saw, and by the share that it classifies right.
"""

import argparse
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import nacre
import rows
import style
from nacre import images
from nacre.data import DataSet, DataSettings, load, sides
from nacre.engine import pictures
from nacre.metrics import classifiers
from nacre.metrics.diversity import ssim
from nacre.metrics.extractors import Extractor, random_extractor, read
from nacre.metrics.intervals import bootstrap, share
from nacre.run.extractors import referee
from style import BACK, COPIES, STYLES, Images, copied, floats

SIZES = {"emoji": 32, "emoji-64": 64}
HELD_OUT, SHOWN = 205, 16
DRAWN, TESTED = 10_000, 1_000
FAINTEST = 0.2
"""Of a drawing's lines, as a share of the largest gradient in the image."""

PICTURES = {
    "emoji": Path("docs/translation.png"),
    "emoji-64": Path("docs/translation-64.png"),
    "clothes": Path("docs/translation-clothes.png"),
}


@dataclass(frozen=True)
class Course:
    """A training: the model and what differs from its defaults.

    Attributes:
        swapped: A and B change places, for a model that goes one way.
        ablation: it is judged at an early step, up to which the learning rate is constant.
    """

    model: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    swapped: bool = False
    ablation: bool = False


EVERY = 500
ABLATED = {"emoji": ("cyclegan", 1_000), "emoji-64": ("edges", 2_000)}
"""The run whose ablations these are, and the step that they and it are judged at."""

NARROW: Mapping[str, Any] = {"width": 32, "batch_size": 4}
UNET: Mapping[str, Any] = {**NARROW, "network": "unet", "judge_layers": 2}
LIFTED: Mapping[str, Any] = {
    "precision": "bf16",
    "judge_layers": 2,
    "batch_size": 4,
    "judge_edges": 32.0,
    "instance_noise": 0.008,
}
CUT: Mapping[str, Any] = {**UNET, "steps": 2_000, "lr_schedule": "constant"}
LIFTED_CUT: Mapping[str, Any] = {**LIFTED, "steps": 2_000, "lr_schedule": "constant"}
COURSES: Mapping[str, Mapping[str, Course]] = {
    "emoji": {
        "cyclegan": Course("cyclegan", {**UNET, "steps": 16_000}),
        "no-cycle": Course("cyclegan", {**CUT, "cycle": 0.0}, ablation=True),
        "no-identity": Course("cyclegan", {**CUT, "identity": 0.0}, ablation=True),
        "small-patches": Course("cyclegan", {**UNET, "steps": 12_000, "judge_layers": 1}, ablation=True),
        "pix2pix-a2b": Course("pix2pix", {**NARROW, "steps": 8_000}),
        "pix2pix-b2a": Course("pix2pix", {**NARROW, "steps": 8_000}, swapped=True),
    },
    "emoji-64": {
        "cyclegan": Course("cyclegan", {}),
        "longer": Course("cyclegan", {"precision": "bf16", "judge_layers": 2, "steps": 18_000}),
        "weak-cycle": Course("cyclegan", {"precision": "bf16", "judge_layers": 2, "cycle": 2.0, "steps": 9_000}),
        "edges": Course("cyclegan", {**LIFTED, "steps": 8_000}),
        "no-cycle": Course("cyclegan", {**LIFTED_CUT, "cycle": 0.0}, ablation=True),
        "no-identity": Course("cyclegan", {**LIFTED_CUT, "identity": 0.0}, ablation=True),
        "pix2pix-a2b": Course("pix2pix", {**NARROW, "steps": 8_000}),
        "pix2pix-b2a": Course("pix2pix", {**NARROW, "steps": 8_000}, swapped=True),
    },
    "clothes": {"clothes": Course("cyclegan", {**UNET, "steps": 10_000, "identity": 0.0})},
}


@dataclass(frozen=True)
class Bench:
    """Two kinds of images and who judges their translations.

    Attributes:
        train: training images of either kind, uint8.
        pairs: training images of either kind, row by row of the same thing; None where there are none.
        test: held-out pairs, float.
        distances: by name: two batches ↦ (N,).
        kinds: images and the direction that made them ↦ whether each is what it should be, (N,) bool, by name.
    """

    train: Images
    pairs: Images | None
    test: Images
    distances: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    kinds: Mapping[str, Callable[[Tensor, str], Tensor]]


def emoji(asked: argparse.Namespace) -> tuple[Bench, dict[str, Any]]:
    """The emoji, and the networks that judge them, trained here or taken from the cache."""
    data = load(DataSettings(data=asked.data, data_b=asked.data_b, image_size=SIZES[asked.pair]))
    assert data.other is not None
    training, testing = (sides.paired_rows(data, split) for split in ("train", "test"))  # type: ignore[arg-type]
    train = {"a2b": taken(data, data.rows("train")), "b2a": taken(data.other, data.other.rows("train"))}
    pairs = {"a2b": taken(data, training[0]), "b2a": taken(data.other, training[1])}
    test = {"a2b": taken(data, testing[0]), "b2a": taken(data.other, testing[1])}
    assert len(test["a2b"]) == HELD_OUT
    seen = {way: copies(test[way], train[way]) for way in BACK}
    group, names = groups(data, Path(asked.data))
    judge = referee(of_both(data, (group, group + len(names)), tuple(f"{s} {n}" for s in STYLES for n in names)))
    distances = {"L1": l1, "1 - SSIM": unlike, "referee": far(judge.features), "random": far(random_extractor(0))}
    kinds: dict[str, Callable[[Tensor, str], Tensor]] = {
        "style by shading": style.networks(train),
        "style by colours and edges": style.forest(train),
    }
    told = {"referee": judge.name, "referee_accuracy": judge.card.accuracy, "held_out_seen_in_training": seen}
    real = {way: floats(each) for way, each in test.items()}
    for name, right in kinds.items():
        for noise, blur, colours in COPIES:
            told[f"{name}: accuracy on the held-out, noise {noise}, blur {blur}, colours {colours}"] = {
                way: float(right(floats(copied(test[BACK[way]], noise, blur, colours)), way).float().mean())
                for way in BACK
            }
    return Bench(train, pairs, real, distances, kinds), told


def groups(data: DataSet, archive: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The Unicode group of every emoji, and the groups' names."""
    with zipfile.ZipFile(archive) as file:
        (notes,) = (name for name in file.namelist() if name.endswith("metadata.jsonl"))
        told = [json.loads(line) for line in file.read(notes).decode().splitlines()]
    of = {each["file_name"]: each["group"] for each in told}
    names, numbers = np.unique([of[name] for name in data.names], return_inverse=True)
    return numbers.astype(np.int64), tuple(map(str, names))


def of_both(data: DataSet, labels: tuple[np.ndarray, np.ndarray], classes: tuple[str, ...]) -> DataSet:
    """One data set of the images of both sides, with labels: those of A's images, and of B's that are called the same."""
    other = data.other
    assert other is not None
    assert data.names == other.names
    numbers = np.concatenate(labels)
    state = blake2b(f"{data.fingerprint} {numbers.tolist()}".encode(), digest_size=16)
    return replace(
        data,
        source="emoji-of-both-styles",
        items=np.concatenate([data.items, other.items]),
        labels=numbers,
        classes=classes,
        captions=None,
        names=(*(f"a/{name}" for name in data.names), *(f"b/{name}" for name in other.names)),
        split=np.concatenate([data.split, other.split]),
        notes=(),
        fingerprint=state.hexdigest(),
        other=None,
    )


def copies(test: Tensor, train: Tensor) -> int:
    """How many test images are in the training set to the last bit."""
    known = {image.numpy().tobytes() for image in train}
    return sum(image.numpy().tobytes() in known for image in test)


def clothes(asked: argparse.Namespace) -> tuple[Bench, dict[str, Any]]:
    """Clothes and drawings of them, judged by the pinned classifier."""
    data = load(DataSettings(data="fashion-mnist", validation=0.0))
    assert data.labels is not None
    chosen = data.rows("test")[:TESTED]
    real, labels = taken(data, chosen), torch.from_numpy(data.labels[chosen])
    train, test = drawings_and_photos(data), {"a2b": floats(drawn(real)), "b2a": floats(real)}
    judge = classifiers.pinned("fashion-mnist")
    network = judge.network
    assert isinstance(network, classifiers.Classifier)

    def lines(made: Tensor, truth: Tensor) -> Tensor:
        """1 - F1 of the lines, from one half of white on."""
        a, b = ((each > 0.5).flatten(1).float() for each in (made, truth))
        return 1 - 2 * (a * b).sum(1) / (a.sum(1) + b.sum(1)).clamp(min=1)

    distances = {"L1": l1, "1 - SSIM": unlike, "pinned": far(judge), "1 - F1 of lines": lines}
    kinds = {"class": lambda made, way: said(network, made) == labels}
    right = float(kinds["class"](test["b2a"], "a2b").float().mean())
    return Bench(train, None, test, distances, kinds), {"classifier": judge.name, "accuracy_on_real": right}


def drawings_and_photos(data: DataSet) -> Images:
    """Drawings of the first images of the training set, and the next images as they are."""
    rows_ = data.rows("train")
    return {"a2b": drawn(taken(data, rows_[:DRAWN])), "b2a": taken(data, rows_[DRAWN : 2 * DRAWN])}


def drawn(photos: Tensor) -> Tensor:
    """White lines where brightness changes: (N, 1, H, W) uint8 ↦ the same, of 0 and 255."""
    across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    slope = (
        F.conv2d(F.pad(photos.float(), (1, 1, 1, 1), mode="replicate"), kernels).square().sum(1, keepdim=True).sqrt()
    )
    return 255 * (slope > FAINTEST * slope.amax((2, 3), keepdim=True)).byte()


def train(asked: argparse.Namespace) -> None:
    """Begin the runs, or go on with them, one after the other."""
    one, other = kept_clothes(asked.runs) if asked.pair == "clothes" else (asked.data, asked.data_b)
    shape = {} if asked.pair == "clothes" else {"image_size": SIZES[asked.pair]}
    for name in asked.only or COURSES[asked.pair]:
        course = COURSES[asked.pair][name]
        data = {"data": other, "data_b": one} if course.swapped else {"data": one, "data_b": other}
        kept: dict[str, Any] = {"checkpoint_every": EVERY, "keep": 100, "signal_every": 0}
        nacre.train(course.model, out=asked.runs / name, or_resume=True, **data, **shape, **kept, **course.flags)


def kept_clothes(runs: Path) -> tuple[str, str]:
    """The two sides as files, which are written once."""
    paths = runs / "drawings.npy", runs / "photos.npy"
    if not all(path.exists() for path in paths):
        runs.mkdir(parents=True, exist_ok=True)
        both = drawings_and_photos(load(DataSettings(data="fashion-mnist", validation=0.0)))
        for path, side in zip(paths, both.values(), strict=True):
            np.save(path, side.numpy())
    return str(paths[0]), str(paths[1])


def judge(asked: argparse.Namespace) -> None:
    """Measure every way, and write the row and the picture."""
    bench, told = clothes(asked) if asked.pair == "clothes" else emoji(asked)
    print(told, flush=True)
    made = {name: each for way in BACK for name, each in plain(bench, way).items()}
    learned, courses = translations(asked.pair, asked.runs, bench)
    values, intervals = {}, {}
    for (way, name), output in {**made, **learned}.items():
        found, reach = measured(bench, way, output, made[way, "identity"])
        values |= {f"{way}, {name}, {metric}": value for metric, value in found.items()}
        intervals |= {f"{way}, {name}, {metric}": each for metric, each in reach.items()}
        print(way, name, {metric: round(value, 4) for metric, value in found.items()}, flush=True)
    picture(bench, learned, asked.pair)
    first, last = {"emoji": (3, 4), "emoji-64": (3, 5), "clothes": (5, 6)}[asked.pair]
    protocol = " ".join(" ".join(str(__doc__).split("\n\n")[first:last]).split())
    facts = {**told, "intervals": intervals, "courses": courses, "load_average": os.getloadavg()[0]}
    count = len(bench.test["a2b"])
    print(rows.write_row(f"translation-{asked.pair}", protocol, values, [0], count, results=asked.results, **facts))


def plain(bench: Bench, way: str) -> dict[tuple[str, str], Tensor]:
    """What can be done without learning."""
    x, own, wanted = bench.test[way], bench.train[way], bench.train[BACK[way]]
    found = {"identity": x, "histograms": relevelled(x, own, wanted), "nearest": floats(wanted[nearest(x, wanted)])}
    if bench.pairs:
        found["nearest pair"] = floats(bench.pairs[BACK[way]][nearest(x, bench.pairs[way])])
    return {(way, name): output for name, output in found.items()}


def relevelled(x: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
    """Levels sent to those of the same rank in the set that is wanted, channel by channel; ties share their middle rank."""
    levels, output = np.arange(256), []
    for channel in range(x.shape[1]):
        here, there = (middle_ranks(each[:, channel]) for each in (own, wanted))
        curve = np.interp(here, there, levels)
        output.append(np.interp(x[:, channel].numpy() * 255, levels, curve) / 255)
    return torch.from_numpy(np.stack(output, 1)).float()


def middle_ranks(levels: Tensor) -> np.ndarray:
    """Of each of the 256 levels, as a share of all pixels."""
    counts = np.bincount(levels.flatten().numpy(), minlength=256) / levels.numel()
    return counts.cumsum() - counts / 2


def nearest(x: Tensor, among: Tensor) -> Tensor:
    """The rows of the images with the least squared distance."""
    flat = floats(among).flatten(1)
    return torch.cat([torch.cdist(part.flatten(1), flat).argmin(1) for part in x.split(100)])


def translations(pair: str, runs: Path, bench: Bench) -> tuple[dict[tuple[str, str], Tensor], dict[str, Any]]:
    """What the runs make of the held-out images, and what is known of the runs."""
    test, found, courses = bench.test, {}, {}
    main, step = ABLATED.get(pair, ("", 0))
    for name, course in COURSES[pair].items():
        if not (runs / name / "model").is_dir():
            continue
        run = nacre.load(runs / name, checkpoint=str(step) if course.ablation else None)
        steps = step if course.ablation else int(run.facts["steps"])
        batch = int(course.flags.get("batch_size", 1))
        courses[name] = {"flags": dict(course.flags), "steps": steps, "images_of_each_side": steps * batch}
        courses[name] |= {
            "passes": steps * batch / len(bench.train["a2b"]),
            "seconds": rows.training_seconds(runs / name),
        }
        if course.swapped:
            found["b2a", "pix2pix"] = run.translate(test["b2a"], "a2b")
        elif course.model == "pix2pix":
            found["a2b", "pix2pix"] = run.translate(test["a2b"], "a2b")
        else:
            found |= {(way, name): run.translate(test[way], way) for way in BACK}
    if any(course.ablation and name in courses for name, course in COURSES[pair].items()):
        early = nacre.load(runs / main, checkpoint=str(step))
        found |= {(way, f"{main} at {step:,}"): early.translate(test[way], way) for way in BACK}
    return found, courses


def measured(
    bench: Bench, way: str, made: Tensor, identity: Tensor
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Means of the distances, their ratios to the input's own, the shares that are nearer than it; and 95 % intervals."""
    truth, values, intervals = bench.test[BACK[way]], {}, {}
    for name, distance in bench.distances.items():
        each, before = distance(made, truth).double(), distance(identity, truth).double()
        ratio = bootstrap(lambda both: float(both[:, 0].mean() / both[:, 1].mean()), torch.stack([each, before], 1))
        values |= {
            name: float(each.mean()),
            f"{name}, ratio": ratio.value,
            f"{name}, nearer": float((each < before).double().mean()),
        }
        intervals[f"{name}, ratio"] = ratio.low, ratio.high
    for name, right in bench.kinds.items():
        known = right(made, way)
        estimate = share(float(known.sum()), len(known))
        values[name], intervals[name] = estimate.value, (estimate.low, estimate.high)
    return values, intervals


def picture(bench: Bench, learned: dict[tuple[str, str], Tensor], pair: str) -> None:
    """Every so many of the held-out: inputs, translations of CycleGAN and of pix2pix, and the truth, in either direction."""
    lines = []
    for way, x in bench.test.items():
        some = torch.arange(len(x))[:: -(-len(x) // SHOWN)] if pair != "clothes" else torch.arange(SHOWN)
        shown = [learned[way, name] for name in ("cyclegan", "edges", "clothes", "pix2pix") if (way, name) in learned]
        lines += [each[some] for each in (x, *shown, bench.test[BACK[way]])]
    columns = len(lines[0])
    factor = 1 if pair == "emoji-64" else 2
    page = torch.cat(lines).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    pictures.save(PICTURES[pair], images.grid(page, columns))


def l1(made: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference, image by image."""
    return (made - truth).abs().flatten(1).mean(1)


def unlike(made: Tensor, truth: Tensor) -> Tensor:
    """1 - SSIM, image by image."""
    return 1 - ssim(made, truth)


def far(see: Extractor | Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Euclidean distance of features, image by image."""
    return lambda made, truth: (see(made.clamp(0, 1)) - see(truth)).norm(dim=1)


def said(network: classifiers.Classifier, made: Tensor) -> Tensor:
    """The classes that a classifier sees."""
    return read(network, made.clamp(0, 1), say=network.logits).argmax(1)


def taken(data: DataSet, chosen: np.ndarray) -> Tensor:
    """Some images of a data set, uint8."""
    return torch.from_numpy(np.ascontiguousarray(data.items[chosen]))


def main() -> None:
    """Train or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=list(COURSES))
    parser.add_argument("part", choices=["train", "judge"])
    parser.add_argument("--data", help="Noto's emoji")
    parser.add_argument("--data-b", help="Twemoji's")
    parser.add_argument("--runs", type=Path, default=Path("runs/translation"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", help="names of runs to train")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    if asked.pair != "clothes" and not (asked.data and asked.data_b):
        parser.error("the emoji are two archives; give --data and --data-b")
    (train if asked.part == "train" else judge)(asked)


if __name__ == "__main__":
    main()
