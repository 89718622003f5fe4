"""Deep feature interpolation: images moved towards an attribute along a line in feature space (Upchurch et al. 2017).

edited = interpolate_features(features, images, neutral, smile)
edited.images, edited.covered
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.editing import optimise
from nacre.editing.features import Features
from nacre.editing.items import check_values
from nacre.errors import ConfigError, ShapeError, at_least

CHUNK = 64
"""Images whose features are taken at a time."""

SCALED_BY = 256
"""Images by which the layers are scaled."""


@dataclass(frozen=True, kw_only=True)
class Interpolating:
    """How far, and by what.

    Args:
        strength: β. The features move by α w, w the difference of the sets' means and α = β / mean(w²); 0 changes nothing. Layers
            are scaled to a mean square of one: .05 is about the paper's .4, and α then two or three.
        neighbours: K, images of each set that are nearest to the one that is edited, whose means are taken.
        smoothness: λ, of the total variation of the change (its mean squared difference of neighbouring pixels).
        steps: iterations of L-BFGS at most.
    """

    strength: float = 0.05
    neighbours: int = 100
    smoothness: float = 3.0
    steps: int = 150

    def __post_init__(self) -> None:
        at_least(1, neighbours=self.neighbours)
        at_least(0, smoothness=self.smoothness, steps=self.steps)
        for name in ("strength", "smoothness"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a finite number, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Edited:
    """Edited images, and what is needed to judge them.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        alpha: (N,), how many times the difference of the means was added.
        covered: (N,) share of the way in feature space that was gone: 1 is all of it. Few images have just the features that were
            asked for; a third is usual.
        settled: (N,) bool, whether the search ended by itself.
    """

    images: Tensor
    alpha: Tensor
    covered: Tensor
    settled: Tensor


def interpolate_features(
    features: Features,
    images: Tensor,
    source: Tensor,
    target: Tensor,
    how: Interpolating | None = None,
    *,
    tell: Callable[[int], None] | None = None,
) -> Edited:
    """Move images from how the source set looks towards how the target set looks.

    φ(z) = φ(x) + α w is solved for z, w the difference of the means over the K nearest images of each set (equations 1 to 3):
    by L-BFGS from z = x, over the mean squared error of the features plus λ times total variation (equation 4). Two things
    are not the paper's. Neighbours are near in feature space, for there need be no list of attributes (the paper counts
    differing ones). And it is the *change* z - x whose total variation is kept down, so that nothing happens where nothing is
    asked for; the paper's smooths the image itself. Each layer is scaled to a mean square of one over the sets, so that all have
    a say.

    Args:
        features: images ↦ activations (`features_of` a model, or VGG-19).
        images: (N, C, H, W) in [0, 1].
        source: (M, C, H, W), images that lack the attribute.
        target: (M', C, H, W), images that have it.
        how: strength, K, λ and steps.
        tell: told of each image that is done.

    Raises:
        ShapeError: no images, an empty set, images of different shapes, vectors, or values that are not floats in [0, 1].
        ConfigError: the features have no layers.
    """
    how = how or Interpolating()
    if images.ndim != 4 or not len(images):
        raise ShapeError(f"features are interpolated of images (N, C, H, W), one at least; got {tuple(images.shape)}.")
    for name, images_of in (("source", source), ("target", target)):
        if not len(images_of) or images_of.shape[1:] != images.shape[1:]:
            raise ShapeError(
                f"the {name} set has shape {tuple(images_of.shape)} and the images {tuple(images.shape)}; both need images of "
                "one shape."
            )
    for images_of in (images, source, target):
        check_values(images_of)
    flat = _scaled(features, torch.cat([source[:SCALED_BY], target[:SCALED_BY]]))
    means = [_mean_of_nearest(flat, images, each, how.neighbours) for each in (source, target)]
    between = means[1] - means[0]
    alpha = how.strength / between.square().mean(1).clamp(min=1e-12)
    parts = []
    for row in range(len(images)):
        parts.append(_reconstructed(flat, images[row : row + 1], alpha[row] * between[row], how))
        if tell:
            tell(1)
    found, covered, settled = (torch.cat(each) for each in zip(*parts, strict=True))
    return Edited(found.clamp(0, 1), alpha, covered, settled)


def matched(images: Tensor, like: Tensor) -> Tensor:
    """Images with the mean and the deviation of each channel of others: (N, C, H, W), (N, C, H, W) ↦ (N, C, H, W).

    What an edit does to the light and colours of the whole is undone by it; an image that was not edited stays as it is.
    """
    at = (2, 3)
    gain = like.std(at, keepdim=True) / images.std(at, keepdim=True).clamp(min=1e-6)
    return (images * gain + (like.mean(at, keepdim=True) - images.mean(at, keepdim=True) * gain)).clamp(0, 1)


def only_where(mask: Tensor, edited: Tensor, images: Tensor) -> Tensor:
    """Edited images where a mask (N or 1, 1, H, W) in [0, 1] is one, the others where it is zero, both where it is between."""
    return torch.where(mask == 0, images, images + mask * (edited - images))


def total_variation(change: Tensor) -> Tensor:
    """Squared differences of neighbouring pixels, a mean over the numbers: (N, C, H, W) ↦ (N,). V^β with β = 2."""
    down = (change[:, :, 1:] - change[:, :, :-1]).square().flatten(1).sum(1)
    right = (change[:, :, :, 1:] - change[:, :, :, :-1]).square().flatten(1).sum(1)
    return (down + right) / change[0].numel()


def _scaled(features: Features, images: Tensor) -> Callable[[Tensor], Tensor]:
    """The features of images as one vector each, every layer scaled: (N, C, H, W) ↦ (N, F)."""
    with torch.no_grad():
        squares = [
            [layer.square().flatten(1).mean(1) for layer in features(part)] for part in torch.split(images, CHUNK)
        ]
    if not squares[0]:
        raise ConfigError("these features have no layers; take another network.")
    scales = [torch.cat(each).mean().clamp(min=1e-12).rsqrt() for each in zip(*squares, strict=True)]

    def flat(x: Tensor) -> Tensor:
        return torch.cat([s * layer.flatten(1) for s, layer in zip(scales, features(x), strict=True)], 1)

    return flat


@torch.no_grad()
def _mean_of_nearest(flat: Callable[[Tensor], Tensor], images: Tensor, others: Tensor, count: int) -> Tensor:
    """Mean features of the `count` of the others that are nearest to each image: (N, F).

    Nothing is kept of the others but their distances: the features of all would fill the memory.
    """
    own = torch.cat([flat(part) for part in torch.split(images, CHUNK)])
    parts = []
    for part in torch.split(others, CHUNK):
        there = flat(part)
        parts.append(torch.stack([(there - each).square().mean(1) for each in own]))
    nearest = torch.cat(parts, 1).topk(min(count, len(others)), 1, largest=False).indices
    return torch.stack([torch.cat([flat(p) for p in torch.split(others[rows], CHUNK)]).mean(0) for rows in nearest])


def _reconstructed(
    flat: Callable[[Tensor], Tensor], image: Tensor, way: Tensor, how: Interpolating
) -> tuple[Tensor, Tensor, Tensor]:
    """The image (1, C, H, W) whose features are those of another plus a way (F,); how much of it was covered; settled."""
    shape = image.shape[1:]
    with torch.no_grad():
        wanted = flat(image) + way

    def loss(points: Tensor, rows: Tensor) -> Tensor:
        z = points.view(-1, *shape)
        apart = (flat(z) - wanted).square().mean(1)
        return apart + how.smoothness * total_variation(z - image) if how.smoothness else apart

    found = optimise.lbfgs(loss, image.flatten(1), steps=how.steps, tolerance=1e-4)
    with torch.no_grad():
        left = (flat(found.points.view(-1, *shape)) - wanted).square().mean(1)
    covered = 1 - (left / way.square().mean().clamp(min=1e-20)).sqrt()
    if not bool(way.any()):
        covered = torch.ones_like(covered)
    return found.points.view(-1, *shape), covered, found.settled
