"""One objective in motion: its parameters, their optimizer, and the step that joins them."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nacre import images, schedules, seeds
from nacre.engine.adam import fast
from nacre.engine.clock import Clock
from nacre.engine.ranks import ALONE, Ranks, batch_norms
from nacre.engine.settings import Training
from nacre.errors import ConfigError
from nacre.networks import memory_format
from nacre.networks.translation import pools
from nacre.protocols import Batch, Logs, Objective, Step, device_of, dtype_of


@dataclass
class Handed:
    """What a step's objectives hand on to those that follow in it."""

    step: int = -1
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def at(self, step: int) -> dict[str, Tensor]:
        """The tensors of a step; nothing is handed on to the next."""
        if step != self.step:
            self.step, self.tensors = step, {}
        return self.tensors


class Update:
    """One objective, the parameters it owns, and its optimizer.

    Args:
        model: the model whose table the objective stands in.
        objective: the row.
        training: settings with steps and batch size resolved.
        backend: of torch.compile, or None for eager execution.
        ranks: who shares the batch.
        clock: told what the time went into.
        handed: what the model's objectives hand on to each other.

    Raises:
        ConfigError: the objective names a part that the model has not, or owns no parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        training: Training,
        backend: str | None = None,
        ranks: Ranks = ALONE,
        clock: Clock | None = None,
        handed: Handed | None = None,
    ) -> None:
        self.objective, self.training, self.ranks, self.clock = objective, training, ranks, clock or Clock()
        self.handed = handed or Handed()
        tracked = [norm for norm in batch_norms(model) if norm.running_mean is not None]
        self.statistics = [buffer for norm in tracked for buffer in (norm.running_mean, norm.running_var)]
        self.device, self.dtype = device_of(model), dtype_of(model)
        self.parameters = owned(model, objective)
        self.written = [buffer for pool in pools(model) for buffer in pool.buffers()]
        convolves = any(parameter.ndim == 4 for parameter in model.parameters())
        self.layout = memory_format(model, self.device) if convolves else torch.contiguous_format
        self.optimizer = objective.optimizer(self.parameters)
        self.rates = [training.lr or group["lr"] for group in self.optimizer.param_groups]
        self.descent = fast(self.optimizer)
        self.compiled = backend is not None
        # A replayed graph gives its results in the same memory each time, and micro-batches must be kept.
        graphs = self.device.type == "cuda" and training.accumulate == 1
        self.descend = compiled(self.gradients, backend, graphs) if backend else self.gradients

    def gradients(self, batch: Batch, step: Step) -> tuple[tuple[Tensor, ...], Logs]:
        """The gradients of the objective's own parameters, and the logged parts. This, and only this, is compiled."""
        batch = _each(self.prepared, batch)
        with torch.autocast(self.device.type, torch.bfloat16) if self.training.precision == "bf16" else nullcontext():
            loss, parts = self.objective.loss(batch, step)
        gradients = torch.autograd.grad(loss, self.parameters)
        return gradients, {name: part.detach() for name, part in {"loss": loss, **parts}.items()}

    def prepared(self, items: Tensor) -> Tensor:
        """Items as float, images laid out as the model's convolutions are."""
        items = images.to_float(items)
        return items.contiguous(memory_format=self.layout) if items.ndim == 4 else items

    def __call__(self, step: int, batch: Batch) -> Logs:
        """Take one step down the objective's gradient; returns the logged parts, on the device."""
        self.set_rates(step)
        before = [buffer.clone() for buffer in self.written] if self.ranks.size > 1 else []
        own, parts = self.accumulated(step, batch)
        self.clock.lap("forward and backward")
        gradients, logs = self.over_ranks(own, parts)
        self.share_pools(before)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = _with_strides_of(parameter, gradient)
        if self.training.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        self.descent()
        if self.objective.after is not None:
            self.objective.after(logs)
        self.clock.lap("optimizer")
        return logs

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on with an optimizer's moments. Its settings stay the objective's: in a fork they may be others."""
        settings = [{name: group[name] for name in group if name != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)

    def set_rates(self, step: int) -> None:
        """The learning rates of this step: a pure function of it."""
        training = self.training
        factor = schedules.factor(training.lr_schedule, step, training.steps or 0, training.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def accumulated(self, step: int, batch: Batch) -> tuple[tuple[Tensor, ...], Logs]:
        """Gradients and parts for the whole batch: the means over its micro-batches, which are equal in size."""
        # A loss that draws its own noise is at least the same every time it is run by this rank.
        own = seeds.mix(self.training.seed, self.objective.name, self.ranks.rank, at=step)
        torch.default_generator.manual_seed(own)
        try:
            results = [self.descend(part, moment) for part, moment in self.micro_batches(step, batch)]
        except RuntimeError as error:
            meant = _meant(str(error), self.objective)
            if meant is None:
                raise
            raise ConfigError(f"the loss of objective '{self.objective.name}' {meant}") from error
        self.hand_on(step, [logs for _, logs in results])
        if len(results) == 1:
            return results[0]
        gradients = tuple(torch.stack(each).mean(0) for each in zip(*(result[0] for result in results), strict=True))
        logs = {name: torch.stack([result[1][name] for result in results]).mean() for name in results[0][1]}
        return gradients, logs

    def hand_on(self, step: int, parts: list[Logs]) -> None:
        """Take what the objective hands on out of the parts of the micro-batches."""
        for name in self.objective.hands:
            found = [logs.pop(name, None) for logs in parts]
            tensors = [each for each in found if each is not None and each.ndim]
            if len(tensors) < len(parts):
                raise ConfigError(
                    f"objective '{self.objective.name}' says that it hands on '{name}'; its loss has to return that among its "
                    "parts, a tensor with a row for each item of the batch."
                )
            # A copy: a replayed graph writes its next results over these.
            self.handed.at(step)[name] = torch.cat(tensors)

    def over_ranks(self, gradients: tuple[Tensor, ...], logs: Logs) -> tuple[Sequence[Tensor], Logs]:
        """Gradients and parts as means over the ranks' parts of the batch; the statistics of batch norms as well."""
        if self.ranks.size == 1:
            return gradients, logs
        # The one line in which ranks exchange what they have learned.
        means = self.ranks.mean([*gradients, *logs.values(), *self.statistics])
        for buffer, mean in zip(self.statistics, means[len(gradients) + len(logs) :], strict=True):
            buffer.copy_(mean)
        self.clock.lap("between ranks")
        return means[: len(gradients)], dict(zip(logs, means[len(gradients) :], strict=False))

    def share_pools(self, before: list[Tensor]) -> None:
        """Give every rank the slots of image pools that the others wrote to: none was written to by two."""
        if not before:
            return
        written = [torch.where(new != old, new, 0) for new, old in zip(self.written, before, strict=True)]
        moved = [(new != old).to(new.dtype) for new, old in zip(self.written, before, strict=True)]
        sums = [mean * self.ranks.size for mean in self.ranks.mean([*written, *moved])]
        for buffer, old, new, count in zip(self.written, before, sums, sums[len(before) :], strict=False):
            buffer.copy_(torch.where(count > 0.5, new, old))

    def micro_batches(self, step: int, batch: Batch) -> Iterator[tuple[Batch, Step]]:
        """This rank's batch in parts, each with its rows of the whole batch's noise and of what was handed on."""
        size = len(batch if isinstance(batch, Tensor) else pytree.tree_leaves(batch)[0])
        first = self.ranks.rank * size
        index = torch.full((), step, device=self.device)  # filled there: a copy from here would wait
        for start in range(0, size, size // self.training.accumulate):
            rows = range(start, start + size // self.training.accumulate)
            noise = seeds.noises(
                self.objective.draws,
                *(self.training.seed, self.objective.name),
                at=step,
                rows=range(first + rows.start, first + rows.stop),
                device=self.device,
                dtype=self.dtype,
            )
            cut = partial(_rows, start=rows.start, stop=rows.stop)
            handed = {name: cut(tensor) for name, tensor in self.handed.at(step).items()}
            yield batch if len(rows) == size else _each(cut, batch), Step(index, noise, handed)


def in_motion(
    model: nn.Module, training: Training, backend: str | None = None, ranks: Ranks = ALONE, clock: Clock | None = None
) -> list[Update]:
    """A model's table, each row ready to be played, what one hands on within the reach of those that follow.

    Raises:
        ConfigError: a row cannot be played.
    """
    handed = Handed()
    table: list[Objective] = list(model.objectives())  # type: ignore[operator]
    names = [objective.name for objective in table]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"{type(model).__name__} has several objectives called '{twice[0]}', and a checkpoint keeps an optimizer by its "
            "objective's name; give each a name of its own."
        )
    for pool in pools(model):  # this rank may hold a part of the batch alone
        pool.check((training.batch_size or 0) // training.accumulate)
    return [Update(model, objective, training, backend, ranks, clock, handed) for objective in table]


def _meant(error: str, objective: Objective) -> str | None:
    """What torch means where it will not differentiate a loss, as the end of a sentence; None for any other error."""
    parts = ", ".join(objective.over)
    if "not have been used in the graph" in error:
        return f"does not use all the parameters of {parts}; name in `over` only what it should move."
    if "does not require grad" in error:
        return f"has no gradient; compute it from {parts} in torch throughout, without detach() or no_grad()."
    if "only for scalar outputs" in error:
        return "should be one number, got a tensor of several; take its mean."
    return None


def _each(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """`function` on each tensor of a batch."""
    return function(batch) if isinstance(batch, Tensor) else pytree.tree_map(function, batch)


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop]


def owned(model: nn.Module, objective: Objective) -> list[nn.Parameter]:
    """The parameters that an objective moves, each once."""
    parts = []
    for name in objective.over:
        try:
            parts.append(model.get_submodule(name))
        except AttributeError:
            names = ", ".join(child for child, _ in model.named_children())
            raise ConfigError(
                f"objective '{objective.name}' of {type(model).__name__} is over '{name}', which the model does not have; "
                f"its parts are: {names}."
            ) from None
    parameters = list(dict.fromkeys(p for part in parts for p in part.parameters() if p.requires_grad))
    if not parameters:
        raise ConfigError(
            f"objective '{objective.name}' of {type(model).__name__} owns no parameter; name parts in `over`."
        )
    return parameters


def compiled(function: Callable[..., Any], backend: str, graphs: bool = False) -> Callable[..., Any]:
    """`function`, which calls torch.autograd.grad, compiled as one graph; a CUDA graph if `graphs`.

    `trace_autograd_ops` lets Dynamo see through autograd.grad, a penalty's inner gradient included; without it a
    double backward is refused, and with it and a backward() *outside* the graph nothing would be trained.
    """
    # Every objective of every model shares this code; where torch can, each keeps a count of recompilations of its own.
    own: dict[str, Any] = (
        {"isolate_recompiles": True} if "isolate_recompiles" in inspect.signature(torch.compile).parameters else {}
    )
    if graphs and backend == "inductor":
        own["mode"] = "reduce-overhead"
    run = torch.compile(function, backend=backend, fullgraph=True, dynamic=False, **own)

    def call(*arguments: Any) -> Any:
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        config = torch._dynamo.config
        before, config.trace_autograd_ops = config.trace_autograd_ops, True  # config.patch would take 10 µs
        try:
            return run(*arguments)
        finally:
            config.trace_autograd_ops = before

    return call


def _with_strides_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Fused CPU optimizers walk memory and ignore strides: a gradient laid out otherwise would update wrong weights."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(gradient)


def lengths(updates: Iterable[Update], steps: int) -> dict[str, int]:
    """How many times each objective is played in `steps` steps."""
    return {
        update.objective.name: len(update.objective.when[: _position(update.objective.when, steps)])
        for update in updates
    }


def _position(when: range, steps: int) -> int:
    return max(0, -(-(min(steps, when.stop) - when.start) // when.step))
