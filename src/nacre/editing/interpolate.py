"""Walks and maps through a latent space."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from nacre import seeds
from nacre.editing import latents
from nacre.errors import CapabilityError, ConfigError, ShapeError, at_least
from nacre.protocols import Decodes, device_of, dtype_of

Path: TypeAlias = Literal["auto", "spherical", "linear"]


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The way along the great circle: (…, D), (…, D), shares in [0, 1] that broadcast with (…) ↦ (…, D).

    The direction turns evenly (Shoemake 1985) and the length grows evenly, so that two latents of one sphere stay on it; the
    ends are met exactly. Opposite directions are joined along a circle through the first axis that is not in their line; where
    a direction is not defined, at zero, the way is straight.
    """
    share = share[..., None]
    lengths = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    one, other = (vector / length.clamp(min=1e-30) for vector, length in zip((start, end), lengths, strict=True))
    across = other - one * (one * other).sum(-1, keepdim=True)
    # atan2 keeps its digits where the arc cosine loses them, at small angles.
    angle = torch.atan2(across.norm(dim=-1, keepdim=True), (one * other).sum(-1, keepdim=True))
    across = torch.where(angle > torch.pi - 1e-4, _perpendicular(one), across)
    across = across / across.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    turned = one * (share * angle).cos() + across * (share * angle).sin()
    curved = turned * (lengths[0] + share * (lengths[1] - lengths[0]))
    straight = lerp(start, end, share[..., 0])
    lost = (torch.minimum(*lengths) < 1e-12) | (angle < 1e-6)
    way = torch.where(lost, straight, curved)
    return torch.where(share == 0, start, torch.where(share == 1, end, way))


def lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The straight way: (…, D), (…, D), shares that broadcast with (…) ↦ (…, D). The ends are met exactly."""
    share = share[..., None]
    return start * (1 - share) + end * share


def walk(model: nn.Module, stops: Tensor, frames: int, *, path: Path = "auto", closed: bool = False) -> Tensor:
    """Codes on the way through all stops: (K - 1, frames, code_dim), each leg with both of its ends.

    Args:
        model: whose codes they are.
        stops: (K, code_dim), two or more.
        frames: codes of a leg, its two ends included; 2 or more.
        path: "spherical" for latents that lie near a sphere, as those of a normal prior do; "linear" for others; "auto" is the
            one that fits the model. Labels always mix linearly.
        closed: add the leg from the last stop to the first.

    Raises:
        ConfigError: fewer than two stops or frames, or no such path.
        ShapeError: codes of another size than the model's.
    """
    if path not in get_args(Path):
        raise ConfigError(f"a path is one of {', '.join(get_args(Path))}; got '{path}'.")
    if stops.ndim != 2 or stops.shape[1] != latents.code_dim(model):
        raise ShapeError(f"stops are codes of shape (K, {latents.code_dim(model)}), got {tuple(stops.shape)}.")
    if len(stops) < 2 or frames < 2:
        raise ConfigError(
            f"a walk needs two stops and two frames at least, got {len(stops)} stops and {frames} frames."
        )
    ends = stops.roll(-1, 0) if closed else stops[1:]
    starts = stops if closed else stops[:-1]
    share = torch.linspace(0, 1, frames, device=stops.device, dtype=stops.dtype)
    size = latents.latent_dim(model)
    straight = path == "linear" or (path == "auto" and not latents.is_normal(model))
    move = lerp if straight else slerp
    z = move(starts[:, None, :size], ends[:, None, :size], share)
    return torch.cat([z, lerp(starts[:, None, size:], ends[:, None, size:], share)], 2)


def manifold(model: Decodes, side: int) -> Tensor:
    """What a model with a two-dimensional normal prior decodes over the whole of it: (side², *shape), row by row.

    A grid on the unit square goes through the inverse of the normal distribution function, so that each code stands
    for an equal share of the prior (Kingma & Welling 2014, figure 4).

    Raises:
        CapabilityError: the model's prior is another.
        ConfigError: a side under 1.
    """
    at_least(1, side=side)
    if getattr(model, "prior", None) != {"z": seeds.normal(2)}:
        raise CapabilityError(
            f"{type(model).__name__} has no latent of two normal numbers, the whole of which could be shown; train one with "
            "latent_dim=2, or walk."
        )
    shares = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    steps = torch.special.ndtri(shares).to(dtype_of(model), copy=True)  # type: ignore[arg-type]
    down, across = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    codes = torch.stack([across.flatten(), down.flatten()], 1).to(device_of(model))  # type: ignore[arg-type]
    return model.decode(codes)


def _perpendicular(direction: Tensor) -> Tensor:
    """Of unit vectors (…, D), the part of the least aligned axis that is at right angles to them."""
    axis = torch.zeros_like(direction).scatter_(-1, direction.abs().argmin(-1, keepdim=True), 1.0)
    return axis - direction * (axis * direction).sum(-1, keepdim=True)
