"""Checkpoints: whole or absent, checksummed, tensors and plain containers only."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nacre import files
from nacre.errors import CheckpointError

FORMAT = 1
STATE, MANIFEST = "state.pt", "manifest.json"


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `folder`/step-N, after which it is on the disk or the error says why it is not.

    Raises:
        CheckpointError: the disk is full, read-only or failing. Earlier checkpoints are untouched.
    """
    path = folder / f"step-{step:08d}"
    if path.exists() and _damage(path) is None:
        return path
    try:
        shutil.rmtree(path, ignore_errors=True)
        with files.whole_folder(path) as aside:
            torch.save(state, aside / STATE)
            manifest = {"format": FORMAT, "step": step, "sha256": {STATE: files.sha256(aside / STATE)}}
            (aside / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        kept = steps(folder)
        last = f"the checkpoint of step {kept[-1]} is intact" if kept else "there is no earlier one"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise CheckpointError(f"could not write {path}: {reason}; {last}. Make room and resume.") from error
    return path


def load(folder: Path, step: int, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state of one checkpoint.

    Raises:
        CheckpointError: it is absent, damaged or from a newer version.
    """
    path = folder / f"step-{step:08d}"
    damage = _damage(path)
    if damage:
        raise CheckpointError(f"checkpoint {path} {damage}.")
    state: dict[str, Any] = torch.load(path / STATE, map_location=device, weights_only=True)
    return state


def load_latest(folder: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint, and a sentence for each newer one that had to be passed over."""
    notes: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return load(folder, step, device), notes
        except CheckpointError as error:
            notes.append(f"{error} Going on from the one before.")
    return None, notes


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, whole or not, in order."""
    names = [path.name for path in folder.glob("step-*")] if folder.is_dir() else []
    return sorted(int(name[5:]) for name in names if name[5:].isdecimal())


def prune(folder: Path, keep: int, best: int | None, ahead_of: int) -> None:
    """Remove all but the last `keep` checkpoints and the best; and those later than `ahead_of`, a run that was undone."""
    present: Sequence[int] = steps(folder)
    kept = {*[step for step in present if step <= ahead_of][-keep:], best}
    for step in present:
        if step not in kept:
            shutil.rmtree(folder / f"step-{step:08d}", ignore_errors=True)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, as the end of a sentence; None if nothing is."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            return f"has format {manifest['format']} and this version of nacre reads up to {FORMAT}; upgrade nacre"
        if manifest["sha256"][STATE] != files.sha256(path / STATE):
            return "is damaged (its checksum does not match)"
    except FileNotFoundError:
        return "is missing" if not path.exists() else "is damaged (a file is missing)"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"is damaged ({type(error).__name__} in its manifest)"
    return None
