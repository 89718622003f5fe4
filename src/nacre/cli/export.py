"""`nacre export`."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from nacre.cli import flags, using
from nacre.errors import ConfigError
from nacre.run.export import export_onnx
from nacre.spec import Field

OWN = [
    Field(
        "onnx",
        str | None,
        None,
        "folder for the ONNX files: generator, encoder, decoder … as far as the model has them, each checked against PyTorch; "
        "'onnx' if none is named",
    ),
]


def main(argv: Sequence[str]) -> int:
    """Export a model."""
    parser = using.parser("export", "Write a trained model for other runtimes, in evaluation mode.", OWN)
    parsed = flags.parse(parser, _with_folder(argv))
    if not parsed.onnx:
        raise ConfigError("say where the files go: nacre export RUN --onnx FOLDER.")
    model = using.model_of(parsed)
    facts = {"model": model.spec.name, "parameters": model.spec.complete(), "shape": model.shape}
    done = export_onnx(model.module, model.shape, Path(parsed.onnx), facts=facts)
    worst = max(each.difference for each in done)
    names = ", ".join(Path(each.path).name for each in done)
    sentence = f"{names} in {parsed.onnx}; ONNX Runtime and PyTorch differ by {worst:.1e} at most"
    return using.answer(parsed.json, sentence, out=parsed.onnx, files=[asdict(each) for each in done])


def _with_folder(argv: Sequence[str]) -> list[str]:
    """The words, with a folder behind an --onnx that names none."""
    words = [*argv, "-"]
    pairs = pairwise(words)
    return [
        part
        for word, after in pairs
        for part in ([word, "onnx"] if word == "--onnx" and after.startswith("-") else [word])
    ]
