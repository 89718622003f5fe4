"""Measuring a run for a comparison; what has been measured is kept, so that a comparison that goes on does not do it again."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nacre import __version__, files, images
from nacre.engine import pictures
from nacre.errors import RunError
from nacre.latent import spread
from nacre.metrics.intervals import Estimate
from nacre.protocols import Samples
from nacre.run import mixture
from nacre.run.evaluation import Evaluation, Row, Settings, examined
from nacre.run.evaluation.subject import Subject, subject

FOLDER, NUMBERS, ITEMS = "evaluations", "numbers.json", "items.npz"

SHOWN, POINTS = 36, 2_000
"""Samples in a picture: images, or points of a density."""


@dataclass(frozen=True)
class Measured:
    """What is known of a run.

    Attributes:
        evaluation: the numbers.
        by_item: numbers of single held-out items, by row: (N,) each.
        mixture: whether it samples by a mixture over its codes, having no prior of its own.
        pages: (height, width[, 3]) uint8, of held-out items ("real") and of the first samples ("samples").
    """

    evaluation: Evaluation
    by_item: Mapping[str, Tensor]
    mixture: bool
    pages: Mapping[str, np.ndarray]


def measured(run: Path, place: Path, settings: Settings) -> Measured:
    """The evaluation of a run: as it is kept in a folder, if it is of these weights and settings, or made now.

    Args:
        run: what to evaluate.
        place: the folder of the comparison.
        settings: of the evaluation.
    """
    folder = place / FOLDER / f"{run.name}-{_key(run, settings)}"
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent or damaged, so it is made now
        return _read(folder)
    found = _made(run, settings)
    try:
        _write(folder, found)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror or error}); take another --out.") from None
    return found


def _made(run: Path, settings: Settings) -> Measured:
    found = subject(run, settings)
    lacking = mixture.lacks_prior(found.model.module)
    if lacking:
        fitted = mixture.mixture_of(found.model, lambda: _codes(found), run=run if found.own else None)
        found = replace(found, model=mixture.with_mixture(found.model, fitted))
    evaluation = examined(found).evaluation
    count, pages = SHOWN if found.image else POINTS, {"real": found.held_out}
    if isinstance(found.model.module, Samples):
        pages["samples"] = found.samples
    drawn = {name: pictures.page(images.to_float(items[:count])) for name, items in pages.items()}
    return Measured(evaluation, dict(found.by_item), lacking, drawn)


def _codes(found: Subject) -> Tensor:
    """Codes of training items, of as many as a mixture is fitted to."""
    rows = found.dataset.rows("train")
    rows = rows[spread(len(rows))]
    parts = np.array_split(rows, max(1, len(rows) // 1024))
    return torch.cat([found.model.encode(found.floats(part)) for part in parts])


def _key(run: Path, settings: Settings) -> str:
    """What numbers depend on besides the data: the weights, the settings, and nacre itself."""
    told = {name: value for name, value in asdict(settings).items() if name not in ("progress", "device", "batch_size")}
    state = hashlib.sha256(json.dumps([__version__, os.fspath(run.resolve()), told], sort_keys=True).encode())
    for file in sorted((run / "model").glob("*.safetensors")):
        state.update(files.sha256(file).encode())
    return state.hexdigest()[:12]


def _write(folder: Path, found: Measured) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    with files.whole_folder(folder) as aside:
        told = {"evaluation": found.evaluation.as_dict(), "mixture": found.mixture, "pages": sorted(found.pages)}
        (aside / NUMBERS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        arrays: dict[str, Any] = {name: values.numpy() for name, values in found.by_item.items()}
        np.savez(aside / ITEMS, **arrays)
        for name, page in found.pages.items():
            Image.fromarray(page).save(aside / f"{name}.png")


def _read(folder: Path) -> Measured:
    told = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    with np.load(folder / ITEMS) as arrays:
        by_item = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    pages = {}
    for name in told["pages"]:
        with Image.open(folder / f"{name}.png") as picture:
            pages[name] = np.asarray(picture)
    return Measured(_evaluation(told["evaluation"]), by_item, bool(told["mixture"]), pages)


def _evaluation(told: Mapping[str, Any]) -> Evaluation:
    """An evaluation as its `as_dict` tells it."""
    rows = tuple(
        Row(**_known(Row, {**row, "estimate": _estimate(row["estimate"]), "floor": _estimate(row["floor"])}))
        for row in told["rows"]
    )
    latents = tuple(_estimate(each) for each in told["kl_by_latent"])
    return Evaluation(
        **_known(Evaluation, {**told, "rows": rows, "kl_by_latent": latents, "notes": tuple(told["notes"])})
    )


def _known(target: type, told: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: told[each.name] for each in fields(target)}


def _estimate(told: Mapping[str, Any] | None) -> Estimate | None:
    """An estimate, NaN where JSON has null."""
    if told is None:
        return None
    numbers: dict[str, Any] = {name: math.nan if value is None else value for name, value in told.items()}
    return Estimate(**numbers)
