"""`nacre evaluate`."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from nacre.cli import flags, using
from nacre.errors import ConfigError, RunError
from nacre.run import report
from nacre.run.evaluation import Examination, Settings, examine, words
from nacre.spec import Field, fields

OUT = Field("out", str | None, None, "where the page goes, an .html; by default report.html in the run")

NOT_HERE = {"progress", *(field.name for field in using.COMMON)}

OWN = [*(field for field in fields(Settings) if field.name not in NOT_HERE), OUT]


def main(argv: Sequence[str]) -> int:
    """Hold a model against real items."""
    parser = using.parser("evaluate", "Hold a model against real items: a table, and a page to send.", OWN)
    parsed = flags.parse(parser, argv)
    out = Path(parsed.out) if parsed.out else _beside(Path(parsed.run)) / report.NAME
    if out.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out takes an .html, got {out}.")
    settings = {"device": "auto", **flags.given(parsed, fields(Settings))}
    examination = examine(parsed.run, Settings(**settings))
    if not parsed.json:  # before the page, which a place may not take
        width = shutil.get_terminal_size((100, 24)).columns
        print(words.text(examination.evaluation, max(60, min(width, 110))))
    unwritten = _unwritten(examination, out)
    if parsed.json:
        written = None if unwritten else str(out)
        print(json.dumps({**examination.evaluation.as_dict(), "report": written}, allow_nan=False))
    if unwritten:
        raise unwritten
    if not parsed.json:
        print(f"\n{out}: all of it, with pictures")
    return 0


def _unwritten(examination: Examination, out: Path) -> RunError | None:
    """Write the page; what kept it from being written, if anything did."""
    try:
        report.write(examination, out)
    except RunError as error:
        return error
    return None


def _beside(run: Path) -> Path:
    """Where a run's page goes: into it; of a model from the hub, here."""
    return run if run.is_dir() else Path()
