"""The variational autoencoder (Kingma & Welling 2014, "Auto-Encoding Variational Bayes")."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import images, losses, networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Kind, Shape
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import Draw, coarse, normal

SMALLEST_STD = 1 / 256
"""One grey level: below it a density on dequantized images would reward the quantization itself."""


class Bernoulli(nn.Module):
    """p(x|z): independent pixels in {0, 1}; grey images are binarized at random each time they are seen."""

    name = "dynamically binarized images, Bernoulli likelihood"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.draws: dict[str, Draw] = {"pixels": coarse(*shape)}

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return images.binarize(x, noise["pixels"])

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        return losses.bernoulli_nll(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


class Gaussian(nn.Module):
    """p(x|z) = N(x; decoder(z), σ²) with one learned σ; the 256 levels of images are dequantized."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.image = networks.is_image(shape)
        self.name = f"{'dequantized images' if self.image else 'vectors'}, Gaussian likelihood with one learned σ"
        self.draws: dict[str, Draw] = {"pixels": coarse(*shape)} if self.image else {}
        self.log_std = nn.Parameter(torch.tensor(math.log(0.2) if self.image else 0.0))

    def observe(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return images.dequantize(x, noise["pixels"]) if self.image else x

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        log_std = self.log_std.clamp(min=math.log(SMALLEST_STD)) if self.image else self.log_std
        return losses.gaussian_nll(self.mean(output), log_std, x)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output) if self.image else output


class VAE(nn.Module):
    """Variational autoencoder: an encoder q(z|x), a decoder p(x|z), and the evidence lower bound (Kingma & Welling 2014).

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        likelihood: p(x|z). "bernoulli": pixels in {0, 1}, grey values being binarized at random at every look;
            "gaussian": one learned σ ≥ 1/256 for all pixels of dequantized images, or for all dimensions of vectors.
            "auto": bernoulli for grey images under 32 pixels, otherwise gaussian.
        beta: weight of the rate KL(q(z|x) || p(z)); 1 is the ELBO (Higgins et al. 2017 call more a β-VAE).
        network: "mlp", "conv", "resnet" (residual blocks), or by the shape: conv for images of 32 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the data to the latent; the decoder mirrors them.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 32,
        likelihood: Literal["auto", "bernoulli", "gaussian"] = "auto",
        beta: float = 1.0,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 256),
        width: int = 32,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(0, beta=beta)
        self.shape, self.latent_dim, self.beta = shape, latent_dim, beta
        self.likelihood = _likelihood(shape, likelihood)
        kind = networks.kind_for(shape, network, smallest=32)
        self.encoder = networks.encoder(shape, 2 * latent_dim, kind=kind, hidden=hidden, width=width)
        self.decoder = networks.decoder(latent_dim, shape, kind=kind, hidden=hidden[::-1], width=width)
        self.prior = {"z": normal(latent_dim)}
        self.likelihood_draws = {"z": normal(latent_dim), **self.likelihood.draws}

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape, smallest=32) == "mlp" else 4_000, "batch_size": 128}

    @property
    def likelihood_name(self) -> str:
        """What the bound bounds; it is part of the number."""
        return f"ELBO, {self.likelihood.name}"

    def objectives(self) -> list[Objective]:
        over = ("encoder", "decoder", "likelihood")
        adam = partial(Adam, lr=1e-3)
        return [Objective(name="elbo", loss=self.elbo_loss, over=over, optimizer=adam, draws=self.likelihood_draws)]

    def elbo_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Distortion + β rate, in nats an item. With β = 1 this is -ELBO (eq. 3)."""
        distortion, rate = (part.mean() for part in self.parts(x, step.noise))
        return distortion + self.beta * rate, {"elbo": -distortion - rate, "distortion": distortion, "rate": rate}

    def parts(self, x: Tensor, noise: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """-E_q log p(x|z), estimated with one z, and KL(q(z|x) || p(z)), in nats: (N, *shape) ↦ (N,), (N,)."""
        x = self.likelihood.observe(x, noise)
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        z = mean + (log_var / 2).exp() * noise["z"]  # the reparameterization trick, section 2.4
        return self.likelihood.nll(self.decoder(z), x), losses.kl_to_standard_normal(mean, log_var)

    def log_likelihood(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """The ELBO in nats, a lower bound on log p(x): (N, *shape) ↦ (N,)."""
        distortion, rate = self.parts(x, noise)
        return -distortion - rate

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x): (N, *shape) ↦ (N, latent_dim), (N, latent_dim)."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, (log_var / 2).exp()

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """The mean of p(x|z) for z from the prior."""
        return self.decode(noise["z"])


def _likelihood(shape: Shape, name: str) -> Bernoulli | Gaussian:
    image = networks.is_image(shape)
    if name == "auto":
        name = "bernoulli" if image and shape[0] == 1 and min(shape[1:]) < 32 else "gaussian"
    if name == "bernoulli" and not image:
        raise ConfigError(f"likelihood 'bernoulli' is for images, got vectors of shape {shape}; use 'gaussian'.")
    return Bernoulli(shape) if name == "bernoulli" else Gaussian(shape)
