"""What nacre starts as one of the ranks of a run. Not a command for users."""

import json
import os
from collections.abc import Sequence

from nacre.run import resume, train
from nacre.run.launch import REQUEST


def main(argv: Sequence[str]) -> int:
    """Do as the first rank does."""
    request = json.loads(os.environ[REQUEST])
    play = train if request["call"] == "train" else resume
    play(**request["arguments"])
    return 0
