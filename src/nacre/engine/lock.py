"""One process a run."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nacre.errors import RunError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run. `run.lock` says who does; the lock itself is the system's, so a killed holder leaves none behind.

    Raises:
        RunError: another process holds it.
    """
    holder = run / "run.lock"
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{run} is in use by {_who(holder)}; wait for it, or stop it and resume.") from None
    except OSError as error:
        raise RunError(f"{run} cannot be written ({error.strerror or error}); take another --out.") from None
    try:
        holder.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {who['process']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
