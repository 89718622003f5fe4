"""Poisson blending: what fills a hole takes its edges from one image and its levels from another (Pérez et al. 2003).

In the hole the result has the guide's differences between neighbouring pixels; along the hole's border it meets the image.
So it is the guide plus a correction that is harmonic: every pixel's is the mean of its neighbours'. A guide that is off by a
constant comes back exactly right. Pixels outside the hole are never touched. Where the hole reaches the frame there is nothing
to meet, and the differences across the frame are left out; a part of the hole that touches no known pixel stays the guide's.
"""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from nacre.errors import ShapeError

SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def blend(guide: Tensor, images: Tensor, hole: Tensor) -> Tensor:
    """Images whose holes are filled with the guide, its levels corrected: (N, C, H, W).

    Args:
        guide: (N, C, H, W); only what lies in the hole and along its border counts.
        images: (N, C, H, W); what lies in the hole does not count.
        hole: (N, H, W) bool, true where something is missing; or (1, H, W), the same for all.

    Returns:
        Known pixels are those of `images`, bit by bit. Values are not clipped.

    Raises:
        ShapeError: shapes that do not belong together.
    """
    check(images, hole)
    if guide.shape != images.shape:
        raise ShapeError(f"the guide has shape {tuple(guide.shape)} and the images {tuple(images.shape)}.")
    result = torch.where(hole[:, None], guide, images)
    # In float64: the correction of a constant is then that constant.
    apart = (images.double() - guide.double()).cpu().numpy()
    patterns, which = np.unique(hole.expand(len(images), *hole.shape[1:]).cpu().numpy(), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(which.reshape(-1) == number)
        inside, correction = harmonic(pattern, apart[rows].reshape(-1, *pattern.shape))
        flat = result[rows].reshape(len(rows) * images.shape[1], -1).double()
        flat[:, inside] += torch.from_numpy(correction).to(flat.device)
        filled = flat.to(result.dtype).view(len(rows), *images.shape[1:])
        result[rows] = torch.where(hole[rows if len(hole) > 1 else [0]][:, None], filled, images[rows])
    return result


def smooth_fill(images: Tensor, hole: Tensor) -> Tensor:
    """Images whose holes are filled as smoothly as can be: each pixel the mean of its neighbours. (N, C, H, W)."""
    return blend(torch.zeros_like(images), images, hole)


def harmonic(hole: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The discrete harmonic functions in a hole that have given values around it.

    Args:
        hole: (H, W) bool.
        values: (K, H, W) float64; those outside the hole count.

    Returns:
        The hole's pixels, flat numbers (P,), and the functions there, (K, P); zero in parts that touch no known pixel.
    """
    height, width = hole.shape
    inside = np.flatnonzero(hole)
    place = np.full(hole.size, -1)
    place[inside] = np.arange(len(inside))
    down, right = np.divmod(inside, width)
    known_sum = np.zeros((len(inside), len(values)))
    neighbours = np.zeros(len(inside))
    touching = np.zeros(len(inside), bool)
    pairs = []
    flat = values.reshape(len(values), -1)
    for dy, dx in SIDES:
        y, x = down + dy, right + dx
        here = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        to = y[here] * width + x[here]
        neighbours[here] += 1
        known = place[to] < 0
        known_sum[here[known]] += flat[:, to[known]].T
        touching[here[known]] = True
        pairs.append(np.stack([here[~known], place[to[~known]]]))
    first, second = np.concatenate(pairs, 1)
    links = sparse.csr_array((np.ones(len(first)), (first, second)), shape=(len(inside), len(inside)))
    _, part = connected_components(links, directed=False)
    met = np.flatnonzero(np.isin(part, np.unique(part[touching])))
    solution = np.zeros((len(inside), len(values)))
    if len(met):
        laplacian = sparse.diags_array(neighbours[met]) - links[met][:, met]
        solution[met] = splu(sparse.csc_array(laplacian)).solve(known_sum[met])
    return inside, solution.T


def check(images: Tensor, hole: Tensor) -> None:
    """Raise ShapeError if a hole is none of these images'."""
    fits = hole.ndim == 3 and hole.shape[0] in (1, len(images)) and hole.shape[1:] == images.shape[2:]
    if images.ndim != 4 or not fits or hole.dtype != torch.bool:
        raise ShapeError(
            f"images are (N, C, H, W) and holes (N, H, W) or (1, H, W), boolean; got {tuple(images.shape)} and "
            f"{tuple(hole.shape)} of {hole.dtype}."
        )
