"""Images brought to the channels and the size that a network wants, by the very rules that published numbers used.

Two Fréchet distances by the same network differ by points where images are brought to its size in different ways (Parmar
et al. 2022), so that the rule is a part of a number's name:

- `tensorflow1`: bilinear between whole pixels counted from the corner, no smoothing (TensorFlow 1, that is Heusel et al.
  2017; torch-fidelity).
- `pytorch-fid`: bilinear between the centres of pixels, no smoothing (pytorch-fid).
- `clean`: bicubic, smoothed before it is made smaller, then clipped (Pillow; clean-fid since March 2022).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Callable[[Tensor, tuple[int, int]], Tensor]
"""Of images (N, C, H, W) and (height, width)."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601, as Pillow's)."""


def tensorflow1(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Output pixel i lies between input pixels at i · in/out: the picture moves by up to half a pixel."""
    down, right = (_corners(before, after).to(batch) for before, after in zip(batch.shape[2:], size, strict=True))
    return down @ batch @ right.T


def pytorch_fid(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without smoothing: of a picture made smaller, most pixels count for nothing."""
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)


def clean(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with smoothing, cut off at [0, 1], which it overshoots at edges: Pillow's on floats, as clean-fid clips it."""
    if tuple(batch.shape[2:]) == size:
        return batch
    return F.interpolate(batch, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


PROTOCOLS: dict[str, Resize] = {"tensorflow1": tensorflow1, "pytorch-fid": pytorch_fid, "clean": clean}


def smooth(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with smoothing, never out of [0, 1]: the rule of nacre's own networks."""
    if tuple(batch.shape[2:]) == size:
        return batch
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)


def at_most(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) with no side over `longest` pixels, of about the same ratio."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def with_channels(batch: Tensor, channels: int) -> Tensor:
    """Images of 1 (grey), 2 (grey and alpha), 3 (colour) or 4 (colour and alpha) channels with any other such number.

    What is transparent becomes white, as on a page; grey is the luminance.
    """
    if batch.shape[1] == channels:
        return batch
    if batch.shape[1] in (2, 4):
        alpha = batch[:, -1:]
        batch = batch[:, :-1] * alpha + (1 - alpha)
    if channels > 2:
        batch = batch.expand(-1, 3, -1, -1)
    elif batch.shape[1] == 3:
        batch = (batch * batch.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
    return torch.cat([batch, torch.ones_like(batch[:, :1])], 1) if channels in (2, 4) else batch


def _corners(before: int, after: int) -> Tensor:
    """The matrix (after, before) of TensorFlow 1's interpolation along one side."""
    place = torch.arange(after, dtype=torch.float32) * (before / after)
    low = place.long()
    high = (low + 1).clamp(max=before - 1)
    share = (place - low)[:, None]
    return F.one_hot(low, before) * (1 - share) + F.one_hot(high, before) * share
