"""Sets of items as points, and their distances: exact, in float64, block by block, whatever the order of the rows.

A block of squared distances comes from a matrix product, ‖a‖² + ‖b‖² - 2 aᵀb, which is fast but off by rounding: copies of
an item are then not at distance zero, and what is a tie depends on the block. Whoever compares distances therefore settles
what lies within the rounding (`slack`) by `between`, which takes the differences themselves.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ShapeError

BLOCK = 2**22
"""Distances held at a time: 32 MiB of float64."""


class Block(NamedTuple):
    """Rows of the matrix of squared distances.

    Attributes:
        rows: (B,) which.
        squared: (B, M) float64, right to within `slack`.
        slack: (B, 1), a bound on the rounding errors of a row.
    """

    rows: Tensor
    squared: Tensor
    slack: Tensor


def items(values: Tensor | np.ndarray, least: int = 1) -> Tensor:
    """(N, …) items as N points: (N, D) float64, on the CPU.

    Raises:
        ShapeError: there are fewer than `least` items, or a value is no finite number.
    """
    tensor = torch.as_tensor(values).detach().cpu()
    if tensor.ndim == 0 or len(tensor) < least:
        came = "a single number" if tensor.ndim == 0 else f"{len(tensor)}"
        raise ShapeError(f"expected {least} or more items, got {came}.")
    points = tensor.reshape(len(tensor), -1).double().contiguous()
    wrong = int((~points.isfinite().all(1)).sum())
    if wrong:
        raise ShapeError(f"expected finite numbers, but {wrong:,} of {len(points):,} items hold NaN or infinity.")
    return points


def alike(*, least: int = 1, **sets: Tensor | np.ndarray) -> tuple[Tensor, ...]:
    """Sets of items of one size, each with its name, as points.

    Raises:
        ShapeError: as `items`, or the items of one set have another size than those of another, or only some are uint8.
    """
    (name, first), *others = sets.items()
    type_ = torch.as_tensor(first).dtype
    for other, values in others:
        came = torch.as_tensor(values).dtype
        if came != type_ and torch.uint8 in (came, type_):
            raise ShapeError(
                f"{name} items are {type_} and {other} ones {came}: grey levels 0..255 beside other numbers; "
                "bring both to one type and range."
            )
    points = tuple(items(values, least) for values in sets.values())
    for other, each in zip(list(sets)[1:], points[1:], strict=True):
        if each.shape[1] != points[0].shape[1]:
            raise ShapeError(
                f"{name} items hold {points[0].shape[1]} numbers each and {other} ones {each.shape[1]}; they must be alike."
            )
    return points


def shuffled(points: Tensor, seed: int) -> Tensor:
    """A random order of the rows of (N, D) points that depends on their values and the seed alone: (N,) indices.

    The rows are first put in order by their projections on a random line, so that a subset chosen by this order holds the
    same items however the rows were given.
    """
    generator = torch.Generator().manual_seed(seed)
    line = torch.randn(points.shape[1], generator=generator, dtype=torch.float64)
    return (points @ line).argsort(stable=True)[torch.randperm(len(points), generator=generator)]


def groups(points: Tensor, count: int, seed: int) -> Tensor:
    """The random group, 0 to `count` - 1, of each of (N, D) points; sizes differ by one at most: (N,) int64."""
    numbers = torch.empty(len(points), dtype=torch.int64)
    numbers[shuffled(points, seed)] = torch.arange(len(points)) % max(1, count)
    return numbers


def places(points: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of (N, D) points, by the first of each (U,), and which of these every row is (N,)."""
    known: dict[bytes, int] = {}
    digests = (blake2b(row, digest_size=16).digest() for row in (points + 0.0).numpy())  # -0 becomes 0
    place = np.array([known.setdefault(digest, len(known)) for digest in digests])
    return torch.from_numpy(np.unique(place, return_index=True)[1]), torch.from_numpy(place)


def row_blocks(rows: int, columns: int) -> Iterator[Tensor]:
    """The numbers of `rows` rows, as many at a time as fit in `BLOCK` with their `columns`."""
    step = max(1, BLOCK // columns)
    for start in range(0, rows, step):
        yield torch.arange(start, min(rows, start + step))


def distance_blocks(a: Tensor, b: Tensor) -> Iterator[Block]:
    """The matrix of squared distances of (N, D) and (M, D) points, some rows at a time."""
    center = b.mean(0)  # near the origin, the product's rounding is least
    b = b - center
    norms = b.square().sum(1)
    reach, unit = norms.max().sqrt(), (a.shape[1] + 8) * torch.finfo(torch.float64).eps
    for rows in row_blocks(len(a), len(b)):
        part = a[rows] - center
        own = part.square().sum(1, keepdim=True)
        yield Block(rows, torch.addmm(own + norms, part, b.T, alpha=-2), unit * (own.sqrt() + reach).square())


def between(a: Tensor, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """‖a_i - b_j‖² of pairs of rows by their differences: (P,), exactly zero for copies, the same in every block."""
    squared = np.empty(len(i))
    for pairs in row_blocks(len(i), a.shape[1]):
        difference = (a[i[pairs]] - b[j[pairs]]).numpy()
        # One loop over a row's numbers in their order: torch splits a sum by the number of rows and of threads.
        squared[pairs.numpy()] = np.einsum("pd,pd->p", difference, difference)
    return torch.from_numpy(squared)


def neighbors(a: Tensor, b: Tensor | None = None, count: int = 1) -> tuple[Tensor, Tensor]:
    """The `count` nearest points of b to each of a; without b, the nearest others of a.

    Args:
        a: (N, D).
        b: (M, D).
        count: under N without b, at most M with it.

    Returns:
        Indices into b (or a), and squared distances by `between`, both (N, count), the nearest first.
    """
    others = a if b is None else b
    wanted = min(count + 3, len(others) - (b is None))  # a few more: rounding may hide the nearest among near ties
    found, squares = [], []
    for rows, squared, _ in distance_blocks(a, others):
        if b is None:
            squared[torch.arange(len(rows)), rows] = torch.inf
        index = squared.topk(wanted, largest=False).indices.sort(1).values  # among ties, the first row is nearest
        exact = between(a, others, rows.repeat_interleave(wanted), index.flatten()).view(index.shape)
        order = exact.argsort(dim=1, stable=True)[:, :count]
        found.append(index.gather(1, order))
        squares.append(exact.gather(1, order))
    return torch.cat(found), torch.cat(squares)


def k_means(points: Tensor, count: int, *, steps: int = 25, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm (1982) from `count` random points: centres (count, D), and the centre of each point (N,).

    It stops after `steps`, or when no point changes its centre. A centre that loses all points stays where it is.
    """
    centers = points[shuffled(points, seed)[:count]]
    labels = nearest_center(points, centers)
    for _ in range(steps):
        sums = torch.zeros_like(centers).index_add_(0, labels, points)
        counts = labels.bincount(minlength=len(centers))[:, None]
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
        before, labels = labels, nearest_center(points, centers)
        if torch.equal(before, labels):
            break
    return centers, labels


def nearest_center(points: Tensor, centers: Tensor) -> Tensor:
    """The nearest of (K, D) centres to each of (N, D) points: (N,)."""
    return torch.cat([block.squared.argmin(1) for block in distance_blocks(points, centers)])
