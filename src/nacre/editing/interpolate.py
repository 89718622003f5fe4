"""Walks and maps through a latent space."""

import torch
from torch import Tensor

from nacre.protocols import Decodes, device_of, dtype_of


def manifold(model: Decodes, side: int) -> Tensor:
    """What a model with a two-dimensional normal prior decodes over the whole of it: (side², *shape), row by row.

    A grid on the unit square goes through the inverse of the normal distribution function, so that each code stands
    for an equal share of the prior (Kingma & Welling 2014, figure 4).
    """
    shares = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    steps = torch.special.ndtri(shares).to(dtype_of(model), copy=True)  # type: ignore[arg-type]
    down, across = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    codes = torch.stack([across.flatten(), down.flatten()], 1).to(device_of(model))  # type: ignore[arg-type]
    return model.decode(codes)
