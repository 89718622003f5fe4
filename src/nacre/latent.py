"""A prior for models that have none: a Gaussian mixture over the codes of an encoder, so that any autoencoder generates.

mixture = LatentMixture.fit(nacre.load("runs/digits"), images)
mixture.sample(16, seed=0)
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nacre import files, seeds
from nacre.data.progress import bar
from nacre.errors import CheckpointError, ConfigError
from nacre.protocols import check_seed

CANDIDATES = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
"""Numbers of components that "auto" tries, upwards."""

PATIENCE = 3
"""Candidates without a better BIC after which "auto" stops."""

MOST = 20_000
"""Codes that a mixture is fitted to: of more, this many at equal distances in their order."""


class Autoencodes(Protocol):
    """What a mixture needs of a model; `nacre.load` gives it."""

    def encode(self, items: Tensor | np.ndarray) -> Tensor: ...

    def decode(self, codes: Tensor | np.ndarray) -> Tensor: ...


@dataclass(frozen=True)
class LatentMixture:
    """A mixture of Gaussians with full covariances over the codes of a model.

    Attributes:
        model: decodes what is drawn.
        weights: (K,) float64, of the components; they sum to one.
        means: (K, D) float64.
        covariances: (K, D, D) float64.
        bic: the Bayesian information criterion of each number of components that was tried; the lowest was chosen.
    """

    model: Autoencodes
    weights: Tensor
    means: Tensor
    covariances: Tensor
    bic: Mapping[int, float]

    @classmethod
    def fit(
        cls,
        model: Autoencodes,
        items: Tensor | np.ndarray,
        *,
        components: int | Sequence[int] | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "LatentMixture":
        """Fit a mixture to the codes of items.

        Args:
            model: a trained model that encodes and decodes.
            items: (N, *shape), those it was trained on.
            components: how many, or numbers to choose from by BIC (Schwarz 1978); None for `CANDIDATES`.
            seed: of the fit's starting points.
            progress: show a bar where it takes longer than two seconds.

        Raises:
            CapabilityError: the model does not encode.
            ConfigError: there are fewer items than components, or no number of components.
        """
        codes = model.encode(items[spread(len(items))])
        return cls.of_codes(model, codes, components=components, seed=seed, progress=progress)

    @classmethod
    def of_codes(
        cls,
        model: Autoencodes,
        codes: Tensor,
        *,
        components: int | Sequence[int] | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "LatentMixture":
        """As `fit`, where the codes (N, D) are there already."""
        *arrays, bic = fit_codes(codes.double().numpy(), components=components, seed=seed, progress=progress)
        weights, means, covariances = (torch.from_numpy(array) for array in arrays)
        return cls(model, weights, means, covariances, bic)

    def codes(self, count: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """`count` codes, from number `first` on: (count, D) float64. Each is a function of (seed, its number) alone."""
        if count < 1:
            raise ConfigError(f"the number of samples must be 1 or more, got {count}.")
        check_seed(seed)
        draws = {"which": seeds.uniform(), "z": seeds.normal(self.means.shape[1])}
        noise = seeds.noises(draws, seed, "mixture", rows=range(first, first + count), dtype=torch.float64)
        edges = self.weights.cumsum(0)[:-1]
        which = torch.searchsorted(edges, noise["which"], right=True)
        roots = torch.linalg.cholesky(self.covariances)
        return self.means[which] + torch.einsum("nij,nj->ni", roots[which], noise["z"])

    def sample(self, count: int = 16, *, seed: int = 0, first: int = 0) -> Tensor:
        """`count` new items: (count, *shape). Number i of a seed is the same whatever the count."""
        return self.model.decode(self.codes(count, seed=seed, first=first))

    def save(self, path: Path, **facts: Any) -> None:
        """Write the mixture, without its model, to a .safetensors file, with facts that `load` gives back as strings."""
        tensors = {"weights": self.weights, "means": self.means, "covariances": self.covariances}
        notes = {"bic": json.dumps(list(self.bic.items())), **{name: str(value) for name, value in facts.items()}}
        with files.whole_file(path) as aside:
            aside.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=notes))

    @classmethod
    def load(cls, path: Path, model: Autoencodes) -> tuple["LatentMixture", dict[str, str]]:
        """A mixture from a file, and the facts that it was saved with.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                notes = dict(file.metadata())
                weights, means, covariances = (file.get_tensor(name) for name in ("weights", "means", "covariances"))
            bic = {int(number): float(value) for number, value in json.loads(notes.pop("bic"))}
            return cls(model, weights, means, covariances, bic), notes
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the mixture in {path} cannot be read ({error}); delete it.") from None


def fit_codes(
    codes: np.ndarray, *, components: int | Sequence[int] | None = None, seed: int = 0, progress: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, float]]:
    """Weights (K,), means (K, D) and covariances (K, D, D) of the mixture of codes (N, D) with the lowest BIC, and all BICs.

    Codes are scaled to unit deviation while the mixture is fitted, so that scikit-learn's floor under the variances
    (1e-6) means the same for every encoder.

    Raises:
        ConfigError: there are fewer codes than components, or no number of components.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    numbers = _numbers(components, len(codes), codes.shape[1])
    center, scale = codes.mean(0), codes.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    scaled = (codes - center) / scale
    best, bic = None, {}
    with warnings.catch_warnings(), bar(len(numbers), "fitting mixtures", "mixture", progress) as shown:
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture not yet at its optimum is one all the same
        for number in numbers:
            mixture = GaussianMixture(number, random_state=seeds.mix(seed, "mixture", number) % 2**32, max_iter=200)
            bic[number] = float(mixture.fit(scaled).bic(scaled))
            shown.update()
            if best is None or bic[number] <= min(bic.values()):
                best = mixture
            elif min(list(bic.values())[-PATIENCE:]) > min(bic.values()) and components is None:
                break
    assert best is not None
    # BIC of the codes as they are: their log-density is lower by the logarithm of the scale.
    shift = 2 * len(codes) * float(np.log(scale).sum())
    bic = {number: value + shift for number, value in bic.items()}
    return best.weights_, best.means_ * scale + center, best.covariances_ * np.outer(scale, scale), bic


def _numbers(components: int | Sequence[int] | None, codes: int, dim: int) -> list[int]:
    if components is None:
        return [number for number in CANDIDATES if number == 1 or number * (dim + 1) <= codes]
    numbers = sorted([components] if isinstance(components, int) else set(components))
    if not numbers or numbers[0] < 1:
        raise ConfigError(f"the number of components must be 1 or more, got {components}.")
    if numbers[-1] > codes:
        raise ConfigError(f"a mixture of {numbers[-1]} components needs as many items at least, got {codes}.")
    return numbers


def spread(count: int) -> np.ndarray:
    """At most `MOST` of `count` rows, at equal distances."""
    return np.arange(count) if count <= MOST else np.linspace(0, count - 1, MOST).astype(np.int64)
