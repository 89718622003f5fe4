"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN")."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from nacre import augment as augmentation
from nacre import losses, networks
from nacre.errors import at_least
from nacre.networks import Shape, adversarial
from nacre.networks.adversarial import Generator, Judge
from nacre.networks.dcgan import pyramid
from nacre.networks.resnet import channels_at
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.schedules import annealed
from nacre.seeds import uniform

SLOPE = 0.2
GROUP = 16
"""Channels that a 3×3 convolution mixes."""


class Block(nn.Module):
    """A residual block without normalization: 1×1 to twice the channels, 3×3 in groups, 1×1 back (figure 4, right).

    Args:
        channels: of what goes in and comes out.
        depth: blocks in the network. Weights are scaled by it, and the last layer starts at zero, so that a network of
            any depth starts as a shallow one does (fix-up initialization, Zhang et al. 2019).
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        wide = 2 * channels
        groups = math.gcd(wide, max(1, wide // GROUP))
        gain = nn.init.calculate_gain("leaky_relu", SLOPE) * depth ** (-1 / 4)
        self.widen = scaled(nn.Conv2d(channels, wide, 1), gain)
        self.mix = scaled(nn.Conv2d(wide, wide, 3, padding=1, groups=groups), gain)
        self.narrow = scaled(nn.Conv2d(wide, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.widen(x), SLOPE)
        return x + self.narrow(F.leaky_relu(self.mix(y), SLOPE))


class Basis(nn.Module):
    """A grid of learned vectors, each number of them scaled by the code: (N, inputs) ↦ (N, channels, height, width)."""

    def __init__(self, inputs: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.randn(channels, *size))
        self.scale = scaled(nn.Linear(inputs, channels, bias=False))

    def forward(self, code: Tensor) -> Tensor:
        return self.grid * self.scale(code)[:, :, None, None]


class Up(nn.Module):
    """Bilinear doubling: (N, C, H, W) ↦ (N, C, 2 H - crop, 2 W - crop).

    Written out, for torch's own is not deterministic on every device.
    """

    def __init__(self, crop: tuple[int, int]) -> None:
        super().__init__()
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        return doubled(doubled(x, 2), 3)[:, :, self.crop[0] :, self.crop[1] :]


class Down(nn.Module):
    """Bilinear halving, the mean of 2×2 pixels: (N, C, H, W) ↦ (N, C, ⌈H / 2⌉, ⌈W / 2⌉)."""

    def forward(self, x: Tensor) -> Tensor:
        padding = (x.shape[2] % 2, x.shape[3] % 2)
        return F.avg_pool2d(x, 2, padding=padding, count_include_pad=False)


def doubled(x: Tensor, dim: int) -> Tensor:
    """Twice the size along a dimension: each new pixel lies a quarter from one old pixel and three from the next."""
    size = x.shape[dim]
    before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, size - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)], dim)
    return torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], dim + 1).flatten(dim, dim + 1)


def scaled(layer: Any, gain: float = 1.0) -> Any:
    """Weights from N(0, gain² / fan in), biases zero."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def decoder(inputs: int, shape: Shape, width: int, blocks: int) -> nn.Sequential:
    """The generator's network: from a grid whose shorter side is at most 4, blocks at every size."""
    sizes = pyramid(shape)[::-1]
    channels = [channels_at(size, width) for size in sizes]
    depth = blocks * len(sizes)
    layers: list[nn.Module] = [Basis(inputs, channels[0], sizes[0])]
    layers += [Block(channels[0], depth) for _ in range(blocks)]
    for (small, large), (before, after) in zip(pairwise(sizes), pairwise(channels), strict=True):
        layers += changed(before, after)
        layers += [Up((2 * small[0] - large[0], 2 * small[1] - large[1]))]
        layers += [Block(after, depth) for _ in range(blocks)]
    return nn.Sequential(*layers, scaled(nn.Conv2d(channels[-1], shape[0], 1)))


