"""`nacre edit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nacre.cli import flags, sheets, using
from nacre.cli.given import given
from nacre.cli.inpaint import read_mask
from nacre.data.progress import bar
from nacre.editing.dfi import Edited, Interpolating, interpolate_features, matched, only_where
from nacre.editing.features import VERBS, Features, features_of
from nacre.engine import pictures
from nacre.errors import CapabilityError, ConfigError, RunError
from nacre.images import grid
from nacre.networks import is_image
from nacre.networks.vgg import load_vgg19
from nacre.pretrained import Pretrained
from nacre.spec import Field, fields

HOW = fields(Interpolating)
MOST = 1000
"""Images of a set that are looked at, at most."""

OWN = [
    Field("toward", str | None, None, "a folder or data source of images that have the attribute"),
    Field("from", str | None, None, "one of images that lack it"),
    Field(
        "features",
        str,
        "auto",
        "'discriminator', 'classifier' or 'encoder' of the run, 'auto' for the first of these that it has, or vgg:FILE for "
        "VGG-19 with the weights of a file in torchvision's layout",
    ),
    Field("mask", str | None, None, "an image of the model's size: only where it is white the image may change"),
    Field("keep_colours", bool, False, "give the result the mean and deviation of the original's channels"),
    Field("out", str, "edited.png", "a .png for one image, or a folder"),
    Field("sheet", str, "edited-sheet.png", "a .png of before and after; 'none' for none"),
]


def main(argv: Sequence[str]) -> int:
    """Edit images."""
    purpose = "Move images towards an attribute that two sets of images show."
    parser = using.image_parser("edit", purpose, OWN, needs="--toward SET --from SET")
    flags.add(parser, "interpolation", HOW)
    parsed = flags.parse(parser, argv)
    out, sets = using.image_place(parsed.out, "edited.png"), (vars(parsed)["from"], parsed.toward)
    sheet = using.sheet_place(parsed.sheet, "edited-sheet.png")
    if None in sets:
        raise ConfigError("an edit leads from one set of images to another; say --from SET and --toward SET.")
    model, how = using.model_of(parsed), Interpolating(**flags.given(parsed, HOW))
    if not is_image(model.shape):
        raise ConfigError(f"{parsed.run} is of vectors; deep feature interpolation is of images.")
    seen = features(parsed.features or "auto", model)
    named = given(parsed.images, model)
    using.check_place(out, len(named.items))
    using.spare_given([*places(out, named.names), sheet], [*parsed.images, *sets, parsed.mask])
    mask = mask_of(parsed.mask, (model.shape[1], model.shape[2])) if parsed.mask else None
    source, target = (given([word], model, most=MOST).items for word in sets)
    with bar(len(named.items), "editing", "image", True) as shown:
        done = interpolate_features(seen, named.items, source, target, how, tell=shown.update)
    images = matched(done.images, named.items) if parsed.keep_colours else done.images
    if mask is not None:
        images = only_where(mask[:, None].to(images), images, named.items)
    _write(out, images, named.names)
    if sheet is not None:
        pairs = torch.stack([named.items, images], 1).flatten(0, 1)
        words = [word for name in named.names for word in (Path(name).name, "")]
        using.save_sheet(sheet, sheets.captioned(pairs, words, min(8, len(pairs))))
    return _answer(parsed, out, done, named.names)


def features(word: str, model: Pretrained) -> Features:
    """The features that a word means."""
    kind, _, file = word.partition(":")
    if kind == "vgg" and file:
        return load_vgg19(Path(file).expanduser())
    if word not in ("auto", *VERBS):
        raise ConfigError(f"--features takes auto, {', '.join(VERBS)} or vgg:FILE; got '{word}'.")
    try:
        return features_of(model.module, None if word == "auto" else word)
    except CapabilityError as error:
        raise CapabilityError(f"{error} Or take those of VGG-19, --features vgg:FILE.") from None


def mask_of(text: str, size: tuple[int, int]) -> Tensor:
    """Where an image may change: (1, H, W) bool."""
    mask = read_mask(Path(text), "L", size, "a mask")
    if not mask.any():
        raise ConfigError(
            f"{text} is white nowhere, so that nothing may change; paint white what may, or leave --mask out."
        )
    return mask


def places(out: Path, names: Sequence[str]) -> list[Path]:
    """The file of each edited image."""
    return [out] if out.suffix else [out / f"{stem}.png" for stem in using.stems(names)]


def _write(out: Path, images: Tensor, names: Sequence[str]) -> None:
    try:
        if not out.suffix:
            out.mkdir(parents=True, exist_ok=True)
        for place, image in zip(places(out, names), images, strict=True):
            pictures.save(place, grid(image[None], gap=0))
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None


def _answer(parsed: Any, out: Path, done: Edited, names: Sequence[str]) -> int:
    told = zip(names, done.alpha.tolist(), done.covered.tolist(), done.settled.tolist(), strict=True)
    rows = [dict(zip(("name", "alpha", "covered", "settled"), each, strict=True)) for each in told]
    sentence = f"{len(rows)} edited in {out}; {done.covered.mean():.0%} of the way in feature space was covered"
    sentence += ", before the mask" if parsed.mask else ""
    return using.answer(parsed.json, sentence, count=len(rows), out=str(out), images=rows)
