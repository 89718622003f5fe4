"""Skin tones by arithmetic: from one tone to another, on emoji that the model has not seen.

    python benchmarks/emoji.py --data emoji-noto-64.zip [--out runs/emoji]

A run that --out holds already is resumed, or only used if it is complete. Protocol: Noto emoji at 32×32, RGB, the set's own
split: a VAE learns the training part, 123 bases in five skin tones among it; 8 other bases are judged. The direction from one
tone to another is the mean difference of the codes of the training bases, paired; it is added to each of the five tones of
each judged base, towards the four others: 160 pictures a method. The strength, of 1 to 3, is the one with the smallest error
on the training bases. "vae" shows what is decoded, "kept" the emoji itself plus the change, x + decode(z + d) - decode(z)
(`nacre arithmetic --keep-residual`), "pixels" adds the mean difference of the pictures themselves. Counterpart: of all 655
pictures with a tone the true one, base and tone, is nearest in pixels. Base: the nearest is of that base. Tone: the mean
colour of the base's skin (where its five pictures differ by .15 in any channel) is nearest to that tone's among the mean skin
colours of the training bases; `real` is what the true pictures score. Error: root mean squared difference to the true
counterpart over the skin; `unmoved` is that of the picture as it was given.
"""

import argparse
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nacre
import rows
from nacre import images
from nacre.cli import sheets
from nacre.data import DataSettings, load
from nacre.engine import pictures
from nacre.pretrained import Pretrained

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
PAIRS = tuple(permutations(range(len(TONES)), 2))
SIZE, DIFFERENT = 32, 0.15
SETTINGS: dict[str, Any] = {
    "latent_dim": 32,
    "beta": 8.0,
    "steps": 2000,
    "batch_size": 64,
    "sample_every": 0,
    "compile": "off",
}
PICTURE = Path("docs/emoji-tones.png")

STRENGTHS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)

Change = Callable[[Tensor, int, int, float], Tensor]
"""Pictures (N, 3, H, W) of one tone, its number, that of another, and a strength ↦ the same in the other."""


@dataclass(frozen=True)
class Bases:
    """Emoji in five tones: (N, 5, 3, H, W) in [0, 1], and what they are called."""

    items: Tensor
    names: list[str]

    @property
    def skin(self) -> Tensor:
        """Where the five pictures of a base differ: (N, H, W) bool."""
        spread = self.items.amax(1) - self.items.amin(1)
        return spread.amax(1) > DIFFERENT

    def colours(self, items: Tensor) -> Tensor:
        """Mean colours of pictures (N, …, 3, H, W) of these bases over their skin: (N, …, 3)."""
        skin = self.skin.to(items)
        skin = skin.view(len(skin), *[1] * (items.ndim - 3), *skin.shape[1:])
        return (items * skin).sum((-2, -1)) / skin.sum((-2, -1))


def bases_of(source: str) -> tuple[Bases, Bases]:
    """The bases to learn from, and those to judge by."""
    dataset = load(DataSettings(data=source, image_size=SIZE))
    remarks = remarks_of(Path(source))
    found: dict[str, dict[int, int]] = {}
    for row, name in enumerate(dataset.names):
        remark = remarks[PurePosixPath(name).name]
        if tone := remark.get("skin_tone"):
            found.setdefault(remark["text"].replace(f"{tone} skin tone", ""), {})[TONES.index(tone)] = row
    judged = set(dataset.rows("test").tolist())
    parts: tuple[list[str], list[str]] = ([], [])
    for base, places in found.items():
        parts[places[0] in judged].append(base)

    def of(names: list[str]) -> Bases:
        places = np.array([[found[name][tone] for tone in range(len(TONES))] for name in names])
        return Bases(images.to_float(torch.from_numpy(dataset.items[places])), [name.strip(" :") for name in names])

    return of(parts[0]), of(parts[1])


def remarks_of(archive: Path) -> dict[str, dict[str, Any]]:
    """What the metadata say of each file."""
    with zipfile.ZipFile(archive) as file:
        (place,) = (name for name in file.namelist() if name.endswith("metadata.jsonl"))
        lines = [json.loads(line) for line in file.read(place).decode().splitlines()]
    return {line["file_name"]: line for line in lines}


