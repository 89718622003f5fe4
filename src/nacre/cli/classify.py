"""`nacre classify`."""

from collections.abc import Sequence

import numpy as np

from nacre.cli import flags, using
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
    out = using.archive_named(parsed.out, "classes.npz")
    using.spare_given([out], using.source_of(parsed))
    model = using.model_of(parsed)
    require(model.module, "classify")
    dataset, rows = using.items_of(parsed, model, "test")
    split = using.split_of(parsed, dataset, "test")
    chances = using.in_batches(model.classify, dataset, rows, using.batch_size(parsed))
    arrays = {"probabilities": chances, "classes": np.array(model.classes), "names": np.array(dataset.names)[rows]}
    accuracy = None
    # Numbers of classes mean the same only where their names do.
    if dataset.labels is not None and list(dataset.classes) == model.classes:
        arrays["labels"] = labels = dataset.labels[rows]
        known = labels >= 0
        accuracy = float((chances.argmax(1) == labels)[known].mean()) if known.any() else None
    using.write_arrays(out, arrays)
    right = "" if accuracy is None else f", {accuracy:.2%} of those with a label right"
    sentence = (
        f"{len(rows):,} {using.called(split, 'test')} in {len(model.classes)} classes{right}; probabilities in {out}"
    )
    return using.answer(parsed.json, sentence, count=len(rows), split=split, accuracy=accuracy, out=str(out))
