"""The generative adversarial network (Goodfellow et al. 2014), with DCGAN's networks (Radford et al. 2016)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import at_least
from nacre.networks import Kind, Shape
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import normal


class GAN(nn.Module):
    """Generative adversarial network: a forger and an investigator (Goodfellow et al. 2014), with DCGAN's networks.

    Two defaults are not Radford et al.'s: the penalty `r1`, and the learning rate of 5e-4 that it allows.
    `--r1 0 --lr 2e-4 --width 64` is the paper's setting.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        loss: the generator's loss: "minimax", E log(1 - D(G(z))), or "non-saturating", -E log D(G(z)), which has
            gradients when the discriminator wins.
        r1: γ, weight of the penalty γ/2 E ‖∇ D(x)‖² at real items, images taken in [-1, 1] (Mescheder et al. 2018);
            0 is the game as first published.
        network: "mlp", "conv" (DCGAN), "resnet" (residual blocks), or by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the latent to the data; the discriminator mirrors them.
        width: channels of the discriminator's first convolution and of the generator's last hidden one; of a
            resnet, at all sizes up to 32 pixels.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        loss: Literal["non-saturating", "minimax"] = "non-saturating",
        r1: float = 0.1,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (256, 512),
        width: int = 32,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(0, r1=r1)
        self.shape, self.latent_dim, self.loss, self.r1 = shape, latent_dim, loss, r1
        kind = networks.kind_for(shape, network)
        leaky = partial(nn.LeakyReLU, 0.2)
        self.generator = networks.decoder(latent_dim, shape, kind=kind, hidden=hidden, width=width)
        self.discriminator = networks.encoder(shape, 1, kind=kind, hidden=hidden[::-1], width=width, activation=leaky)
        self.prior = {"z": normal(latent_dim)}

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape) == "mlp" else 8_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=5e-4, betas=(0.5, 0.999))
        judge, make = self.discriminator_loss, self.generator_loss
        return [
            Objective(name="discriminator", loss=judge, over=("discriminator",), optimizer=adam, draws=self.prior),
            Objective(name="generator", loss=make, over=("generator",), optimizer=adam, draws=self.prior),
        ]

    def discriminator_loss(self, real: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-E log D(x) - E log(1 - D(G(z))), the discriminator's side of eq. 1, and the penalty on its slope."""
        with torch.no_grad():
            fake = self.sample(step.noise)
        parts: Logs = {}
        if self.r1:
            on_fake = self.realness(fake)
            parts["r1"], on_real = losses.r1_penalty(lambda x: self.discriminator(x).squeeze(1), self.scale(real))
        elif networks.has_batch_norm(self.discriminator):
            # Together, real and fake would share its statistics.
            on_fake, on_real = self.realness(fake), self.realness(real)
        else:
            on_real, on_fake = self.realness(torch.cat([real, fake])).chunk(2)
        loss = losses.discriminator_loss(on_real, on_fake) + self.r1 / 2 * sum(parts.values())
        return loss, {"d_real": on_real.sigmoid().mean(), "d_fake": on_fake.sigmoid().mean(), **parts}

    def generator_loss(self, real: Batch, step: Step) -> tuple[Tensor, Logs]:
        """The generator's side of eq. 1, or its non-saturating form."""
        fake = self.realness(self.sample(step.noise))
        if self.loss == "minimax":
            return losses.minimax_generator_loss(fake), {}
        return losses.non_saturating_generator_loss(fake), {}

    def scale(self, x: Tensor) -> Tensor:
        """Images to [-1, 1], the generator's tanh range; vectors stay."""
        return 2 * x - 1 if networks.is_image(self.shape) else x

    def realness(self, x: Tensor) -> Tensor:
        """The discriminator's logit: (N, *shape) ↦ (N,). D(x) is its sigmoid."""
        return self.discriminator(self.scale(x)).squeeze(1)

    def decode(self, z: Tensor) -> Tensor:
        output = self.generator(z)
        return (torch.tanh(output) + 1) / 2 if networks.is_image(self.shape) else output

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(noise["z"])
