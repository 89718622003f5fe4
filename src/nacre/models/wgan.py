"""The Wasserstein GAN with clipped weights (Arjovsky et al. 2017, "Wasserstein GAN")."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import RMSprop

from nacre import networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Kind, Shape, adversarial
from nacre.networks.adversarial import Generator, Judge
from nacre.protocols import ALWAYS, Batch, Logs, Objective, Step


class WGAN(nn.Module):
    """Wasserstein GAN: a critic whose clipped weights bound its slope, instead of a classifier (Arjovsky et al. 2017).

    Algorithm 1 is followed (RMSProp 5e-5, c = .01, n_critic = 5, batches of 64). The authors' code trains the critic for
    100 steps before each of the generator's first 25 and each 500th; a constant number is what the paper says.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        n_critic: steps of the critic for one of the generator; every step is one batch.
        clip_value: c: after each of its steps the critic's weights are clipped to [-c, c].
        pack: items that are judged together (PacGAN, Lin et al. 2018): against mode collapse; the batch size has to be
            a multiple of it.
        network: "mlp", "conv" (DCGAN), "resnet" (residual blocks), or by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the latent to the data; the critic mirrors them.
        width: channels of the critic's first convolution and of the generator's last hidden one; of a
            resnet, at all sizes up to 32 pixels.
        classes: number of classes to condition both players on, 0 for none.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        n_critic: int = 5,
        clip_value: float = 0.01,
        pack: int = 1,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 512, 512),
        width: int = 64,
        classes: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, n_critic=n_critic, hidden=hidden, width=width)
        if not clip_value > 0:
            raise ConfigError(f"clip_value must be above 0, got {clip_value}.")
        self.shape, self.latent_dim, self.classes = shape, latent_dim, classes
        self.n_critic, self.clip_value = n_critic, clip_value
        kind = networks.kind_for(shape, network)
        make = partial(networks.decoder, kind=kind, hidden=hidden, width=width)
        judge = partial(networks.encoder, kind=kind, hidden=hidden[::-1], width=width, bias=False)
        self.generator = Generator(shape, self.code_dim, make)
        self.critic = Judge(shape, judge, classes=classes, pack=pack)
        self.clip({})
        self.prior = adversarial.prior(latent_dim, classes)

    @property
    def code_dim(self) -> int:
        """Size of a code: a latent, beside it the one-hot label."""
        return self.latent_dim + self.classes

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """The paper's batch size, and steps that give good pictures at this shape."""
        return {"steps": 40_000 if networks.kind_for(shape) == "mlp" else 20_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        rmsprop = partial(RMSprop, lr=5e-5)
        turn = ALWAYS[self.n_critic - 1 :: self.n_critic]
        draws = {"z": self.prior["z"]}
        judge, make = self.critic_loss, self.generator_loss
        return [
            Objective(name="critic", loss=judge, over=("critic",), optimizer=rmsprop, draws=draws, after=self.clip),
            Objective(name="generator", loss=make, over=("generator",), optimizer=rmsprop, draws=draws, when=turn),
        ]

    def critic_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """E critic(G(z)) - E critic(x): algorithm 1, line 5, with its sign turned."""
        real, label = adversarial.labelled(batch, self.classes)
        with torch.no_grad():
            fake = self.generated(label, step)
        # Apart: together, real and fake would share the statistics of a batch norm.
        on_real, on_fake = (self.critic(self.critic.show(items), label) for items in (real, fake))
        gap = on_real.mean() - on_fake.mean()
        return -gap, {"gap": gap}

    def generator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-E critic(G(z)): algorithm 1, line 10."""
        _, label = adversarial.labelled(batch, self.classes)
        return -self.critic(self.critic.show(self.generated(label, step)), label).mean(), {}

    @torch.no_grad()
    def clip(self, logs: Logs) -> None:
        """w ← clip(w, -c, c): algorithm 1, line 7. Norms' scales are weights like the others."""
        torch._foreach_clamp_min_(list(self.critic.parameters()), -self.clip_value)
        torch._foreach_clamp_max_(list(self.critic.parameters()), self.clip_value)

    def generated(self, label: Tensor | None, step: Step) -> Tensor:
        """Items for a step, of the classes of the real ones that they are compared with."""
        return self.generator(adversarial.code(step.noise["z"], label, self.classes))

    def realness(self, x: Tensor) -> Tensor:
        """The critic's value: (N, *shape) ↦ (N,). Only differences mean something."""
        return self.critic.realness(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(adversarial.code(noise["z"], noise.get("label"), self.classes))
