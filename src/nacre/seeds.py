"""Randomness by address: every number is a pure function of what it is for, never of what was drawn before it.

Noise is addressed by (seed, purpose, …, row) and made in blocks of `BLOCK` rows, so that a rank, a micro-batch or a
sampler that wants some rows draws just their blocks and gets the same numbers as one that wants them all.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

BLOCK = 64
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Draw:
    """What one row of noise looks like: a law and the shape of a row."""

    law: Literal["normal", "uniform"]
    shape: tuple[int, ...]


def normal(*shape: int) -> Draw:
    """Standard normal noise, one tensor of `shape` a sample."""
    return Draw("normal", shape)


def uniform(*shape: int) -> Draw:
    """Noise uniform in [0, 1), one tensor of `shape` a sample."""
    return Draw("uniform", shape)


def mix(*address: int | str) -> int:
    """A 63-bit seed for `address`, a path of non-negative 32-bit numbers and names (mixed by NumPy's SeedSequence)."""
    words = [_word(part) if isinstance(part, str) else part for part in address]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def noise(
    draw: Draw, *address: int | str, rows: range, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Rows `rows` (contiguous) of the noise at `address`.

    Returns:
        (len(rows), *draw.shape), equal to the same rows of any longer draw at the same address on the same device.
    """
    first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
    blocks = [_block(draw, mix(*address, block), device) for block in range(first, max(last, first + 1))]
    joined = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    offset = rows.start - first * BLOCK
    return joined[offset : offset + len(rows)].to(dtype)


def noises(
    draws: Mapping[str, Draw],
    *address: int | str,
    rows: range,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """`noise` for each name in `draws`, addressed by that name as well."""
    return {name: noise(draw, *address, name, rows=rows, device=device, dtype=dtype) for name, draw in draws.items()}


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which epoch `epoch` visits `count` items: (count,) int64."""
    return np.random.default_rng(mix(seed, "order", epoch)).permutation(count)


def _block(draw: Draw, seed: int, device: torch.device | str) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    make = torch.randn if draw.law == "normal" else torch.rand
    return make(BLOCK, *draw.shape, generator=generator, device=device)


@cache
def _word(name: str) -> int:
    return zlib.crc32(name.encode())
