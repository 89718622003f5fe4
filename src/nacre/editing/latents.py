"""What any model's latents are: their law, their labels, and those of its own samples.

A *code* is what a model decodes: a latent, and of a conditional model the label's one-hot vector beside it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre import seeds
from nacre.errors import CapabilityError, ConfigError, ShapeError
from nacre.protocols import Decodes, Encodes, Samples, check_seed, device_of, dtype_of
from nacre.seeds import Draw

CHUNK = 64
"""Items in one forward pass where the caller does not say."""


def decoding(model: nn.Module) -> Any:
    """The model, if it decodes.

    Raises:
        CapabilityError: it makes nothing out of latents.
    """
    if not isinstance(model, Decodes):
        raise CapabilityError(
            f"{type(model).__name__} does not decode, so that its latents can become no images; take a run of a model that "
            "does (`nacre models`): ae, vae, gan …"
        )
    return model


def code_dim(model: nn.Module) -> int:
    """Size of a code. Raises ConfigError if the model does not say."""
    size = getattr(model, "code_dim", getattr(model, "latent_dim", None))
    if not isinstance(size, int):
        raise ConfigError(
            f"{type(model).__name__} does not say how large its codes are; give it an attribute latent_dim."
        )
    return size


def label_count(model: nn.Module) -> int:
    """Classes that a code holds the label of, 0 for none."""
    return int(getattr(model, "classes", 0)) if "label" in prior_of(model) else 0


def latent_dim(model: nn.Module) -> int:
    """Size of a code without its label."""
    return code_dim(model) - label_count(model)


def prior_of(model: nn.Module) -> dict[str, Draw]:
    """The noise that one sample takes; empty for a model that does not sample."""
    return dict(model.prior) if isinstance(model, Samples) else {}


def is_normal(model: nn.Module) -> bool:
    """Whether latents are standard normal by the model's own prior: true of GANs and VAEs, not of autoencoders or ladders.

    Then they lie near a sphere of radius √D, and the straight way between two of them leaves it.
    """
    prior = prior_of(model)
    drawn = set(prior) <= {"z", "label"} and prior.get("z") == seeds.normal(latent_dim(model))
    return drawn and isinstance(model, Decodes)


def random_codes(
    model: nn.Module, count: int, *, seed: int = 0, purpose: str = "sample", labels: Tensor | None = None
) -> Tensor:
    """Codes 0 to `count` - 1 of a seed, from the model's prior: (count, code_dim).

    Those of purpose "sample" are the codes of `nacre sample`'s images of that seed. Raises as `numbered_codes`.
    """
    return numbered_codes(model, range(count), seed=seed, purpose=purpose, labels=labels)


def numbered_codes(
    model: nn.Module, numbers: Sequence[int], *, seed: int = 0, purpose: str = "sample", labels: Tensor | None = None
) -> Tensor:
    """The codes of a model's samples by their numbers: (len(numbers), code_dim).

    Of a model whose samples are more than one draw (a ladder), the codes that it encodes its samples to.

    Args:
        model: samples and decodes.
        numbers: of the samples of a seed, from 0.
        seed: of the samples.
        purpose: what the noise is for; another one gives other codes.
        labels: (len(numbers),) int64, of a conditional model; by default those that are drawn with the samples.

    Raises:
        CapabilityError: the model has no prior to draw from.
        ConfigError: no number, one below 0, a seed out of range, or labels that the model does not know.
        ShapeError: not one label a number.
    """
    check_seed(seed)
    prior, device, dtype = prior_of(model), device_of(model), dtype_of(model)
    if not prior:
        raise CapabilityError(
            f"{type(model).__name__} has no prior, so that no latents can be drawn; begin from images, or from codes of `encode`."
        )
    if not len(numbers):
        raise ConfigError("codes are of one sample at least, got none; name a number.")
    if any(number < 0 for number in numbers):
        raise ConfigError(f"samples are numbered from 0, got {min(numbers)}.")
    check_labels(model, labels, len(numbers))
    rows = [numbers] if isinstance(numbers, range) else [range(number, number + 1) for number in numbers]
    parts = [seeds.noises(prior, seed, purpose, rows=part, device=device, dtype=dtype) for part in rows]
    noise = {name: torch.cat([part[name] for part in parts]) for name in prior}
    if labels is not None:
        noise["label"] = labels.to(device)
    if is_normal(model):
        return with_labels(model, noise["z"], noise.get("label"))
    if not isinstance(model, Samples) or not isinstance(model, Encodes):
        raise CapabilityError(
            f"{type(model).__name__} does not encode, and its samples are more than one draw; take a run of a vae or a gan."
        )
    with evaluating(model), torch.no_grad():
        return model.encode(model.sample(noise))


def with_labels(model: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
    """Codes (N, code_dim) of latents (N, latent_dim) and, for a conditional model, labels (N,)."""
    count = label_count(model)
    if not count:
        return z
    if labels is None:
        raise ConfigError("the model is conditional: its codes need labels.")
    return torch.cat([z, F.one_hot(labels, count).to(z)], 1)


def check_labels(model: nn.Module, labels: Tensor | None, items: int) -> None:
    """Raise ConfigError for labels that the model does not know, ShapeError for labels that are not one for each of `items`."""
    count = label_count(model)
    if labels is None:
        return
    if not count:
        raise ConfigError("the model is not conditional, so it knows no label; train one with --conditional.")
    if labels.shape != (items,) or labels.dtype != torch.int64:
        raise ShapeError(
            f"labels are int64, one an item: expected shape ({items},), got {tuple(labels.shape)} of {labels.dtype}."
        )
    if items and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise ConfigError(f"the model's labels are 0 to {count - 1}, got {labels.tolist()[:10]}.")


def decode(model: nn.Module, codes: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Items of codes (N, code_dim), `chunk` at a time: (N, *shape) on the model's device."""
    return apply(model, decoding(model).decode, codes, chunk=chunk)


def apply(model: nn.Module, function: Callable[[Tensor], Tensor], batch: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """A function of a model's on a batch (N, …), `chunk` rows at a time, in evaluation mode and without gradients."""
    batch = batch.to(device_of(model), dtype_of(model))
    with evaluating(model), torch.no_grad():
        return torch.cat([function(part) for part in torch.split(batch, chunk)])


def exact(model: nn.Module) -> nn.Module:
    """The model, or a float64 copy of it if it has linear layers: for searches that must not depend on a row's companions.

    A matrix product rounds a row by its place among the others, and a search of hundreds of steps makes that visible (4e-4 of a
    latent, measured); in float64 it stays hidden. Convolutions take each item for itself, and are much slower in float64.
    """
    rounds = any(isinstance(layer, nn.Linear) for layer in model.modules())
    if not rounds or device_of(model).type == "mps":  # which has no float64
        return model
    return copy.deepcopy(model).double()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards it is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