def encoder(shape: Shape, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """The discriminator's network, the same the other way round; its last layers read the whole last grid."""
    sizes = pyramid(shape)
    channels = [channels_at(size, width) for size in sizes]
    depth = blocks * len(sizes)
    layers: list[nn.Module] = [scaled(nn.Conv2d(shape[0], channels[0], 1))]
    layers += [Block(channels[0], depth) for _ in range(blocks)]
    for before, after in pairwise(channels):
        layers += [Down(), *changed(before, after)]
        layers += [Block(after, depth) for _ in range(blocks)]
    last = channels[-1]
    layers += [scaled(nn.Conv2d(last, last, sizes[-1], groups=last, bias=False)), nn.Flatten()]
    # Only differences of its values count: a bias would cancel.
    return nn.Sequential(*layers, scaled(nn.Linear(last, outputs, bias=False)))


def changed(before: int, after: int) -> list[nn.Module]:
    """A 1×1 convolution where the number of channels changes."""
    return [] if before == after else [scaled(nn.Conv2d(before, after, 1, bias=False))]


class R3GAN(nn.Module):
    """Relativistic GAN with both penalties, R1 and R2, and networks without tricks (Huang et al. 2024).

    The pairing loss compares each generated item with a real one, which leaves no bad local minima; the penalties make it
    converge. Both are taken at every step: computed now and then, as is common with R1, they make training fail. Not here: the
    schedule of Adam's β₂; and images pass through a tanh.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        gamma: γ, weight of the penalties: γ/2 (R1 + R2), images taken in [-1, 1].
        gamma_final: γ after `gamma_steps`, to which it falls along half a cosine, as in the paper: a large γ first
            spreads the samples over all modes, a small one then lets the discriminator be steep enough for details.
        gamma_steps: steps of that fall, 0 for a γ that stays.
        pack: items that are judged together (PacGAN, Lin et al. 2018); the batch size has to be a multiple of it.
        augment: show the discriminator augmented images only, real and generated (DiffAugment, Zhao et al. 2020): for
            data sets of under 5,000 images. Vectors are left alone.
        network: "resnet", the paper's; "mlp"; or by the shape: resnet for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the latent to the data; the discriminator mirrors them.
        discriminator_hidden: sizes of the discriminator's hidden layers, from the data to the verdict, where it is not
            to mirror the generator's.
        fourier: highest frequency, in radians per unit, of random Fourier features through which the MLP's
            discriminator reads vectors (Tancik et al. 2020); half over the smallest distance that matters is right, 0 for
            none.
        width: channels at all sizes up to 32 pixels, half of it at each doubling above.
        blocks: residual blocks at each size.
        classes: number of classes to condition both players on, 0 for none.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        gamma: float = 0.1,
        gamma_final: float = 0.0,
        gamma_steps: int = 0,
        pack: int = 1,
        augment: bool = False,
        network: Literal["auto", "mlp", "resnet"] = "auto",
        hidden: tuple[int, ...] = (256, 256, 256),
        discriminator_hidden: tuple[int, ...] = (),
        fourier: float = 0.0,
        width: int = 64,
        blocks: int = 2,
        classes: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, discriminator_hidden=discriminator_hidden)
        at_least(1, width=width, blocks=blocks)
        at_least(0, gamma=gamma, gamma_final=gamma_final, gamma_steps=gamma_steps)
        adversarial.check_fourier(shape, fourier)
        self.shape, self.latent_dim, self.classes = shape, latent_dim, classes
        self.gamma_at = partial(annealed, first=gamma, last=gamma_final, steps=gamma_steps)
        self.augment = augment
        make: Callable[[int, Shape], nn.Module]
        judge: Callable[[Shape, int], nn.Module]
        if networks.kind_for(shape, network) == "mlp":
            # ReLU, not LeakyReLU: it draws sharper borders between modes, and so fewer points between them.
            make = partial(networks.decoder, kind="mlp", hidden=hidden)
            sizes = discriminator_hidden or hidden[::-1]
            judge = partial(adversarial.judge_mlp, hidden=sizes, activation="leaky-relu", bias=False, fourier=fourier)
        else:
            make, judge = (partial(build, width=width, blocks=blocks) for build in (decoder, encoder))
        self.generator = Generator(shape, self.code_dim, make)
        self.discriminator = Judge(shape, judge, classes=classes, pack=pack)
        self.prior = adversarial.prior(latent_dim, classes)

    @property
    def code_dim(self) -> int:
        """Size of a code: a latent, beside it the one-hot label."""
        return self.latent_dim + self.classes

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape) == "mlp" else 8_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=2e-4, betas=(0.0, 0.99))
        draws = {"z": self.prior["z"]}
        if self.augment and networks.is_image(self.shape):
            draws |= {name: uniform(augmentation.NUMBERS) for name in ("augment_real", "augment_fake")}
        judge, make = self.discriminator_loss, self.generator_loss
        return [
            Objective(name="discriminator", loss=judge, over=("discriminator",), optimizer=adam, draws=draws),
            Objective(name="generator", loss=make, over=("generator",), optimizer=adam, draws=draws),
        ]

    def discriminator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """E softplus(D(G(z)) - D(x)) + γ/2 (R1 + R2): equations 2 and 3."""
        with torch.no_grad():
            real, fake, label = self.shown(batch, step)
        judge = self.discriminator.given(label)
        r1, on_real = losses.r1_penalty(judge, real)
        r2, on_fake = losses.r1_penalty(judge, fake)
        loss = losses.relativistic_loss(on_real, on_fake)
        return loss + self.gamma_at(step.index) / 2 * (r1 + r2), {"gap": (on_real - on_fake).mean(), "r1": r1, "r2": r2}

    def generator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """E softplus(D(x) - D(G(z))): the generator's side of equation 2."""
        real, fake, label = self.shown(batch, step)
        return losses.relativistic_loss(self.discriminator(fake, label), self.discriminator(real, label)), {}

    def shown(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        """Real and generated items as the discriminator sees them, paired, and the class that each pair shares."""
        real, label = adversarial.labelled(batch, self.classes)
        fake = self.generator(adversarial.code(step.noise["z"], label, self.classes))
        real = self.discriminator.show(real, step.noise.get("augment_real"))
        return real, self.discriminator.show(fake, step.noise.get("augment_fake")), label

    def realness(self, x: Tensor) -> Tensor:
        """The discriminator's value: (N, *shape) ↦ (N,). Only differences mean something."""
        return self.discriminator.realness(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(adversarial.code(noise["z"], noise.get("label"), self.classes))
