"""`nacre sample`."""

from collections.abc import Sequence
from pathlib import Path

from nacre.cli import flags, using
from nacre.spec import Field

OWN = [
    Field("n", int, 64, "how many"),
    Field("seed", int, 0, "of the samples; number i of a seed is the same whatever -n and --batch-size"),
    Field("out", str, "samples.png", "a .png (a grid), a .npz, or a folder for single PNGs"),
]


def main(argv: Sequence[str]) -> int:
    """Draw samples."""
    parser = using.parser("sample", "Draw new items from a trained model.", OWN)
    parsed = flags.parse(parser, ["--n" if word == "-n" else word for word in argv])
    model = using.model_of(parsed)
    count, seed, out = parsed.n or 64, parsed.seed or 0, Path(parsed.out or "samples.png")
    using.write_items(
        out, model.sample(count if parsed.n is None else parsed.n, seed=seed, batch_size=parsed.batch_size or 256)
    )
    return using.answer(parsed.json, f"{count} samples of seed {seed} in {out}", count=count, seed=seed, out=str(out))
