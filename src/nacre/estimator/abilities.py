"""What an estimator can do, one class a capability of its model."""

import zlib
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from nacre import images, seeds
from nacre.engine import sampling
from nacre.estimator.base import Estimator, random_seed
from nacre.protocols import device_of, dtype_of
from nacre.spec import find_class

POOL = 1024
"""Rows of noise that the estimates of likelihoods share: an item's content says which one is its own."""


def _decodes(estimator: Estimator) -> bool:
    return hasattr(find_class(estimator.model_name), "decode")


class Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):  # type: ignore[misc]
    """Of a model that encodes."""

    def transform(self, X: Any) -> np.ndarray:
        """Codes of X, of a VAE the posterior means: (N, latent_dim)."""
        items = self._asked(X)
        return self.model_.encode(items).numpy()

    @available_if(_decodes)  # type: ignore[untyped-decorator]
    def inverse_transform(self, X: Any) -> np.ndarray:
        """Items of codes (N, latent_dim): as X was in fit, images as floats in [0, 1]."""
        check_is_fitted(self)
        codes = check_array(X, dtype=np.float32, estimator=self, input_name="X")
        width = getattr(self.model_.module, "code_dim", self._n_features_out)
        if codes.shape[1] != width:
            raise ValueError(f"X has {codes.shape[1]} columns, but the codes of {type(self).__name__} have {width}.")
        return self._given(self.model_.decode(codes))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        check_is_fitted(self)
        return int(self.model_.encode(torch.zeros(1, *self.model_.shape)).shape[1])


class Sampler(Estimator):
    """Of a model that samples."""

    def sample(self, n_samples: int = 1, random_state: Any = None, label: Any = None) -> np.ndarray:
        """New items: (n_samples, …), as X was in fit, images as floats in [0, 1].

        Args:
            n_samples: how many.
            random_state: an integer for samples that repeat, a RandomState, or None for NumPy's own.
            label: one of `classes_`, for a conditional model; by default each item's is drawn.
        """
        check_is_fitted(self)
        number = None if label is None else self._number_of(label)
        return self._given(self.model_.sample(n_samples, seed=random_seed(random_state), label=number))


class Density(Estimator):
    """Of a model that has a likelihood, or a bound on it."""

    def score_samples(self, X: Any) -> np.ndarray:
        """The log-likelihood of each item, or a lower bound on it, in nats: (N,).

        `model_.module.likelihood_name` says what it is. Where it is estimated with noise, an item's noise is a function
        of the item, so that the same item has the same score in whatever company.
        """
        x = images.to_float(torch.from_numpy(self._asked(X)))
        module: Any = self.model_.module
        device, dtype = device_of(module), dtype_of(module)
        rows = np.array([zlib.crc32(item.tobytes()) % POOL for item in x.numpy()])
        scores = np.empty(len(x), np.float32)
        with sampling.evaluating(module):
            for block in np.unique(rows // seeds.BLOCK):
                first = int(block) * seeds.BLOCK
                pool = range(first, first + seeds.BLOCK)
                noise = seeds.noises(module.likelihood_draws, 0, "likelihood", rows=pool, device=device, dtype=dtype)
                of_block = np.flatnonzero(rows // seeds.BLOCK == block)
                for part in sampling.chunks(0, len(of_block), sampling.CHUNK):
                    chosen = of_block[part.start : part.stop]
                    own = {name: draw[rows[chosen] - first] for name, draw in noise.items()}
                    scores[chosen] = module.log_likelihood(x[chosen].to(device, dtype), own).cpu().numpy()
        return scores

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`, in nats an item."""
        return float(self.score_samples(X).mean(dtype=np.float64))


class Reconstructor(Estimator):
    """Of a model that reconstructs."""

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error of reconstruction, a number: 0 is perfect. It is no likelihood."""
        x = torch.from_numpy(self._asked(X))
        errors = self.model_.reconstruct(x).double() - images.to_float(x).double()
        return -float(errors.square().mean())


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Of a model that learns from labels; its score is the accuracy."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of `classes_`: (N, classes)."""
        items = self._asked(X)
        return self.model_.classify(items).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable of `classes_`: (N,)."""
        probabilities = self.predict_proba(X)  # first, for without a fit there are no classes_
        return self.classes_[probabilities.argmax(1)]
