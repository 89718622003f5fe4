"""Text to image (stackgan): MNIST in colour, where all must be right, and emoji, by captions that were held out.

    python benchmarks/captions.py train digits --data DATA [--runs runs/captions]
    python benchmarks/captions.py judge digits --data DATA [--runs runs/captions]

and the same for emoji, and for emoji-sentences, which is trained with --text-encoder FOLDER, a frozen sentence encoder. DATA is
the folder that holds mnist/, emoji-noto-64.zip and emoji-twemoji-64.zip. Training goes on with a run that is there already.

Digits protocol: 20,000 training digits in the colours of 448 captions, 32×32 (benchmarks/colored_digits.py, which says how the
judge reads them); 8 samples of each of the 112 captions that were held out, latents as drawn, (truncated) in ±1 alone, and
(chosen) of 32 as drawn the 8 that the model finds to fit best, 8 of each of the first 112 others, and real test digits in
held-out captions; right if digit and both colours are. Intervals are over captions.

Emoji protocol: Noto at 32×32, 2,348 to train on, 205 held out with their captions; 8 samples of each, latents as drawn,
(truncated) in ±1 alone, and (chosen) of 32 as drawn the 8 that the model finds to fit best. The referee
(benchmarks/caption_referee.py) has never seen them either. R-precision: how often it puts an image's own caption first among 100
held-out ones with different base names (a name without its skin tone): its own and 99 drawn anew, 10 times; chance is .01.
Balanced accuracy: mean over the nine groups of the share that it puts into the right one; chance is .11. Beside both: the real
images, and the training image whose caption the model's own text encoder finds nearest. Intervals: 1,000 resamples of base
names.
"""

import argparse
import json
import re
import textwrap
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import colored_digits
import faces
import nacre
import rows
from caption_referee import Emoji, Referee, open_referee
from nacre import images
from nacre.cli.sheets import enlarged
from nacre.data import DataSettings, load
from nacre.data.sentences import reader_of
from nacre.engine import pictures
from nacre.run import fork

COMMON: dict[str, Any] = {
    "validation": 0.0,
    "test": 0.0,
    "batch_size": 32,
    "precision": "bf16",
    "sample_every": 500,
    "signal_every": 1_000,
    "checkpoint_every": 500,
    "keep": 2,
}
FALLING: dict[str, Any] = {"lr": 5e-4, "lr_schedule": "flat-linear", "ema": 0.998}
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        **FALLING,
        "matching_steps": 800,
        "judge_width": 24,
        "compile": "on",
        "sample_every": 1_000,
        "checkpoint_every": 1_000,
    },
    "emoji": {"image_size": 32, "augment": False},
    "emoji-sentences": {"image_size": 32, "augment": True, **FALLING},
}
STAGES: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "digits": [],
    "emoji": [(2_454, {"lr": 5e-4, "ema": 0.995}), (4_621, {**FALLING, "augment": True})],
    "emoji-sentences": [],
}
"""Steps at which a run is forked, and with what: first it is a run at the model's own learning rates."""

STEPS = {"digits": 25_000, "emoji": 10_000, "emoji-sentences": 20_000}
WAYS: dict[str, dict[str, Any]] = {"made": {}, "truncated": {"truncation": 1.0}, "chosen": {"reject_worst": 0.75}}
"""Samples as they are drawn, with latents in ±1 alone, and those of four times as many that the model finds to fit best."""

EACH, CANDIDATES, DRAWS, RESAMPLES, SHOWN = 8, 100, 10, 1_000, 64
STYLES = ("noto", "twemoji")
PICTURES = {
    "digits": Path("docs/captions-digits.png"),
    "emoji": Path("docs/captions.png"),
    "emoji-sentences": Path("docs/captions-sentences.png"),
}


def source_of(name: str, data: Path, runs: Path) -> str:
    """What nacre trains on."""
    if name != "digits":
        return str(data / "emoji-noto-64.zip")
    return str(colored_digits.write(runs / "digits.npz", f"mnist:{data / 'mnist'}"))


def imagined(model: nacre.Pretrained, captions: list[str], **way: Any) -> Tensor:
    """`EACH` samples of each caption: (captions · EACH, C, H, W)."""
    return model.imagine(*captions, count=EACH, **way)


