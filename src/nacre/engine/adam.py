"""Adam in one kernel, without what torch's optimizer does around it at every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer


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
    """Calls the kernel on lists that are gathered once; torch's optimizer makes the first step, and with it the state."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.kernel = torch._fused_adamw_ if isinstance(optimizer, AdamW) else torch._fused_adam_
        self.state: Any = None
        self.lists: list[tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]] = []

    def __call__(self) -> None:
        # Loading a state puts another dictionary in its place.
        if self.state is not self.optimizer.state:
            self.optimizer.step()
            self.gather()
            return
        with torch.no_grad():
            for group, (parameters, means, squares, steps) in zip(self.optimizer.param_groups, self.lists, strict=True):
                torch._foreach_add_(steps, 1)
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

    def gather(self) -> None:
        """Put what the kernel wants into lists."""
        self.state = self.optimizer.state
        self.lists = []
        for group in self.optimizer.param_groups:
            states = [self.state[parameter] for parameter in group["params"]]
            moments = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            self.lists.append((group["params"], *moments))
