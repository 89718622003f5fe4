"""`nacre sample`."""

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nacre.cli import flags, sheets, using
from nacre.data.progress import bar
from nacre.data.sentences import reader_of
from nacre.editing import latents
from nacre.engine import pictures, sampling
from nacre.engine.sampling import chunks
from nacre.errors import ConfigError
from nacre.latent import LatentMixture, spread
from nacre.networks import is_image
from nacre.pretrained import Pretrained
from nacre.protocols import require
from nacre.run import mixture
from nacre.run.generate import generate
from nacre.spec import Field

PIECE = 16 * sampling.SELECTED
"""Samples that are drawn at a time."""

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
    Field("truncation", float | None, None, "t: latents in [-t, t] only, for less variety and fewer failures"),
    Field(
        "reject_worst",
        float,
        0.0,
        "share of the candidates, in [0, 1), that the model's own discriminator turns away, 256 being kept at a time; "
        "of --prompt: that go with the text worst, by what the model has learned of texts and images",
    ),
    Field(
        "format",
        Literal["parquet", "webdataset", "npz", "png"] | None,
        None,
        "write shards of this format into the folder --out; stopped, the same command goes on at the first that is missing",
    ),
    Field("shards", int | None, None, "of --format: how many; by default one for each 10,000 samples"),
    Field("shard", str | None, None, "of --format: k/K for shard k of K alone, k from 0, the same as in the whole"),
    Field("prompt", str | None, None, "a text, for a model that learned from captions; -n images of it"),
    Field("prompts", str | None, None, "a file of texts, one a line; -n images of each, a row of the grid"),
    Field(
        "text_encoder",
        str | None,
        None,
        "of --prompt: folder of the sentence encoder that the model was trained with, if it is elsewhere now",
    ),
    Field("to", str | None, None, "of --prompt: a second text, for -n images on the way from one to the other"),
    Field(
        "numbered",
        bool,
        False,
        "write each sample's number under it, and keep the latents beside, for `nacre arithmetic`",
    ),
    Field("out", str, "samples.png", "a .png (a grid), a .npz, or a folder for single PNGs"),
]

LONGEST_WORD = 30
"""Letters of an unknown word that are shown."""


def main(argv: Sequence[str]) -> int:
    """Draw samples."""
    parser = using.parser("sample", "Draw new items from a trained model.", OWN)
    parsed = flags.parse(parser, argv)
    if sum(word.partition("=")[0] == "--prompt" for word in argv) > 1:
        raise ConfigError(
            "--prompt is one text, and was given twice; for several, name a file of one a line by --prompts."
        )
    if parsed.prior != "gmm" and (parsed.components is not None or parsed.data is not None):
        raise ConfigError("--components and --data are of a fitted prior; add --prior gmm.")
    model = using.model_of(parsed)
    if parsed.prompt is not None or parsed.prompts is not None:
        return of_prompts(parsed, model)
    if parsed.text_encoder is not None:
        raise ConfigError("--text-encoder reads the text of --prompt or --prompts; give one, or leave it out.")
    if parsed.to is not None:
        raise ConfigError("--to ends a walk that --prompt begins; give both.")
    count = 64 if parsed.n is None else parsed.n
    if count < 1:
        raise ConfigError(f"the number of samples must be 1 or more, got {count}.")
    seed, out = parsed.seed or 0, Path(parsed.out or "samples.png")
    if parsed.prior == "gmm":
        using.spare_given([out] if out.suffix else out.glob("sample-*.png"), using.source_of(parsed))
    sentence, facts = f"{count} samples of seed {seed} in {out}", {"count": count, "seed": seed, "out": str(out)}
    if parsed.format is None and (parsed.shards is not None or parsed.shard is not None):
        raise ConfigError("--shards and --shard are of --format; say --format parquet, for example.")
    if parsed.prior == "gmm" and (parsed.label is not None or parsed.truncation is not None or parsed.reject_worst):
        raise ConfigError("a mixture of codes knows no labels, truncation or rejection; leave them or --prior gmm out.")
    if parsed.numbered and (parsed.prior == "gmm" or parsed.format is not None):
        raise ConfigError("--numbered is of the model's own samples, on one page; leave --prior gmm and --format out.")
    if parsed.format is not None:
        return in_shards(parsed, model, count)
    using.check_room(out, count, model.shape)
    using.check_numbered(out, count)
    if parsed.prior == "gmm":
        fitted = mixture_of(parsed, model)
        write(partial(fitted.sample, seed=seed), count, out)
        components = len(fitted.weights)
        return using.answer(
            parsed.json, f"{sentence}, out of {components} Gaussians over the codes", **facts, components=components
        )
    rest = {"truncation": parsed.truncation, "reject_worst": parsed.reject_worst or 0.0}
    if parsed.numbered:
        if any(rest.values()) or parsed.label is not None:
            raise ConfigError(
                "numbers are those of samples as they are drawn; leave --truncation, --reject-worst and --label out."
            )
        return in_numbers(parsed, model, out, count, seed)
    size = using.batch_size(parsed)
    write(partial(model.sample, seed=seed, batch_size=size, label=parsed.label, **rest), count, out)
    return using.answer(parsed.json, sentence, **facts)


