"""Checkpoints: whole or absent, checksummed, tensors and plain containers only."""

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nacre import files
from nacre.errors import CheckpointError

FORMAT = 1


class NewerVersion(CheckpointError):
    """A checkpoint that only a newer nacre can read."""


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
            with (aside / STATE).open("wb") as file:
                torch.save(state, file)
            manifest = {"format": FORMAT, "step": step, "sha256": {STATE: files.sha256(aside / STATE)}}
            (aside / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        if isinstance(error.__context__, KeyboardInterrupt):  # and one that was interrupted, too
            raise KeyboardInterrupt from error
        kept = steps(folder)
        last = f"the checkpoint of step {kept[-1]} is intact" if kept else "there is no earlier one"
        reason = error.strerror if isinstance(error, OSError) else None
        reason = reason or "the disk took only a part of it (is it full?)"
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
    try:
        state: dict[str, Any] = torch.load(path / STATE, map_location=device, weights_only=True)
        missing = {"step", "model", "average", "optimizers", "ledger", "best"} - set(state)
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:100]}).") from None
    if missing:
        raise CheckpointError(f"checkpoint {path} is incomplete: it lacks {', '.join(sorted(missing))}.")
    return state


def load_latest(folder: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint (None if there is none at all), and a sentence for each that was passed over.

    Raises:
        CheckpointError: there are checkpoints but none is whole, or one is from a newer version.
    """
    notes: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return load(folder, step, device), notes
        except NewerVersion:
            raise
        except CheckpointError as error:
            notes.append(f"{error} Going on from the one before.")
    if notes:
        raise CheckpointError(f"no checkpoint in {folder} is whole; remove them all to start over from step 0.")
    return None, notes


def copy(source: Path, target: Path, step: int) -> None:
    """Put a checkpoint into another folder as well, whole or not at all."""
    name = f"step-{step:08d}"
    with files.whole_folder(target / name) as aside:
        for file in (STATE, MANIFEST):
            shutil.copyfile(source / name / file, aside / file)


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


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two states are not bit-identical, as paths into their nested containers."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*a, *b}, key=str)
        return [found for key in keys for found in differences(a.get(key, ...), b.get(key, ...), f"{path}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [found for index, (x, y) in pairs for found in differences(x, y, f"{path}/{index}")]
    return [] if same(a, b) else [path]


def same(a: Any, b: Any) -> bool:
    """Bit-identical."""
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, as the end of a sentence; None if nothing is."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            raise NewerVersion(
                f"checkpoint {path} has format {manifest['format']} and this nacre reads up to {FORMAT}; upgrade nacre."
            )
        if manifest["sha256"][STATE] != files.sha256(path / STATE):
            return "is damaged (its checksum does not match)"
    except FileNotFoundError:
        return "is missing" if not path.exists() else "is damaged (a file is missing)"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"is damaged ({type(error).__name__} in its manifest)"
    return None
