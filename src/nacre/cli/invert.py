"""`nacre invert`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.cli import codes, flags, sheets, using
from nacre.cli.given import Given, given
from nacre.data.progress import bar
from nacre.editing import latents
from nacre.editing.inversion import Inversion, Search, Start, invert, train_encoder
from nacre.engine import pictures
from nacre.errors import ConfigError, RunError
from nacre.networks import is_image
from nacre.pretrained import Pretrained
from nacre.spec import Field

logger = logging.getLogger("nacre")

SHOWN = 32
"""Images on the picture, at most."""

OWN = [
    codes.SEED,
    codes.LABEL,
    Field("train_encoder", int, 0, "steps of training a network that guesses the latents to start from; 0 for none"),
    Field(
        "out",
        str,
        "inversion.npz",
        "a .npz with latents, residuals and names; a picture of before and after lies beside it",
    ),
]


def main(argv: Sequence[str]) -> int:
    """Search latents."""
    parser = using.image_parser("invert", "Find the latents of images, by search: for models without an encoder.", OWN)
    flags.add(parser, "search", codes.SEARCH)
    parsed = flags.parse(parser, argv)
    out = using.archive_named(parsed.out, "inversion.npz")
    steps, search, seed = parsed.train_encoder or 0, codes.search_of(parsed), parsed.seed or 0
    if steps < 0:
        raise ConfigError(f"--train-encoder takes a number of steps, got {steps}.")
    using.spare_given([out, out.with_suffix(".png")], parsed.images)
    model = using.model_of(parsed)
    latents.decoding(model.module)
    named = given(parsed.images, model)
    labels = codes.label_of(parsed, model, len(named.items))
    start = guesser(model, steps, seed) if steps else None
    chunk = min(64, using.batch_size(parsed))
    with bar(len(named.items), "searching latents", "image", True) as shown:
        found = invert(
            model.module, named.items, search, labels=labels, start=start, seed=seed, chunk=chunk, tell=shown.update
        )
    _write(out, found, named)
    return _answer(parsed, out, found, named, search)


def guesser(model: Pretrained, steps: int, seed: int) -> Start:
    """An encoder that is trained on samples of the model."""
    with bar(steps, "training an encoder", "step", True) as shown:
        return train_encoder(model.module, steps=steps, seed=seed, tell=shown.update)


def _write(out: Path, found: Inversion, named: Given) -> None:
    arrays = {
        name: getattr(found, name).cpu().numpy() for name in ("codes", "residual", "converged", "settled", "searches")
    }
    using.write_arrays(out, {**arrays, "names": np.array(named.names)})
    if not is_image(tuple(named.items.shape[1:])):
        return
    pairs = torch.stack([named.items, found.remade.cpu()], 1)[:SHOWN]
    captions = [
        f"{residual:.2g}" + ("" if good else " !")
        for residual, good in zip(found.residual, found.converged, strict=True)
    ]
    captions = [word for name, told in zip(named.names, captions, strict=True) for word in (Path(name).name, told)]
    try:
        page = sheets.captioned(
            pairs.flatten(0, 1), captions[: 2 * len(pairs)], columns=8 if len(pairs) > 3 else 2 * len(pairs)
        )
        pictures.save(out.with_suffix(".png"), page)
    except OSError as error:
        raise RunError(f"{out.with_suffix('.png')} cannot be written ({error.strerror or error}).") from None


def _answer(parsed: Any, out: Path, found: Inversion, named: Given, search: Search) -> int:
    count, reached = len(named.names), int(found.converged.sum())
    rows = list(
        zip(named.names, found.residual.tolist(), found.converged.tolist(), found.settled.tolist(), strict=True)
    )
    if not parsed.json:
        for name, residual, good, ended in rows[:SHOWN]:
            print(f"{residual:.2e}  {name}{'' if good else ': not reached' if ended else ': still moving'}")
        if count > SHOWN:
            print(f"… and {count - SHOWN} more, in {out}")
    sentence = f"{reached} of {count} images reached to a mean squared error of {search.tolerance:g}; latents in {out}"
    moving = sum(not good and not ended for _, _, good, ended in rows)
    if reached < count:
        sentence += (
            f". {moving} were still moving: take more --lbfgs-steps."
            if moving
            else ". The others are out of the model's reach, or more --restarts find them."
        )
    each = [dict(zip(("name", "residual", "converged", "settled"), row, strict=True)) for row in rows]
    return using.answer(parsed.json, sentence, count=count, converged=reached, out=str(out), images=each)
