"""The Parzen-window estimate of a log-likelihood: a number that anybody can game, kept to compare with old papers only.

It is the density, under a Gaussian around each sample, of test items; it says more about σ and about how centred samples
are than about the model. On MNIST 10,000 real training images score about 242 nats, GANs about 225, and the centroids of a
k-means of the training set, which generate nothing, over 300 (Theis et al. 2016, section 3.2, make the point). Never rank
by it, and never show it without `k_means_parzen` beside it. Test images matter, too: of MNIST's 10,000 the first 4,000
score 10 nats less than all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.metrics import points
from nacre.metrics.intervals import Estimate, mean

SIGMAS = tuple(float(10**power) for power in np.linspace(-1, 0, 10))
"""Candidates for σ, as in the code of Goodfellow et al. (2014): ten from .1 to 1, equally spaced in their logarithm."""


@dataclass(frozen=True)
class Parzen:
    """A Parzen-window log-likelihood, nats an item; gameable.

    Attributes:
        log_likelihood: mean over the test items, with its t interval.
        sigma: the candidate that was best on the validation items.
        n_samples, n_test: items.
        caution: why the number says little, in this case more so.
    """

    log_likelihood: Estimate
    sigma: float
    n_samples: int
    n_test: int
    caution: str


def parzen(
    samples: Tensor | np.ndarray,
    validation: Tensor | np.ndarray,
    test: Tensor | np.ndarray,
    *,
    sigmas: Sequence[float] = SIGMAS,
) -> Parzen:
    """The Parzen-window log-likelihood of test items by samples (Breuleux et al. 2011; Goodfellow et al. 2014).

    Args:
        samples: (N, …), images in [0, 1], 10,000 in the papers; the score grows with their number.
        validation: (V, …) real items that choose σ.
        test: (M, …) real items, M ≥ 2.
        sigmas: candidates, standard deviations.

    Raises:
        ShapeError: a set is too small, the items differ in size, or a value is no finite number.
        ConfigError: a candidate is not over zero, or there is none.
    """
    if not sigmas or min(sigmas) <= 0:
        raise ConfigError(f"expected one or more standard deviations over zero, got {tuple(sigmas)}.")
    samples, validation, test = points.alike(sampled=samples, validation=validation, test=test)
    sigma = sigmas[int(log_densities(validation, samples, sigmas).mean(1).argmax())]
    values = log_densities(test, samples, [sigma])[0]
    at_end = sigma in (min(sigmas), max(sigmas)) and len(sigmas) > 1
    caution = "a Parzen window can be gamed: k-means scores more than good models do."
    if at_end:
        caution += f" σ = {sigma:g} is the first or last candidate: give others."
    return Parzen(mean(values), sigma, len(samples), len(test), caution)


def log_densities(items: Tensor, centers: Tensor, sigmas: Sequence[float]) -> Tensor:
    """log (1/N) Σ_i N(x; c_i, σ²I) of (M, D) items under (N, D) centers, for each of S σ, in nats: (S, M)."""
    dim = items.shape[1]
    found = []
    for block in points.distance_blocks(items, centers):
        squared = block.squared.clamp(min=0)
        found.append(torch.stack([torch.logsumexp(squared / (-2 * sigma**2), 1) for sigma in sigmas]))
    constants = [math.log(len(centers)) + dim * math.log(2 * math.pi * sigma**2) / 2 for sigma in sigmas]
    return torch.cat(found, 1) - torch.tensor(constants, dtype=torch.float64)[:, None]


def k_means_parzen(
    train: Tensor | np.ndarray,
    validation: Tensor | np.ndarray,
    test: Tensor | np.ndarray,
    count: int,
    *,
    steps: int = 3,
    sigmas: Sequence[float] = SIGMAS,
    seed: int = 0,
) -> Parzen:
    """`parzen` of centroids of the training set in place of samples: the baseline that beats what it should not.

    Args:
        train: (T, …).
        validation, test, sigmas: as in `parzen`.
        count: centroids, as many as there are samples.
        steps: of Lloyd's algorithm.
        seed: of the first centroids.
    """
    centers, _ = points.k_means(points.items(train), count, steps=steps, seed=seed)
    return parzen(centers, points.items(validation), points.items(test), sigmas=sigmas)
