"""`nacre encode`."""

from collections.abc import Sequence

import numpy as np

from nacre.cli import flags, using
from nacre.spec import Field

OWN = [
    Field("data", str | None, None, "a data source; by default the run's own, all of it"),
    Field("out", str, "codes.npz", "a .npz with codes (N, latent_dim), names and labels"),
]


def main(argv: Sequence[str]) -> int:
    """Encode images."""
    parser = using.parser("encode", "Turn items into codes.", OWN)
    parsed = flags.parse(parser, argv)
    out = using.archive_named(parsed.out, "codes.npz")
    using.spare_given([out], using.source_of(parsed))
    model = using.model_of(parsed)
    dataset, rows = using.items_of(parsed, model, None)
    codes = using.in_batches(model.encode, dataset, rows, using.batch_size(parsed))
    arrays = {"codes": codes, "names": np.array(dataset.names)[rows]}
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels[rows]
    using.write_arrays(out, arrays)
    count, dim = codes.shape
    return using.answer(
        parsed.json, f"{count:,} codes of {dim} numbers in {out}", count=count, latent_dim=dim, out=str(out)
    )
