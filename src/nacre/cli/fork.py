"""`nacre fork`."""

from collections.abc import Sequence

from nacre.cli import flags
from nacre.cli.resume import parameters_of
from nacre.cli.train import report
from nacre.data import DataSettings
from nacre.engine.settings import Training
from nacre.errors import ConfigError
from nacre.run import fork
from nacre.spec import Field, fields

OWN = [
    Field("at", int | None, None, "the step up to which the fork is the run itself; from there on it goes its own way"),
    Field(
        "out", str | None, None, "the directory of the fork; by default one beside RUN, called after it and the step"
    ),
    Field("overwrite", bool, False, "replace the run that --out holds"),
    Field("model", str | None, None, "FILE.py:CLASS again, for a model of your own"),
    Field("accept_changes", bool, False, "go on though numerics or your model's file differ; no longer bit-identical"),
]


def main(argv: Sequence[str]) -> int:
    """Branch a run."""
    description = (
        "Branch a run at a step: the same data and the same noise, and one thing changed. Without a change the fork is "
        "bit-identical to RUN, which stays as it is."
    )
    parser = flags.parser("fork", description, "RUN --at STEP [flags]")
    parser.add_argument("run", help="the run directory")
    flags.add(parser, "forking", OWN)
    listed = [*fields(DataSettings), *fields(Training), *parameters_of(argv)]
    flags.add(parser, "settings (what is given replaces the run's from that step on)", listed)
    parsed = flags.parse(parser, argv)
    if parsed.at is None:
        raise ConfigError(f"say at which step: nacre fork {parsed.run} --at STEP.")
    return report(lambda: fork(parsed.run, **flags.given(parsed, OWN), **flags.given(parsed, listed)), parsed.model)
