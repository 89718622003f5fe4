"""Ranks: processes that train one model together, each with its part of every batch."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nacre.errors import ConfigError, NacreError, RunError

T = TypeVar("T")

AGREE_EVERY = 10
"""Steps between two questions to all ranks whether one of them was told to stop."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """One rank's place among those that train together; by default it is alone.

    Attributes:
        rank: this one's number, from 0; rank 0 writes.
        size: how many there are.
        group: the process group they talk through.
        patient: one in which the others wait for what rank 0 does alone.
        beat: seconds between two signs of life that rank 0 gives there meanwhile; None if it gives none.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    patient: Any = None
    beat: float | None = None

    def part(self, count: int) -> range:
        """This rank's rows of `count`: consecutive, and equally many for every rank but the last ones."""
        each = -(-count // self.size)
        return range(min(count, self.rank * each), min(count, (self.rank + 1) * each))

    def check(self, batch_size: int, accumulate: int) -> None:
        """Raise ConfigError if a batch cannot be split evenly, which the mean over ranks needs."""
        if batch_size % (self.size * accumulate):
            raise ConfigError(
                f"--batch-size {batch_size} is the whole batch and does not divide into {self.size} ranks with "
                f"--accumulate {accumulate}; take a multiple of {self.size * accumulate}."
            )

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over all ranks, in one message; of floating-point tensors, in the first one's type."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.detach().reshape(-1).to(tensors[0].dtype) for tensor in tensors])
        with _contact():
            dist.all_reduce(flat, group=self.group)
        means = torch.split(flat.div_(self.size), [tensor.numel() for tensor in tensors])
        return [mean.view(tensor.shape) for mean, tensor in zip(means, tensors, strict=True)]

    def gather(self, part: Tensor, count: int) -> Tensor:
        """The rows (count, …) of which each rank has its `part`, on every rank."""
        if self.size == 1:
            return part
        each = -(-count // self.size)
        mine = part.new_zeros(each, *part.shape[1:])
        mine[: len(part)] = part
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        with _contact():
            dist.all_gather(parts, mine, group=self.group)
        return torch.cat(parts)[:count]

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give these tensors rank 0's values, in place."""
        if self.size > 1:
            with _contact(), torch.no_grad():
                for tensor in tensors:
                    values = tensor.contiguous()
                    dist.broadcast(values, 0, group=self.group)
                    tensor.copy_(values)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on some rank."""
        if self.size == 1:
            return flag
        told = torch.tensor(float(flag), device=device)
        with _contact():
            dist.all_reduce(told, group=self.group)
        return bool(told > 0)

    def agree(self, facts: str, device: torch.device) -> None:
        """Make sure that all ranks have the same facts.

        Raises:
            RunError: one has others than rank 0.
        """
        if self.size == 1:
            return
        digest = int.from_bytes(hashlib.blake2b(facts.encode(), digest_size=7).digest())
        everyones = self.gather(torch.tensor([digest], device=device), self.size).tolist()
        others = [rank for rank, theirs in enumerate(everyones) if theirs != everyones[0]]
        if others:
            raise RunError(
                f"rank {', '.join(map(str, others))} has other data or settings than rank 0, and all must have the same; start "
                "every rank with the same command, on the same files."
            )

    def first(self, function: Callable[[], T]) -> T:
        """What `function` gives on rank 0, where alone it runs, for as long as it takes; its error is everyone's.

        Raises:
            NacreError: it did there.
        """
        if self.size == 1:
            return function()
        if self.rank:
            return self.answer_of_first()
        answer, failure = None, None
        with self.alive():
            try:
                answer = function()
            except NacreError as error:
                failure = error
        with _contact():
            self.tell([True, answer, str(failure) if failure else None])
        if failure:
            raise failure
        return answer  # type: ignore[return-value]

    def answer_of_first(self) -> Any:
        """What rank 0 tells when it is done, past all its signs of life."""
        done, answer, failure = False, None, None
        while not done:
            with _contact():
                done, answer, failure = self.tell([None, None, None])
        if failure is not None:
            raise Repeated(failure)
        return answer

    def tell(self, message: list[Any]) -> list[Any]:
        """Rank 0's message, on every rank."""
        dist.broadcast_object_list(message, 0, group=self.patient)
        return message

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Give signs of life while rank 0 works alone, so that the others can tell it from one that is lost."""
        if self.beat is None:
            yield
            return
        over = threading.Event()

        def signs() -> None:
            with suppress(RuntimeError):  # nobody is left to hear: found out, and said, when the work is done
                while not over.wait(self.beat):
                    self.tell([False, None, None])

        thread = threading.Thread(target=signs, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Repeated(RunError):
    """Rank 0's error, on another rank: it is told there."""

    told = True


ALONE = Ranks()


@contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"\[\S*\] ", "", " ".join(str(error).split())).partition(". This is typically")[0][:100]
        raise RunError(
            f"rank {dist.get_rank()} lost contact with the others ({reason}); what checkpoints were written are kept: start "
            "all the ranks again with `nacre resume`."
        ) from error


def synchronise(model: nn.Module, ranks: Ranks) -> None:
    """Let the batch norms of a model take their statistics over the batches of all ranks, as if these were one.

    torch.nn.SyncBatchNorm cannot be differentiated twice, which gradient penalties do, and wants a GPU.
    """
    for module in batch_norms(model):
        module.forward = _GlobalBatchNorm(module, ranks)


def batch_norms(model: nn.Module) -> list[Any]:
    """The batch norms of a model."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class _GlobalBatchNorm:
    """The forward pass of a batch norm whose batch is that of all ranks."""

    def __init__(self, module: Any, ranks: Ranks) -> None:
        self.module, self.ranks = module, ranks

    def __call__(self, x: Tensor) -> Tensor:
        module = self.module
        if not module.training:
            return type(module).forward(module, x)
        rows = [dim for dim in range(x.ndim) if dim != 1]
        columns = (1, -1, *[1] * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = self.over_ranks(wide.mean(rows))
        centered = wide - mean.view(columns)
        var = self.over_ranks(centered.square().mean(rows))
        self.track(mean.detach(), var.detach(), x.numel() // x.shape[1] * self.ranks.size)
        normed = centered * torch.rsqrt(var + module.eps).view(columns)
        if module.affine:
            normed = normed * module.weight.view(columns) + module.bias.view(columns)
        return normed.to(x.dtype)

    def over_ranks(self, moments: Tensor) -> Tensor:
        """The mean over ranks; its gradient crosses ranks as well, as often as it is taken."""
        total: Tensor = _Sum.apply(moments, self.ranks.group)  # type: ignore[no-untyped-call]
        return total / self.ranks.size

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics as torch.nn.BatchNorm does."""
        module = self.module
        if module.track_running_stats:
            module.num_batches_tracked += 1
            momentum = module.momentum if module.momentum is not None else 1 / float(module.num_batches_tracked)
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), momentum)
            module.running_var.lerp_((var * count / max(1, count - 1)).to(module.running_var.dtype), momentum)


class _Sum(torch.autograd.Function):
    """The sum over ranks. Each rank's loss depends on it, so its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = tensor.detach().clone()
        with _contact():
            dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradient.contiguous(), ctx.group), None  # type: ignore[no-untyped-call]
