"""Where a run goes: a directory that is new, or a run that was given up for it."""

import shlex
import shutil
from pathlib import Path

from nacre.engine.lock import locked
from nacre.errors import ConfigError, NacreError, RunError
from nacre.models import CATALOGUE
from nacre.run import config as configuration

OWN = (
    "a2b.png", "b2a.png", "checkpoints", "events", "latent_map.png", "log.jsonl", "mixture.safetensors", "model",
    "reconstructions.png", "report.html", "samples", "samples.png", "trace.json", configuration.NAME,
)  # fmt: skip
"""What nacre writes into a run; --overwrite removes this and nothing else. The configuration, by which a run is known, goes
last: a kill may come in between."""

LEFT = (".lock", "run.lock", f".{configuration.NAME}.*")
"""What a start that was killed may leave behind."""


def new_run(out: Path | None, otherwise: Path, overwrite: bool) -> Path:
    """An empty directory for a run: `out`, or a new one called as `otherwise`, with a number behind it.

    Raises:
        ConfigError: `out` holds something already.
        RunError: it cannot be written.
    """
    try:
        if out is None:
            return _numbered(otherwise.parent, otherwise.name)
        out.mkdir(parents=True, exist_ok=True)
        if any(not any(map(entry.match, LEFT)) for entry in out.iterdir()):
            _make_way(out, overwrite)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"the run directory {out or otherwise.parent} cannot be written ({reason}); take another --out."
        ) from None
    return out


def stem(name: str) -> str:
    """A model's or a source's name as part of a file's: letters, digits and dashes."""
    short = name if name.startswith("toy:") or ":" not in name else _named(name)
    short = Path(short.rstrip("/")).name if "/" in short else short
    return "".join(c if c.isalnum() else "-" for c in short.lower()).strip("-") or "run"


def _named(name: str) -> str:
    """The telling half: the class of FILE.py:CLASS, the set of mnist:DIR."""
    head, _, tail = name.rpartition(":")
    return tail if head.endswith(".py") else head


def _make_way(out: Path, overwrite: bool) -> None:
    try:
        configuration.recorded(out)
    except NacreError:
        raise ConfigError(
            f"{out} exists and is not a run of nacre; take another --out (nothing was changed)."
        ) from None
    if not overwrite:
        raise ConfigError(f"{out} holds a run already; `nacre resume {out}` goes on with it, --overwrite replaces it.")
    with locked(out):
        for name in OWN:
            entry = out / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)


def _numbered(parent: Path, stem: str) -> Path:
    for number in range(1, 10_000):
        path = parent / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{parent} holds 9,999 runs called {stem}; give this one a name with --out.")


def called(path: Path, model: str) -> str:
    """A run as it is typed in a command: with the flag that says where the code of one's own model is."""
    return shlex.quote(str(path)) + ("" if model in CATALOGUE else f" --model {shlex.quote(model)}")
