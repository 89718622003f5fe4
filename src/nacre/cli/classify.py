"""`nacre classify`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nacre.cli import flags, using
from nacre.engine.sampling import chunks
from nacre.errors import ConfigError, RunError
from nacre.protocols import require
from nacre.spec import Field

OWN = [
    Field("data", str | None, None, "a data source; by default the test images of the run's own"),
    Field("out", str, "classes.npz", "a .npz with probabilities (N, classes), classes, names and, where known, labels"),
]


def main(argv: Sequence[str]) -> int:
    """Classify images."""
    parser = using.parser("classify", "Tell the classes of items.", OWN)
    parsed = flags.parse(parser, argv)
    out = Path(parsed.out or "classes.npz")
    if out.suffix != ".npz":
        raise ConfigError(f"--out takes a .npz, got {out}.")
    model = using.model_of(parsed)
    require(model.module, "classify")
    dataset, rows = using.items_of(parsed, model, "test")
    size = using.batch_size(parsed)
    parts = [model.classify(using.floats(dataset, rows[part.start : part.stop])) for part in chunks(0, len(rows), size)]
    chances = torch.cat(parts).numpy()
    arrays = {"probabilities": chances, "classes": np.array(model.classes), "names": np.array(dataset.names)[rows]}
    accuracy = None
    # Numbers of classes mean the same only where their names do.
    if dataset.labels is not None and list(dataset.classes) == model.classes:
        arrays["labels"] = labels = dataset.labels[rows]
        known = labels >= 0
        accuracy = float((chances.argmax(1) == labels)[known].mean()) if known.any() else None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        using.write_arrays(out, arrays)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None
    right = "" if accuracy is None else f", {accuracy:.2%} of those with a label right"
    sentence = f"{len(rows):,} items in {len(model.classes)} classes{right}; probabilities in {out}"
    return using.answer(parsed.json, sentence, count=len(rows), accuracy=accuracy, out=str(out))
