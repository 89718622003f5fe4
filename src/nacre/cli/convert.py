"""`nacre convert`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nacre.cli import flags, using
from nacre.errors import ConfigError
from nacre.run.convert import convert_cyclegan
from nacre.spec import Field

OWN = [
    Field("format", Literal["cyclegan"], "cyclegan", "whose layout: 'cyclegan', the authors' PyTorch code"),
    Field("b2a", str | None, None, "weights of the translator back (their G_B)"),
    Field("judge_a", str | None, None, "weights of the judge of side A (their D_B)"),
    Field("judge_b", str | None, None, "weights of the judge of side B (their D_A)"),
    Field("image_size", int, 256, "pixels that the weights were trained at; any other size is translated as well"),
    Field("out", str | None, None, "the model folder to write"),
    Field("json", bool, False, "print the answer as JSON"),
]


def main(argv: Sequence[str]) -> int:
    """Convert weights."""
    parser = flags.parser(
        "convert", "Turn the weights of another code into a model folder.", "FILE --out FOLDER [flags]"
    )
    parser.add_argument("file", help="weights of the translator from A to B (their G_A): .pth or .safetensors")
    flags.add(parser, "convert", OWN)
    parsed = flags.parse(parser, argv)
    if not parsed.out:
        raise ConfigError("say where the model goes: --out FOLDER.")
    given = {"a2b": Path(parsed.file)}
    given |= {part: Path(path) for part in ("b2a", "judge_a", "judge_b") if (path := getattr(parsed, part))}
    size = 256 if parsed.image_size is None else parsed.image_size
    if size < 8:
        raise ConfigError(f"--image-size must be 8 or more, got {size}.")
    place = Path(parsed.out)
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise ConfigError(f"{place} is there already and not empty; take another --out.")
    model = convert_cyclegan(given, size)
    out = model.save_pretrained(parsed.out)
    directions = model.facts["directions"]
    sentence = f"{len(given)} networks in {out}; next: nacre translate {out} IMAGE --direction {directions[0]}"
    return using.answer(parsed.json, sentence, out=str(out), directions=directions, parameters=model.spec.complete())
