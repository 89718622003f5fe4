"""Adam in one kernel, without what torch's optimizer does around it at every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

SWEEP = 64
"""Steps between two looks for moments that no longer count, on a CPU."""

TINY, TINY_SQUARE = 1e-18, 1e-30
"""Moments under which a parameter does not move, by far: 1e-18 / ε is 1e-10 of a learning rate, and √1e-30 nothing beside ε."""

LEAST_EPSILON = 1e-12
"""ε under which the above does not hold."""


def fast(optimizer: Optimizer) -> Callable[[], object]:
    """What to call for a step of an optimizer; for Adam and AdamW, where the user has not chosen otherwise, the fused kernel.

    The state stays the optimizer's own, so that it is saved and loaded as ever.
    """
    if type(optimizer) not in (Adam, AdamW):
        return optimizer.step
    for group in optimizer.param_groups:
        if group["foreach"] is None and group["fused"] is None:
            group["fused"] = True
    plain = ("amsgrad", "capturable", "differentiable")
    if not hasattr(torch, "_fused_adam_") or any(
        not group["fused"] or any(group[name] for name in plain) for group in optimizer.param_groups
    ):
        return optimizer.step
    return _FusedAdam(optimizer)


class _FusedAdam:
    """Calls the kernel on lists that are gathered once; torch's optimizer makes the first step, and with it the state.

    On a CPU, moments that no longer count become zero, at steps that the state's own count decides. A weight that gets no
    gradient any more (of a border pixel that is never lit) would otherwise have moments that shrink for ever, soon to
    subnormal numbers, with which some processors reckon far more slowly (docs/decisions.md).
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.kernel = torch._fused_adamw_ if isinstance(optimizer, AdamW) else torch._fused_adam_
        self.state: Any = None
        self.lists: list[tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]] = []
        self.counts, self.done = torch.zeros(0), 0

    def __call__(self) -> None:
        # Loading a state puts another dictionary in its place.
        if self.state is not self.optimizer.state:
            self.optimizer.step()
            self.gather()
        else:
            self.descend()
        if self.done % SWEEP == 0:
            self.sweep()

    def descend(self) -> None:
        """One call of the kernel a group."""
        with torch.no_grad():
            self.counts.add_(1)
            for group, (parameters, means, squares, steps) in zip(self.optimizer.param_groups, self.lists, strict=True):
                self.kernel(
                    parameters,
                    [parameter.grad for parameter in parameters if parameter.grad is not None],
                    means,
                    squares,
                    [],
                    steps,
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=group["maximize"],
                )
            self.done += 1

    def sweep(self) -> None:
        """Make zero what no longer counts."""
        for group, (_, means, squares, _) in zip(self.optimizer.param_groups, self.lists, strict=True):
            if group["eps"] < LEAST_EPSILON:
                continue
            for moments, least in ((means, TINY), (squares, TINY_SQUARE)):
                for moment in moments:
                    if moment.device.type == "cpu":
                        moment.mul_(moment.abs() >= least)

    def gather(self) -> None:
        """Put what the kernel wants into lists; the counts of steps become parts of one tensor, which counts in one go."""
        self.state = self.optimizer.state
        self.lists = []
        states = [self.state[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]
        self.counts = torch.stack([state["step"] for state in states])
        for state, count in zip(states, self.counts.unbind(), strict=True):
            state["step"] = count
        for group in self.optimizer.param_groups:
            own = [self.state[parameter] for parameter in group["params"]]
            moments = ([state[name] for state in own] for name in ("exp_avg", "exp_avg_sq", "step"))
            self.lists.append((group["params"], *moments))
        self.done = int(self.counts.max())
