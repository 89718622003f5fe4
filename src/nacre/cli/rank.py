"""What nacre starts as one of the ranks of a run. Not a command for users."""

import json
import os
from collections.abc import Callable, Sequence

from nacre.run import Run, fork, resume, train
from nacre.run.launch import REQUEST


def main(argv: Sequence[str]) -> int:
    """Do as the first rank does."""
    request = json.loads(os.environ[REQUEST])
    plays: dict[str, Callable[..., Run]] = {"train": train, "resume": resume, "fork": fork}
    plays[request["call"]](**request["arguments"])
    return 0