def write(draw: Callable[..., torch.Tensor], count: int, out: Path) -> None:
    """Draw samples piece by piece, and write them: into a folder as they come, into one file all together."""
    parts = []
    with bar(count, "sampling", "sample", True) as shown:
        for rows in chunks(0, count, PIECE):
            items = draw(len(rows), first=rows.start)
            if out.suffix:
                parts.append(items)
            else:
                using.write_items(out, items, first=rows.start)
            shown.update(len(rows))
    if out.suffix:
        using.write_items(out, torch.cat(parts))


def in_numbers(parsed: Any, model: Pretrained, out: Path, count: int, seed: int) -> int:
    """Draw samples with their numbers under them, and keep their latents beside: a .npz of the same name."""
    if not is_image(model.shape):
        raise ConfigError("--numbered writes numbers under images, and this run is of vectors; leave it out.")
    require(model.module, "sample")
    if out.suffix != ".png":
        raise ConfigError(f"--numbered writes numbers under images, into a .png; got {out}.")
    kept = out.with_suffix(".npz")
    if kept.exists() and not is_kept(kept):
        raise ConfigError(f"the latents would go to {kept}, which holds something else; take another --out.")
    codes = latents.random_codes(model.module, count, seed=seed)
    items = latents.decode(model.module, codes, chunk=using.batch_size(parsed)).cpu()
    columns = math.ceil(math.sqrt(count))
    pictures.save(out, sheets.captioned(items, [str(number) for number in range(count)], columns))
    using.write_arrays(kept, {"codes": codes.cpu().numpy(), "numbers": np.arange(count), "seed": np.array(seed)})
    sentence = f"{count} samples of seed {seed} in {out}, with their numbers; latents in {kept}"
    return using.answer(parsed.json, sentence, count=count, seed=seed, out=str(out), latents=str(kept))


