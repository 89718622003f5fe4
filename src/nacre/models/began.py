"""Boundary equilibrium GAN (Berthelot et al. 2017, "BEGAN"): a discriminator that is an autoencoder."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Shape, adversarial
from nacre.networks.resnet import Double
from nacre.protocols import Batch, Logs, Objective, Step

SMALLEST = 8
"""Convolutions go down to a grid whose shorter side is at most this."""


def grids(shape: Shape) -> list[tuple[int, int]]:
    """Sizes (height, width) of an image on its way down, the full size first; odd ones are rounded up."""
    sizes = [(shape[1], shape[2])]
    while min(sizes[-1]) > SMALLEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def encoder(shape: Shape, outputs: int, width: int) -> nn.Sequential:
    """Figure 1, left: two 3×3 convolutions a size, the second one halving, and n more channels at the next."""
    sizes = grids(shape)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1), nn.ELU()]
    for level in range(1, len(sizes)):
        layers += [*convolution(level * width, level * width), *convolution(level * width, (level + 1) * width, 2)]
    widest = len(sizes) * width
    layers += [*convolution(widest, widest), *convolution(widest, widest)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widest * math.prod(sizes[-1]), outputs))


def decoder(inputs: int, shape: Shape, width: int) -> nn.Sequential:
    """Figure 1, right, and the generator: two 3×3 convolutions a size, nearest neighbours doubled between sizes."""
    sizes = grids(shape)[::-1]
    first = (width, *sizes[0])
    layers: list[nn.Module] = [nn.Linear(inputs, math.prod(first)), nn.Unflatten(1, first)]
    layers += [*convolution(width, width), *convolution(width, width)]
    for small, large in pairwise(sizes):
        layers += [Double((2 * small[0] - large[0], 2 * small[1] - large[1]))]
        layers += [*convolution(width, width), *convolution(width, width)]
    return nn.Sequential(*layers, nn.Conv2d(width, shape[0], 3, padding=1))


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A 3×3 convolution and ELU; with stride 2 an odd size is rounded up."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ELU()]


class Autoencoder(nn.Module):
    """The discriminator: items in, the same items out; with classes, the decoder is told the item's."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.classes = encoder, decoder, classes

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.decoder(adversarial.code(self.encoder(x), label, self.classes))


