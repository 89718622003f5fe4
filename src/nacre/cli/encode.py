"""`nacre encode`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nacre.cli import flags, using
from nacre.engine.sampling import chunks
from nacre.errors import ConfigError, RunError
from nacre.spec import Field

OWN = [
    Field("data", str | None, None, "a data source; by default the run's own, all of it"),
    Field("out", str, "codes.npz", "a .npz with codes (N, latent_dim), names and labels"),
]


def main(argv: Sequence[str]) -> int:
    """Encode images."""
    parser = using.parser("encode", "Turn items into codes.", OWN)
    parsed = flags.parse(parser, argv)
    out = Path(parsed.out or "codes.npz")
    if out.suffix != ".npz":
        raise ConfigError(f"--out takes a .npz, got {out}.")
    model = using.model_of(parsed)
    dataset, rows = using.items_of(parsed, model, None)
    size = using.batch_size(parsed)
    parts = [model.encode(using.floats(dataset, rows[part.start : part.stop])) for part in chunks(0, len(rows), size)]
    arrays = {"codes": torch.cat(parts).numpy(), "names": np.array(dataset.names)[rows]}
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels[rows]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        using.write_arrays(out, arrays)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None
    count, dim = arrays["codes"].shape
    return using.answer(
        parsed.json, f"{count:,} codes of {dim} numbers in {out}", count=count, latent_dim=dim, out=str(out)
    )
