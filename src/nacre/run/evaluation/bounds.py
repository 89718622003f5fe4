"""Rows of what a model says of held-out items: likelihood, what its latents do, reconstructions, classes."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre import losses, seeds
from nacre.engine import sampling
from nacre.engine.validate import spread
from nacre.metrics.ais import Decoder, ais
from nacre.metrics.intervals import Estimate, share
from nacre.metrics.intervals import mean as mean_of
from nacre.metrics.likelihood import (
    active_units,
    bits_per_dim,
    importance_bound,
    kl_by_latent,
    model_log_weights,
    rate_distortion,
)
from nacre.protocols import Classifies, Infers, LogLikelihood, Reconstructs, device_of
from nacre.run.evaluation.rows import Row
from nacre.run.evaluation.subject import Subject

LIKELIHOOD, LATENTS, BACK, CLASSES = "Likelihood", "Latents", "Reconstructions", "Classes"

K, WEIGHED = 100, 1_000
"""Samples of the importance-weighted bound, and items, at most, that it is taken of."""

DISTRIBUTIONS, CHAINS = 1_000, 16
"""Of annealed importance sampling."""


def likelihood_rows(subject: Subject) -> Iterator[Row]:
    """The model's own bound, what it is in bits, how much better it is of training items, and tighter bounds."""
    module = subject.model.module
    if not isinstance(module, LogLikelihood):
        return
    name, law = _named(module.likelihood_name)
    values = subject.model.log_likelihood(
        subject.floats(subject.held_out_rows), seed=subject.seed, batch_size=subject.batch_size
    )
    bound = mean_of(values)
    protocol = f"lower bound on log p(x), mean over {len(values):,} {subject.split} items, seed {subject.seed}; {law}."
    subject.by_item[f"{name}, nats"] = values
    yield Row(f"{name}, nats", bound, None, "higher", protocol, "", LIKELIHOOD)
    yield from _bits(subject, module, name, bound)
    yield from _gap(subject, name, values)
    if hasattr(module, "k_eval"):
        yield from _weighed(subject, law)


def _bits(subject: Subject, module: Any, name: str, bound: Estimate) -> Iterator[Row]:
    bins = getattr(getattr(module, "likelihood", None), "bin_nats", None)
    if bins is None:
        return
    dims = math.prod(subject.dataset.shape)
    words = f"of the 256 levels of {dims:,} numbers, from the {name} of {bound.n:,} {subject.split} items."
    yield Row("Bits per dimension", bits_per_dim(bound, dims, bins), None, "lower", words, "", LIKELIHOOD)


def _gap(subject: Subject, name: str, held_out: Tensor) -> Iterator[Row]:
    """The bound of training items less that of held-out ones."""
    if not subject.own:
        return
    rows = spread(subject.train_rows, len(held_out))
    train = subject.model.log_likelihood(subject.floats(rows), seed=subject.seed, batch_size=subject.batch_size)
    se = math.hypot(*(float(each.std()) / math.sqrt(len(each)) for each in (train, held_out)))
    value = float(train.mean() - held_out.mean())
    gap = Estimate(value, se, value - 1.96 * se, value + 1.96 * se, len(train) + len(held_out))
    words = (
        f"{name} of {len(train):,} training items less that of {len(held_out):,} {subject.split} items; 0 without "
        "over-fitting."
    )
    yield Row("Over-fitting: bound on training items, nats more", gap, None, "lower", words, "", LIKELIHOOD)


def _weighed(subject: Subject, law: str) -> Iterator[Row]:
    """The bound of k samples."""
    rows = spread(subject.held_out_rows, WEIGHED)
    weights = model_log_weights(subject.model.module, subject.floats(rows), seed=subject.seed)
    found = importance_bound(weights, len(rows), K)
    words = (
        f"importance-weighted bound of k = {K} samples, mean over {len(rows):,} {subject.split} items, seed {subject.seed}; "
        f"{law}."
    )
    yield Row(f"L_{K}, nats", found.bound, None, "higher", words, found.caution, LIKELIHOOD)


def annealed_rows(subject: Subject) -> Iterator[Row]:
    """log p(x) of some items by annealed importance sampling, of models with one normal latent and a known p(x|z)."""
    count = subject.settings.ais
    module: Any = subject.model.module
    known = hasattr(module, "log_density") and hasattr(module, "likelihood")
    if count < 1 or not known or not isinstance(subject.model.module, LogLikelihood):
        return
    rows = spread(subject.held_out_rows, max(2, count))
    device = device_of(module)
    exact = copy.deepcopy(module).double()
    laws, numbers = module.likelihood.draws, range(len(rows))
    noise = seeds.noises(laws, subject.seed, "likelihood", rows=numbers, device=device, dtype=torch.float64)
    seen = exact.likelihood.observe(subject.floats(rows).to(device).double(), noise)
    found = ais(
        Decoder(module.latent_dim, exact.log_density),
        seen,
        distributions=DISTRIBUTIONS,
        chains=CHAINS,
        seed=subject.seed,
    )
    words = (
        f"{found.protocol}; {len(rows):,} {subject.split} items; {found.accepted:.0%} accepted; "
        f"{_named(module.likelihood_name)[1]}."
    )
    yield Row("log p(x) by AIS, nats", found.log_likelihood, None, "higher", words, found.caution, LIKELIHOOD)


