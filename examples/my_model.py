"""A model of your own in one file: `nacre train examples/my_model.py:TinyLSGAN --latent-dim 16`.

No base class and no registration. The constructor's keywords are the command line's flags, and the lines under `Args:`
their help. `nacre check-model examples/my_model.py:TinyLSGAN` checks it against the contract.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nacre import Objective, Step, networks, normal


class TinyLSGAN(nn.Module):
    """Least-squares GAN (Mao et al. 2017), equation 2, with a = 0 and b = c = 1.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1].
        latent_dim: size of the latent.
    """

    def __init__(self, shape: tuple[int, ...], *, latent_dim: int = 16) -> None:
        super().__init__()
        self.prior = {"z": normal(latent_dim)}
        self.generator = networks.decoder(latent_dim, shape, kind="mlp", hidden=(128, 256))
        self.discriminator = networks.encoder(shape, 1, kind="mlp", hidden=(256, 128))

    def objectives(self) -> list[Objective]:
        return [
            Objective(name="discriminator", loss=self.judge, over=("discriminator",), draws=self.prior),
            Objective(name="generator", loss=self.fool, over=("generator",), draws=self.prior),
        ]

    def judge(self, real: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        fake = self.sample(step.noise).detach()
        return (self.discriminator(real) - 1).square().mean() + self.discriminator(fake).square().mean(), {}

    def fool(self, real: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.discriminator(self.sample(step.noise)) - 1).square().mean(), {}

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return torch.sigmoid(self.generator(noise["z"]))
