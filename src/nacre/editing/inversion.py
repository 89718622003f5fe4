"""Inversion: the latent of an image in a model that has no encoder, by search (Zhu et al. 2016, section 3.1).

found = invert(model, images)
found.codes, found.remade, found.residual, found.converged
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from nacre import networks, seeds
from nacre.editing import latents, optimise, perception
from nacre.editing.items import checked
from nacre.errors import ConfigError, ShapeError, at_least
from nacre.protocols import Encodes, check_seed, device_of, dtype_of

Start = Callable[[Tensor], Tensor]
"""Items (N, *shape) ↦ latents (N, latent_dim) to begin a search with."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How latents are searched for.

    Args:
        restarts: searches an image at most, each from a start of its own; an image whose residual is at most `tolerance` needs
            no other.
        candidates: latents of the prior out of which the starts are taken: those whose items are nearest to the image.
        adam_steps: steps of Adam, the first half of a search.
        lbfgs_steps: iterations of L-BFGS at most, the second half.
        lr: Adam's first rate, in units of the latent.
        feature_weight: of the relative error of the features of the model's own discriminator, where it has one, beside the mean
            squared error of the image.
        prior_weight: of the mean square of the latent, where its prior is normal: what keeps it among those that the model
            has been trained on.
        tolerance: the residual, a mean squared error, up to which an image counts as found.
    """

    restarts: int = 4
    candidates: int = 512
    adam_steps: int = 100
    lbfgs_steps: int = 200
    lr: float = 0.1
    feature_weight: float = 0.02
    prior_weight: float = 1e-4
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        at_least(1, restarts=self.restarts, candidates=self.candidates)
        at_least(0, adam_steps=self.adam_steps, lbfgs_steps=self.lbfgs_steps, tolerance=self.tolerance)
        at_least(0, feature_weight=self.feature_weight, prior_weight=self.prior_weight)
        if not self.lr > 0:
            raise ConfigError(f"lr must be positive, got {self.lr:g}.")


@dataclass(frozen=True)
class Inversion:
    """Latents of items, and what is needed to judge them.

    Attributes:
        codes: (N, code_dim), what the model decodes; of a conditional model the label is its last part.
        remade: (N, *shape), the items of these codes.
        residual: (N,) mean squared error of the remade items.
        converged: (N,) bool, whether the residual is within the tolerance: otherwise the item is out of the model's reach, or
            the search missed it.
        settled: (N,) bool, whether the search ended by itself; otherwise more iterations may find better.
        searches: (N,) int64, how many were made; 0 where an encoder gave the code.
    """

    codes: Tensor
    remade: Tensor
    residual: Tensor
    converged: Tensor
    settled: Tensor
    searches: Tensor


def find(
    model: nn.Module, items: Tensor, search: Search | None = None, *, seed: int = 0, chunk: int = latents.CHUNK
) -> Inversion:
    """Codes of items: by the model's encoder where it has one, otherwise by `invert`.

    Args:
        model: decodes.
        items: (N, *shape), images in [0, 1].
        search: how, where it has to be searched.
        seed: of the search.
        chunk: items at a time.

    Raises:
        CapabilityError: the model does not decode.
        ShapeError: as `invert`.
        ConfigError: a seed out of range.
    """
    search = search or Search()
    check_seed(seed)
    if not isinstance(model, Encodes):
        return invert(model, items, search, seed=seed, chunk=chunk)
    items = checked(model, items)
    codes = latents.apply(model, model.encode, items, chunk=chunk)
    remade = latents.decode(model, codes, chunk=chunk)
    residual = mean_square(remade - items)
    known = torch.ones(len(items), dtype=torch.bool, device=items.device)
    return Inversion(codes, remade, residual, residual <= search.tolerance, known, torch.zeros_like(known).long())


def invert(
    model: nn.Module,
    items: Tensor,
    search: Search | None = None,
    *,
    labels: Tensor | None = None,
    start: Start | None = None,
    seed: int = 0,
    chunk: int = latents.CHUNK,
    tell: Callable[[int], None] | None = None,
) -> Inversion:
    """Search the latents whose items are nearest to the given ones: Adam, then L-BFGS, from several starts.

    What is minimised is the mean squared error of the item, the error of the judge's features and the latent's mean square, each
    with its weight. The best search of each item is kept, by that loss. Of a conditional model the starts bring their labels with
    them, and labels stay as they are. A result depends on the seed and the item, not on the other items: their starts are taken
    out of the same candidates, and all searches are made row by row.

    Args:
        model: decodes; in any mode, it is asked in evaluation mode.
        items: (N, *shape), images in [0, 1] or vectors.
        search: weights, steps and restarts.
        labels: (N,) int64, of a conditional model, where they are known.
        start: gives the first start of each item (`train_encoder`); by default the model's own encoder does, if it has one.
        seed: of the candidates.
        chunk: items that are searched at a time.
        tell: told how many items have been done, after each chunk.

    Raises:
        CapabilityError: the model does not decode, or there is nothing to start from.
        ShapeError: no items, items that are not of the model's shape, images that are not floats in [0, 1], numbers that are not
            finite, or labels that are not one an item.
        ConfigError: labels that the model does not know, a seed out of range, or a chunk under 1.
    """
    at_least(1, chunk=chunk)
    search = search or Search()
    latents.decoding(model)
    if not len(items):
        raise ShapeError("there are no items to search the latents of.")
    check_seed(seed)
    latents.check_labels(model, labels, len(items))
    dtype, model = dtype_of(model), latents.exact(model)
    items = checked(model, items)
    parts = []
    with latents.evaluating(model):
        pool = _candidates(model, search, seed, chunk)
        for rows in torch.split(torch.arange(len(items)), chunk):
            own = None if labels is None else labels[rows].to(items.device)
            parts.append(_invert(model, items[rows], search, own, start, pool))
            if tell:
                tell(len(rows))
    joined = [torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Inversion)]
    return Inversion(*(each.to(dtype) if each.is_floating_point() else each for each in joined))


def train_encoder(
    model: nn.Module,
    *,
    steps: int = 1000,
    batch_size: int = 64,
    lr: float = 1e-3,
    width: int = 32,
    seed: int = 0,
    tell: Callable[[int], None] | None = None,
) -> Start:
    """A network that guesses the latents of items, trained on samples of the model: a first start for `invert`.

    It minimises the latents' mean squared error; pairs of sample and latent there are as many as one likes.

    Args:
        model: decodes, and its prior is normal.
        steps: batches of new samples.
        batch_size: samples in one of them.
        lr: Adam's.
        width: channels of the first convolution.
        seed: of weights and samples.
        tell: told of each step.

    Raises:
        ConfigError: the latents have no law to draw samples from, or there is no step, no sample or no such seed.
    """
    at_least(1, steps=steps, batch_size=batch_size, width=width)
    check_seed(seed)
    if not latents.is_normal(model):
        raise ConfigError(
            f"{type(model).__name__} draws no latents from a normal law, so that no encoder can be trained on them."
        )
    shape, size = tuple(model.shape), latents.latent_dim(model)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.mix(seed, "encoder"))
        guess = networks.encoder(shape, size, width=width).to(device_of(model), dtype_of(model))
    optimizer = torch.optim.Adam(guess.parameters(), lr)
    draws = latents.prior_of(model)
    for step in range(steps):
        noise = seeds.noises(
            draws, seed, "encoder", rows=range(batch_size), at=step, device=device_of(model), dtype=dtype_of(model)
        )
        items = latents.decode(model, latents.with_labels(model, noise["z"], noise.get("label")), chunk=batch_size)
        loss = (guess(items) - noise["z"]).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if tell:
            tell(1)
    guess.eval().requires_grad_(False)
    return partial(latents.apply, guess, guess)


def mean_square(difference: Tensor) -> Tensor:
    """(N, …) ↦ (N,)."""
    return difference.square().flatten(1).mean(1)


@dataclass(frozen=True)
class _Pool:
    """Codes to start from, and their items, flattened."""

    codes: Tensor
    items: Tensor


def _candidates(model: nn.Module, search: Search, seed: int, chunk: int) -> _Pool:
    if latents.is_normal(model):
        codes = latents.random_codes(model, search.candidates, seed=seed, purpose="invert")
    elif isinstance(model, Encodes):  # its own code is the only start
        codes = torch.zeros(0, latents.code_dim(model), device=device_of(model), dtype=dtype_of(model))
    else:  # whatever its law may be, standard normal numbers are a guess
        law = seeds.normal(latents.code_dim(model))
        codes = seeds.noise(
            law, seed, "invert", "z", rows=range(search.candidates), device=device_of(model), dtype=dtype_of(model)
        )
    items = latents.decode(model, codes, chunk=chunk)
    return _Pool(codes, items.flatten(1))


def _invert(
    model: nn.Module, items: Tensor, search: Search, labels: Tensor | None, start: Start | None, pool: _Pool
) -> Inversion:
    """One chunk: search after search, each for the items that are not found yet."""
    starts = _starts(model, items, search, labels, start, pool)
    count, size = len(items), latents.latent_dim(model)
    codes, losses = starts[:, 0].clone(), torch.full_like(items.flatten(1)[:, 0], torch.inf)
    residual, searches = losses.clone(), torch.zeros(count, dtype=torch.int64, device=items.device)
    settled = searches > 0
    for first in starts.unbind(1):
        missing = (residual > search.tolerance).nonzero().squeeze(1)
        if not len(missing):
            break
        label = first[missing, size:]
        loss = _losses(model, items[missing], label, search)
        found = optimise.adam(loss, first[missing, :size], steps=search.adam_steps, lr=search.lr)
        found = optimise.lbfgs(loss, found.points, steps=search.lbfgs_steps, tolerance=1e-3)
        code = torch.cat([found.points, label], 1)
        apart = mean_square(latents.decode(model, code, chunk=count) - items[missing])
        better = found.losses < losses[missing]
        rows = missing[better]
        codes[rows], losses[rows], residual[rows] = code[better], found.losses[better], apart[better]
        settled[rows] = found.settled[better]
        searches[missing] += 1
    remade = latents.decode(model, codes, chunk=count)
    residual = mean_square(remade - items)
    return Inversion(codes, remade, residual, residual <= search.tolerance, settled, searches)


def _losses(model: nn.Module, items: Tensor, label: Tensor, search: Search) -> optimise.Losses:
    """What is minimised: a function of latents (n, latent_dim) and the numbers (n,) of the items that they are for."""
    see = perception.sight(model) if search.feature_weight else None
    with torch.no_grad():
        wanted = see(items) if see else []
    held = search.prior_weight if latents.is_normal(model) else 0.0

    def losses(z: Tensor, rows: Tensor) -> Tensor:
        made = model.decode(torch.cat([z, label[rows]], 1))  # type: ignore[operator]
        total = mean_square(made - items[rows]) + held * z.square().mean(1)
        if see:
            total = total + search.feature_weight * perception.difference(see(made), [layer[rows] for layer in wanted])
        return total

    return losses


def _starts(
    model: nn.Module, items: Tensor, search: Search, labels: Tensor | None, start: Start | None, pool: _Pool
) -> Tensor:
    """Of each item, the codes that its searches begin with: (N, restarts or fewer, code_dim)."""
    size = latents.latent_dim(model)
    starts = _nearest(items, search, labels, pool, size)
    if start is not None:  # its guess, with the label of the nearest candidate
        z = start(items).to(items)
        guess = torch.cat([z, starts[:, 0, size:]], 1) if starts.shape[1] else z
        starts = torch.cat([guess[:, None], starts], 1)
    elif isinstance(model, Encodes):
        starts = torch.cat([latents.apply(model, model.encode, items, chunk=len(items))[:, None], starts], 1)
    starts = starts[:, : search.restarts]
    if labels is None:
        return starts
    told = latents.with_labels(model, starts[:, 0, :size], labels)[:, None, size:]
    return torch.cat([starts[:, :, :size], told.expand(-1, starts.shape[1], -1)], 2)


def _nearest(items: Tensor, search: Search, labels: Tensor | None, pool: _Pool, size: int) -> Tensor:
    """Of each item, the candidates whose items are nearest to it, of its label if that is known: (N, restarts, code_dim)."""
    # Row by row: a matrix product of all rows at once may round each row differently.
    apart = torch.stack([mean_square(pool.items - item) for item in items.flatten(1)])
    if labels is not None:
        apart = apart.masked_fill(pool.codes[:, size:].argmax(1) != labels[:, None], torch.inf)
    return pool.codes[apart.topk(min(search.restarts, len(pool.codes)), dim=1, largest=False).indices]
