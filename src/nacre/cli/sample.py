"""`nacre sample`."""

from collections.abc import Sequence
from pathlib import Path

from nacre.cli import flags, using
from nacre.spec import Field

OWN = [
    Field("n", int, 64, "how many"),
    Field(
        "seed", int, 0, "of the samples, 0 to 4294967295; number i of a seed is the same whatever -n and --batch-size"
    ),
    Field("label", str | None, None, "the class of all, by number or name, of a model trained with --conditional"),
    Field("out", str, "samples.png", "a .png (a grid), a .npz, or a folder for single PNGs"),
]


def main(argv: Sequence[str]) -> int:
    """Draw samples."""
    parser = using.parser("sample", "Draw new items from a trained model.", OWN)
    parsed = flags.parse(parser, argv)
    model = using.model_of(parsed)
    count = 64 if parsed.n is None else parsed.n
    seed, out = parsed.seed or 0, Path(parsed.out or "samples.png")
    using.write_items(out, model.sample(count, seed=seed, batch_size=using.batch_size(parsed), label=parsed.label))
    return using.answer(parsed.json, f"{count} samples of seed {seed} in {out}", count=count, seed=seed, out=str(out))