# Digits


def judge_digits(model: nacre.Pretrained, data: Path, picture: Path) -> dict[str, Any]:
    """Shares of samples that are as their captions say."""
    source = f"mnist:{data / 'mnist'}"
    judge, (learned, held_out) = colored_digits.Judge(source), colored_digits.scenes()
    others, values = learned[:: len(learned) // len(held_out)], {}
    for name, chosen, way in (
        ("held_out", held_out, {}),
        ("truncated", held_out, WAYS["truncated"]),
        ("chosen", held_out, WAYS["chosen"]),
        ("trained_on", others, {}),
    ):
        made = imagined(model, [scene.caption for scene in chosen], **way)
        told = [scene for scene in chosen for _ in range(EACH)]
        values |= {f"{name}/{part}": right for part, right in shares(judge(made).right(told)).items()}
        if name == "held_out":
            every = enumerate(spread(np.arange(len(chosen))))
            shown = [(chosen[place].caption, [made[EACH * place + number % EACH]]) for number, place in every]
            pictures.save(picture, page(shown))
    painted, told = colored_digits.drawn(source, "test", held_out, EACH * len(held_out), seed=1)
    real = judge(images.to_float(torch.from_numpy(painted).permute(0, 3, 1, 2))).right(told)
    values |= {f"real/{part}": float(right.float().mean()) for part, right in real.items()}
    return values | {"judge_accuracy": judge.referee.card.accuracy, "captions": len(held_out)}


def shares(right: dict[str, Tensor]) -> dict[str, float]:
    """Shares that are right, and the interval over captions of the share where all is."""
    means = {part: float(each.float().mean()) for part, each in right.items()}
    found = rows.interval(right["all"].view(-1, EACH).double().mean(1).numpy())
    return means | {"all_low": found["low"] or 0.0, "all_high": found["high"] or 0.0}


# Emoji


@dataclass(frozen=True)
class Bench:
    """The emoji of a style, in two parts, and what the referee has to tell apart."""

    train: Emoji
    test: Emoji
    groups: list[str]

    @property
    def bases(self) -> np.ndarray:
        """The number of each held-out caption's name without its skin tone."""
        names = [re.sub(r": [\w-]+ skin tone$", "", caption) for caption in self.test.captions]
        return np.unique(names, return_inverse=True)[1]


def bench_of(data: Path, style: str) -> Bench:
    """A style's emoji at 32×32, those with a caption."""
    path = data / f"emoji-{style}-64.zip"
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(f"{style}/metadata.jsonl").decode("utf-8").splitlines()
    group_of = {row["file_name"]: row["group"] for row in map(json.loads, lines)}
    groups = sorted(set(group_of.values()))
    dataset = load(DataSettings(data=str(path), image_size=SETTINGS["emoji"]["image_size"], validation=0.0))
    captions = dataset.captions or ()

    def part(split: str) -> Emoji:
        chosen = [row for row in dataset.rows(split) if captions[row]]  # type: ignore[arg-type]
        numbers = [groups.index(group_of[Path(dataset.names[row]).name]) for row in chosen]
        return Emoji(torch.from_numpy(dataset.items[chosen]), [captions[row] for row in chosen], torch.tensor(numbers))

    return Bench(part("train"), part("test"), groups)


def referee_of(data: Path, runs: Path) -> Referee:
    """The referee of the emoji, trained on both styles if it has not been."""
    benches = [bench_of(data, style) for style in STYLES]
    captions = benches[0].train.captions
    assert captions == benches[1].train.captions
    return open_referee(runs / "referee.safetensors", [bench.train for bench in benches], len(benches[0].groups))


def retrieved(cosines: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """How often each caption's images have it first among `CANDIDATES` of different base names: (captions,).

    Args:
        cosines: (captions · M, captions), M images of each caption.
        bases: (captions,) which base name each has.
    """
    random, captions = np.random.default_rng(0), len(bases)
    members = [np.flatnonzero(bases == base) for base in range(bases.max() + 1)]
    scores, right = cosines.reshape(captions, -1, captions), np.zeros(captions)
    for caption in range(captions):
        others = [one for base, one in enumerate(members) if base != bases[caption]]
        for _ in range(DRAWS):
            chosen = random.choice(len(others), CANDIDATES - 1, replace=False)
            rivals = [random.choice(others[other]) for other in chosen]
            right[caption] += (scores[caption, :, caption] > scores[caption][:, rivals].max(1)).mean() / DRAWS
    return right


def balanced(right: np.ndarray, groups: np.ndarray) -> float:
    """Mean over the groups that are there of the share that is right."""
    return float(np.mean([right[groups == group].mean() for group in np.unique(groups)]))


def judge_emoji(model: nacre.Pretrained, data: Path, runs: Path, picture: Path) -> dict[str, Any]:
    """R-precision and groups of samples, of real images, and of training images with the nearest captions."""
    referee, bench = referee_of(data, runs), bench_of(data, STYLES[0])
    test, bases, groups = bench.test, bench.bases, bench.test.groups.numpy()
    made = {name: imagined(model, test.captions, **way) for name, way in WAYS.items()}
    real = images.to_float(test.images)
    near = images.to_float(bench.train.images[nearest(model, test.captions, bench.train.captions)])
    values: dict[str, Any] = {}
    for name, shown in {**made, "real": real, "nearest_caption": near}.items():
        found = retrieved(referee.cosines(shown, test.captions).numpy(), bases)
        named = referee.groups(shown).view(len(groups), -1) == test.groups[:, None]
        told = named.double().mean(1).numpy()
        values |= {f"{name}/r_precision": float(found.mean()), f"{name}/groups": balanced(told, groups)}
        values |= {f"{name}/r_precision_by_base": float(np.mean([found[bases == base].mean() for base in set(bases)]))}
        values |= {f"{name}/{key}": value for key, value in resampled(found, told, groups, bases).items()}
        values |= {f"{name}/group: {bench.groups[each]}": float(told[groups == each].mean()) for each in set(groups)}
    for name in made:
        values[f"{name}/r_precision_of_real"] = values[f"{name}/r_precision"] / values["real/r_precision"]
    pictures.save(picture, page(pairs_of(test.captions, bases, made["made"][::EACH], real)))
    return values | {"captions": len(test.captions), "base_names": int(bases.max()) + 1}


def nearest(model: nacre.Pretrained, wanted: list[str], among: list[str]) -> Tensor:
    """Which of some captions the model's text encoder finds nearest to each wanted one: (wanted,)."""
    module, read = model.module, reader_of(model.module)
    with torch.no_grad():
        one, other = (module.read(torch.from_numpy(read(texts))) for texts in (wanted, among))  # type: ignore[operator]
    return (one @ other.T).argmax(1)


def resampled(found: np.ndarray, told: np.ndarray, groups: np.ndarray, bases: np.ndarray) -> dict[str, float]:
    """95 % intervals of R-precision and of balanced accuracy, by drawing base names with replacement."""
    random, members = np.random.default_rng(0), [np.flatnonzero(bases == base) for base in range(bases.max() + 1)]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[base] for base in random.integers(len(members), size=len(members))])
        drawn.append((found[chosen].mean(), balanced(told[chosen], groups[chosen])))
    ends = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    names = ("r_precision", "groups")
    return {
        f"{name}_{end}": float(ends[at, of]) for at, end in enumerate(("low", "high")) for of, name in enumerate(names)
    }


