"""`nacre reconstruct`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nacre.cli import flags, using
from nacre.cli.given import given
from nacre.errors import ConfigError
from nacre.pretrained import Pretrained
from nacre.spec import Field

OWN = [
    using.DATA,
    Field("n", int, 32, "how many images, the first of the source"),
    Field(
        "out", str, "reconstructions.png", "a .png (pairs: image, reconstruction), a .npz, or a folder for single PNGs"
    ),
]

STEM = "reconstruction"
"""What single PNGs are called, with their numbers."""


def main(argv: Sequence[str]) -> int:
    """Reconstruct images."""
    named = "image files or folders; by default the first -n of --data"
    parser = using.image_parser(
        "reconstruct", "Send items through an autoencoder and back.", OWN, nargs="*", named=named
    )
    parsed = flags.parse(parser, argv)
    if parsed.n is not None and parsed.n < 1:
        raise ConfigError(f"-n must be 1 or more, got {parsed.n}.")
    if parsed.images and (parsed.data is not None or parsed.n is not None):
        raise ConfigError("images are named, or the first -n of a --data source are taken; leave one of the two out.")
    out = Path(parsed.out or "reconstructions.png")
    places = [out] if out.suffix else out.glob(f"{STEM}-*.png")
    using.spare_given(places, parsed.images or using.source_of(parsed))
    model = using.model_of(parsed)
    items, split = (given(parsed.images, model).items, None) if parsed.images else held_out(parsed, model)
    back = model.reconstruct(items, batch_size=using.batch_size(parsed))
    error = (back.double() - items.double()).square().mean().item()
    using.write_items(out, torch.stack([items, back], 1).flatten(0, 1) if out.suffix == ".png" else back, STEM)
    of = using.called(split, "validation")
    sentence = f"{len(items)} reconstructions of {of} in {out}; mean squared error {error:.5f} a number"
    return using.answer(parsed.json, sentence, count=len(items), split=split, mse=error, out=str(out))


def held_out(parsed: Any, model: Pretrained) -> tuple[Tensor, str | None]:
    """The first items of --data, or of what the run kept aside, and their split."""
    dataset, rows = using.items_of(parsed, model, "validation")
    return using.floats(dataset, rows[: parsed.n or 32]), using.split_of(parsed, dataset, "validation")
