"""`nacre interpolate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nacre.cli import codes, flags, sheets, using
from nacre.editing import interpolate, latents
from nacre.engine import pictures
from nacre.errors import ConfigError, RunError
from nacre.networks import is_image
from nacre.pretrained import Pretrained
from nacre.spec import Field

OWN = [
    Field("frames", int, 9, "items from one stop to the next, both included"),
    Field("path", interpolate.Path, "auto", "'spherical', 'linear', or the one that fits the law of the latents"),
    Field("n", int, 5, "random latents to pass through, where no image is named"),
    codes.SEED,
    codes.LABEL,
    Field(
        "map",
        bool | None,
        None,
        "the whole of a two-dimensional latent instead; by default where there is one, and neither an image nor -n",
    ),
    Field("side", int, 20, "of the map: items in a row"),
    Field("loop", bool, False, "go back to the first stop in the end"),
    Field("fps", int, 12, "frames a second, of a film"),
    Field("out", str, "interpolation.png", "a .png (a row from stop to stop), a .gif, a .mp4 (with ffmpeg), or a .npz"),
]


def main(argv: Sequence[str]) -> int:
    """Interpolate."""
    named = "images, or numbers of samples; by default random latents"
    purpose = "Walk through a latent space, from image to image."
    parser = using.image_parser("interpolate", purpose, OWN, nargs="*", named=named)
    flags.add(parser, "search, for a model without an encoder", codes.SEARCH)
    parsed = flags.parse(parser, argv)
    out = Path(parsed.out or "interpolation.png")
    if out.suffix not in (".png", ".gif", ".mp4", ".npz"):
        raise ConfigError(f"--out takes a .png, .gif, .mp4 or .npz, got {out}.")
    using.spare_given([out], parsed.images)
    model = using.model_of(parsed)
    latents.decoding(model.module)
    flat = latents.is_normal(model.module) and latents.code_dim(model.module) == 2
    wanted = flat and not parsed.images and parsed.n is None if parsed.map is None else parsed.map
    _refuse_unread(parsed, out, wanted)
    try:
        return _map(parsed, model, out, flat) if wanted else _walk(parsed, model, out)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None


def _refuse_unread(parsed: Any, out: Path, whole: bool) -> None:
    """Raise ConfigError for flags that would change nothing."""
    film = out.suffix in (".gif", ".mp4")
    read = {"n": not whole and not parsed.images, "fps": film, "side": whole} | dict.fromkeys(
        ("frames", "path", "loop"), not whole
    )
    unread = [f"--{name}" for name, used in read.items() if not used and getattr(parsed, name)]
    if unread:
        raise ConfigError(
            f"{', '.join(unread)} would change nothing: --n is of random latents, --fps of a film, --side of a map, --frames, "
            "--path and --loop of a walk; leave them out."
        )


def _map(parsed: Any, model: Pretrained, out: Path, flat: bool) -> int:
    if not flat:
        raise ConfigError(
            "--map draws the whole of a two-dimensional latent with a normal prior, and this model's is another; train one with "
            "--latent-dim 2, or leave --map out for a walk."
        )
    side = 20 if parsed.side is None else parsed.side
    if side < 1 or parsed.images or out.suffix in (".gif", ".mp4"):
        raise ConfigError("a map takes --side of 1 or more, no images, and a .png or .npz; say --map no for a walk.")
    using.check_room(out, side * side, model.shape, "take a smaller --side")
    with latents.evaluating(model.module), torch.no_grad():
        items = interpolate.manifold(model.module, side).cpu()  # type: ignore[arg-type]
    if out.suffix == ".npz":
        using.write_items(out, items)
    else:
        pictures.save(out, pictures.page(items, columns=side))
    return using.answer(parsed.json, f"the latent space, {side} by {side}, in {out}", side=side, out=str(out))


def _walk(parsed: Any, model: Pretrained, out: Path) -> int:
    stops, ends = _stops(parsed, model)
    frames = 9 if parsed.frames is None else parsed.frames
    path: interpolate.Path = parsed.path or "auto"
    count = frames * (len(stops) - 1 + bool(parsed.loop))
    if out.suffix in (".gif", ".mp4"):
        sheets.check_film(count)
    else:
        using.check_room(out, count, model.shape, "take fewer --frames")
    way = interpolate.walk(model.module, stops, frames, path=path, closed=bool(parsed.loop))
    items = latents.decode(model.module, way.flatten(0, 1), chunk=using.batch_size(parsed)).cpu()
    legs = items.view(len(way), frames, *items.shape[1:])
    if out.suffix == ".npz":
        using.write_arrays(out, {"codes": way.numpy(), "items": legs.numpy()})
    elif out.suffix == ".png" and is_image(model.shape):
        pictures.save(out, strip(legs, ends, bool(parsed.loop)))
    elif out.suffix == ".png":
        pictures.save(out, pictures.page(items))
    else:  # an end of a leg is the start of the next
        whole = legs[:, :-1].flatten(0, 1)
        sheets.film(
            out, whole if parsed.loop else torch.cat([whole, legs[-1, -1:]]), 12 if parsed.fps is None else parsed.fps
        )
    chosen = path if path != "auto" else "spherical" if latents.is_normal(model.module) else "linear"
    sentence = f"{len(way)} {'leg' if len(way) == 1 else 'legs'} of {frames} frames, {chosen}, in {out}"
    return using.answer(parsed.json, sentence, legs=len(way), frames=frames, path=chosen, out=str(out))


def _stops(parsed: Any, model: Pretrained) -> tuple[Tensor, Tensor | None]:
    """Codes to pass through, and the images that they are of."""
    seed, size = parsed.seed or 0, latents.latent_dim(model.module)
    if not parsed.images:
        count = 5 if parsed.n is None else parsed.n
        return latents.random_codes(
            model.module, count, seed=seed, labels=codes.label_of(parsed, model, count)
        ).cpu(), None
    search = codes.search_of(parsed)
    found = codes.coded(parsed.images, model, search, seed=seed)
    stops, ends = torch.cat([each.codes for each in found]), torch.cat([each.items for each in found])
    labels = codes.label_of(parsed, model, len(stops))
    if labels is not None:
        stops = latents.with_labels(model.module, stops[:, :size], labels)
    return stops, None if all(each.sampled for each in found) else ends


def strip(legs: Tensor, ends: Tensor | None, closed: bool) -> Any:
    """A row a leg, between the images that it joins, if these are known."""
    if ends is None:
        return pictures.page(legs.flatten(0, 1), columns=legs.shape[1])
    last = ends.roll(-1, 0) if closed else ends[1:]
    rows = torch.cat([ends[: len(legs), None], legs, last[:, None]], 1)
    captions = ["given", *[""] * legs.shape[1], "given"] * len(rows)
    return sheets.captioned(rows.flatten(0, 1), captions, rows.shape[1])
