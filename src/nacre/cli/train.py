"""`nacre train`."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from nacre.cli import flags
from nacre.data import DataSettings
from nacre.engine.settings import Training
from nacre.errors import Interrupted
from nacre.models import CATALOGUE
from nacre.run import Run, train
from nacre.run import config as configuration
from nacre.run.launch import is_follower
from nacre.spec import Field, fields, find_class, summary

PLACES = [
    Field("out", str | None, None, "the run directory; by default a new one under runs/"),
    Field("overwrite", bool, False, "replace the run that --out holds"),
    Field("init_from", str | None, None, "a run or model folder to take the initial weights from, and nothing else"),
    Field(
        "or_resume",
        bool,
        False,
        "go on with the run that --out holds, if any: for schedulers that start a command again",
    ),
    Field("conditional", bool, False, "condition the model on the labels of the data, as many as there are"),
    Field("config", str | None, None, "a run, or a YAML file like its config.yaml, to repeat; flags override it"),
]

STOPPED = 3
"""Exit code of a run that a verdict of --stop-on has stopped; it was saved and can be resumed."""


def main(argv: Sequence[str]) -> int:
    """Train a model."""
    model = argv[0] if argv and not argv[0].startswith("-") else None
    configuration.check_names(model)
    known = model or _configured(argv)
    own = fields(find_class(known)) if known else []
    parser = flags.parser("train", _description(model), "[MODEL] [--data SOURCE] [flags]")
    if known:
        flags.add(parser, known, own)
    for title, listed in (("data", fields(DataSettings)), ("training", fields(Training)), ("places", PLACES)):
        flags.add(parser, title, listed)
    parsed = flags.parse(parser, argv[1:] if model else argv)
    settings = flags.given(parsed, [*own, *fields(DataSettings), *fields(Training)])
    return report(lambda: train(model, **flags.given(parsed, PLACES), **settings), model)


def report(play: Callable[[], Run], model: str | None) -> int:
    """Run, and say how it ended and what to do next; returns the exit code."""
    own = f" --model {shlex.quote(model)}" if model and model not in CATALOGUE else ""
    try:
        run = play()
    except Interrupted as stop:
        place = shlex.quote(str(stop.run.path))
        done, steps = stop.run.done, stop.run.steps
        if not is_follower():
            go_on = f"; go on with: nacre resume {place}{own}" if done < steps else f", in {place}"
            print(f"stopped and saved at step {done:,} of {steps:,}{go_on}")
        return 128 + stop.signal
    if is_follower():
        return 0
    if run.stopped:
        place = shlex.quote(str(run.path))
        print(
            f"stopped and saved at step {run.done:,} of {run.steps:,}, on {run.stopped.title}: {run.stopped.sentence}; "
            f"nacre diagnose {place} says more, nacre resume {place}{own} goes on"
        )
        return STOPPED
    if run.score:
        print(run.score)
    verb = _use(run, model)
    what = " IMAGE" if verb == "translate" else ""
    print(f"done: {run.done:,} steps in {run.path}; next: nacre {verb} {shlex.quote(str(run.path))}{what}{own}")
    return 0


def _configured(argv: Sequence[str]) -> str | None:
    """The model of the catalogue that --config is of, so that its flags are known though the command does not name it."""
    file = flags.typed(argv, "--config")
    configured = configuration.read(Path(file)).get("model") if file else None
    return configured if configured in CATALOGUE else None


def _use(run: Run, model: str | None) -> str:
    """The first command that the model of a run can be used with."""
    name = model or str(configuration.recorded(run.path)["model"])
    able = find_class(name) if model or name in CATALOGUE else None
    verbs = ("sample", "translate", "classify", "reconstruct", "encode")
    return next((verb for verb in verbs if hasattr(able, verb)), "sample")


def _description(model: str | None) -> str:
    if model:
        return summary(find_class(model))
    listed = "\n".join(f"  {name:<9} {summary(find_class(name))}" for name in CATALOGUE)
    return (
        f"Train a model. MODEL is one of\n\n{listed}\n\nor FILE.py:CLASS, a model of your own; left out, the data choose.\n"
        "`nacre train MODEL --help` has the flags of that model as well."
    )
