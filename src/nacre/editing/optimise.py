"""Many minimisations at once, one a row: no row's path depends on its companions.

A point is a row (D,) of a batch (N, D), and has a loss of its own. Adam is elementwise anyway; L-BFGS here has memory, line
search and end of its own for every row, where `torch.optim.LBFGS` takes the whole batch for one long point.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Losses: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Points (n, D) and the (n,) int64 numbers of their rows ↦ (n,) losses, each a function of its own point and row."""

SUFFICIENT, CURVATURE = 1e-4, 0.9
"""Wolfe's conditions: share of the promised decrease that a step must keep, and of the slope that it may leave."""

TRIALS = 25
"""Step lengths that a line search tries at most."""

LOOK_BACK = 10
"""Iterations over which L-BFGS asks whether it still gets anywhere."""


@dataclass(frozen=True)
class Minimum:
    """Where the rows came to.

    Attributes:
        points: (N, D), of each row the best that was seen.
        losses: (N,), there.
        settled: (N,) bool, whether the search ended by itself, and not because it ran out of steps.
    """

    points: Tensor
    losses: Tensor
    settled: Tensor


def adam(losses: Losses, start: Tensor, *, steps: int, lr: float = 0.1) -> Minimum:
    """Adam (Kingma & Ba 2015, algorithm 1) on every row, its rate falling along half a cosine to zero.

    Args:
        losses: the loss of each row.
        start: (N, D).
        steps: 0 or more.
        lr: the first step's rate, in units of the point.
    """
    point, rows = start.detach().clone(), torch.arange(len(start), device=start.device)
    first, second = torch.zeros_like(point), torch.zeros_like(point)
    best, least = point.clone(), torch.full_like(point[:, 0], math.inf)
    for step in range(steps):
        value, slope = slopes(losses, point, rows)
        best, least = _better(best, least, point, value)
        first.lerp_(slope, 0.1)
        second.lerp_(slope.square(), 0.001)
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        mean, spread = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        point = point - rate * mean / (spread.sqrt() + 1e-8)
    value, _ = slopes(losses, point, rows)
    best, least = _better(best, least, point, value)
    return Minimum(best, least, torch.zeros(len(start), dtype=torch.bool, device=start.device))


def lbfgs(losses: Losses, start: Tensor, *, steps: int, memory: int = 10, tolerance: float = 1e-6) -> Minimum:
    """L-BFGS (Nocedal & Wright 2006, algorithms 7.4 and 7.5) on every row, each with its own memory and line search.

    Args:
        losses: the loss of each row.
        start: (N, D).
        steps: iterations, 0 or more; each costs one evaluation or a few.
        memory: pairs of differences that the curvature is known from.
        tolerance: a row is settled when ten iterations lower its loss by less than this share of it, when its slope is
            zero to rounding, or when no step along the search direction lowers it any more.
    """
    count, dim = start.shape
    point = start.detach().clone()
    rows = torch.arange(count, device=start.device)
    value, slope = slopes(losses, point, rows)
    moves, turns = point.new_zeros(memory, count, dim), point.new_zeros(memory, count, dim)
    weights = point.new_zeros(memory, count)  # 1 / sᵀy; a pair of weight 0 has no say
    settled = ~value.isfinite()
    earlier = value.clone()
    for step in range(steps):
        active = rows[~settled]
        if not len(active):
            break
        order = [(step - 1 - back) % memory for back in range(min(step, memory))]
        way = -_two_loops(slope[active], moves[:, active], turns[:, active], weights[:, active], order)
        downhill = (way * slope[active]).sum(1)
        way = torch.where((downhill < 0)[:, None], way, -slope[active])
        # Without any memory nothing is known of the scale: the first step is of length one at most.
        known = (weights[:, active] > 0).any(0)
        length = torch.where(known, 1.0, (1 / slope[active].norm(dim=1).clamp(min=1e-30)).clamp(max=1.0))
        to, at, tilt = line_search(losses, active, point[active], value[active], slope[active], way, length)
        move, turn = to - point[active], tilt - slope[active]
        product, curve = (move * turn).sum(1), turn.square().sum(1)
        slot = step % memory
        moves[slot, active], turns[slot, active] = move, turn
        usable = product > 1e-10 * curve
        weights[slot, active] = torch.where(usable, 1 / torch.where(usable, product, 1.0), 0.0)
        stuck = (to == point[active]).all(1)
        point[active], value[active], slope[active] = to, at, tilt
        settled[active] |= stuck | (tilt.abs().amax(1) < 1e-12)
        if step % LOOK_BACK == LOOK_BACK - 1:
            settled |= earlier - value <= tolerance * value.abs()
            earlier = value.clone()
    return Minimum(point, value, settled & value.isfinite())


def line_search(
    losses: Losses, rows: Tensor, point: Tensor, value: Tensor, slope: Tensor, way: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A step along `way` for every row by Wolfe's weak conditions, found by bisection (Lewis & Overton 2013, algorithm 4.6).

    Args:
        losses: the loss of each row.
        rows: (n,) numbers of the rows.
        point: (n, D), with its losses (n,) `value` and gradients (n, D) `slope`.
        way: (n, D), downhill.
        length: (n,) first trials, in units of `way`.

    Returns:
        New points, losses and gradients; of a row that nothing lowers, the old ones.
    """
    downhill = (slope * way).sum(1)
    low, high, length = torch.zeros_like(length), torch.full_like(length, math.inf), length.clone()
    to, at, tilt = point.clone(), value.clone(), slope.clone()
    open_ = torch.arange(len(rows), device=rows.device)
    for _ in range(TRIALS):
        trial = point[open_] + length[open_, None] * way[open_]
        level, gradient = slopes(losses, trial, rows[open_])
        # A loss that is no number is too high.
        lower = level <= value[open_] + SUFFICIENT * length[open_] * downhill[open_]
        flatter = (gradient * way[open_]).sum(1) >= CURVATURE * downhill[open_]
        good, bad = open_[lower], open_[~lower]
        to[good], at[good], tilt[good] = trial[lower], level[lower], gradient[lower]
        low[good], high[bad] = length[good], length[bad]
        open_ = open_[~(lower & flatter)]
        if not len(open_):
            break
        middle, double = (low[open_] + high[open_]) / 2, 2 * length[open_]
        length[open_] = torch.where(high[open_].isinf(), double, middle)
    return to, at, tilt


def slopes(losses: Losses, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (n,) and their gradients (n, D) at points (n, D)."""
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        values = losses(leaf, rows)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


def _two_loops(slope: Tensor, moves: Tensor, turns: Tensor, weights: Tensor, order: list[int]) -> Tensor:
    """The inverse curvature times a gradient, row by row: algorithm 7.4. `order` lists the pairs, the newest first."""
    result, shares = slope, {}
    for pair in order:
        shares[pair] = weights[pair] * (moves[pair] * result).sum(1)
        result = result - shares[pair][:, None] * turns[pair]
    scale = torch.ones_like(slope[:, 0])
    for pair in reversed(order):  # the newest usable pair has the last word
        curve = turns[pair].square().sum(1) * weights[pair]
        scale = torch.where(weights[pair] > 0, 1 / torch.where(curve > 0, curve, 1.0), scale)
    result = scale[:, None] * result
    for pair in reversed(order):
        back = weights[pair] * (turns[pair] * result).sum(1)
        result = result + (shares[pair] - back)[:, None] * moves[pair]
    return result


def _better(best: Tensor, least: Tensor, point: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The better of two points, row by row."""
    lower = value < least
    return torch.where(lower[:, None], point, best), torch.where(lower, value, least)
