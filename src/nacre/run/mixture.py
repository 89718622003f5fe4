"""Autoencoders that sample: a mixture over the codes of a run's training items, kept beside the run."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nacre import seeds
from nacre.latent import LatentMixture
from nacre.pretrained import Pretrained
from nacre.protocols import Decodes, Encodes, Samples, dtype_of

logger = logging.getLogger("nacre")

NAME = "mixture.safetensors"
"""Where a run keeps the mixture that was fitted to its codes."""


class WithMixture(nn.Module):
    """A model that encodes and decodes, with a mixture over its codes as the prior that it lacks.

    Args:
        model: it is not changed.
        mixture: over its codes.
    """

    edges: Tensor
    means: Tensor
    roots: Tensor

    def __init__(self, model: nn.Module, mixture: LatentMixture) -> None:
        super().__init__()
        self.model, self.latent_dim = model, mixture.means.shape[1]
        dtype = dtype_of(model)
        self.register_buffer("edges", mixture.weights.cumsum(0)[:-1].to(dtype))
        self.register_buffer("means", mixture.means.to(dtype))
        self.register_buffer("roots", torch.linalg.cholesky(mixture.covariances).to(dtype))
        self.prior = {"which": seeds.uniform(), "z": seeds.normal(self.latent_dim)}

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """New items: a component is drawn, then a code, which is decoded."""
        which = torch.searchsorted(self.edges, noise["which"].contiguous(), right=True)
        return self.decode(self.means[which] + torch.einsum("nij,nj->ni", self.roots[which], noise["z"]))

    def encode(self, x: Tensor) -> Tensor:
        """Codes of items, as the model has them."""
        codes: Tensor = self.model.encode(x)  # type: ignore[operator]
        return codes

    def decode(self, z: Tensor) -> Tensor:
        """Items of codes, as the model has them."""
        items: Tensor = self.model.decode(z)  # type: ignore[operator]
        return items

    def reconstruct(self, x: Tensor) -> Tensor:
        """Items through their codes and back."""
        return self.decode(self.encode(x))


def lacks_prior(module: nn.Module) -> bool:
    """Whether a model samples only with a mixture over its codes."""
    return not isinstance(module, Samples) and isinstance(module, Encodes) and isinstance(module, Decodes)


def with_mixture(model: Pretrained, mixture: LatentMixture) -> Pretrained:
    """A trained model that samples by a mixture over its codes."""
    return Pretrained(WithMixture(model.module, mixture), model.spec, model.shape, model.facts)


def mixture_of(
    model: Pretrained, codes: Callable[[], Tensor], *, components: int | None = None, run: Path | None = None
) -> LatentMixture:
    """The mixture over a model's codes: the one that lies beside its run, if it is of these weights, or a new one.

    Args:
        model: encodes and decodes.
        codes: makes the codes (N, D) of its training items, if they are needed.
        components: how many Gaussians; None for the number with the lowest BIC.
        run: where the mixture is kept, if it can be; None keeps it nowhere.

    Raises:
        CheckpointError: it cannot be read.
    """
    of = fingerprint(model, "auto" if components is None else str(components))
    if run is not None and (run / NAME).is_file():
        mixture, facts = LatentMixture.load(run / NAME, model)
        if facts.get("of") == of:
            return mixture
    mixture = LatentMixture.of_codes(model, codes(), components=components, progress=True)
    if run is not None:
        try:
            mixture.save(run / NAME, of=of)
        except OSError as error:
            logger.warning(f"the mixture is not kept, for {run / NAME} cannot be written ({error.strerror or error})")
    return mixture


def fingerprint(model: Pretrained, asked: str) -> str:
    """What a mixture is of: the weights of the model, and how many components were asked for."""
    digest = hashlib.sha256(asked.encode())
    for name, value in model.module.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
