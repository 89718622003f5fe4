"""Randomness by address: every number is a pure function of what it is for, never of what was drawn before it.

Noise is addressed by (seed, purpose, …, name, row): a rank, a micro-batch or a sampler that wants some rows draws just
these, or the blocks of `BLOCK` rows that they lie in, and gets the same numbers as one that wants them all.
"""

import math
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

BLOCK = 64
LARGEST_SEED = 2**32 - 1
_64_BITS = 2**64 - 1
_own = threading.local()


@dataclass(frozen=True)
class Draw:
    """What one row of noise looks like: a law and the shape of a row."""

    law: Literal["normal", "uniform", "coarse", "category", "position"]
    shape: tuple[int, ...]
    count: int = 0


def normal(*shape: int) -> Draw:
    """Standard normal noise, one tensor of `shape` a sample."""
    return Draw("normal", shape)


def uniform(*shape: int) -> Draw:
    """Noise uniform in [0, 1), one tensor of `shape` a sample."""
    return Draw("uniform", shape)


def coarse(*shape: int) -> Draw:
    """Noise uniform on the 65,535 values k/65,535 < 1, one tensor of `shape` a sample: half the price of `uniform`.

    Enough to binarize or dequantize pixels of 256 levels, which are themselves among these values: a pixel x in [0, 1] is
    above it with probability x to within 2e-5, and with probability 0 and 1 exactly where x is 0 and 1.
    """
    return Draw("coarse", shape)


def category(count: int) -> Draw:
    """A label of one of `count` classes a sample, all as likely: (N,) int64 in [0, count)."""
    return Draw("category", (), count)


def position() -> Draw:
    """No noise: the number of a sample in the whole batch, (N,) int64, whoever draws its part."""
    return Draw("position", ())


def mix(*address: int | str, at: int = 0) -> int:
    """A 63-bit seed for an address, a path of non-negative 32-bit numbers and names, and a moment in it.

    The path is mixed by NumPy's SeedSequence, once; the moment, which is another at every step, by SplitMix64.
    """
    return _after(_mixed(address), at) >> 1


def noise(
    draw: Draw,
    *address: int | str,
    rows: range,
    at: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rows `rows` (contiguous) of the noise at `address` and moment `at`.

    Returns:
        (len(rows), *draw.shape), equal to the same rows of any longer draw at the same address on the same device; of
        `dtype`, but labels and positions are int64.
    """
    if draw.law == "position":
        return torch.arange(rows.start, rows.stop, device=device)
    if draw.law == "category":
        chance = noise(uniform(), *address, rows=rows, at=at, device=device)
        return (chance * draw.count).long()
    seed = mix(*address, at=at)
    if draw.law != "normal" and torch.device(device).type == "cpu":
        return _drawn(draw, seed, rows).to(dtype)
    first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
    blocks = [_block(draw, _after(seed, block) >> 1, device) for block in range(first, max(last, first + 1))]
    joined = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    offset = rows.start - first * BLOCK
    return joined[offset : offset + len(rows)].to(dtype)


def noises(
    draws: Mapping[str, Draw],
    *address: int | str,
    rows: range,
    at: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """`noise` for each name in `draws`, addressed by that name as well."""
    return {
        name: noise(draw, *address, name, rows=rows, at=at, device=device, dtype=dtype) for name, draw in draws.items()
    }


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which epoch `epoch` visits `count` items: (count,) int64."""
    return np.random.default_rng(mix(seed, "order", epoch)).permutation(count)


def _drawn(draw: Draw, seed: int, rows: range) -> Tensor:
    """Uniform noise from PCG64 (O'Neill 2014), which is thrice as fast as torch's generator and can be set to any row."""
    count, make = math.prod(draw.shape), _coarse if draw.law == "coarse" else _uniform
    each = 4 if draw.law == "coarse" else 2  # numbers in 64 bits
    words = -(-count // each)  # a row
    generator = _generator()
    state, increment = (_after(seed, number) << 64 | _after(seed, number + 1) for number in (0, 2))
    generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": increment | 1},
        "has_uint32": 0,
        "uinteger": 0,
    }
    generator.advance(rows.start * words)
    numbers = make(generator.random_raw(len(rows) * words))
    return numbers.view(len(rows), each * words)[:, :count].reshape(len(rows), *draw.shape)


def _uniform(words: np.ndarray) -> Tensor:
    """23 random bits each, as the fraction of a float in [1, 2)."""
    bits = torch.from_numpy(words.view(np.int32))
    return bits.bitwise_and_(0x7FFFFF).bitwise_or_(0x3F800000).view(torch.float32).sub_(1)


def _coarse(words: np.ndarray) -> Tensor:
    """16 random bits each; the value that would be 1 becomes the one below it."""
    return torch.from_numpy(words.view(np.uint16)).float().mul_(1 / 65535).clamp_(max=65534 / 65535)


def _block(draw: Draw, seed: int, device: torch.device | str) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    make = torch.randn if draw.law == "normal" else torch.rand
    return make(BLOCK, *draw.shape, generator=generator, device=device)


def _generator() -> np.random.PCG64:
    """A generator for this thread, whose state is set before each use; making one takes longer than using it."""
    if not hasattr(_own, "generator"):
        _own.generator = np.random.PCG64(0)
    return _own.generator


@lru_cache(4096)
def _mixed(address: tuple[int | str, ...]) -> int:
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in address]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def _after(base: int, number: int) -> int:
    """64 bits: output `number` of SplitMix64 from state `base` (Steele et al. 2014, figure 17)."""
    z = (base + (number + 1) * 0x9E3779B97F4A7C15) & _64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return z ^ (z >> 31)
