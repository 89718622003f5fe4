"""Directions in a latent space: found without labels, and kept as small files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nacre import files
from nacre.editing import latents
from nacre.editing.features import LAYERS
from nacre.errors import CapabilityError, CheckpointError, ConfigError

FORMAT = "nacre-direction-1"


@dataclass(frozen=True)
class Direction:
    """A way through a latent space.

    Attributes:
        vector: (code_dim,) float32 on the CPU; a strength of one is its own length.
        facts: where it comes from, in JSON's types.
    """

    vector: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it to a .safetensors file, whole or not at all."""
        notes = {"format": FORMAT, "facts": json.dumps(dict(self.facts))}
        with files.whole_file(path) as aside:
            aside.write_bytes(save({"direction": self.vector.detach().cpu().float().contiguous()}, metadata=notes))

    @classmethod
    def load(cls, path: Path) -> "Direction":
        """Read it back.

        Raises:
            ConfigError: there is no such file.
            CheckpointError: it is damaged, holds something else, or numbers that are not finite.
        """
        try:
            with safe_open(path, framework="pt") as file:
                notes = file.metadata() or {}
                if notes.get("format") != FORMAT:
                    raise CheckpointError(f"{path} holds no direction; `nacre arithmetic --save-direction` writes one.")
                found = cls(file.get_tensor("direction"), json.loads(notes["facts"]))
        except FileNotFoundError:
            raise ConfigError(
                f"there is no direction at {path}; `nacre arithmetic --save-direction` writes one."
            ) from None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"the direction in {path} cannot be read ({error}).") from None
        if found.vector.ndim != 1 or not bool(found.vector.isfinite().all()):
            raise CheckpointError(f"the direction in {path} is no row of finite numbers; save it anew.")
        return found

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if it is of another latent space than the model's."""
        size = latents.code_dim(model)
        if self.vector.shape != (size,):
            raise ConfigError(
                f"the direction has {len(self.vector)} numbers, and codes of {type(model).__name__} have {size}: it was made "
                "with another model; make one with this."
            )


def principal(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The directions in which codes differ most, and their shares of the variance: (N, D) ↦ (count, D), (count,).

    Each is as long as the codes' standard deviation along it, so that strengths mean the same in all. Of the latents of a normal
    prior all directions are alike: this is for codes of data.

    Raises:
        ConfigError: fewer than two codes, or more directions than these span.
    """
    if len(codes) < 2 or not 1 <= count <= min(len(codes) - 1, codes.shape[1]):
        raise ConfigError(
            f"{len(codes)} codes of {codes.shape[1]} numbers have {max(0, min(len(codes) - 1, codes.shape[1]))} principal "
            f"directions, got {count} to find."
        )
    centred = codes.double() - codes.double().mean(0)
    _, lengths, ways = torch.linalg.svd(centred, full_matrices=False)
    variances = lengths.square() / (len(codes) - 1)
    found = upright(ways[:count]) * variances[:count].sqrt()[:, None]
    return found.to(codes), (variances / variances.sum())[:count].to(codes)


def factorized(model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """The directions to which the generator's first layer is most sensitive (SeFa, Shen & Zhou 2021, eqs. 4 and 8).

    They are eigenvectors of AᵀA, A the weights that the latent meets first, and of unit length.

    Args:
        model: decodes; its first layer with weights is linear, or a (transposed) convolution over a single place.
        count: how many, at most as many as the latent has numbers.

    Returns:
        (count, code_dim), zero where a code holds a label; and (count,) shares of the eigenvalues.

    Raises:
        CapabilityError: the model does not decode, or its first layer takes something else than the code.
        ConfigError: more directions than there are.
    """
    size = latents.latent_dim(model)
    if not 1 <= count <= size:
        raise ConfigError(f"latents of {size} numbers have as many directions, got {count} to find.")
    weights = _first_weights(model)[:, :size].double()
    values, vectors = torch.linalg.eigh(weights.T @ weights)
    found = upright(vectors.T.flip(0)[:count]).to(_first_weights(model))
    labels = found.new_zeros(count, latents.code_dim(model) - size)
    return torch.cat([found, labels], 1), (values.flip(0) / values.sum())[:count].to(found)


def upright(ways: Tensor) -> Tensor:
    """Directions (K, D) with their largest number positive: of two signs, one has to be chosen."""
    largest = ways.gather(1, ways.abs().argmax(1, keepdim=True))
    return ways * torch.where(largest < 0, -1.0, 1.0)


def _first_weights(model: nn.Module) -> Tensor:
    """The matrix (outputs, code_dim) of the layer that a code meets first."""
    calls: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        calls.append((layer, given[0]))

    hooks = [layer.register_forward_pre_hook(keep) for layer in model.modules() if isinstance(layer, LAYERS)]
    code = latents.apply(model, torch.clone, torch.zeros(1, latents.code_dim(model)))
    try:
        latents.decode(model, code)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[0][1].numel() != code.numel():
        raise CapabilityError(
            f"{type(model).__name__} gives its latent to no single first layer, whose weights could be factorized; take "
            "principal directions of codes instead."
        )
    layer = calls[0][0]
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    if isinstance(layer, nn.ConvTranspose2d):
        return weight.flatten(1).T  # (inputs, outputs, height, width)
    if isinstance(layer, nn.Linear):
        return weight
    return weight.movedim(1, -1).flatten(0, -2)  # (outputs, inputs, height, width), seen by one place
