"""Holes in images: boolean, true where something is missing."""

import torch
from torch import Tensor

from nacre import seeds
from nacre.errors import ConfigError

NAMES = "center, left, or random:P with a share P between 0 and 1"


def named(name: str, size: tuple[int, int], count: int = 1, *, seed: int = 0) -> Tensor:
    """The holes of that name: (count, height, width) bool.

    Args:
        name: "center", the middle half of height and width, a quarter of the image; "left", its left half; "random:P", each
            pixel with probability P, drawn for each image anew.
        size: height and width.
        count: images.
        seed: of the random ones; image number i has the same whatever the count.

    Raises:
        ConfigError: there is no such hole.
    """
    height, width = size
    hole = torch.zeros(count, height, width, dtype=torch.bool)
    if name == "center":
        hole[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
        return hole
    if name == "left":
        hole[:, :, : width // 2] = True
        return hole
    kind, _, share = name.partition(":")
    try:
        chance = float(share)
    except ValueError:
        chance = -1.0
    if kind != "random" or not 0 < chance < 1:
        raise ConfigError(f"a hole is {NAMES}; got '{name}'.")
    return seeds.noise(seeds.uniform(height, width), seed, "hole", rows=range(count)) < chance
