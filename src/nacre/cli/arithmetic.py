"""`nacre arithmetic`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nacre.cli import codes, flags, sheets, using
from nacre.editing import arithmetic, latents
from nacre.editing.dfi import matched
from nacre.editing.directions import Direction, factorized, principal
from nacre.engine import pictures
from nacre.engine.validate import spread
from nacre.errors import ConfigError, RunError
from nacre.metrics.extractors import weights_sha256
from nacre.networks import is_image
from nacre.pretrained import Pretrained
from nacre.protocols import Encodes
from nacre.spec import Field

OWN = [
    Field(
        "strengths",
        str,
        "0,0.5,1,1.5,2",
        "how much of the direction is added, one picture each; negative ones go the other way",
    ),
    Field(
        "keep_residual",
        bool,
        False,
        "give each image back what the model loses of it: the image itself plus what the direction changes in its likeness",
    ),
    Field("keep_colours", bool, False, "give each result the mean and deviation of its image's channels"),
    Field(
        "most",
        int | None,
        None,
        "images of a folder that are used; by default 1000, or 64 where latents have to be searched for",
    ),
    Field(
        "neighbours",
        bool | None,
        None,
        "eight latents around each result, ±.25 a number; by default where all letters are samples",
    ),
    Field(
        "directions",
        Literal["pca", "sefa"] | None,
        None,
        "a contact sheet of directions that are found without examples: 'pca', of the codes of the run's data; 'sefa', of the "
        "generator's first layer",
    ),
    Field("count", int | None, None, "of --directions: how many; by default 6, or all of fewer latents"),
    Field("data", str | None, None, "of --directions pca: a data source; by default the run's own training items"),
    Field(
        "save_direction",
        str | None,
        None,
        "a .safetensors to keep the direction in; of --directions, a folder for one each",
    ),
    codes.SEED,
    Field("out", str, "arithmetic.png", "a .png (a row an item, a column a strength), or a .npz with codes and items"),
]

LETTERS = {
    "plus": "what the result should have: images, folders, samples by their numbers (3,17,42), or a saved direction",
    "minus": "what it should lose instead: the same",
    "to": "what is changed: images, each for itself, or folders or lists of numbers, whose mean is taken",
}

SWEEP = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Strengths of a contact sheet, in standard deviations of the latent along the direction."""


@dataclass(frozen=True)
class Letter:
    """One of A, B and C: codes (N, code_dim), what they are of, and whether all are samples.

    `given` are the images themselves, (N, *shape), where each code is one image's.
    """

    codes: Tensor
    names: list[str]
    sampled: bool
    given: Tensor | None = None


def main(argv: Sequence[str]) -> int:
    """Vector arithmetic."""
    usage = "RUN --plus B ... [--minus A ...] --to C ... [flags]"
    parser = using.parser("arithmetic", "C - A + B on latents: --to C --minus A --plus B.", OWN, usage)
    for name, help in LETTERS.items():
        parser.add_argument(f"--{name}", nargs="+", type=str, default=None, metavar="WHAT", help=help)
    flags.add(parser, "search, for a model without an encoder", codes.SEARCH)
    parsed = flags.parse(parser, argv)
    out = Path(parsed.out or "arithmetic.png")
    if out.suffix not in (".png", ".npz"):
        raise ConfigError(f"--out takes a .png or a .npz, got {out}.")
    keeps = parsed.keep_residual or parsed.keep_colours
    if parsed.directions and (parsed.plus or parsed.minus or keeps):
        raise ConfigError("--directions are found without examples; leave --plus, --minus and --keep-… out.")
    if parsed.directions and len(parsed.to or []) > 1:
        raise ConfigError(f"--directions show one item, and --to names {len(parsed.to)}; name one.")
    if not parsed.directions and not parsed.plus:
        raise ConfigError("say what the result should have, --plus IMAGES, or look at --directions sefa first.")
    if parsed.most is not None and parsed.most < 1:
        raise ConfigError(f"--most must be 1 or more, got {parsed.most}.")
    letters = [*(parsed.to or []), *(parsed.plus or []), *(parsed.minus or [])]
    using.spare_given([out, out.with_name(f"{out.stem}-neighbours.png")], [*letters, parsed.data])
    model = using.model_of(parsed)
    latents.decoding(model.module)
    try:
        return _contact_sheet(parsed, model, out) if parsed.directions else _move(parsed, model, out)
    except OSError as error:
        raise RunError(
            f"{error.filename or out} cannot be written ({error.strerror or error}); take another --out."
        ) from None


