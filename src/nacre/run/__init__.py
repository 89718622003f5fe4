"""Runs: `train` makes one, `resume` goes on with one."""

from nacre.run.session import Run
from nacre.run.start import resume, train, trusted

__all__ = ["Run", "resume", "train", "trusted"]