def pairs_of(captions: list[str], bases: np.ndarray, made: Tensor, real: Tensor) -> list[tuple[str, list[Tensor]]]:
    """The first held-out caption of each base name, the first sample of it, and its real image."""
    _, first = np.unique(bases, return_index=True)
    return [(captions[place], [made[place], real[place]]) for place in spread(np.sort(first))]


def spread(places: np.ndarray) -> np.ndarray:
    """`SHOWN` of some places, at equal distances."""
    return places[np.linspace(0, len(places) - 1, SHOWN).astype(int)]


# Both


def page(shown: list[tuple[str, list[Tensor]]], columns: int = 8, towards: int = 64) -> np.ndarray:
    """Images (C, H, W) side by side with their captions under them, in up to three lines: (height, width, 3) uint8."""
    font, gap, line = ImageFont.load_default(10), 8, 12
    cells = [np.concatenate(list(enlarged(torch.stack(items), towards)), 1) for _, items in shown]
    height, width = max(cells[0].shape[0], 1), max(cells[0].shape[1], 100)
    across, down = width + gap, height + 3 * line + gap
    sheet = Image.new("RGB", (gap + columns * across, gap + -(-len(shown) // columns) * down), "white")
    draw = ImageDraw.Draw(sheet)
    for number, ((caption, _), cell) in enumerate(zip(shown, cells, strict=True)):
        left, top = gap + number % columns * across, gap + number // columns * down
        sheet.paste(Image.fromarray(cell), (left + (width - cell.shape[1]) // 2, top))
        # The font that comes with Pillow has no letters with accents.
        plain = "".join(
            letter for letter in unicodedata.normalize("NFKD", caption) if not unicodedata.combining(letter)
        )
        for place, words in enumerate(textwrap.wrap(plain, width // 6)[:3]):
            middle = left + (width - font.getlength(words)) / 2
            draw.text((middle, top + height + place * line), words, fill=(60, 60, 60), font=font)
    return np.asarray(sheet)


def main() -> None:
    """Train, or judge and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["train", "judge", "referee"])
    parser.add_argument("name", choices=list(SETTINGS))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/captions"), help="folder of the runs")
    parser.add_argument("--text-encoder", type=Path, help="of emoji-sentences: folder of a frozen sentence encoder")
    parser.add_argument("--steps", type=int, help="another length than the protocol's")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    if asked.part == "referee":
        referee_of(asked.data, asked.runs)
    elif asked.part == "train":
        if (asked.name == "emoji-sentences") != (asked.text_encoder is not None):
            parser.error("emoji-sentences, and only that, is trained with --text-encoder")
        train(asked.name, asked.data, asked.runs, asked.steps or STEPS[asked.name], asked.text_encoder)
    else:
        judge(asked.name, asked.data, asked.runs, asked.results)


def train(name: str, data: Path, runs: Path, steps: int, text_encoder: Path | None) -> None:
    """A run, its forks, and the last one to its end, from wherever all that stands."""
    stages = STAGES[name]
    if not stages or not place(name, runs, 1).exists():
        settings = {**COMMON, **SETTINGS[name], "steps": stages[0][0] if stages else steps}
        if text_encoder is not None:
            settings["text_encoder"] = str(text_encoder)
        faces.trained("stackgan", place(name, runs, 0), data=source_of(name, data, runs), **settings)
    for number, (at, changed) in enumerate(stages, 1):
        own, until = place(name, runs, number), stages[number][0] if number < len(stages) else steps
        if not own.exists():
            fork(place(name, runs, number - 1), at=at, out=own, steps=until, **changed)
        elif number == len(stages) or not place(name, runs, number + 1).exists():
            nacre.resume(own, steps=until)


def place(name: str, runs: Path, number: int) -> Path:
    """Where the run is, and its first, its second fork."""
    return runs / (name + ("", "-fast", "-last")[number])


def judge(name: str, data: Path, runs: Path, results: Path) -> None:
    """Measure a run as it stands, and write its row and picture."""
    run = place(name, runs, len(STAGES[name]))
    model, picture = nacre.load(run), PICTURES[name]
    if name == "digits":
        values, n = judge_digits(model, data, picture), EACH * len(colored_digits.scenes()[1])
    else:
        values = judge_emoji(model, data, runs, picture)
        n = EACH * values["captions"]
    seconds, history = rows.training_seconds(run), nacre.Run(run, 0, 0).history
    values |= {"train_minutes": seconds / 60, "steps": max(line["step"] for line in history)}
    for key, value in values.items():
        print(f"{key}: {value:.4g}")
    protocol = next(part for part in (__doc__ or "").split("\n\n") if part.lower().startswith(name.split("-")[0]))
    forks = "; ".join(f"from step {at} on a fork of it, {changed}" for at, changed in STAGES[name])
    told = f"{' '.join(protocol.split())} nacre train stackgan, seed 0, {COMMON | SETTINGS[name]}; {forks}"
    facts = {"threads": torch.get_num_threads(), "text_encoder": model.spec.complete()["text_origin"]}
    print(rows.write_row(f"captions-{name}", told, values, [0], n, results=results, wall_seconds=seconds, **facts))


if __name__ == "__main__":
    main()
