"""`nacre compare`."""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.cli import flags
from nacre.data import DataSettings
from nacre.engine.settings import Training
from nacre.errors import ConfigError, Interrupted
from nacre.run import config as configuration
from nacre.run.comparison import Comparison, compare, compare_models, page, words
from nacre.run.comparison.course import DECIDED
from nacre.run.evaluation import Settings
from nacre.run.place import stem
from nacre.spec import Field, fields, find_class

OWN = [
    Field(
        "out",
        str | None,
        None,
        "a folder for page, CSV and LaTeX; by default compare, or runs/compare-DATA of --models",
    ),
    Field("json", bool, False, "print the table as JSON"),
]

EVALUATION = [field for field in fields(Settings) if field.name not in ("data", "device", "batch_size", "progress")]

MODELS = [
    Field("models", str | None, None, "train these first: names with commas, or FILE.py:CLASS for your own"),
    Field("budget", str | None, None, "what each run is given: images=2M, minutes=10 or steps=5000"),
    Field("seeds", int, 3, "training seeds of each model: 0, 1, …"),
    Field("conditional", bool, False, "train on the labels of the data"),
]

OF_RUNS = ("data", "device")
"""Settings of data and training that runs take as well: what they are held against, and where."""


def main(argv: Sequence[str]) -> int:
    """Compare runs, or train models and compare them."""
    parser = flags.parser("compare", _DESCRIPTION, "RUN RUN… [flags], or --models MODEL,MODEL --budget … [flags]")
    parser.add_argument("runs", nargs="*", help="runs to compare")
    own = _shared(_names(flags.typed(argv, "--models") or ""))
    data = fields(DataSettings)
    training = [field for field in fields(Training) if field.name not in DECIDED]
    for title, listed in (
        ("compare", OWN),
        ("evaluation", EVALUATION),
        ("with --models", MODELS),
        ("with --models, data", data),
        ("with --models, training", training),
        ("with --models, for those that have them", own),
    ):
        flags.add(parser, title, listed)
    parsed = flags.parse(parser, argv)
    try:
        found, out = (_runs if parsed.models is None else _models)(
            parsed, flags.given(parsed, [*data, *training, *own])
        )
    except Interrupted as stop:
        print(f"stopped and saved at step {stop.run.done:,} of {stop.run.path}; the same command goes on")
        return 128 + stop.signal
    return _answer(found, page.write(found, out), parsed.json)


_DESCRIPTION = """\
Compare models: the same N, the same held-out items, intervals, and which differences are real.

  nacre compare runs/a runs/b
  nacre compare --models ae,vae,dcgan,wgan_gp --data photos/ --budget images=2M --seeds 3

The second form trains them first, under the same data, size, seeds and budget; the same command goes on where it stopped."""


def _runs(parsed: Any, given: Mapping[str, Any]) -> tuple[Comparison, Path]:
    more = [field.flag for field in MODELS if getattr(parsed, field.name) is not None]
    more += ["--" + name.replace("_", "-") for name in given if name not in OF_RUNS]
    if more:
        raise ConfigError(
            f"{', '.join(more)} would be of training; runs are compared as they are, --models trains new ones."
        )
    out = Path(parsed.out or "compare")
    settings = {"device": "auto", **given, **flags.given(parsed, EVALUATION)}
    return compare(parsed.runs, out=out, **settings), out


def _models(parsed: Any, given: Mapping[str, Any]) -> tuple[Comparison, Path]:
    if parsed.runs or parsed.model:
        raise ConfigError("--models trains new runs; leave out --model and the runs, or leave out --models.")
    if parsed.budget is None:
        raise ConfigError("--models takes a --budget as well: images=2M, minutes=10 or steps=5000.")
    out = Path(parsed.out or f"runs/compare-{stem(given.get('data', DataSettings.data))}")
    settings = Settings(device=given.get("device", "auto"), **flags.given(parsed, EVALUATION))
    more = flags.given(parsed, [field for field in MODELS if field.name != "models"])
    return compare_models(_names(parsed.models), out=out, settings=settings, **more, **given), out


def _answer(found: Comparison, written: Sequence[Path], as_json: bool) -> int:
    if as_json:
        print(json.dumps(found.as_dict() | {"files": [str(path) for path in written]}))
    else:
        print(words.text(found, max(80, shutil.get_terminal_size((120, 24)).columns)))
        print(f"\npage, CSV and LaTeX: {', '.join(shlex.quote(str(path)) for path in written)}")
    return 1 if found.failures else 0


def _names(typed: str) -> list[str]:
    return [name for name in typed.split(",") if name]


def _shared(models: Sequence[str]) -> list[Field]:
    """The parameters that are of the same type in all of the models that have them."""
    found: dict[str, Field] = {}
    apart = set()
    for model in models:
        configuration.check_names(model)
        for field in fields(find_class(model)):
            known = found.setdefault(field.name, Field(field.name, field.type, None, field.help))
            if known.type != field.type:
                apart.add(field.name)
    taken = apart | {field.name for field in (*OWN, *EVALUATION, *MODELS)}
    return [field for name, field in found.items() if name not in taken]