def latent_rows(subject: Subject, kl: list[Estimate]) -> Iterator[Row]:
    """What latents say of items, by a Gaussian posterior; the KL of each is noted in `kl`."""
    module = subject.model.module
    if not isinstance(module, Infers):
        return
    x = subject.floats(subject.held_out_rows)
    mean, std = sampling.posterior(module, x, seed=subject.seed, chunk=subject.batch_size)
    about = f"{len(x):,} {subject.split} items"
    if _has_normal_prior(module, mean.shape[1]):
        each = losses.kl_per_latent(mean, 2 * std.log())
        kl += kl_by_latent(each)
        yield from _rate_rows(subject, x, each, about)
    active = active_units(mean)
    sure = [number for number in active.active if number not in active.undecided]
    possible = set(active.active) | set(active.undecided)
    estimate = Estimate(active.count, math.nan, len(sure), len(possible), len(x))
    words = (
        f"of {mean.shape[1]}, those whose posterior mean has a variance over .01 over {about} (Burda et al. 2016); the "
        "interval goes from those that are sure to those that may be."
    )
    yield Row("Active units", estimate, None, "higher", words, "", LATENTS)


def _rate_rows(subject: Subject, x: Tensor, kl: Tensor, about: str) -> Iterator[Row]:
    """Rate, and where there is a likelihood, distortion."""
    module = subject.model.module
    words = f"KL(q(z|x) || p(z)), mean over {about}"
    if isinstance(module, LogLikelihood) and hasattr(module, "k_eval"):
        weights = model_log_weights(module, x, seed=subject.seed)
        elbo = importance_bound(weights, len(x), 1).values
        found = rate_distortion(-elbo - kl.sum(1), kl)
        yield Row("Rate, nats", found.rate, None, "floor", f"{words}.", "", LATENTS)
        words = f"-E log p(x|z), one sample of z an item, mean over {about}, seed {subject.seed}."
        subject.by_item["Distortion, nats"] = -elbo - kl.sum(1)
        yield Row("Distortion, nats", found.distortion, None, "lower", words, "", LATENTS)
    else:
        yield Row("Rate, nats", mean_of(kl.sum(1)), None, "floor", f"{words}.", "", LATENTS)


def _has_normal_prior(module: nn.Module, size: int) -> bool:
    """Whether a posterior of `size` latents is to be held against N(0, I)."""
    laws = [law for name, law in getattr(module, "prior", {}).items() if name != "label"]
    return laws == [seeds.normal(size)]


def reconstruction_rows(subject: Subject) -> Iterator[Row]:
    """How far reconstructions are off."""
    if not isinstance(subject.model.module, Reconstructs):
        return
    errors = []
    for part in np.array_split(subject.held_out_rows, max(1, subject.count // 1024)):
        x = subject.floats(part)
        back = subject.model.reconstruct(x, batch_size=subject.batch_size)
        errors.append((back.double() - x.double()).square().flatten(1).mean(1))
    subject.by_item["Reconstruction error"] = torch.cat(errors)
    found = mean_of(subject.by_item["Reconstruction error"])
    numbers = "pixel in [0, 1]" if subject.image else "number"
    words = f"mean squared error a {numbers}, mean over {found.n:,} {subject.split} items."
    yield Row("Reconstruction error", found, None, "lower", words, "", BACK)


def accuracy_rows(subject: Subject) -> Iterator[Row]:
    """How often a classifier is right."""
    labels = subject.labels(subject.held_out_rows)
    if not isinstance(subject.model.module, Classifies) or labels is None:
        return
    known = subject.held_out_rows[labels >= 0]
    if not len(known):
        return
    told = subject.model.classify(subject.floats(known), batch_size=subject.batch_size).argmax(1).numpy()
    right = float((told == labels[labels >= 0]).sum())
    words = (
        f"share of {len(known):,} {subject.split} items whose likeliest of {len(subject.dataset.classes)} classes is their "
        "own."
    )
    yield Row("Accuracy", share(right, len(known)), None, "higher", words, "", CLASSES)


def _named(name: str) -> tuple[str, str]:
    """A bound's name, and what it is of."""
    head, _, rest = name.partition(", ")
    return head, rest
