"""Runs: `train` makes one, `resume` goes on with one, `fork` branches one."""

from nacre.run.fork import fork
from nacre.run.resume import resume
from nacre.run.session import Run
from nacre.run.start import train

__all__ = ["Run", "fork", "resume", "train"]