def _move(parsed: Any, model: Pretrained, out: Path) -> int:
    strengths = _strengths("0,0.5,1,1.5,2" if parsed.strengths is None else parsed.strengths)
    way, letters = _direction(parsed, model)
    to = letter(parsed.to, model, parsed, each=True) if parsed.to else None
    if to is not None and to.given is None and (parsed.keep_residual or parsed.keep_colours):
        raise ConfigError(
            "--keep-residual and --keep-colours are of single images, and --to names samples, or folders for their means; "
            "name image files alone."
        )
    if parsed.save_direction:
        way.save(_direction_file(parsed.save_direction))
    if to is None:
        if not parsed.save_direction:
            raise ConfigError(
                "say what is to be changed, --to IMAGES, or where the direction is to be kept, --save-direction FILE."
            )
        return using.answer(
            parsed.json, f"the direction is in {parsed.save_direction}", direction=parsed.save_direction
        )
    moved = _moved(parsed, model, to, way, strengths)
    items = moved.items.cpu()
    if out.suffix == ".npz":
        using.write_arrays(
            out, {"codes": moved.codes.numpy(), "items": items.numpy(), "strengths": np.array(strengths)}
        )
    elif is_image(model.shape):
        pictures.save(out, _sheet(to, items, strengths))
    else:
        pictures.save(out, pictures.page(items.flatten(0, 1)))
    sampled = all(each.sampled for each in (*letters, to)) and bool(letters)
    sentence = f"{_counted(len(to.names), 'item')} at {_counted(len(strengths), 'strength')} in {out}"
    if is_image(model.shape) and (parsed.neighbours or (parsed.neighbours is None and sampled)):
        around = out.with_name(f"{out.stem}-neighbours.png")
        pictures.save(around, _neighbours(model, to, way, letters, parsed.seed or 0))
        sentence += f"; the neighbours of each result in {around}"
    return using.answer(parsed.json, sentence, items=len(to.names), strengths=strengths, out=str(out))


def _moved(parsed: Any, model: Pretrained, to: Letter, way: Direction, strengths: Sequence[float]) -> arithmetic.Moved:
    """C along the direction, with what is to be kept of the images."""
    originals = to.given if parsed.keep_residual else None
    moved = arithmetic.move(model.module, to.codes, way.vector, torch.tensor(strengths), originals=originals)
    if not parsed.keep_colours:
        return moved
    if to.given is None or not is_image(model.shape):
        raise ConfigError(f"{parsed.run} is of vectors, which have no colours to keep.")
    like = to.given.to(moved.items).repeat_interleave(len(strengths), 0)
    return replace(moved, items=matched(moved.items.flatten(0, 1), like).view_as(moved.items))


def _sheet(to: Letter, items: Tensor, strengths: Sequence[float]) -> np.ndarray:
    """A row an item: what was given, where it is an image, and what became of it at each strength."""
    captions = [[_short(name), *[f"{strength:+g}" for strength in strengths]] for name in to.names]
    if to.given is not None:
        items = torch.cat([to.given[:, None], items], 1)
    else:  # the name stands under the first
        captions = [[f"{line[0]} {line[1]}", *line[2:]] for line in captions]
    return sheets.captioned(items.flatten(0, 1), [caption for line in captions for caption in line], items.shape[1])


def letter(words: Sequence[str], model: Pretrained, parsed: Any, *, each: bool = False) -> Letter:
    """Codes of what some words name; with `each` one a word: its image's, or the mean of its folder or numbers."""
    search, seed = codes.search_of(parsed), parsed.seed or 0
    found = codes.coded(words, model, search, seed=seed, most=parsed.most)
    sampled = all(one.sampled for one in found)
    if not each:
        return Letter(torch.cat([one.codes for one in found]), [name for one in found for name in one.names], sampled)
    size = latents.latent_dim(model.module)
    # A mean of labels is none: the first one's stays.
    means = [torch.cat([one.codes.mean(0)[:size], one.codes[0, size:]]) for one in found]
    alone = all(len(one.codes) == 1 and not one.sampled for one in found)
    return Letter(torch.stack(means), list(words), sampled, torch.cat([one.items for one in found]) if alone else None)


def _direction(parsed: Any, model: Pretrained) -> tuple[Direction, list[Letter]]:
    """B - A, or the one that is in a file; and the letters, if it was made now."""
    if len(parsed.plus) == 1 and parsed.plus[0].endswith(".safetensors"):
        if parsed.minus:
            raise ConfigError("a saved direction is B - A already; leave --minus out.")
        way = Direction.load(Path(parsed.plus[0]))
        way.check(model.module)
        if way.facts.get("weights") not in (None, weights_sha256(model.module.state_dict())):
            codes.logger.info(
                f"{parsed.plus[0]} was made with other weights than those of {parsed.run}: it may mean nothing here."
            )
        return way, []
    if any(word.endswith(".safetensors") for word in (*parsed.plus, *(parsed.minus or []))):
        raise ConfigError("a saved direction stands alone behind --plus; name one, and nothing beside it.")
    if not parsed.minus:
        raise ConfigError(
            "--plus needs a counterpart without what it has, --minus IMAGES; only a saved direction needs none."
        )
    plus, minus = letter(parsed.plus, model, parsed), letter(parsed.minus, model, parsed)
    vector = arithmetic.direction(model.module, plus.codes, minus.codes)
    facts = {
        "kind": "mean difference",
        "plus": parsed.plus,
        "minus": parsed.minus,
        "counts": [len(plus.codes), len(minus.codes)],
    }
    return Direction(vector, _facts(model, **facts)), [plus, minus]


