"""Image completion: what a model would put where an image is missing.

done = inpaint(model, images, hole)
done.images[:, 0], done.explained, done.reachable
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre import seeds
from nacre.editing import latents, optimise
from nacre.editing.blend import blend, check, smooth_fill
from nacre.editing.items import check_values
from nacre.errors import CapabilityError, ConfigError, ShapeError, at_least
from nacre.networks import is_image
from nacre.protocols import Discriminates, Encodes, check_seed, device_of, dtype_of

REACH = 0.5
"""Share of the known pixels' deviation that a model has to explain for its completion to mean anything."""

ROUNDING = 0.01
"""Below this difference the absolute value is rounded off, so that it has a curvature."""


@dataclass(frozen=True, kw_only=True)
class Completing:
    """How completions are searched for.

    Args:
        restarts: searches an image, each from a start of its own.
        candidates: codes of the prior out of which the starts are taken: those nearest to what is known.
        adam_steps: steps of Adam, the first part of a search.
        lbfgs_steps: iterations of L-BFGS at most, the second part.
        lr: Adam's first rate, in units of the latent.
        window: pixels of the side of the square in which a known pixel's missing neighbours are counted; odd.
        far: weight of a known pixel without any; 0 in the paper, whose search then never sees most of the image.
        prior_weight: λ, of the discriminator's part.
        latent_weight: of the mean square of the latent, where its prior is normal.
    """

    restarts: int = 6
    candidates: int = 512
    adam_steps: int = 120
    lbfgs_steps: int = 40
    lr: float = 0.1
    window: int = 7
    far: float = 0.05
    prior_weight: float = 0.003
    latent_weight: float = 0.01

    def __post_init__(self) -> None:
        at_least(1, restarts=self.restarts, candidates=self.candidates, window=self.window)
        at_least(0, adam_steps=self.adam_steps, lbfgs_steps=self.lbfgs_steps, far=self.far)
        at_least(0, prior_weight=self.prior_weight, latent_weight=self.latent_weight)
        if not self.lr > 0:
            raise ConfigError(f"lr must be positive, got {self.lr:g}.")
        if not self.window % 2:
            raise ConfigError(f"window must be odd, got {self.window}.")


@dataclass(frozen=True)
class Completion:
    """Completions of images, the best first, and what is needed to judge them.

    Attributes:
        images: (N, K, C, H, W) in [0, 1], blended; known pixels are the given ones, bit by bit.
        made: (N, K, C, H, W), what the model made, before blending.
        codes: (N, K, code_dim).
        losses: (N, K), by which they are ranked.
        residual: (N, K) mean absolute error of what the model made, at known pixels.
        explained: (N,) share of the known pixels' deviation from the model's average item that the best explains; 1 is all.
        reachable: (N,) bool, whether that is enough: otherwise the image is not of the kind that the model knows.
    """

    images: Tensor
    made: Tensor
    codes: Tensor
    losses: Tensor
    residual: Tensor
    explained: Tensor
    reachable: Tensor


def inpaint(
    model: nn.Module,
    images: Tensor,
    hole: Tensor,
    how: Completing | None = None,
    *,
    seed: int = 0,
    chunk: int = 16,
    tell: Callable[[int], None] | None = None,
) -> Completion:
    """Search the codes whose items agree with what is known, and blend these into the holes (Yeh et al. 2017).

    Minimised is the context loss, Σ W |G(z) - y| / Σ W over known pixels, which weigh more the more of their neighbours are
    missing (eq. 3), plus λ times the prior loss. The paper's prior loss is log(1 - D(G(z))); here it is -log σ(r), r the
    realness standardized over samples of the model, so that λ means the same for every judge, be it a critic; and the mean square
    of a normal latent. What fills the hole is then blended in (`blend`, section 3.3). A result depends on the seed and the image,
    not on the other images.

    Args:
        model: decodes; it is asked in evaluation mode.
        images: (N, C, H, W) in [0, 1]; what lies in the hole does not count.
        hole: (N, H, W) or (1, H, W) bool, true where something is missing.
        how: steps, restarts and weights.
        seed: of the starts.
        chunk: images that are searched at a time.
        tell: told how many images have been done, after each chunk.

    Raises:
        CapabilityError: the model does not decode, or there is nothing to start from.
        ShapeError: no images, images that are not of the model's shape or, where they are known, not floats in [0, 1]; or a hole
            that is not theirs, empty or without end.
        ConfigError: a seed out of range, or a chunk under 1.
    """
    how = how or Completing()
    at_least(1, chunk=chunk)
    check_seed(seed)
    latents.decoding(model)
    dtype, model = dtype_of(model), latents.exact(model)
    images, hole = _checked(model, images, hole)
    weights = context_weights(hole, how.window, how.far)
    parts = []
    with latents.evaluating(model):
        pool = _pool(model, how, seed)
        prior = prior_loss(model, pool.items)
        for rows in torch.split(torch.arange(len(images)), chunk):
            parts.append(_search(model, images[rows], hole[rows], weights[rows], how, pool, prior))
            if tell:
                tell(len(rows))
    joined = [torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Completion)]
    return Completion(*(each.to(dtype) if each.is_floating_point() else each for each in joined))


