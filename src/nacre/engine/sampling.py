"""Asking a model for things in chunks: nothing depends on the batch it is computed in."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from nacre import seeds
from nacre.errors import ConfigError, at_least
from nacre.networks.likelihoods import Likelihood
from nacre.protocols import SamplesFromText, check_seed, device_of, dtype_of, require

CHUNK = 256
"""Items in one forward pass where the caller does not say."""

SELECTED = 256
"""Samples that are chosen together where the worst are rejected."""


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
    model: nn.Module,
    count: int,
    *,
    seed: int = 0,
    first: int = 0,
    chunk: int = CHUNK,
    labels: Tensor | None = None,
    truncation: float | None = None,
) -> Tensor:
    """`count` samples of a seed, from number `first` on: (count, *shape), on the model's device.

    Each is a function of (seed, its number) alone, and of its label if the model is conditional: (count,) int64 `labels`, or
    by default one drawn as well. `truncation` is as in `draw`.

    Raises:
        CapabilityError: the model does not sample.
        ConfigError: labels are given and the model is not conditional; a seed or truncation out of range.
    """
    prior = require(model, "sample").prior
    if labels is not None and "label" not in prior:
        raise ConfigError("the model is not conditional, so it samples no label; train one with --conditional.")
    device = device_of(model)

    def part(rows: range) -> Tensor:
        noise = noise_of(model, rows, seed, truncation)
        if labels is not None:
            noise["label"] = labels[rows.start - first : rows.stop - first].to(device)
        return require(model, "sample").sample(noise)

    with evaluating(model):
        return torch.cat([part(rows) for rows in chunks(first, first + count, chunk)])


def imagine(
    model: nn.Module,
    texts: Tensor,
    numbers: Tensor,
    *,
    seed: int = 0,
    chunk: int = CHUNK,
    truncation: float | None = None,
) -> Tensor:
    """One sample for each text: (N, *shape), on the CPU.

    Args:
        model: samples from text.
        texts: (N, …) as the model's `read` gives them.
        numbers: (N,) int64: which numbers of the seed's noise they take.
        seed, chunk, truncation: as in `draw`.
    """
    highest = int(numbers.max()) + 1
    noise = {
        name: value for name, value in noise_of(model, range(highest), seed, truncation).items() if name != "caption"
    }

    def part(rows: range) -> Tensor:
        chosen = {name: value[numbers[rows.start : rows.stop].to(value.device)] for name, value in noise.items()}
        told = {**chosen, "text": texts[rows.start : rows.stop].to(device_of(model))}
        made: Tensor = require(model, "sample").sample(told)
        return made.cpu()

    with evaluating(model):
        return torch.cat([part(rows) for rows in chunks(0, len(texts), chunk)])


def best_fitting(
    model: nn.Module,
    texts: Tensor,
    count: int,
    *,
    reject_worst: float,
    seed: int = 0,
    chunk: int = CHUNK,
    truncation: float | None = None,
) -> Tensor:
    """`count` samples for each text, of `count` / (1 - share) candidates those that the model finds to fit best, in order.

    As DALL-E's are chosen by CLIP (Ramesh et al. 2021, section 2.6), with what the model itself has learned of texts and images.

    Args:
        model: samples from text.
        texts: (N, …) as the model's `read` gives them.
        reject_worst: the share.
        seed, chunk, truncation: as in `draw`.

    Returns:
        (N · count, *shape), text by text.
    """
    candidates = math.ceil(round(count / (1 - reject_worst), 9))
    kept = []
    for text in texts:
        told, numbers = text.expand(candidates, *text.shape), torch.arange(candidates)
        made = imagine(model, told, numbers, seed=seed, chunk=chunk, truncation=truncation)
        fitting = torch.cat(
            [_fitting(model, made[part.start : part.stop], text) for part in chunks(0, candidates, chunk)]
        )
        kept.append(made[fitting.argsort(descending=True, stable=True)[:count].sort().values])
    return torch.cat(kept)


def _fitting(model: nn.Module, items: Tensor, text: Tensor) -> Tensor:
    """How well items go with one text: (N,) on the CPU."""
    device, dtype = device_of(model), dtype_of(model)
    told = text.to(device, dtype).expand(len(items), *text.shape)
    with evaluating(model):
        return cast(SamplesFromText, model).fitting(items.to(device, dtype), told).cpu()


def check_share(reject_worst: float) -> None:
    """Raise a ConfigError unless a share can be rejected."""
    if not 0 <= reject_worst < 1:
        raise ConfigError(f"the share to reject must be from 0 to below 1, got {reject_worst:g}.")


def draw(
    model: nn.Module,
    rows: range,
    *,
    seed: int = 0,
    chunk: int = CHUNK,
    label: int | None = None,
    truncation: float | None = None,
    reject_worst: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Samples number `rows` of a seed and, of a conditional model, their labels: (N, *shape), (N,) int64; on the CPU.

    Args:
        model: samples.
        rows: contiguous numbers.
        label: of all; by default one is drawn for each.
        truncation: t, for latents from the normal law restricted to [-t, t], by its quantiles: less variety, fewer failures
            (Brock et al. 2019, section 3.1, who draw again instead).
        reject_worst: share of the candidates, in [0, 1), that the model's own judge turns away: out of each
            `SELECTED` / (1 - share) consecutive ones the `SELECTED` that it finds most real are kept, in their order.

    Raises:
        CapabilityError: the model does not sample, or is to reject and has no judge.
        ConfigError: a label that means nothing to the model, or a number out of range.
    """
    check_share(reject_worst)
    if not reject_worst:
        return _with_labels(model, rows, seed, chunk, label, truncation)
    judge, candidates = require(model, "realness"), math.ceil(SELECTED / (1 - reject_worst))
    parts = []
    for block in range(rows.start // SELECTED, -(-rows.stop // SELECTED)):
        numbers = range(block * candidates, (block + 1) * candidates)
        items, labels = _with_labels(model, numbers, seed, chunk, label, truncation)
        best = apply(judge.realness, items, model, chunk).argsort(descending=True, stable=True)[:SELECTED].sort().values
        start, stop = (min(max(at - block * SELECTED, 0), SELECTED) for at in (rows.start, rows.stop))
        parts.append((items[best[start:stop]], None if labels is None else labels[best[start:stop]]))
    joined = torch.cat([items for items, _ in parts])
    return joined, None if parts[0][1] is None else torch.cat([each for _, each in parts if each is not None])


def _with_labels(
    model: nn.Module, rows: range, seed: int, chunk: int, label: int | None, truncation: float | None
) -> tuple[Tensor, Tensor | None]:
    _check(seed, truncation)
    prior, count = require(model, "sample").prior, len(rows)
    labels = None
    if label is not None:
        labels = torch.full((count,), label)
    elif "label" in prior:
        labels = labels_of(model, rows, seed)
    drawn = sample(model, count, seed=seed, first=rows.start, chunk=chunk, labels=labels, truncation=truncation)
    return drawn.cpu(), labels


def labels_of(model: nn.Module, rows: range, seed: int) -> Tensor:
    """The labels that are drawn for samples number `rows` of a conditional model's seed: (N,) int64, on the CPU.

    They are drawn where the model is, for another device draws other ones.
    """
    law = require(model, "sample").prior["label"]
    return seeds.noise(law, seed, "sample", "label", rows=rows, device=device_of(model)).cpu()


def noise_of(model: nn.Module, rows: range, seed: int, truncation: float | None = None) -> dict[str, Tensor]:
    """The noise of samples number `rows` of a seed, by name, on the model's device.

    Raises:
        ConfigError: a seed or a truncation out of range.
    """
    _check(seed, truncation)
    prior = require(model, "sample").prior
    noise = seeds.noises(prior, seed, "sample", rows=rows, device=device_of(model), dtype=dtype_of(model))
    if truncation is None:
        return noise
    return {name: truncated(z, truncation) if prior[name].law == "normal" else z for name, z in noise.items()}


def _check(seed: int, truncation: float | None) -> None:
    check_seed(seed)
    if truncation is not None and not truncation > 0:
        raise ConfigError(f"truncation must be above 0, got {truncation:g}.")


def truncated(z: Tensor, t: float) -> Tensor:
    """Standard normal numbers to ones of the normal law restricted to [-t, t], in the same order: Φ(-t) + (Φ(t) - Φ(-t)) Φ(z)."""
    low, high = torch.special.ndtr(torch.tensor([-t, t], dtype=torch.float64)).tolist()
    shares = low + (high - low) * torch.special.ndtr(z.double())
    return torch.special.ndtri(shares).clamp(-t, t).to(z.dtype)


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


def posterior(model: Any, items: Tensor, *, seed: int = 0, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the posterior that the bound is of: (N, …) ↦ (N, D) twice, float64 on the CPU.

    Its items are seen as `log_likelihood` sees them, binarized or dequantized by the same noise.
    """
    device, dtype = device_of(model), dtype_of(model)
    law = getattr(model, "likelihood", None)

    def part(rows: range) -> Tensor:
        x = items[rows.start : rows.stop].to(device, dtype)
        if isinstance(law, Likelihood):
            x = law.observe(x, seeds.noises(law.draws, seed, "likelihood", rows=rows, device=device, dtype=dtype))
        return torch.cat(model.posterior(x), 1).double().cpu()

    with evaluating(model):
        mean, std = torch.cat([part(rows) for rows in chunks(0, len(items), chunk)]).chunk(2, dim=1)
        return mean, std


def reconstruct(model: nn.Module, items: Tensor, draws: int, *, chunk: int = CHUNK) -> Tensor:
    """Items (N, …) through samples of a VAE's posterior and back, in evaluation mode: (N, draws, …) on the CPU.

    The noise of an item is a function of its number alone.
    """
    device, dtype = device_of(model), dtype_of(model)
    capable: Any = require(model, "reconstruct")
    at_least(1, draws=draws)
    law = {"z": seeds.normal(draws, capable.latent_dim)}

    def part(rows: range) -> Tensor:
        noise = seeds.noises(law, 0, "reconstruct", rows=rows, device=device, dtype=dtype)
        return capable.reconstruct(items[rows.start : rows.stop].to(device, dtype), draws=draws, noise=noise).cpu()

    with evaluating(model):
        return torch.cat([part(rows) for rows in chunks(0, len(items), chunk)])


def chunks(start: int, stop: int, size: int) -> list[range]:
    """[start, stop) in consecutive ranges of at most `size`; one empty range for nothing."""
    if size < 1:
        raise ConfigError(f"the batch size must be 1 or more, got {size}.")
    return [range(at, min(at + size, stop)) for at in range(start, stop, size)] or [range(start, start)]
