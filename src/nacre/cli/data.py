"""`nacre data`."""

import json
from collections.abc import Sequence
from pathlib import Path

from nacre.cli import flags, using
from nacre.data import DataSettings, contact_sheet, describe, load
from nacre.engine import pictures
from nacre.errors import ConfigError, RunError
from nacre.networks import is_image
from nacre.spec import Field, fields

OWN = [
    Field("sheet", str | None, None, "a .png to draw a contact sheet into: 64 crops exactly as a model would see them"),
    Field("json", bool, False, "print the description as JSON"),
]


def main(argv: Sequence[str]) -> int:
    """Describe a data source."""
    parser = flags.parser("data", "Look at a data source before training on it.", "SOURCE [flags]")
    parser.add_argument("source", help="as for `nacre train --data`")
    settings = [field for field in fields(DataSettings) if field.name != "data"]
    flags.add(parser, "data", [*OWN, *settings])
    parsed = flags.parse(parser, argv)
    asked = DataSettings(data=parsed.source, **flags.given(parsed, settings))
    sheet = Path(parsed.sheet) if parsed.sheet else None
    if sheet is not None and sheet.suffix != ".png":
        raise ConfigError(f"--sheet takes a .png, got {sheet}.")
    using.spare_given([sheet], [parsed.source, asked.data_b])
    description = describe(asked, progress=True)
    print(json.dumps(description.as_dict()) if parsed.json else description.as_text())
    if sheet is not None:
        _draw(sheet, asked)
    return 0


def _draw(out: Path, asked: DataSettings) -> None:
    dataset = load(asked)
    try:
        if is_image(dataset.shape):
            pictures.save(out, pictures.page(contact_sheet(dataset, seed=0)))
        else:
            pictures.save(out, pictures.scatter(dataset.items))
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}).") from None
