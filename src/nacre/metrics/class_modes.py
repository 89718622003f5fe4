"""How samples of a labelled set cover its classes, by a classifier: the modes of stacked MNIST, of digits, of clothes.

The rules are those of Metz et al. 2017 and VEEGAN (Srivastava et al. 2017): a class is captured if any sample is taken for
it, and KL is that of the samples' classes from uniform ones. Both depend on N and on the classifier, whose mistakes spread
over classes that no sample was of: quote N, the classifier's accuracy, and the numbers of real items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ShapeError, at_least
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, jackknife

GROUPS = 20
"""Of the jackknife."""

CHUNK = 1024
"""Images classified at a time."""


@dataclass(frozen=True, eq=False)
class ClassModes:
    """What the samples cover.

    Attributes:
        captured: classes that a sample was taken for.
        of: classes in all.
        kl: KL(shares of the classes || uniform) in nats, from 0 to log `of`.
        floor: what that is expected to be for N samples of perfectly uniform classes, (of - 1) / 2N to first order.
        counts: (of,) int64, samples of each class.
        caution: why the numbers say little, or "".
    """

    captured: int
    of: int
    kl: Estimate
    floor: float
    counts: Tensor
    caution: str


def class_modes(labels: Tensor | np.ndarray, classes: int, *, seed: int = 0) -> ClassModes:
    """Judge samples by the classes that a classifier gave them.

    Args:
        labels: (N,) integers in [0, classes); 26,000 of stacked MNIST's in VEEGAN's protocol, 25,600 in Unrolled GAN's.
        classes: K.
        seed: of the jackknife's groups.

    Raises:
        ShapeError: there are no labels, or one is out of range.
    """
    at_least(2, classes=classes)
    chosen = torch.as_tensor(labels).detach().cpu().flatten().long()
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= classes:
        came = f"from {int(chosen.min())} to {int(chosen.max())}" if len(chosen) else "none"
        raise ShapeError(f"expected labels from 0 to {classes - 1}, got {came}.")
    count = len(chosen)
    counts = chosen.bincount(minlength=classes)
    parts = min(GROUPS, count)
    group = points.groups(chosen[:, None].double(), parts, seed)
    of_groups = (group * classes + chosen).bincount(minlength=parts * classes).view(parts, classes)
    left_out = torch.stack([kl_from_uniform(counts - own) for own in of_groups]) if parts > 1 else counts[:0].double()
    most = float(np.log(classes))
    return ClassModes(
        captured=int((counts > 0).sum()),
        of=classes,
        kl=jackknife(float(kl_from_uniform(counts)), left_out, count, 0.0, most),
        floor=(classes - 1) / (2 * count),
        counts=counts,
        caution=""
        if count >= 10 * classes
        else f"{count:,} samples are few for {classes:,} classes: take {10 * classes:,}.",
    )


def kl_from_uniform(counts: Tensor) -> Tensor:
    """KL(counts / N || uniform) = log K - entropy in nats; an empty class adds nothing: (K,) ↦ 0-d float64."""
    shares = counts.double() / counts.sum()
    return torch.special.xlogy(shares, shares * len(counts)).sum()


def stacked_classes(classify: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The classes of stacked-MNIST images, 100 r + 10 g + b, by a classifier of single digits.

    Args:
        classify: (n, 1, H, W) in [0, 1] ↦ (n, 10), probabilities or logits.
        images: (N, 3, H, W) in [0, 1].

    Returns:
        (N,) int64.

    Raises:
        ShapeError: the images do not have three channels.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"expected images (N, 3, H, W), got {tuple(images.shape)}.")
    planes = images.reshape(-1, 1, *images.shape[2:])
    with torch.no_grad():
        digits = torch.cat([classify(part).argmax(1).cpu() for part in torch.split(planes, CHUNK)])
    return digits.view(-1, 3) @ torch.tensor([100, 10, 1])
