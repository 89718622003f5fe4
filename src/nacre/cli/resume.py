"""`nacre resume`."""

from collections.abc import Sequence
from pathlib import Path

from nacre.cli import flags
from nacre.cli.train import report
from nacre.data import DataSettings
from nacre.engine.settings import Training
from nacre.run import config as configuration
from nacre.run import resume
from nacre.spec import Field, fields, find_class

OWN = [
    Field("model", str | None, None, "FILE.py:CLASS again, for a model of your own"),
    Field("accept_changes", bool, False, "go on though numerics or your model's file differ; no longer bit-identical"),
]


def main(argv: Sequence[str]) -> int:
    """Go on with a run."""
    parser = flags.parser("resume", "Go on with a run from its last checkpoint.", "RUN [flags]")
    parser.add_argument("run", help="the run directory")
    flags.add(parser, "resuming", OWN)
    listed = [*fields(DataSettings), *fields(Training), *parameters_of(argv)]
    flags.add(parser, "settings (steps and what is written when may change; the others must be what they were)", listed)
    parsed = flags.parse(parser, argv)
    return report(lambda: resume(parsed.run, **flags.given(parsed, OWN), **flags.given(parsed, listed)), parsed.model)


def parameters_of(argv: Sequence[str]) -> list[Field]:
    """The flags of the run's own model, so that they are known by name."""
    if not argv or argv[0].startswith("-"):
        return []
    own = configuration.recorded(Path(argv[0]))["model"]
    return fields(find_class(configuration.trusted(own, flags.typed(argv, "--model"))))
