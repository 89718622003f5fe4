"""The generative adversarial network (Goodfellow et al. 2014), with DCGAN's networks (Radford et al. 2016)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import augment as augmentation
from nacre import losses, networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Kind, Norm, Shape, adversarial
from nacre.networks.adversarial import Generator, Judge, JudgeActivation
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import uniform


class GAN(nn.Module):
    """Generative adversarial network: a forger and an investigator (Goodfellow et al. 2014), with DCGAN's networks.

    Two defaults are not Radford et al.'s: the penalty `r1`, and the learning rate of 5e-4 that it allows. Their setting
    is the model `dcgan`.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        loss: the game. The generator's side of the first GAN's is "minimax", E log(1 - D(G(z))), or "non-saturating",
            -E log D(G(z)), which has gradients when the discriminator wins; "least-squares" (Mao et al. 2017) draws D to 1
            at real and to 0 at generated items; "hinge" (Lim & Ye 2017) to above 1 and below -1.
        r1: γ, weight of the penalty γ/2 E ‖∇ D(x)‖² at real items, images taken in [-1, 1] (Mescheder et al. 2018);
            0 is the game as first published.
        r2: γ of the same penalty at generated items.
        pack: items that are judged together (PacGAN, Lin et al. 2018): against mode collapse; the batch size has to be
            a multiple of it.
        spectral_norm: divide the discriminator's weights by their largest singular value, in place of its batch norm
            (Miyato et al. 2018).
        augment: show the discriminator augmented images only, real and generated (DiffAugment, Zhao et al. 2020): for
            data sets of under 5,000 images. Vectors are left alone.
        reuse_fakes: let the generator play first, and show the discriminator the items that it made then, as most scripts
            do: one of a step's two generator passes is saved. By default each player draws items of its own, as in the
            first GAN's algorithm 1.
        network: "mlp", "conv" (DCGAN), "resnet" (residual blocks), or by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the latent to the data; the discriminator mirrors them.
        discriminator_hidden: sizes of the discriminator's hidden layers, from the data to the verdict, where it is not
            to mirror the generator's.
        activation: of the discriminator's MLP: "leaky-relu" (.2), "relu", "elu", or "maxout" with 5 pieces.
        fourier: highest frequency, in radians per unit, of random Fourier features through which the MLP's
            discriminator reads vectors (Tancik et al. 2020); 0 for none.
        norm: "batch" or "none"; "auto" is batch norm in convolutional networks and none in MLPs. In the MLP's
            discriminator there never is any.
        beta1: Adam's decay of the mean gradient, in [0, 1); β₂ is .999.
        width: channels of the discriminator's first convolution and of the generator's last hidden one; of a
            resnet, at all sizes up to 32 pixels.
        classes: number of classes to condition both players on, 0 for none.
    """

    learning_rate = 5e-4
    smallest = 16
    """Images of so many pixels and more get convolutions."""

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        loss: Literal["non-saturating", "minimax", "least-squares", "hinge"] = "non-saturating",
        r1: float = 0.1,
        r2: float = 0.0,
        pack: int = 1,
        spectral_norm: bool = False,
        augment: bool = False,
        reuse_fakes: bool = False,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (256, 512),
        discriminator_hidden: tuple[int, ...] = (),
        activation: JudgeActivation = "leaky-relu",
        fourier: float = 0.0,
        norm: Literal["auto", "batch", "none"] = "auto",
        beta1: float = 0.5,
        width: int = 32,
        classes: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, discriminator_hidden=discriminator_hidden, width=width)
        at_least(0, r1=r1, r2=r2)
        adversarial.check_fourier(shape, fourier)
        if not 0 <= beta1 < 1:
            raise ConfigError(f"beta1 must be from 0 to below 1, got {beta1}.")
        self.shape, self.latent_dim, self.classes = shape, latent_dim, classes
        self.loss, self.r1, self.r2, self.pack, self.beta1 = loss, r1, r2, pack, beta1
        self.spectral_norm, self.augment, self.reuse_fakes = spectral_norm, augment, reuse_fakes
        self.logistic = loss in ("non-saturating", "minimax")
        kind = networks.kind_for(shape, network, smallest=self.smallest)
        make: Callable[[int, Shape], nn.Module]
        judge: Callable[[Shape, int], nn.Module]
        if kind == "mlp":
            mlp = partial(networks.decoder, kind=kind, hidden=hidden)
            make = partial(adversarial.batch_normed_mlp, hidden=hidden) if norm == "batch" else mlp
            sizes = discriminator_hidden or hidden[::-1]
            judge = partial(adversarial.judge_mlp, hidden=sizes, activation=activation, fourier=fourier)
        else:
            own: Norm = "none" if norm == "none" else "batch"
            make = partial(networks.decoder, kind=kind, width=width, norm=own)
            judge = partial(networks.encoder, kind=kind, width=width, norm="none" if spectral_norm else own)
        self.generator = Generator(shape, self.code_dim, make)
        self.discriminator = Judge(shape, judge, classes=classes, pack=pack, spectral_norm=spectral_norm)
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
        adam = partial(Adam, lr=self.learning_rate, betas=(self.beta1, 0.999))
        judge, make = self.discriminator_loss, self.generator_loss
        augmented = self.augment and networks.is_image(self.shape)
        fake = {"z": self.prior["z"], **({"augment_fake": uniform(augmentation.NUMBERS)} if augmented else {})}
        both = {**fake, **({"augment_real": uniform(augmentation.NUMBERS)} if augmented else {})}
        after = self.advance if self.spectral_norm else None
        hands = ("fake",) if self.reuse_fakes else ()
        players = [
            Objective(
                name="discriminator", loss=judge, over=("discriminator",), optimizer=adam, draws=both, after=after
            ),
            Objective(name="generator", loss=make, over=("generator",), optimizer=adam, draws=fake, hands=hands),
        ]
        return players[::-1] if self.reuse_fakes else players

    def discriminator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-E log D(x) - E log(1 - D(G(z))), the discriminator's side of eq. 1, or its side of another game; and penalties."""
        real, label = adversarial.labelled(batch, self.classes)
        with torch.no_grad():
            fake = step.handed["fake"] if "fake" in step.handed else self.generated(label, step)
        real = self.discriminator.show(real, step.noise.get("augment_real"))
        fake = self.discriminator.show(fake, step.noise.get("augment_fake"))
        parts: Logs = {}
        if self.r1 or self.r2 or networks.has_batch_norm(self.discriminator):
            # Together, real and fake would share its statistics.
            on_fake = self.judged(fake, label, self.r2, "r2", parts)
            on_real = self.judged(real, label, self.r1, "r1", parts)
        else:
            labels = None if label is None else label.repeat(2)
            on_real, on_fake = self.discriminator(torch.cat([real, fake]), labels).chunk(2)
        loss = self.game(on_real, on_fake) + sum(getattr(self, name) / 2 * part for name, part in parts.items())
        grades = {"d_real": on_real, "d_fake": on_fake}
        return loss, {name: (d.sigmoid() if self.logistic else d).mean() for name, d in grades.items()} | parts

    def generator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """The generator's side of eq. 1, or its non-saturating form, or its side of another game."""
        _, label = adversarial.labelled(batch, self.classes)
        fake = self.generated(label, step)
        shown = self.discriminator.show(fake, step.noise.get("augment_fake"))
        generator_losses = {
            "minimax": losses.minimax_generator_loss,
            "non-saturating": losses.non_saturating_generator_loss,
            "least-squares": losses.least_squares_generator_loss,
            "hinge": losses.hinge_generator_loss,
        }
        handed = {"fake": fake} if self.reuse_fakes else {}
        return generator_losses[self.loss](self.discriminator(shown, label)), handed

    def game(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """The discriminator's loss without penalties."""
        if self.loss == "least-squares":
            return losses.least_squares_discriminator_loss(on_real, on_fake)
        if self.loss == "hinge":
            return losses.hinge_discriminator_loss(on_real, on_fake)
        return losses.discriminator_loss(on_real, on_fake)

    def judged(self, shown: Tensor, label: Tensor | None, weight: float, name: str, parts: Logs) -> Tensor:
        """The discriminator's verdicts; where the penalty on its slope has a weight, it joins `parts`."""
        judge = self.discriminator.given(label)
        if not weight:
            return judge(shown)
        parts[name], verdicts = losses.r1_penalty(judge, shown)
        return verdicts

    def generated(self, label: Tensor | None, step: Step) -> Tensor:
        """Items for a step, of the classes of the real ones that they are compared with."""
        return self.generator(adversarial.code(step.noise["z"], label, self.classes))

    def advance(self, logs: Logs) -> None:
        """Spectral norms follow the discriminator's weights."""
        adversarial.advance(self.discriminator)

    def realness(self, x: Tensor) -> Tensor:
        """The discriminator's logit: (N, *shape) ↦ (N,). In the logistic games D(x) is its sigmoid."""
        return self.discriminator.realness(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(adversarial.code(noise["z"], noise.get("label"), self.classes))


class DCGAN(GAN):
    """Deep convolutional GAN: `gan` with every setting of Radford et al. 2016, and convolutions at every size.

    The latent is normal, as in their code's default for new models; the paper's is uniform. Vectors have nothing to
    convolve over: their networks are `gan`'s.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        loss: the generator's loss: "minimax", E log(1 - D(G(z))), or "non-saturating", -E log D(G(z)), which has
            gradients when the discriminator wins.
        r1: γ, weight of a penalty γ/2 E ‖∇ D(x)‖² at real items, which the paper does not have.
        r2: γ of the same penalty at generated items.
        pack: items that are judged together (PacGAN, Lin et al. 2018).
        augment: show the discriminator augmented images only (DiffAugment, Zhao et al. 2020); on by itself under 5,000 images.
        reuse_fakes: let the generator play first, and show the discriminator the items that it made then.
        width: channels of the discriminator's first convolution and of the generator's last hidden one.
        classes: number of classes to condition both players on, 0 for none.
    """

    learning_rate = 2e-4
    smallest = 4

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 100,
        loss: Literal["non-saturating", "minimax"] = "non-saturating",
        r1: float = 0.0,
        r2: float = 0.0,
        pack: int = 1,
        augment: bool = False,
        reuse_fakes: bool = False,
        width: int = 64,
        classes: int = 0,
    ) -> None:
        game: dict[str, Any] = {"loss": loss, "pack": pack, "augment": augment, "reuse_fakes": reuse_fakes}
        super().__init__(shape, latent_dim=latent_dim, r1=r1, r2=r2, width=width, classes=classes, **game)

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """The paper's batch size, and steps that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape) == "mlp" else 8_000, "batch_size": 128}
