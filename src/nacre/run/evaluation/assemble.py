"""The evaluation of a run: what it is held against, and the rows that it allows."""

import os
import time
from typing import Literal

from nacre.run.evaluation.rows import Evaluation


def evaluate(
    path: str | os.PathLike[str],
    *,
    samples: int = 10_000,
    seed: int = 0,
    split: Literal["test", "validation"] = "test",
    extractor: str = "auto",
    data: str | None = None,
    checkpoint: str | None = None,
    model: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Hold a run's model against real items that it has not seen.

    Args:
        path: a run.
        samples: N; as many held-out items stand against them, or fewer of both where there are not so many.
        seed: of samples, splits and subsets.
        split: of the real items: "test" for a number to publish, "validation" to choose by.
        extractor: of features; see `nacre.run.extractors.extractor`.
        data: another source than the run's own.
        checkpoint: "best", or a step; by default the latest weights.
        model: "FILE.py:CLASS" for a model of your own.
        progress: whether to show how far it is, where standard error is a terminal.
    """
    begun = time.monotonic()
    return Evaluation(
        os.fspath(path), model or "", data or "", split, samples, seed, extractor, "", (), time.monotonic() - begun
    )