def is_kept(path: Path) -> bool:
    """Whether a .npz holds latents of numbered samples."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {"codes", "numbers", "seed"} <= set(arrays.files)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def of_prompts(parsed: Any, model: Pretrained) -> int:
    """Draw images of texts.

    Raises:
        ConfigError: flags that do not go together, or a file that cannot be read.
    """
    others = ("label", "data", "components", "format", "numbered", "shards", "shard")
    given = [name for name in others if getattr(parsed, name)]
    if parsed.prompt is not None and parsed.prompts is not None:
        raise ConfigError("--prompt is one text and --prompts a file of several; give one of them.")
    if given or parsed.prior == "gmm":
        raise ConfigError(
            "--prompt or --prompts goes with -n, --seed, --to, --truncation, --reject-worst, --text-encoder and --out alone."
        )
    prompts = _prompts(parsed)
    unread = sorted({word for prompt in prompts for word in model.unknown_words(prompt)})
    count = (8 if len(prompts) == 1 or parsed.to else 4) if parsed.n is None else parsed.n
    rest = {"seed": parsed.seed or 0, "truncation": parsed.truncation, "batch_size": using.batch_size(parsed)}
    rest |= {"text_encoder": parsed.text_encoder, "reject_worst": parsed.reject_worst or 0.0}
    walk = parsed.to is not None
    out = Path(parsed.out or "samples.png")
    using.check_numbered(out, count if walk else count * len(prompts))
    items = model.imagine(*prompts, count=1 if walk else count, steps=count if walk else 0, **rest)
    using.write_items(out, items, columns=count)
    how = "by the sentence encoder" if getattr(model.module, "text_origin", None) else "by their letters"
    shown = [word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…" for word in unread[:10]]
    note = f" (never seen in training, read {how}: {', '.join(shown)})" if unread else ""
    reader = reader_of(model.module, parsed.text_encoder)
    if long := sum(reader.unread(prompt) > 0 for prompt in prompts):
        note += f"; of {long} of them the first {reader.longest} {reader.unit} alone were read"
    sentence = f"{len(items)} images of {len(prompts)} prompt{'s' if len(prompts) > 1 else ''} in {out}{note}"
    return using.answer(parsed.json, sentence, count=len(items), prompts=prompts, unknown_words=unread, out=str(out))


def _prompts(parsed: Any) -> list[str]:
    if parsed.prompts is None:
        return [parsed.prompt] + ([parsed.to] if parsed.to is not None else [])
    if parsed.to is not None:
        raise ConfigError("--to ends a walk that --prompt begins; leave --prompts out.")
    try:
        lines = Path(parsed.prompts).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no UTF-8"
        raise ConfigError(
            f"--prompts {parsed.prompts} cannot be read as text ({why}); name a file of one text a line."
        ) from None
    return [line for line in lines if line.strip()]


def in_shards(parsed: Any, model: Pretrained, count: int) -> int:
    """Write the samples in shards."""
    only, shards = _shard(parsed)
    chosen = {"seed": parsed.seed or 0, "truncation": parsed.truncation, "reject_worst": parsed.reject_worst or 0.0}
    facts = {
        "weights": mixture.fingerprint(model, ""),
        **chosen,
        "label": parsed.label,
        "prior": parsed.prior or "model",
    }
    if parsed.prior == "gmm":
        facts |= {"components": parsed.components or "auto", "data": parsed.data}
        fitted = mixture_of(parsed, model)

        def draw(rows: range) -> tuple[torch.Tensor, torch.Tensor | None]:
            return fitted.sample(len(rows), seed=chosen["seed"], first=rows.start), None
    else:
        label = None if parsed.label is None else model.class_number(parsed.label)
        draw = partial(sampling.draw, model.module, chunk=using.batch_size(parsed), label=label, **chosen)
    out = Path(parsed.out or "samples")
    if out.suffix in (".png", ".npz", ".parquet", ".tar"):
        raise ConfigError(f"--format writes shards into a folder, and --out {out} is called as a file; name a folder.")
    done = generate(
        draw,
        count,
        out,
        form=parsed.format,
        shards=shards,
        only=only,
        classes=tuple(model.classes),
        facts=facts,
        progress=True,
    )
    kept = f", {done.kept} were there already" if done.kept else ""
    sentence = f"{done.made} of {done.shards} shards made in {out}{kept}"
    return using.answer(parsed.json, sentence, count=count, seed=chosen["seed"], out=str(out), **asdict(done))


def _shard(parsed: Any) -> tuple[int | None, int | None]:
    """Which shard alone, and of how many."""
    if parsed.shard is None:
        return None, parsed.shards
    only, _, total = parsed.shard.partition("/")
    if not (only.isdecimal() and total.isdecimal() and int(only) < int(total)):
        raise ConfigError(f"--shard takes k/K with k from 0 to K - 1, such as 0/100; got '{parsed.shard}'.")
    if parsed.shards not in (None, int(total)):
        raise ConfigError(
            f"--shard {parsed.shard} is of {total} shards and --shards says {parsed.shards}; drop one of them."
        )
    return int(only), int(total)


def mixture_of(parsed: Any, model: Pretrained) -> LatentMixture:
    """The mixture over a model's codes that a command asks for.

    Raises:
        ConfigError: --components is no number.
    """
    asked = parsed.components or "auto"
    if asked != "auto" and not asked.isdecimal():
        raise ConfigError(f"--components takes 'auto' or a number, got '{asked}'.")

    def codes() -> torch.Tensor:
        dataset, rows = using.items_of(parsed, model, "train")
        rows, size = rows[spread(len(rows))], using.batch_size(parsed)
        parts = chunks(0, len(rows), size)
        return torch.cat([model.encode(using.floats(dataset, rows[part.start : part.stop])) for part in parts])

    components = None if asked == "auto" else int(asked)
    return mixture.mixture_of(
        model, codes, components=components, run=None if parsed.data is not None else Path(parsed.run)
    )
