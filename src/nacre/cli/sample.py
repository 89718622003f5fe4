"""`nacre sample`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from nacre.cli import flags, using
from nacre.engine.sampling import chunks
from nacre.errors import CheckpointError, ConfigError
from nacre.latent import LatentMixture, spread
from nacre.pretrained import Pretrained
from nacre.spec import Field

MIXTURE = "mixture.safetensors"
"""Where a run keeps the mixture that was fitted to its codes."""

OWN = [
    Field("n", int, 64, "how many"),
    Field(
        "seed", int, 0, "of the samples, 0 to 4294967295; number i of a seed is the same whatever -n and --batch-size"
    ),
    Field("label", str | None, None, "the class of all, by number or name, of a model trained with --conditional"),
    Field(
        "prior",
        Literal["model", "gmm"],
        "model",
        "'model': the model's own; 'gmm': a Gaussian mixture fitted to the codes of the run's training items, for any model "
        "that encodes and decodes",
    ),
    Field("components", str, "auto", "of 'gmm': how many Gaussians; 'auto' takes the number with the lowest BIC"),
    Field("data", str | None, None, "of 'gmm': a data source to fit to; by default the run's own training items"),
    Field("out", str, "samples.png", "a .png (a grid), a .npz, or a folder for single PNGs"),
]


def main(argv: Sequence[str]) -> int:
    """Draw samples."""
    parser = using.parser("sample", "Draw new items from a trained model.", OWN)
    parsed = flags.parse(parser, argv)
    if parsed.prior != "gmm" and (parsed.components is not None or parsed.data is not None):
        raise ConfigError("--components and --data are of a fitted prior; add --prior gmm.")
    model = using.model_of(parsed)
    count = 64 if parsed.n is None else parsed.n
    seed, out = parsed.seed or 0, Path(parsed.out or "samples.png")
    sentence, facts = f"{count} samples of seed {seed} in {out}", {"count": count, "seed": seed, "out": str(out)}
    if parsed.prior == "gmm":
        if parsed.label is not None:
            raise ConfigError("a mixture of codes knows no labels; leave --label or --prior gmm out.")
        mixture = mixture_of(parsed, model)
        using.write_items(out, mixture.sample(count, seed=seed))
        components = len(mixture.weights)
        return using.answer(
            parsed.json, f"{sentence}, out of {components} Gaussians over the codes", **facts, components=components
        )
    using.write_items(out, model.sample(count, seed=seed, batch_size=using.batch_size(parsed), label=parsed.label))
    return using.answer(parsed.json, sentence, **facts)


def mixture_of(parsed: Any, model: Pretrained) -> LatentMixture:
    """The mixture over a model's codes: the one that lies beside the run, if it is of these weights, or a new one.

    Raises:
        ConfigError: --components is no number.
    """
    asked = parsed.components or "auto"
    if asked != "auto" and not asked.isdecimal():
        raise ConfigError(f"--components takes 'auto' or a number, got '{asked}'.")
    kept, of = Path(parsed.run) / MIXTURE, fingerprint(model, asked)
    if parsed.data is None and kept.is_file():
        mixture, facts = LatentMixture.load(kept, model)
        if facts.get("of") == of:
            return mixture
    dataset, rows = using.items_of(parsed, model, "train")
    rows, size = rows[spread(len(rows))], using.batch_size(parsed)
    parts = [model.encode(using.floats(dataset, rows[part.start : part.stop])) for part in chunks(0, len(rows), size)]
    components = None if asked == "auto" else int(asked)
    mixture = LatentMixture.of_codes(model, torch.cat(parts), components=components, progress=True)
    if parsed.data is None:
        try:
            mixture.save(kept, of=of)
        except OSError as error:
            raise CheckpointError(f"the mixture could not be kept in {kept} ({error.strerror or error}).") from None
    return mixture


def fingerprint(model: Pretrained, asked: str) -> str:
    """What a mixture is of: the weights of the model, and how many components were asked for."""
    digest = hashlib.sha256(asked.encode())
    for name, value in model.module.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