class BEGAN(nn.Module):
    """Boundary equilibrium GAN: two players kept in balance, and a number that says how far training is (Berthelot et al. 2017).

    The paper's discriminator has no batch norm, dropout or transposed convolution, and its images no tanh: they are
    clipped to [0, 1] where they leave the model. Its optional extras (skip connections, vanishing residuals) are not here. The
    latent is normal, as that of every model here; the paper's is uniform in [-1, 1].

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent, and of the autoencoder's code, which is never more than a quarter of an item's
            numbers: an autoencoder that can reproduce anything is no judge.
        gamma: γ, what generated items' reconstruction loss is to be of real items' in equilibrium, in (0, 1]: the lower,
            the less diverse and the cleaner.
        balance_rate: λ_k, how far a step moves the balance k.
        network: "mlp", "conv" (the paper's), or by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLPs' hidden layers, from the latent to the data; encoders mirror them.
        width: n, channels of a convolution; the encoder has n more at each halving.
        classes: number of classes to condition both players on, 0 for none.
    """

    k: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        gamma: float = 0.5,
        balance_rate: float = 0.001,
        network: Literal["auto", "mlp", "conv"] = "auto",
        hidden: tuple[int, ...] = (256, 512),
        width: int = 32,
        classes: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(0, balance_rate=balance_rate, classes=classes)
        if not 0 < gamma <= 1:
            raise ConfigError(f"gamma must be above 0 and at most 1, got {gamma}.")
        self.shape, self.latent_dim, self.classes = shape, latent_dim, classes
        self.gamma, self.balance_rate = gamma, balance_rate
        encode: Callable[[Shape, int], nn.Module]
        decode: Callable[[int, Shape], nn.Module]
        if networks.kind_for(shape, network) == "mlp":
            encode = partial(networks.encoder, kind="mlp", hidden=hidden[::-1], activation=nn.ELU)
            decode = partial(networks.decoder, kind="mlp", hidden=hidden, activation=nn.ELU)
        else:
            encode, decode = partial(encoder, width=width), partial(decoder, width=width)
        self.generator = decode(self.code_dim, shape)
        bottleneck = min(latent_dim, max(1, math.prod(shape) // 4))
        self.discriminator = Autoencoder(encode(shape, bottleneck), decode(bottleneck + classes, shape), classes)
        self.register_buffer("k", torch.zeros(()))
        self.prior = adversarial.prior(latent_dim, classes)

    @property
    def code_dim(self) -> int:
        """Size of a code: a latent, beside it the one-hot label."""
        return self.latent_dim + self.classes

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """The paper's batch size, and steps that give good pictures at this shape."""
        return {"steps": 40_000 if networks.kind_for(shape) == "mlp" else 20_000, "batch_size": 16}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=1e-4)
        draws = {"z": self.prior["z"]}
        judge, make = self.discriminator_loss, self.generator_loss
        return [
            Objective(
                name="discriminator",
                loss=judge,
                over=("discriminator",),
                optimizer=adam,
                draws=draws,
                after=self.balance,
            ),
            Objective(name="generator", loss=make, over=("generator",), optimizer=adam, draws=draws),
        ]

    def discriminator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """L(x) - k L(G(z)): section 3.4, first line; and M = L(x) + |γ L(x) - L(G(z))|, section 3.4.1."""
        real, label = adversarial.labelled(batch, self.classes)
        with torch.no_grad():
            fake = self.generated(label, step)
        on_real, on_fake = self.error(self.scale(real), label).mean(), self.error(fake, label).mean()
        measure = on_real + (self.gamma * on_real - on_fake).abs()
        # k is moved after this step: the parts are copies of what it was.
        parts = {"real": on_real, "fake": on_fake, "m_global": measure, "k": self.k.clone()}
        return on_real - self.k * on_fake, parts

    def generator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """L(G(z)): section 3.4, second line."""
        _, label = adversarial.labelled(batch, self.classes)
        return self.error(self.generated(label, step), label).mean(), {}

    @torch.no_grad()
    def balance(self, logs: Logs) -> None:
        """k ← k + λ_k (γ L(x) - L(G(z))), kept in [0, 1]: section 3.4, third line."""
        self.k.add_(self.balance_rate * (self.gamma * logs["real"] - logs["fake"])).clamp_(0, 1)

    def error(self, x: Tensor, label: Tensor | None) -> Tensor:
        """L(x) = |x - D(x)|, a mean over an item's numbers: (N, *shape) ↦ (N,). Equation 1 with η = 1."""
        # The balance moves by differences of these, finer than bfloat16 has digits.
        wide = torch.promote_types(x.dtype, torch.float32)
        return (x - self.discriminator(x, label)).abs().flatten(1).mean(1, dtype=wide)

    def generated(self, label: Tensor | None, step: Step) -> Tensor:
        """Items for a step as the discriminator sees them, of the classes of the real ones."""
        return self.generator(adversarial.code(step.noise["z"], label, self.classes))

    def scale(self, x: Tensor) -> Tensor:
        """Images to [-1, 1]; vectors stay."""
        return 2 * x - 1 if networks.is_image(self.shape) else x

    def realness(self, x: Tensor) -> Tensor:
        """-L(x): (N, *shape) ↦ (N,); of a conditional model, for the class that fits best."""
        x = self.scale(x)
        if not self.classes:
            return -self.error(x, None)
        labels = (torch.full((len(x),), label, device=x.device) for label in range(self.classes))
        return torch.stack([-self.error(x, label) for label in labels]).amax(0)

    def decode(self, z: Tensor) -> Tensor:
        output = self.generator(z)
        return ((output + 1) / 2).clamp(0, 1) if networks.is_image(self.shape) else output

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(adversarial.code(noise["z"], noise.get("label"), self.classes))
