"""Asking a model for things in chunks: nothing depends on the batch it is computed in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nacre import seeds
from nacre.errors import ConfigError
from nacre.protocols import device_of, dtype_of, require

CHUNK = 256
"""Items in one forward pass where the caller does not say."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode and without gradients; afterwards it is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training


def sample(
    model: nn.Module, count: int, *, seed: int = 0, first: int = 0, chunk: int = CHUNK, labels: Tensor | None = None
) -> Tensor:
    """`count` samples of a seed, from number `first` on: (count, *shape), on the model's device.

    Each is a function of (seed, its number) alone, and of its label if the model is conditional: (count,) int64 `labels`, or
    by default one drawn as well.

    Raises:
        CapabilityError: the model does not sample.
        ConfigError: labels are given and the model is not conditional.
    """
    prior = require(model, "sample").prior
    if not 0 <= seed <= seeds.LARGEST_SEED:
        raise ConfigError(f"a seed must be from 0 to {seeds.LARGEST_SEED}, got {seed}.")
    if labels is not None and "label" not in prior:
        raise ConfigError("the model is not conditional, so it samples no label; train one with --conditional.")
    device, dtype = device_of(model), dtype_of(model)

    def part(rows: range) -> Tensor:
        noise = seeds.noises(prior, seed, "sample", rows=rows, device=device, dtype=dtype)
        if labels is not None:
            noise["label"] = labels[rows.start - first : rows.stop - first].to(device)
        return require(model, "sample").sample(noise)

    with evaluating(model):
        return torch.cat([part(rows) for rows in chunks(first, first + count, chunk)])


def apply(function: Callable[[Tensor], Tensor], items: Tensor, model: nn.Module, chunk: int = CHUNK) -> Tensor:
    """`function` on items (N, …) in chunks, in evaluation mode: (N, …) on the CPU."""
    device, dtype = device_of(model), dtype_of(model)
    with evaluating(model):
        parts = [function(items[rows.start : rows.stop].to(device, dtype)) for rows in chunks(0, len(items), chunk)]
        return torch.cat([part.cpu() for part in parts])


def log_likelihood(model: nn.Module, items: Tensor, *, seed: int = 0, first: int = 0, chunk: int = CHUNK) -> Tensor:
    """The model's (bound on the) log-likelihood of items (N, …) in nats, one number an item: (N,) float64 on the CPU.

    The noise of an item is a function of (seed, its number) alone; the first one's is `first`.

    Raises:
        CapabilityError: the model has none.
    """
    capable = require(model, "log_likelihood")
    device, dtype = device_of(model), dtype_of(model)

    def part(rows: range) -> Tensor:
        numbers = range(first + rows.start, first + rows.stop)
        noise = seeds.noises(capable.likelihood_draws, seed, "likelihood", rows=numbers, device=device, dtype=dtype)
        return capable.log_likelihood(items[rows.start : rows.stop].to(device, dtype), noise).double().cpu()

    with evaluating(model):
        return torch.cat([part(rows) for rows in chunks(0, len(items), chunk)])


def chunks(start: int, stop: int, size: int) -> list[range]:
    """[start, stop) in consecutive ranges of at most `size`; one empty range for nothing."""
    if size < 1:
        raise ConfigError(f"the batch size must be 1 or more, got {size}.")
    return [range(at, min(at + size, stop)) for at in range(start, stop, size)] or [range(start, start)]
