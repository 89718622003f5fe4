"""`nacre models`."""

import json
from collections.abc import Sequence
from typing import Any

from nacre.cli import flags
from nacre.models import CATALOGUE
from nacre.protocols import capabilities
from nacre.spec import Field, fields, find_class, spec, summary, type_name


def main(argv: Sequence[str]) -> int:
    """List the models."""
    parser = flags.parser("models", "List the models and what they can do.", "[--json]")
    flags.add(
        parser, "models", [Field("json", bool, False, "print a list of name, summary, capabilities and parameters")]
    )
    models = [describe(name) for name in CATALOGUE]
    if flags.parse(parser, argv).json:
        print(json.dumps(models, indent=2))
        return 0
    for model in models:
        print(f"{model['name']:<9} {model['summary']}\n{'':<9} can: {', '.join(model['capabilities'])}")
    print("\nnacre train MODEL --help lists a model's flags; a model of your own is FILE.py:CLASS.")
    return 0


def describe(name: str) -> dict[str, Any]:
    """One entry of the catalogue."""
    listed = [
        {"name": f.name, "type": type_name(f.type), "default": f.default, "help": f.help}
        for f in fields(find_class(name))
    ]
    labels = {"classes": 2} if getattr(find_class(name), "supervised", False) else {}
    verbs = capabilities(spec(name, labels).build((1, 16, 16)))
    return {"name": name, "summary": summary(find_class(name)), "capabilities": verbs, "parameters": listed}
