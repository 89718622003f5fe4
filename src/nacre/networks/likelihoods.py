"""Observation models p(x|z): what a decoder's output says about an item, shared by the variational models.

Each takes the decoder's raw output (N, *shape) and says how an item is looked at (`observe`), how likely it is (`nll`) and
what is expected (`mean`). A density on images lives on dequantized ones, so that it bounds the probability of grey levels.
"""

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from nacre import images, losses
from nacre.errors import ConfigError
from nacre.networks import Shape, is_image
from nacre.seeds import Draw, coarse

Name: TypeAlias = Literal["auto", "bernoulli", "gaussian", "continuous-bernoulli", "discretized-logistic"]

SMALLEST_STD = 1 / 256
"""One grey level: below it a density on dequantized images would reward the quantization itself."""

LEVELS = 256


class Likelihood(nn.Module):
    """What the observation models have in common.

    Attributes:
        name: data and law; it is part of every number that is measured.
        draws: the noise that `observe` takes.
        bin_nats: what an item's nll in nats lacks to that of its grey levels; None if it says nothing about grey levels.
    """

    name: str
    bin_nats: float | None = None

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.numbers = math.prod(shape)
        self.draws: dict[str, Draw] = {}

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """What the model sees of items: (N, *shape) ↦ (N, *shape)."""
        return x

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) in nats of observed items: (N, *shape), (N, *shape) ↦ (N,)."""
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """The mean of p(x|z): (N, *shape) ↦ (N, *shape)."""
        raise NotImplementedError

    def bits(self, nll: Tensor) -> dict[str, Tensor]:
        """A (bound on the) nll in nats as bits for each of an item's numbers, by its logged name; empty without grey levels."""
        if self.bin_nats is None:
            return {}
        return {"bits_per_dim": (nll + self.bin_nats) / (self.numbers * math.log(2))}


class Bernoulli(Likelihood):
    """p(x|z): independent pixels in {0, 1}; grey images are binarized at random each time they are seen."""

    name = "dynamically binarized images, Bernoulli likelihood"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.draws = {"pixels": coarse(*shape)}

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return images.binarize(x, noise["pixels"])

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        return losses.bernoulli_nll(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


class Gaussian(Likelihood):
    """p(x|z) = N(x; decoder(z), σ²) with one σ, learned or given; the 256 levels of images are dequantized."""

    log_std: Tensor

    def __init__(self, shape: Shape, sigma: float | None = None) -> None:
        super().__init__(shape)
        self.image, self.learned = is_image(shape), sigma is None
        data = "dequantized images" if self.image else "vectors"
        self.name = f"{data}, Gaussian likelihood with {'one learned σ' if sigma is None else f'σ = {sigma:g}'}"
        if self.image:
            self.draws, self.bin_nats = {"pixels": coarse(*shape)}, self.numbers * math.log(LEVELS)
        if sigma is None:
            self.log_std = nn.Parameter(torch.tensor(math.log(0.2) if self.image else 0.0))
        else:
            self.register_buffer("log_std", torch.tensor(math.log(sigma)), persistent=False)

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return images.dequantize(x, noise["pixels"]) if self.image else x

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        log_std = self.log_std.clamp(min=math.log(SMALLEST_STD)) if self.image and self.learned else self.log_std
        return losses.gaussian_nll(self.mean(output), log_std, x)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output) if self.image else output


class DiagonalGaussian(Likelihood):
    """p(x|z) = N(x; m(z), diag σ²(z)) of vectors, whose decoder gives m and log σ² after each other, (N, 2 D)."""

    name = "vectors, Gaussian likelihood with a σ a number"

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        mean, log_var = output.chunk(2, dim=1)
        return -losses.gaussian_log_density(x, mean, log_var)

    def mean(self, output: Tensor) -> Tensor:
        return output.chunk(2, dim=1)[0]


class ContinuousBernoulli(Likelihood):
    """p(x|z): independent pixels in [0, 1] with the density C(λ) λ^x (1 - λ)^(1 - x); images are dequantized.

    What binary cross-entropy on grey values wants to be (Loaiza-Ganem & Cunningham 2019).
    """

    name = "dequantized images, continuous Bernoulli likelihood"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.draws, self.bin_nats = {"pixels": coarse(*shape)}, self.numbers * math.log(LEVELS)

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return images.dequantize(x, noise["pixels"])

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        return losses.continuous_bernoulli_nll(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return losses.continuous_bernoulli_mean(output)


class DiscretizedLogistic(Likelihood):
    """P(x|z) on the 256 grey levels: the logistic law's mass within half a level, edges absorbed, one learned scale.

    Kingma et al. 2016. Its mean is taken to be the law's centre, decoder(z) squashed into (0, 1).
    """

    name = "images of 256 levels, discretized logistic likelihood with one learned scale"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.bin_nats = 0.0
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return (x * (LEVELS - 1)).round() / (LEVELS - 1)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        return losses.discretized_logistic_nll(self.mean(output), self.log_scale, x, LEVELS)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


def likelihood(shape: Shape, name: Name = "auto", sigma: float | None = None) -> Likelihood:
    """The observation model of that name for items of `shape`.

    Args:
        name: "auto" is bernoulli for grey images under 32 pixels, otherwise gaussian.
        sigma: of the Gaussian, if it is not to be learned.

    Raises:
        ConfigError: one for images was asked for vectors, or a σ that is not positive or not a Gaussian's.
    """
    image = is_image(shape)
    if name == "auto":
        small = image and shape[0] == 1 and min(shape[1:]) < 32
        name = "bernoulli" if small and sigma is None else "gaussian"
    if name == "gaussian":
        if sigma is not None and not sigma > 0:
            raise ConfigError(f"sigma must be positive, got {sigma:g}; leave it out to have it learned.")
        return Gaussian(shape, sigma)
    if sigma is not None:
        raise ConfigError(f"sigma is the Gaussian likelihood's, and '{name}' was asked for; use --likelihood gaussian.")
    if not image:
        raise ConfigError(f"likelihood '{name}' is for images, got vectors of shape {shape}; use 'gaussian'.")
    kinds = {
        "bernoulli": Bernoulli,
        "continuous-bernoulli": ContinuousBernoulli,
        "discretized-logistic": DiscretizedLogistic,
    }
    return kinds[name](shape)