def _contact_sheet(parsed: Any, model: Pretrained, out: Path) -> int:
    count = min(6, latents.latent_dim(model.module)) if parsed.count is None else parsed.count
    ways, shares = _found(parsed, model, count)
    if parsed.save_direction:
        folder = Path(parsed.save_direction)
        folder.mkdir(parents=True, exist_ok=True)
        for number, (way, share) in enumerate(zip(ways, shares.tolist(), strict=True), 1):
            facts = _facts(model, kind=parsed.directions, number=number, share=share)
            Direction(way, facts).save(folder / f"{parsed.directions}-{number}.safetensors")
    to = letter(parsed.to[:1], model, parsed, each=True) if parsed.to else None
    code = to.codes[0] if to else _middle(parsed, model)
    strengths = torch.tensor(SWEEP if parsed.strengths is None else _strengths(parsed.strengths))
    line = code + strengths[None, :, None] * ways[:, None]
    items = arithmetic.decoded(model.module, line).cpu()
    if out.suffix == ".npz":
        using.write_arrays(out, {"directions": ways.numpy(), "shares": shares.numpy(), "items": items.numpy()})
    elif is_image(model.shape):
        heads = [
            f"{number}: {share:.1%}" if not at else f"{at:+g}"
            for number, share in enumerate(shares.tolist(), 1)
            for at in strengths.tolist()
        ]
        pictures.save(out, sheets.captioned(items.flatten(0, 1), heads, len(strengths)))
    else:
        pictures.save(out, pictures.page(items.flatten(0, 1)))
    sentence = f"{count} directions by {parsed.directions}, from {strengths.min():+g} to {strengths.max():+g}, in {out}"
    return using.answer(parsed.json, sentence, directions=count, shares=shares.tolist(), out=str(out))


def _found(parsed: Any, model: Pretrained, count: int) -> tuple[Tensor, Tensor]:
    """Directions (count, code_dim) on the CPU, and their shares."""
    if parsed.directions == "sefa":
        ways, shares = factorized(model.module, count)
        return ways.cpu(), shares.cpu()
    if not isinstance(model.module, Encodes):
        raise ConfigError(
            f"{parsed.run} does not encode, and the latents it draws are alike in all directions; take --directions sefa."
        )
    dataset, rows = using.items_of(parsed, model, "train")
    rows = rows[:: max(1, -(-len(rows) // 5000))]
    encoded = torch.from_numpy(using.in_batches(model.encode, dataset, rows, using.batch_size(parsed)))
    size = latents.latent_dim(model.module)
    ways, shares = principal(encoded[:, :size], count)
    return torch.cat([ways, ways.new_zeros(count, encoded.shape[1] - size)], 1), shares


def _middle(parsed: Any, model: Pretrained) -> Tensor:
    """What directions are shown from where nothing is named: sample 0, of an autoencoder the mean code of its data."""
    if latents.prior_of(model.module):
        return latents.numbered_codes(model.module, [0], seed=parsed.seed or 0)[0].cpu()
    dataset, rows = using.items_of(parsed, model, "train")
    rows = spread(rows, 1000)
    return torch.from_numpy(using.in_batches(model.encode, dataset, rows, using.batch_size(parsed))).mean(0)


def _neighbours(model: Pretrained, to: Letter, way: Direction, letters: Sequence[Letter], seed: int) -> np.ndarray:
    """As figure 7 of Radford et al.: what the letters are, and each result with its eight neighbours around it."""
    rows, captions = [], []
    for sign, made in zip(("+", "-"), letters, strict=False):
        shown = torch.cat([made.codes[:3], made.codes.mean(0, keepdim=True)])
        names = [f"{sign} {_short(name)}" for name in made.names[:3]] + [f"{sign} mean"]
        rows.append(_padded(shown, 10))
        captions += names + [""] * (10 - len(names))
    for name, code in zip(to.names, to.codes, strict=True):
        result = code + way.vector
        rows.append(torch.cat([code[None], result[None], arithmetic.neighbours(model.module, result, seed=seed)]))
        captions += [_short(name), "moved", *["±.25"] * 8]
    items = latents.decode(model.module, torch.cat(rows)).cpu()
    blank = torch.tensor([not caption for caption in captions])
    items[blank] = 1.0
    return sheets.captioned(items, captions, 10)


def _padded(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows[:1].expand(count - len(rows), -1)])


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}"


def _strengths(text: str) -> list[float]:
    try:
        return [float(part) for part in text.strip("[]").split(",")]
    except ValueError:
        raise ConfigError(f"--strengths takes numbers with commas between, as 0,0.5,1; got '{text}'.") from None


def _direction_file(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".safetensors":
        raise ConfigError(f"--save-direction takes a .safetensors, got {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _facts(model: Pretrained, **facts: Any) -> dict[str, Any]:
    return {"model": model.spec.name, "weights": weights_sha256(model.module.state_dict()), **facts}


def _short(name: str) -> str:
    return Path(name).name or name
