"""`nacre anomaly`."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nacre import files
from nacre.cli import flags, sheets, using
from nacre.cli.given import Given, given
from nacre.data.dataset import Split
from nacre.editing.anomaly import Detector, Method
from nacre.errors import ConfigError, RunError
from nacre.networks import is_image
from nacre.pretrained import Pretrained
from nacre.spec import Field

MOST_NORMAL, MOST_HELD_OUT = 2000, 1000
"""Normal items that are looked at, at most: those trained on, and those kept aside."""

SHOWN = 32
"""Images on the sheet, at most: the most anomalous."""

OWN = [
    Field(
        "method",
        Method,
        "auto",
        "what tells anomalies: the error of a 'reconstruction', or of an 'inversion' by a generator; the distance to normal "
        "items in the model's 'features'; the discriminator's 'realness'; the 'regret' of a VAE's likelihood, the likelihood "
        "less the 'complexity', or the raw 'likelihood', which simple images of another kind deceive; 'auto': reconstruction or "
        "else features",
    ),
    Field("rate", float, 0.05, "share of normal items that may be taken for anomalies; the threshold follows from it"),
    Field(
        "data",
        str | None,
        None,
        "a source of normal items, half for comparison and half for the threshold; by default the run's own",
    ),
    Field("seed", int, 0, "of the noise and searches of some methods"),
    Field("out", str, "anomalies.csv", "a .csv with name, score, p and verdict of each item"),
    Field("sheet", str, "anomalies.png", "a .png of the most anomalous images and where they differ; 'none' for none"),
]


def main(argv: Sequence[str]) -> int:
    """Score items."""
    parser = using.image_parser("anomaly", "Tell which items are not of the kind that a model has learned.", OWN)
    parsed = flags.parse(parser, argv)
    out, rate = Path(parsed.out or "anomalies.csv"), 0.05 if parsed.rate is None else parsed.rate
    if out.suffix != ".csv":
        raise ConfigError(f"--out takes a .csv, got {out}.")
    if not 0 < rate < 1:
        raise ConfigError(f"--rate takes a share between 0 and 1, as .05; got {rate:g}.")
    sheet = using.sheet_place(parsed.sheet, "anomalies.png")
    using.spare_given([out, sheet], [*parsed.images, *using.source_of(parsed)])
    model = using.model_of(parsed)
    detector = Detector(model.module, parsed.method or "auto", seed=parsed.seed or 0)
    named = given(parsed.images, model)
    normal, held_out = normal_items(parsed, model)
    if rate * (len(held_out) + 1) < 1:
        raise ConfigError(
            f"a threshold that {rate:.2g} of normal items exceed takes {math.ceil(1 / rate) - 1} held-out ones, and there are "
            f"{len(held_out)}; name more with --data, or take a higher --rate."
        )
    detector.fit(normal, held_out)
    scores = detector.scores(named.items)
    chances = detector.p_of(scores)
    _write(out, named.names, scores, chances, rate)
    if sheet is not None and is_image(model.shape):
        using.save_sheet(sheet, _drawn(detector, named, scores, chances, held_out))
    found = int((chances <= rate).sum())
    sentence = (
        f"{found} of {len(scores)} are anomalies by {detector.method} at a threshold of {detector.threshold(rate):.4g}, which "
        f"{rate:.0%} of {len(held_out)} held-out items exceed; scores in {out}"
    )
    rows = [
        {"name": name, "score": score, "p": p, "anomaly": p <= rate}
        for name, score, p in zip(named.names, scores.tolist(), chances.tolist(), strict=True)
    ]
    facts = {"method": detector.method, "rate": rate, "threshold": detector.threshold(rate), "held_out": len(held_out)}
    return using.answer(parsed.json, sentence, count=len(rows), anomalies=found, out=str(out), **facts, items=rows)


def normal_items(parsed: Any, model: Pretrained) -> tuple[Tensor, Tensor]:
    """Items as the model was trained on, and others of the same kind that were kept aside.

    Raises:
        ConfigError: too few are named with --data, or the run kept none aside.
    """
    if parsed.data is not None:
        items = given([parsed.data], model).items
        if len(items) < 4:
            raise ConfigError(f"--data needs normal items to compare with, and {parsed.data} has {len(items)}.")
        return items[::2][:MOST_NORMAL], items[1::2][:MOST_HELD_OUT]
    wanted: dict[Split, int] = {"train": MOST_NORMAL, "validation": MOST_HELD_OUT}
    parts = []
    for split, most in wanted.items():
        dataset, rows = using.items_of(parsed, model, split)
        if not len(dataset.rows(split)):
            raise ConfigError(
                f"{parsed.run} kept no items aside, which a threshold is taken from; name others of its kind with --data."
            )
        few = rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        parts.append(using.floats(dataset, few))
    return parts[0], parts[1]


def _write(out: Path, names: Sequence[str], scores: Tensor, chances: Tensor, rate: float) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "score", "p", "anomaly"])
    for name, score, chance in zip(names, scores.tolist(), chances.tolist(), strict=True):
        writer.writerow([name, f"{score:.9g}", f"{chance:.6g}", int(chance <= rate)])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(out, text.getvalue())
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None


def _drawn(detector: Detector, named: Given, scores: Tensor, chances: Tensor, held_out: Tensor) -> np.ndarray:
    """The most anomalous images, and beside each where it differs, red by what is usual in held-out images."""
    order = scores.argsort(descending=True)[:SHOWN]
    worst = named.items[order]
    grey = worst.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    shown = [worst.expand(-1, 3, -1, -1) if worst.shape[1] == 1 else worst[:, :3]]
    if detector.method in ("reconstruction", "inversion"):
        usual = detector.heat_map(held_out[:64]).flatten().quantile(0.99).clamp(min=1e-6)
        heat = (detector.heat_map(worst) / (3 * usual)).clamp(0, 1)[:, None]
        red = torch.tensor([0.85, 0.1, 0.1]).view(1, 3, 1, 1)
        shown.append(grey * (1 - heat) + red * heat)
    names = [Path(named.names[row]).name for row in order.tolist()]
    told = [f"p {chances[row]:.2g}" for row in order.tolist()]
    words = [word for pair in zip(names, told, strict=True) for word in pair[: len(shown)]]
    if len(shown) == 1:
        words = told
    return sheets.captioned(torch.stack(shown, 1).flatten(0, 1), words, min(8, len(words)))
