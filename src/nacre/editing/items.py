"""What functions of items take: those of the model's shape, whose values mean something."""

import torch
from torch import Tensor, nn

from nacre.errors import ShapeError
from nacre.networks import is_image
from nacre.protocols import device_of, dtype_of

LEEWAY = 1e-3
"""Beyond [0, 1], for what resizing and rounding do."""


def checked(model: nn.Module, items: Tensor) -> Tensor:
    """Items as the model computes with them, on its device and of its type: (N, *shape).

    Raises:
        ShapeError: they are not of the model's shape, or `check_values` refuses them.
    """
    shape = tuple(getattr(model, "shape", items.shape[1:]))
    if not items.ndim or tuple(items.shape[1:]) != shape:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ShapeError(
            f"{type(model).__name__} takes items of shape ({expected}), got {tuple(items.shape)}; resize them."
        )
    check_values(items)
    return items.to(device_of(model), dtype_of(model))


def check_values(items: Tensor) -> None:
    """Raise ShapeError for images that are not floats in [0, 1], and for vectors that are not finite."""
    image = is_image(tuple(items.shape[1:]))
    if image and not items.is_floating_point():
        raise ShapeError(f"images are floats in [0, 1], got {items.dtype}; bring them there (`nacre.images.to_float`).")
    if not bool(torch.isfinite(items).all()):
        raise ShapeError("the items hold NaN or infinity; repair or drop those items first.")
    if image and items.numel() and not -LEEWAY <= items.min() <= items.max() <= 1 + LEEWAY:
        raise ShapeError(
            f"images are floats in [0, 1], got values from {items.min():.3g} to {items.max():.3g}; rescale them."
        )
