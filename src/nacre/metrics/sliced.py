"""The sliced Wasserstein distance (Bonneel et al. 2015): a quick look at how far two sets of items are apart."""

import torch
from torch import Tensor

from nacre import seeds


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 256, seed: int = 0) -> float:
    """Mean over random directions of the 1-D Wasserstein-1 distance between two equally large sets, in float64.

    Args:
        a, b: (N, …) items of the same shape; a flattened item is a point.
        projections: random directions, uniform on the sphere.
        seed: of the directions.
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    directions = seeds.noise(seeds.normal(a.shape[1]), seed, "directions", rows=range(projections), dtype=torch.float64)
    directions = (directions / directions.norm(dim=1, keepdim=True)).T
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).abs().mean())
