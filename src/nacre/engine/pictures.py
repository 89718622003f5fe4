"""What a run shows of itself: samples, reconstructions, the map of a two-dimensional latent."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nacre import files, images
from nacre.editing.interpolate import manifold
from nacre.engine import sampling
from nacre.networks import is_image
from nacre.protocols import Decodes, Reconstructs, Samples

ON_A_PAGE = 64
SMALLEST_CELL = 56
"""Images are enlarged by whole factors towards this many pixels, so that 8×8 digits can be looked at."""


def save(path: Path, page: np.ndarray) -> None:
    """Write a page (height, width[, C]) uint8 as a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(path) as aside:
        Image.fromarray(page).save(aside, format="PNG")


def pages(model: nn.Module, held_out: Tensor, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Pictures of what a model can do at the moment, by name.

    Args:
        model: in whatever mode; it is asked in evaluation mode.
        held_out: (M, *shape) items that it was not trained on.
        seed: of the samples, the same at every step so that one sees them grow.
    """
    if isinstance(model, Samples):
        classes = int(getattr(model, "classes", 0)) if "label" in model.prior else 0
        columns = min(classes, 16) or None
        count = ON_A_PAGE - ON_A_PAGE % (columns or 1) if is_image(held_out.shape[1:]) else 2000
        labels = torch.arange(count) % classes if classes else None
        yield "samples", page(sampling.sample(model, count, seed=seed, labels=labels).cpu(), columns=columns)
    if isinstance(model, Reconstructs) and len(held_out) and is_image(held_out.shape[1:]):
        originals = held_out[: ON_A_PAGE // 2]
        pairs = torch.stack([originals, sampling.apply(model.reconstruct, originals, model)], 1).flatten(0, 1)
        yield "reconstructions", page(pairs, columns=8)


def final_pages(model: nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """Pictures that are worth making once, at the end."""
    prior = getattr(model, "prior", {})
    if isinstance(model, Decodes) and list(prior) == ["z"] and prior["z"].shape == (2,) and prior["z"].law == "normal":
        with sampling.evaluating(model):
            decoded = manifold(model, 20).cpu()
        if is_image(decoded.shape[1:]):
            yield "latent_map", page(decoded, columns=20)


def page(items: Tensor, columns: int | None = None) -> np.ndarray:
    """A grid of images (N, C, H, W), small ones enlarged; or the first two dimensions of vectors (N, D) as a density."""
    if not is_image(items.shape[1:]):
        return scatter(items.numpy())
    factor = max(1, SMALLEST_CELL // max(items.shape[2:]))
    enlarged = items.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return images.grid(enlarged, columns)


def scatter(points: np.ndarray, size: int = 384) -> np.ndarray:
    """Points (N, D) by their first two dimensions, black on white: (size, size) uint8."""
    flat = np.column_stack([points[:, 0], points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))])
    reach = max(1e-6, 1.05 * float(np.abs(flat).max()))
    counts, _, _ = np.histogram2d(flat[:, 1], flat[:, 0], bins=size, range=[[-reach, reach]] * 2)
    return (255 * (1 - np.minimum(1, counts[::-1] / 2))).astype(np.uint8)
