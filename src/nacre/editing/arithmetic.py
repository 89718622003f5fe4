"""Vector arithmetic on latents: C - A + B (Radford et al. 2016, section 6.3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nacre import seeds
from nacre.editing import latents
from nacre.errors import ConfigError, ShapeError
from nacre.networks import is_image


@dataclass(frozen=True)
class Moved:
    """Items that were moved along a direction.

    Attributes:
        codes: (N, S, code_dim), of N items at S strengths.
        items: (N, S, *shape), decoded.
    """

    codes: Tensor
    items: Tensor


def direction(model: nn.Module, plus: Tensor, minus: Tensor) -> Tensor:
    """From the mean of some codes to the mean of others: (P, code_dim), (M, code_dim) ↦ (code_dim,).

    The mean of three a concept is Radford et al.'s; of a single one, arithmetic is unstable. Labels of conditional models have
    no part in it: it is zero there.

    Raises:
        ShapeError: no codes, or codes of another size.
    """
    for name, codes in (("plus", plus), ("minus", minus)):
        if codes.ndim != 2 or not len(codes) or codes.shape[1] != latents.code_dim(model):
            raise ShapeError(
                f"{name} takes codes of shape (N, {latents.code_dim(model)}), one at least; got {tuple(codes.shape)}."
            )
    between = plus.mean(0) - minus.mean(0)
    return torch.cat([between[: latents.latent_dim(model)], torch.zeros_like(between[latents.latent_dim(model) :])])


def move(
    model: nn.Module,
    codes: Tensor,
    direction: Tensor,
    strengths: Tensor,
    *,
    originals: Tensor | None = None,
    chunk: int = latents.CHUNK,
) -> Moved:
    """Codes plus a direction times each strength, decoded.

    C - A + B is a strength of one along `direction(model, B, A)`; where A and B are the same, C comes back as it is.

    Args:
        model: decodes.
        codes: (N, code_dim), of the items to move.
        direction: (code_dim,).
        strengths: (S,), of any sign.
        originals: (N, *shape), what the codes are of: only the change is then the model's, x + decode(z + s d) - decode(z), and
            what it loses of an item stays. Images are cut to [0, 1]; a strength of zero gives the originals.
        chunk: items in one forward pass.

    Raises:
        CapabilityError: the model does not decode.
        ShapeError: codes, direction or originals of another size.
        ConfigError: a strength that is not finite.
    """
    size = latents.code_dim(model)
    if codes.ndim != 2 or codes.shape[1] != size or direction.shape != (size,):
        raise ShapeError(
            f"{type(model).__name__} has codes of {size} numbers; got codes of shape {tuple(codes.shape)} and a direction of "
            f"shape {tuple(direction.shape)}."
        )
    if not bool(torch.isfinite(strengths).all()):
        raise ConfigError(f"strengths must be finite numbers, got {strengths.tolist()[:10]}.")
    moved = codes[:, None] + strengths.to(codes)[None, :, None] * direction.to(codes)
    items = decoded(model, moved, chunk=chunk)
    if originals is not None:
        items = _kept(originals, items, latents.decode(model, codes, chunk=chunk))
    return Moved(moved, items)


def neighbours(model: nn.Module, code: Tensor, *, count: int = 8, reach: float = 0.25, seed: int = 0) -> Tensor:
    """Codes around one, each number moved by a number uniform in ±`reach`: (code_dim,) ↦ (count, code_dim).

    Radford et al. show eight with ±.25 around the result of an arithmetic: a concept holds in its neighbourhood. Labels stay.
    """
    size = latents.latent_dim(model)
    noise = seeds.noise(seeds.uniform(size), seed, "neighbours", rows=range(count)).to(code)
    shift = reach * (2 * noise - 1)
    return torch.cat([code[:size] + shift, code[size:].expand(count, -1)], 1)


def decoded(model: nn.Module, codes: Tensor, *, chunk: int = latents.CHUNK) -> Tensor:
    """Items of codes with any number of dimensions in front: (…, code_dim) ↦ (…, *shape)."""
    items = latents.decode(model, codes.flatten(0, -2), chunk=chunk)
    return items.view(*codes.shape[:-1], *items.shape[1:])


def _kept(originals: Tensor, moved: Tensor, remade: Tensor) -> Tensor:
    """Originals (N, *shape) with the change from what was remade of them to what was moved, (N, S, *shape)."""
    if originals.shape != remade.shape:
        raise ShapeError(f"originals of {tuple(remade.shape)} were expected, one a code; got {tuple(originals.shape)}.")
    changed = moved + (originals.to(remade) - remade)[:, None]
    return changed.clamp(0, 1) if is_image(tuple(remade.shape[1:])) else changed
