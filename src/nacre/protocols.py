"""The vocabulary: what a model is made of (a table of objectives) and what it can be asked for (capabilities)."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from nacre.errors import CapabilityError, ConfigError
from nacre.seeds import LARGEST_SEED, Draw

Batch: TypeAlias = Any
"""What one step is given: a tensor, or a tuple of tensors that share their first dimension."""

Logs: TypeAlias = dict[str, Tensor]
"""0-d tensors by name: the parts of a loss, on the device."""

ALWAYS = range(sys.maxsize)
"""Every step. `ALWAYS[4::5]` is "every fifth step, the fifth first"."""


@dataclass(frozen=True)
class Step:
    """What a loss may know of the moment.

    Attributes:
        index: the step's number from 0, a 0-d integer tensor on the device.
        noise: what the objective's `draws` asked for: for each name a tensor (N, *shape), row by row for the batch.
        handed: what objectives that were played before in the same step hand on: for each name a tensor (N, …), row by row
            for the batch, without a graph.
    """

    index: Tensor
    noise: Mapping[str, Tensor]
    handed: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Minimise `loss` over the parameters of the parts named in `over`, on the steps in `when`.

    Attributes:
        name: unique in the model; heads the names of its logged parts.
        loss: (batch, step) ↦ (scalar to minimise, its parts by name). A mean over the batch. It never steps and never
            logs, and what it differentiates does not depend on state that it changes itself.
        over: submodule names of the model, dotted if nested. Their parameters, and no others, receive gradients.
        optimizer: parameters ↦ optimizer.
        draws: the noise the loss wants, by name.
        when: the steps on which the objective is played.
        after: the one place where other state may move (clipping, a balance): called with the logged parts.
        hands: names of parts that are not logged but handed on: tensors (N, …) for the objectives that follow. One that
            takes them has to do without as well, for a step in which this objective has no turn.
    """

    name: str
    loss: Callable[[Batch, Step], tuple[Tensor, Logs]]
    over: tuple[str, ...]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = partial(Adam, lr=1e-3)
    draws: Mapping[str, Draw] = field(default_factory=dict)
    when: range = ALWAYS
    after: Callable[[Logs], None] | None = None
    hands: tuple[str, ...] = ()


@runtime_checkable
class Trainable(Protocol):
    """Has a table of objectives, in playing order."""

    def objectives(self) -> Sequence[Objective]: ...


@runtime_checkable
class Encodes(Protocol):
    """Items to codes: (N, *shape) ↦ (N, latent_dim). Deterministic."""

    def encode(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Decodes(Protocol):
    """Codes to items: (N, latent_dim) ↦ (N, *shape)."""

    def decode(self, z: Tensor) -> Tensor: ...


@runtime_checkable
class Reconstructs(Protocol):
    """Items to their reconstructions: (N, *shape) ↦ (N, *shape). Deterministic."""

    def reconstruct(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Samples(Protocol):
    """New items: a pure function of noise. `prior` says what noise one sample takes."""

    prior: Mapping[str, Draw]

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor: ...


@runtime_checkable
class LogLikelihood(Protocol):
    """log p(x) in nats, or a lower bound on it, one number an item: (N, *shape) ↦ (N,).

    `likelihood_name` says what is bounded and `likelihood_draws` says what noise the estimate takes.
    """

    likelihood_draws: Mapping[str, Draw]

    @property
    def likelihood_name(self) -> str: ...

    def log_likelihood(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor: ...


@runtime_checkable
class Infers(Protocol):
    """Mean and standard deviation of a Gaussian posterior q(z|x): (N, *shape) ↦ (N, D), (N, D)."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Discriminates(Protocol):
    """Realness: the higher, the more the item looks like data to the model's own judge: (N, *shape) ↦ (N,).

    Where it is the logit of D(x), the model says so by an attribute `logistic = True`.
    """

    def realness(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Translates(Protocol):
    """Images of one kind to another's: (N, C, H, W) ↦ (N, C', H, W) in [0, 1], of any size, in each of its `directions`."""

    directions: Sequence[str]

    def translate(self, x: Tensor, direction: str) -> Tensor: ...


@runtime_checkable
class JudgesTranslations(Protocol):
    """Realness of images as translations of others, in a direction: (N, C, H, W), (N, C', H, W) ↦ (N,).

    Where it is the logit of D, the model says so by an attribute `logistic = True`; by `least_squares = True` where the judge
    is drawn to 1 at real images and to 0 at translations.
    """

    def realness_of(self, given: Tensor, wanted: Tensor, direction: str) -> Tensor: ...


@runtime_checkable
class SamplesFromText(Protocol):
    """Samples of captions: `sample` takes as "text" in its noise what `read` makes of them.

    Captions are (N, words, features) integers, as `data.captions` makes them, or (N, D) vectors of the sentence encoder that
    `text_encoder` and `text_origin` name (`data.sentences`). `words` is 0 where the model was built without;
    `remember` keeps some to sample from when no text is given; `fitting` says how well images (N, *shape) go with what was
    read, (N, …), the more the better: (N,).
    """

    words: int

    def remember(self, captions: Tensor) -> None: ...

    def read(self, captions: Tensor) -> Tensor: ...

    def fitting(self, x: Tensor, texts: Tensor) -> Tensor: ...

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor: ...


@runtime_checkable
class Classifies(Protocol):
    """Items to the probabilities of their classes: (N, *shape) ↦ (N, classes)."""

    def classify(self, x: Tensor) -> Tensor: ...


CAPABILITIES: dict[str, type] = {
    "encode": Encodes,
    "decode": Decodes,
    "reconstruct": Reconstructs,
    "sample": Samples,
    "log_likelihood": LogLikelihood,
    "realness": Discriminates,
    "classify": Classifies,
    "translate": Translates,
}
"""Capabilities by the verb that a user asks for."""

ADVICE = {
    "encode": "models that do are listed by `nacre models`; a generator's latents are searched for by `nacre invert`",
    "decode": "ask for `sample` instead",
    "reconstruct": "`nacre invert` searches for the latents of images; or train an autoencoder (`ae`, `vae`) on the same data",
    "sample": "if it encodes and decodes, `nacre sample RUN --prior gmm` fits a prior to its codes; a model of two sides is for "
    "`nacre translate`; or train a `vae` or a `gan`",
    "log_likelihood": "only models with a likelihood (`vae`) have one",
    "realness": "only models with a discriminator or critic (`gan`, `wgan_gp`) have one",
    "classify": "only models that learn from labels (`transfer`, `m2`) do",
    "translate": "only models that learn from two kinds of images (`cyclegan`, `pix2pix`) do",
}


LACKING = {"log_likelihood": "has no likelihood", "realness": "judges no images"}
"""What is said of a model without a capability that is no verb."""


def capabilities(model: object) -> list[str]:
    """The verbs that `model` answers to, in the catalogue's order."""
    return [verb for verb, protocol in CAPABILITIES.items() if isinstance(model, protocol)]


def check_seed(seed: int) -> None:
    """Raise ConfigError for a seed that no noise has."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"a seed must be from 0 to {LARGEST_SEED}, got {seed}.")


def require(model: object, verb: str) -> Any:
    """`model`, if it answers to `verb`.

    Raises:
        CapabilityError: it does not; the sentence says what to do instead.
    """
    if not isinstance(model, CAPABILITIES[verb]):
        raise CapabilityError(f"{type(model).__name__} {LACKING.get(verb, f'does not {verb}')}; {ADVICE[verb]}.")
    return model


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter lives; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of a module's first parameter; float32 if it has none."""
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)