def resample(
    model: nn.Module,
    images: Tensor,
    hole: Tensor,
    *,
    chains: int = 6,
    sweeps: int = 30,
    seed: int = 0,
    tell: Callable[[int], None] | None = None,
) -> Completion:
    """Complete by sampling: encode, decode, put the hole's part back, again and again (Rezende et al. 2014, appendix F).

    The chain's law approaches what the model holds for p(missing | known) as far as its posterior is right (their proposition
    F.1). Each chain begins with a smooth fill, and each sweep draws from the posterior and takes the decoder's mean. Chains are
    ranked by their error at known pixels.

    Args:
        model: has a posterior (`vae`, `iwae`, `vaegan`, `lvae`) and decodes.
        images: (N, C, H, W) in [0, 1].
        hole: (N, H, W) or (1, H, W) bool.
        chains: alternatives of each image.
        sweeps: of each chain.
        seed: of the draws; they do not depend on the other images.
        tell: told of each sweep.

    Raises:
        CapabilityError: the model has no posterior to draw from.
        ShapeError: as `inpaint`.
        ConfigError: no chains, no sweeps, or a seed out of range.
    """
    at_least(1, chains=chains, sweeps=sweeps)
    check_seed(seed)
    if not hasattr(model, "posterior"):
        raise CapabilityError(
            f"{type(model).__name__} has no posterior to draw from; leave the search on (`inpaint`), or take a vae."
        )
    images, hole = _checked(model, images, hole)
    count, size = len(images), latents.latent_dim(model)
    holes, known = hole.repeat_interleave(chains, 0)[:, None], images.repeat_interleave(chains, 0)
    x = smooth_fill(images, hole).clamp(0, 1).repeat_interleave(chains, 0)
    law = seeds.normal(chains, size)
    with latents.evaluating(model), torch.no_grad():
        for sweep in range(sweeps):
            noise = torch.cat([seeds.noise(law, seed, "sweep", rows=range(1), at=sweep)] * count).flatten(0, 1)
            z = _drawn(model, x, noise.to(x))
            if latents.label_count(model):
                z = torch.cat([z, model.encode(x)[:, size:]], 1)  # type: ignore[operator]
            made = model.decode(z)  # type: ignore[operator]
            x = torch.where(holes, made, known)
            if tell:
                tell(1)
        average = latents.decode(model, latents.random_codes(model, 64, seed=seed, purpose="inpaint")).mean(0)
    residual = _mean_where((made - known).abs(), ~holes)
    return _ranked(images, hole, made, z, residual, average)


def _drawn(model: Any, x: Tensor, noise: Tensor) -> Tensor:
    """Codes from a model's posterior: (N, *shape), (N, D) ↦ (N, D). That of a ladder is none of independent latents."""
    if hasattr(model, "posterior_sample"):
        codes: Tensor = model.posterior_sample(x, noise)
        return codes
    mean, std = model.posterior(x)
    return mean + std * noise


