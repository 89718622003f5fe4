"""Evaluations that are kept, so that a comparison that goes on does not measure again what it has measured."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from nacre import __version__, files
from nacre.errors import RunError
from nacre.metrics.intervals import Estimate
from nacre.run.evaluation import Evaluation, Row, evaluate

FOLDER = "evaluations"


def evaluated(run: Path, place: Path, **settings: Any) -> Evaluation:
    """The evaluation of a run: as it is kept in a folder, if it is of these weights and settings, or made now.

    Args:
        run: what to evaluate.
        place: the folder of the comparison.
        **settings: of `nacre.run.evaluation.evaluate`, without what it shows.
    """
    file = place / FOLDER / f"{run.name}-{_key(run, settings)}.json"
    try:
        return _evaluation(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        found = evaluate(run, **settings)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, json.dumps(found.as_dict(), indent=1) + "\n")
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror or error}); take another --out.") from None
    return found


def _key(run: Path, settings: Any) -> str:
    """What a number depends on besides the data: the weights, the settings, and nacre itself."""
    state = hashlib.sha256(json.dumps([__version__, os.fspath(run), settings], sort_keys=True).encode())
    for file in sorted((run / "model").glob("*.safetensors")):
        state.update(files.sha256(file).encode())
    return state.hexdigest()[:12]


def _evaluation(told: dict[str, Any]) -> Evaluation:
    told.pop("schema_version")
    rows = [
        Row(**{**row, "estimate": _estimate(row["estimate"]), "floor": _estimate(row["floor"])}) for row in told["rows"]
    ]
    return Evaluation(**{**told, "rows": tuple(rows)})


def _estimate(told: dict[str, Any] | None) -> Any:
    """An estimate, NaN where JSON has null."""
    return (
        None
        if told is None
        else Estimate(**{name: math.nan if value is None else value for name, value in told.items()})
    )
