"""The run's log: `log.jsonl`, a line a report, and TensorBoard events beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre import files

NAME, EVENTS = "log.jsonl", "events"


class Log:
    """Appends to a run's log; on resume, lines from the steps that are to be done again are dropped first.

    Args:
        folder: the run.
        step: steps already done; later lines go.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # TensorBoard takes a second to import, so only those who train pay for it.
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / NAME
        kept = [line for line in read(folder) if line["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.events: Any = SummaryWriter(str(folder / EVENTS), purge_step=step + 1 if step else None)

    def write(self, step: int, **entry: Any) -> None:
        """Add one line; numbers under "losses", "signals" and "validation" go to TensorBoard as well."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entry}) + "\n")
        for name, value in entry.get("losses", {}).items():
            self.events.add_scalar(name, value, step)
        for name, value in entry.get("signals", {}).items():
            if isinstance(value, float | int):
                self.events.add_scalar(f"signals/{name}", value, step)
        if "validation" in entry:
            self.events.add_scalar("validation", entry["validation"]["value"], step)
        self.events.flush()

    def signals(self) -> list[Mapping[str, Any]]:
        """The lines so far that hold signals."""
        return [line for line in read(self.path.parent) if "signals" in line]

    def picture(self, step: int, name: str, page: np.ndarray) -> None:
        """Show a page (height, width[, C]) uint8 in TensorBoard."""
        tensor = torch.from_numpy(page if page.ndim == 3 else page[:, :, None]).permute(2, 0, 1)
        self.events.add_image(name, tensor, step)

    def close(self) -> None:
        """Flush and release the files."""
        self.events.close()


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that was cut in half is left out."""
    path = folder / NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