def context_weights(hole: Tensor, window: int, far: float = 0.0) -> Tensor:
    """W of eq. 3: of a known pixel the share of missing ones in the square around it, `far` at least; zero in the hole.

    Args:
        hole: (N, H, W) bool.
        window: side of the square in pixels, odd; beyond the frame nothing is missing.
    """
    missing = hole[:, None].float()
    share = F.avg_pool2d(missing, window, 1, window // 2)[:, 0]
    return torch.where(hole, 0.0, share.clamp(min=far))


def prior_loss(model: nn.Module, samples: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Items (N, *shape) ↦ (N,) -log σ of their standardized realness; None for a model without a judge."""
    if not isinstance(model, Discriminates) or not len(samples):
        return None
    usual = latents.apply(model, model.realness, samples)
    mean, scale = usual.mean(), usual.std().clamp(min=1e-6)
    return lambda made: F.softplus((mean - model.realness(made)) / scale)


@dataclass(frozen=True)
class _Pool:
    """Codes to start from, and their items."""

    codes: Tensor
    items: Tensor


def _pool(model: nn.Module, how: Completing, seed: int) -> _Pool:
    if latents.prior_of(model):
        codes = latents.random_codes(model, how.candidates, seed=seed, purpose="inpaint")
        return _Pool(codes, latents.decode(model, codes))
    if not isinstance(model, Encodes):
        raise CapabilityError(f"{type(model).__name__} neither samples nor encodes, so that no search has a start.")
    shape = tuple(model.shape)  # type: ignore[arg-type]
    nothing = torch.zeros(0, latents.code_dim(model), device=device_of(model), dtype=dtype_of(model))
    return _Pool(nothing, nothing.new_zeros(0, *shape))


def _search(
    model: nn.Module,
    images: Tensor,
    hole: Tensor,
    weights: Tensor,
    how: Completing,
    pool: _Pool,
    prior: Callable[[Tensor], Tensor] | None,
) -> Completion:
    """One chunk: all restarts of all images at once, each a row."""
    starts = _starts(model, images, hole, weights, how, pool)
    restarts, size = starts.shape[1], latents.latent_dim(model)
    wanted, weight = images.repeat_interleave(restarts, 0), weights.repeat_interleave(restarts, 0)[:, None]
    label, normal = starts.flatten(0, 1)[:, size:], latents.is_normal(model)

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        made = model.decode(torch.cat([z, label[rows]], 1))  # type: ignore[operator]
        apart = ((made - wanted[rows]).square() + ROUNDING**2).sqrt() - ROUNDING
        total = (weight[rows] * apart).flatten(1).sum(1) / (weight[rows].flatten(1).sum(1) * made.shape[1])
        if prior and how.prior_weight:
            total = total + how.prior_weight * prior(made)
        return total + how.latent_weight * z.square().mean(1) if normal else total

    found = optimise.adam(loss, starts.flatten(0, 1)[:, :size], steps=how.adam_steps, lr=how.lr)
    found = optimise.lbfgs(loss, found.points, steps=how.lbfgs_steps, tolerance=1e-3)
    codes = torch.cat([found.points, label], 1)
    # Without samples there is no average item; the image's own level takes its place.
    average = pool.items.mean(0) if len(pool.items) else _mean_where(images, ~hole[:, None])[:, None, None, None]
    return _ranked(images, hole, latents.decode(model, codes, chunk=len(codes)), codes, found.losses, average)


def _starts(model: nn.Module, images: Tensor, hole: Tensor, weights: Tensor, how: Completing, pool: _Pool) -> Tensor:
    """Of each image the codes that its searches begin with: (N, restarts or fewer, code_dim)."""
    found = []
    if isinstance(model, Encodes):
        filled = smooth_fill(images, hole).clamp(0, 1)
        found.append(latents.apply(model, model.encode, filled)[:, None])
    if len(pool.codes):
        each = [(w * (pool.items - x).square()).flatten(1).mean(1) for x, w in zip(images, weights, strict=True)]
        nearest = torch.stack(each).topk(min(how.restarts, len(pool.codes)), dim=1, largest=False).indices
        found.append(pool.codes[nearest])
    return torch.cat(found, 1)[:, : how.restarts]


def _ranked(images: Tensor, hole: Tensor, made: Tensor, codes: Tensor, losses: Tensor, average: Tensor) -> Completion:
    """What was made of each image, (N K, C, H, W), blended and ordered by its loss (N K,)."""
    count = len(images)
    tries = len(made) // count
    order = losses.view(count, tries).argsort(1)
    rows = (order + tries * torch.arange(count, device=order.device)[:, None]).flatten()
    made, codes = made[rows], codes[rows]
    known = ~hole.repeat_interleave(tries, 0)[:, None]
    given = images.repeat_interleave(tries, 0)
    filled = torch.where(known, given, blend(made, given, ~known[:, 0]).clamp(0, 1))
    residual = _mean_where((made - given).abs(), known).view(count, tries)
    error = _mean_where((made - given).square(), known).view(count, tries)[:, 0]
    usual = _mean_where((average - images).square(), ~hole[:, None])
    explained = 1 - error / usual.clamp(min=1e-12)

    def by_image(flat: Tensor) -> Tensor:
        return flat.view(count, tries, *flat.shape[1:])

    return Completion(
        images=by_image(filled),
        made=by_image(made),
        codes=by_image(codes),
        losses=losses[rows].view(count, tries),
        residual=residual,
        explained=explained,
        reachable=explained >= REACH,
    )


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Means over the pixels of each image where `where`, (N, 1, H, W): (N, C, H, W) ↦ (N,)."""
    chosen = where.expand_as(values)
    return (values * chosen).flatten(1).sum(1) / chosen.flatten(1).sum(1)


def _checked(model: nn.Module, images: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Images of which the hole is zero, and the hole, one for each."""
    shape = tuple(getattr(model, "shape", images.shape[1:]))
    if not is_image(shape) or tuple(images.shape[1:]) != shape:
        raise ShapeError(f"the model completes images of shape {shape}, got {tuple(images.shape[1:])}; resize them.")
    if not len(images):
        raise ShapeError("there are no images to complete.")
    check(images, hole)
    hole = hole.expand(len(images), *hole.shape[1:]).to(device_of(model))
    share = hole.flatten(1).float().mean(1)
    if bool((share == 0).any() or (share == 1).any()):
        raise ShapeError(
            "a hole must miss something and leave something; one of the masks is empty or the whole image."
        )
    # What lies in the hole does not count, whatever it may be.
    known = images.to(device_of(model)).masked_fill(hole[:, None], 0)
    check_values(known)
    return known.to(dtype_of(model)), hole
