"""`nacre reconstruct`."""

from collections.abc import Sequence
from pathlib import Path

import torch

from nacre.cli import flags, using
from nacre.errors import ConfigError
from nacre.spec import Field

OWN = [
    using.DATA,
    Field("n", int, 32, "how many images, the first of the source"),
    Field(
        "out", str, "reconstructions.png", "a .png (pairs: image, reconstruction), a .npz, or a folder for single PNGs"
    ),
]


def main(argv: Sequence[str]) -> int:
    """Reconstruct images."""
    parser = using.parser("reconstruct", "Send items through an autoencoder and back.", OWN)
    parsed = flags.parse(parser, argv)
    if parsed.n is not None and parsed.n < 1:
        raise ConfigError(f"-n must be 1 or more, got {parsed.n}.")
    model = using.model_of(parsed)
    dataset, rows = using.items_of(parsed, model, "validation")
    items = using.floats(dataset, rows[: parsed.n or 32])
    back = model.reconstruct(items, batch_size=using.batch_size(parsed))
    error = (back.double() - items.double()).square().mean().item()
    out = Path(parsed.out or "reconstructions.png")
    using.write_items(
        out, torch.stack([items, back], 1).flatten(0, 1) if out.suffix == ".png" else back, "reconstruction"
    )
    sentence = f"{len(items)} reconstructions in {out}; mean squared error {error:.5f} a number"
    return using.answer(parsed.json, sentence, count=len(items), mse=error, out=str(out))