def methods(model: Pretrained, learned: Bases) -> dict[str, Change]:
    """What is compared."""
    codes = model.encode(learned.items.flatten(0, 1)).view(*learned.items.shape[:2], -1).mean(0)
    average = learned.items.mean(0)

    def decoded(items: Tensor, one: int, other: int, strength: float) -> Tensor:
        return model.decode(model.encode(items) + strength * (codes[other] - codes[one]))

    def kept(items: Tensor, one: int, other: int, strength: float) -> Tensor:
        return (items + decoded(items, one, other, strength) - model.reconstruct(items)).clamp(0, 1)

    def pixels(items: Tensor, one: int, other: int, strength: float) -> Tensor:
        return (items + strength * (average[other] - average[one])).clamp(0, 1)

    return {"vae": decoded, "kept": kept, "pixels": pixels, "unmoved": lambda items, one, other, strength: items}


def usual_colours(learned: Bases) -> Tensor:
    """Of each tone the mean colour of skin, over the bases that show any: (5, 3)."""
    return learned.colours(learned.items).nanmean(0)


def best(change: Change, learned: Bases) -> float:
    """The strength with the smallest error on the training bases."""
    return min(STRENGTHS, key=lambda strength: measured(change, strength, learned, learned)["error"])


def measured(change: Change, strength: float, learned: Bases, judged: Bases) -> dict[str, float]:
    """A method's figures on some bases, over all pairs of tones."""
    gallery = judged.items if judged is learned else torch.cat([judged.items, learned.items])
    usual = usual_colours(learned)
    skin, own = judged.skin[:, None], torch.arange(len(judged.items))
    right: dict[str, list[Tensor]] = {"counterpart": [], "base": [], "tone": [], "error": []}
    for one, other in PAIRS:
        made, true = change(judged.items[:, one], one, other, strength), judged.items[:, other]
        nearest = torch.cdist(made.flatten(1), gallery.flatten(0, 1).flatten(1)).argmin(1)
        right["counterpart"].append((nearest == own * len(TONES) + other).double())
        right["base"].append((nearest // len(TONES) == own).double())
        right["tone"].append((torch.cdist(judged.colours(made), usual).argmin(1) == other).double())
        wrong = ((made - true).square() * skin).flatten(1).sum(1) / (3 * skin.flatten(1).sum(1))
        right["error"].append(wrong.double())
    values = {name: torch.cat(each).nanmean().item() for name, each in right.items()}
    return values | {"error": values["error"] ** 0.5}


def figure(change: Change, strength: float, judged: Bases) -> np.ndarray:
    """What becomes of four bases in their middle tone in the others, and under it what they are."""
    middle, page, words = TONES.index("medium"), [], []
    for row, name in enumerate(judged.names[:4]):
        given = judged.items[row, middle][None]
        made = [given if tone == middle else change(given, middle, tone, strength) for tone in range(len(TONES))]
        page += [given, *made, given, *judged.items[row][:, None]]
        words += [name, *TONES, "", "the true ones", *[""] * (len(TONES) - 1)]
    large = torch.cat(page).repeat_interleave(3, 2).repeat_interleave(3, 3)
    return sheets.captioned(large, words, len(TONES) + 1)


def main() -> None:
    """Train, measure, and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the archive of one style")
    parser.add_argument("--out", type=Path, default=Path("runs/emoji"), help="the run")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    run = nacre.train("vae", data=asked.data, image_size=SIZE, out=asked.out, or_resume=True, **SETTINGS)
    model = nacre.load(run)
    learned, judged = bases_of(asked.data)
    values: dict[str, float] = {}
    changes = methods(model, learned)
    strengths = {name: best(change, learned) for name, change in changes.items()}
    for name, change in changes.items():
        found = {"strength": strengths[name], **measured(change, strengths[name], learned, judged)}
        print(name, found, flush=True)
        values |= {f"{name}_{metric}": value for metric, value in found.items()}
    told = torch.cdist(judged.colours(judged.items).flatten(0, 1), usual_colours(learned)).argmin(1)
    values["real_tone"] = (told % len(TONES) == torch.arange(len(told)) % len(TONES)).double().mean().item()
    pictures.save(PICTURE, figure(changes["kept"], strengths["kept"], judged))
    protocol = f"{str(__doc__).split('Protocol: ')[1].strip()} nacre train vae, seed 0, {SETTINGS}"
    count = len(PAIRS) * len(judged.items)
    print(rows.write_row("emoji-tones", protocol, values, [0], count, results=asked.results, run=model.facts))


if __name__ == "__main__":
    main()
