"""`nacre inpaint`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nacre.cli import flags, sheets, using
from nacre.cli.given import given
from nacre.data.decode import UnreadableError, read_alpha, read_picture
from nacre.data.progress import bar
from nacre.editing import masks
from nacre.editing.inpaint import Completing, Completion, inpaint, resample
from nacre.engine import pictures
from nacre.errors import ConfigError, DataError, RunError, ShapeError
from nacre.images import grid
from nacre.networks import is_image
from nacre.pretrained import Pretrained
from nacre.spec import Field, fields

SEARCH = fields(Completing)

OWN = [
    Field(
        "mask",
        str,
        "center",
        "what is missing: an image of the model's size that is white there, 'center' (a quarter), 'left', 'random:P' (a share P "
        "of the pixels), or 'transparent' (of images with an alpha channel)",
    ),
    Field(
        "method",
        Literal["search", "sample"],
        "search",
        "'search' latents whose image agrees with what is known; 'sample' from a VAE's posterior, again and again",
    ),
    Field("sweeps", int, 30, "of 'sample': how often"),
    Field("alternatives", int, 4, "of each image, the best first"),
    Field("seed", int, 0, "of starts, draws and random masks"),
    Field("out", str, "completed.png", "a .png of the best completion, or a folder for all completions of all images"),
    Field(
        "sheet", str, "completed-sheet.png", "a .png with images, holes and alternatives side by side; 'none' for none"
    ),
]


def main(argv: Sequence[str]) -> int:
    """Complete images."""
    purpose = "Fill what is missing in images with what a model would put there."
    parser = using.image_parser("inpaint", purpose, OWN)
    flags.add(parser, "search", SEARCH)
    parsed = flags.parse(parser, argv)
    out = using.image_place(parsed.out, "completed.png")
    sheet = using.sheet_place(parsed.sheet, "completed-sheet.png")
    alternatives = 4 if parsed.alternatives is None else parsed.alternatives
    if alternatives < 1:
        raise ConfigError(f"--alternatives must be 1 or more, got {alternatives}.")
    searched = sorted("--" + name.replace("_", "-") for name in flags.given(parsed, SEARCH))
    if parsed.method == "sample" and searched:
        raise ConfigError(f"{', '.join(searched)} would be of --method search; --method sample takes --sweeps.")
    if parsed.method != "sample" and parsed.sweeps is not None:
        raise ConfigError("--sweeps is of --method sample; say that, or leave it out.")
    model = using.model_of(parsed)
    if not is_image(model.shape):
        raise ConfigError(f"{parsed.run} is of vectors, which have no holes to complete; take a run of images.")
    named = given(parsed.images, model)
    using.check_place(out, len(named.items))
    hole = hole_of(
        "center" if parsed.mask is None else parsed.mask, parsed.images, model.shape, len(named.items), parsed.seed or 0
    )
    using.spare_given([*places(out, named.names, alternatives), sheet], [*parsed.images, parsed.mask])
    for stem in using.stems(named.names):
        using.check_older(out, alternatives, stem)
    done = completed(parsed, model, named.items, hole, alternatives)
    write(out, done.images[:, :alternatives].cpu(), named.names)
    if sheet is not None:
        using.save_sheet(sheet, shown(named.items, hole, done, alternatives))
    return _answer(parsed, out, done, named.names, alternatives)


def completed(parsed: Any, model: Pretrained, items: Tensor, hole: Tensor, alternatives: int) -> Completion:
    """What the method that was asked for makes of images."""
    seed = parsed.seed or 0
    if parsed.method == "sample":
        sweeps = 30 if parsed.sweeps is None else parsed.sweeps
        if sweeps < 1:
            raise ConfigError(f"--sweeps must be 1 or more, got {sweeps}.")
        with bar(sweeps, "sampling", "sweep", True) as shown:
            return resample(model.module, items, hole, chains=alternatives, sweeps=sweeps, seed=seed, tell=shown.update)
    how = Completing(**flags.given(parsed, SEARCH))
    how = replace(how, restarts=max(how.restarts, alternatives))
    with bar(len(items), "completing", "image", True) as shown:
        chunk = max(1, min(16, using.batch_size(parsed) // how.restarts))
        return inpaint(model.module, items, hole, how, seed=seed, chunk=chunk, tell=shown.update)


def hole_of(mask: str, words: Sequence[str], shape: tuple[int, ...], count: int, seed: int) -> Tensor:
    """The holes that a mask means: (N, H, W) bool, or (1, H, W) for all alike.

    Raises:
        ShapeError: it is of another size than the model's images.
        DataError: there is no such file, or images without transparency.
    """
    size = shape[1], shape[2]
    if mask == "transparent":
        return torch.cat([read_mask(Path(word), "A", size, "an image with transparent holes") for word in words])
    if Path(mask).suffix and not mask.startswith("random:"):
        return read_mask(Path(mask), "L", size, "a mask")
    return masks.named(mask, size, count, seed=seed)


def read_mask(path: Path, channel: str, size: tuple[int, int], what: str) -> Tensor:
    """Where an image is white ("L"), or transparent by its alpha channel ("A"): (1, H, W) bool.

    What is transparent is not white: a hole may be painted in white on nothing.

    Raises:
        DataError: it cannot be read, or has no such channel.
        ShapeError: it is of another size, (height, width).
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, and {what} is one file; name the images one by one, or another --mask.")
    try:
        with path.open("rb") as file:
            alpha = read_alpha(file)
            file.seek(0)
            levels = read_picture(file).pixels.mean(2)
    except (OSError, UnreadableError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read as {what} ({why}).") from None
    if alpha is None and channel == "A":
        raise DataError(f"{path} has no transparency; name a --mask.")
    opaque = np.ones_like(levels, bool) if alpha is None else alpha >= 128
    hole = ~opaque if channel == "A" else opaque & (levels >= 128)
    if hole.shape != size:
        whose = "the hole of" if channel == "A" else "the mask"
        raise ShapeError(
            f"{whose} {path} is of {hole.shape[1]}x{hole.shape[0]} pixels, and the model's images are of {size[1]}x{size[0]}; "
            "resize it."
        )
    return torch.from_numpy(hole)[None]


def places(out: Path, names: Sequence[str], alternatives: int) -> list[Path]:
    """The files of all completions, image by image, the best first."""
    if out.suffix:
        return [out]
    return [out / f"{stem}-{number}.png" for stem in using.stems(names) for number in range(alternatives)]


def write(out: Path, tries: Tensor, names: Sequence[str]) -> None:
    """The completions: (N, alternatives, C, H, W)."""
    try:
        if not out.suffix:
            out.mkdir(parents=True, exist_ok=True)
        for place, image in zip(places(out, names, tries.shape[1]), tries.flatten(0, 1), strict=False):
            pictures.save(place, grid(image[None], gap=0))
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None


def shown(items: Tensor, hole: Tensor, done: Completion, alternatives: int) -> np.ndarray:
    """A page that shows the completions beside what was given."""
    broken = torch.where(hole[:, None].expand(len(items), *items.shape[1:]), 0.5, items)
    page = torch.cat([items[:, None], broken[:, None], done.images[:, :alternatives].cpu()], 1)
    told = [["given", "missing", *(f"{value:.3f}" for value in row[:alternatives])] for row in done.losses.tolist()]
    for words, good in zip(told, done.reachable.tolist(), strict=True):
        words[1] += "" if good else " !"
    return sheets.captioned(page.flatten(0, 1), [word for words in told for word in words], page.shape[1])


def _answer(parsed: Any, out: Path, done: Completion, names: Sequence[str], alternatives: int) -> int:
    rows = [
        {"name": name, "loss": losses, "residual": residual, "explained": share, "reachable": good}
        for name, losses, residual, share, good in zip(
            names,
            done.losses.tolist(),
            done.residual.tolist(),
            done.explained.tolist(),
            done.reachable.tolist(),
            strict=True,
        )
    ]
    missed = [Path(row["name"]).name for row in rows if not row["reachable"]]
    sentence = f"{len(rows)} completed in {out}; the model explains {max(0.0, float(done.explained.mean())):.0%} of what is known"
    if done.images.shape[1] < alternatives:
        sentence += f"; without a prior to draw starts from there is {done.images.shape[1]} completion an image"
    if missed:
        few = ", ".join(missed[:5]) + (" …" if len(missed) > 5 else "")
        sentence += f". Out of its reach, so that what fills them means little: {few}"
    return using.answer(parsed.json, sentence, count=len(rows), out=str(out), images=rows)
