"""The Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017, "Improved Training of Wasserstein GANs")."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import at_least
from nacre.networks import Kind, Shape
from nacre.protocols import ALWAYS, Batch, Logs, Objective, Step
from nacre.seeds import normal, uniform


class WGANGP(nn.Module):
    """Wasserstein GAN with gradient penalty: a critic of slope one instead of a classifier (Gulrajani et al. 2017).

    Algorithm 1 is followed (λ = 10, n_critic = 5, Adam 1e-4 with β = (0, .9)); the authors' code uses β₁ = .5, and
    λ = .1 on toy densities.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        n_critic: steps of the critic for one of the generator; every step is one batch.
        gp_weight: λ, weight of the gradient penalty.
        network: "mlp", "conv" (DCGAN, the critic without batch norm), "resnet" (the paper's for CIFAR-10, at --width 128), or
            by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the latent to the data; the critic mirrors them.
        width: channels of the critic's first convolution and of the generator's last hidden one; of a
            resnet, at all sizes up to 32 pixels, where half of conv's channels take about as long.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        n_critic: int = 5,
        gp_weight: float = 10.0,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 512, 512),
        width: int = 64,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(1, n_critic=n_critic)
        at_least(0, gp_weight=gp_weight)
        self.shape, self.latent_dim, self.n_critic, self.gp_weight = shape, latent_dim, n_critic, gp_weight
        kind = networks.kind_for(shape, network)
        self.generator = networks.decoder(latent_dim, shape, kind=kind, hidden=hidden, width=width)
        # No batch norm in the critic: the penalty is on each item's gradient alone (section 4).
        self.critic = networks.encoder(shape, 1, kind=kind, hidden=hidden[::-1], width=width, norm="none", bias=False)
        self.prior = {"z": normal(latent_dim)}

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 40_000 if networks.kind_for(shape) == "mlp" else 20_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=1e-4, betas=(0.0, 0.9))
        turn = ALWAYS[self.n_critic - 1 :: self.n_critic]
        draws = {**self.prior, "mix": uniform(1)}
        judge, make = self.critic_loss, self.generator_loss
        return [
            Objective(name="critic", loss=judge, over=("critic",), optimizer=adam, draws=draws),
            Objective(name="generator", loss=make, over=("generator",), optimizer=adam, draws=self.prior, when=turn),
        ]

    def critic_loss(self, real: Batch, step: Step) -> tuple[Tensor, Logs]:
        """E critic(G(z)) - E critic(x) + λ E (‖∇ critic(x̂)‖ - 1)²: algorithm 1, line 7."""
        with torch.no_grad():
            fake = self.sample(step.noise)
        # Without batch statistics one pass serves both.
        on_real, on_fake = self.realness(torch.cat([real, fake])).chunk(2)
        gap = on_real.mean() - on_fake.mean()
        penalty = losses.gradient_penalty(self.critic, self.scale(real), self.scale(fake), step.noise["mix"])
        return self.gp_weight * penalty - gap, {"gap": gap, "penalty": penalty}

    def generator_loss(self, real: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-E critic(G(z)): algorithm 1, line 12."""
        return -self.realness(self.sample(step.noise)).mean(), {}

    def scale(self, x: Tensor) -> Tensor:
        """Images to [-1, 1], where the paper's critic has its slope of one; vectors stay."""
        return 2 * x - 1 if networks.is_image(self.shape) else x

    def realness(self, x: Tensor) -> Tensor:
        """The critic's value: (N, *shape) ↦ (N,). Only differences mean something."""
        return self.critic(self.scale(x)).squeeze(1)

    def decode(self, z: Tensor) -> Tensor:
        output = self.generator(z)
        return (torch.tanh(output) + 1) / 2 if networks.is_image(self.shape) else output

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(noise["z"])
