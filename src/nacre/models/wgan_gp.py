"""The Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017, "Improved Training of Wasserstein GANs")."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import at_least
from nacre.networks import Kind, Norm, Shape, adversarial
from nacre.networks.adversarial import Generator, Judge
from nacre.protocols import ALWAYS, Batch, Logs, Objective, Step
from nacre.seeds import uniform


class WGANGP(nn.Module):
    """Wasserstein GAN with gradient penalty: a critic of slope one instead of a classifier (Gulrajani et al. 2017).

    Algorithm 1 is followed (λ = 10, n_critic = 5, Adam 1e-4 with β = (0, .9)); the authors' code uses β₁ = .5, and
    λ = .1 on toy densities.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        n_critic: steps of the critic for one of the generator; every step is one batch.
        gp_weight: λ, weight of the gradient penalty.
        penalty: on slopes away from one, "two-sided", or only on those above it, "one-sided" (the paper's appendix).
        layer_norm: layer norm in the critic's convolutional networks; the MLP has none.
        pack: items that are judged together (PacGAN, Lin et al. 2018): against mode collapse; the batch size has to be
            a multiple of it.
        network: "mlp", "conv" (DCGAN, the critic without batch norm), "resnet" (the paper's for CIFAR-10, at --width 128), or
            by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the latent to the data; the critic mirrors them.
        critic_hidden: sizes of the critic's hidden layers, from the data to the value, where it is not to mirror the
            generator's.
        fourier: highest frequency, in radians per unit, of random Fourier features through which the MLP's
            critic reads vectors (Tancik et al. 2020); 0 for none.
        width: channels of the critic's first convolution and of the generator's last hidden one; of a
            resnet, at all sizes up to 32 pixels, where half of conv's channels take about as long.
        classes: number of classes to condition both players on, 0 for none.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        n_critic: int = 5,
        gp_weight: float = 10.0,
        penalty: Literal["two-sided", "one-sided"] = "two-sided",
        layer_norm: bool = False,
        pack: int = 1,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 512, 512),
        critic_hidden: tuple[int, ...] = (),
        fourier: float = 0.0,
        width: int = 64,
        classes: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, critic_hidden=critic_hidden, width=width)
        at_least(1, n_critic=n_critic)
        at_least(0, gp_weight=gp_weight)
        adversarial.check_fourier(shape, fourier)
        self.shape, self.latent_dim, self.classes = shape, latent_dim, classes
        self.n_critic, self.gp_weight, self.penalty = n_critic, gp_weight, penalty
        kind = networks.kind_for(shape, network)
        make = partial(networks.decoder, kind=kind, hidden=hidden, width=width)
        judge: Callable[[Shape, int], nn.Module]
        if kind == "mlp":
            layers = critic_hidden or hidden[::-1]
            judge = partial(adversarial.judge_mlp, hidden=layers, activation="relu", bias=False, fourier=fourier)
        else:
            # No batch norm in the critic: the penalty is on each item's gradient alone (section 4).
            norm: Norm = "layer" if layer_norm else "none"
            judge = partial(networks.encoder, kind=kind, width=width, norm=norm, bias=False)
        self.generator = Generator(shape, self.code_dim, make)
        self.critic = Judge(shape, judge, classes=classes, pack=pack)
        self.prior = adversarial.prior(latent_dim, classes)

    @property
    def code_dim(self) -> int:
        """Size of a code: a latent, beside it the one-hot label."""
        return self.latent_dim + self.classes

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 40_000 if networks.kind_for(shape) == "mlp" else 20_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=1e-4, betas=(0.0, 0.9))
        turn = ALWAYS[self.n_critic - 1 :: self.n_critic]
        draws = {"z": self.prior["z"]}
        judge, make = self.critic_loss, self.generator_loss
        mixed = {**draws, "mix": uniform(1)}
        return [
            Objective(name="critic", loss=judge, over=("critic",), optimizer=adam, draws=mixed),
            Objective(name="generator", loss=make, over=("generator",), optimizer=adam, draws=draws, when=turn),
        ]

    def critic_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """E critic(G(z)) - E critic(x) + λ E (‖∇ critic(x̂)‖ - 1)²: algorithm 1, line 7."""
        real, label = adversarial.labelled(batch, self.classes)
        with torch.no_grad():
            fake = self.critic.show(self.generated(label, step))
        real = self.critic.show(real)
        # Without batch statistics one pass serves both.
        labels = None if label is None else label.repeat(2)
        on_real, on_fake = self.critic(torch.cat([real, fake]), labels).chunk(2)
        gap = on_real.mean() - on_fake.mean()
        critic = self.critic.given(label)
        mix = step.noise["mix"][:: self.critic.pack]  # one number a pack
        penalty = losses.gradient_penalty(critic, real, fake, mix, one_sided=self.penalty == "one-sided")
        return self.gp_weight * penalty - gap, {"gap": gap, "penalty": penalty}

    def generator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-E critic(G(z)): algorithm 1, line 12."""
        _, label = adversarial.labelled(batch, self.classes)
        return -self.critic(self.critic.show(self.generated(label, step)), label).mean(), {}

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
