"""The VAE/GAN (Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric")."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import RMSprop

from nacre import losses, networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Kind, Shape, adversarial, ladder
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import normal


class VAEGAN(nn.Module):
    """A VAE whose decoder is a GAN's generator, and whose distance between images is the discriminator's (Larsen et al. 2016).

    Two things are not the paper's: the penalty `r1`, which keeps the discriminator's features from growing while they
    serve as a ruler, and a discriminator without batch norm, so that an item's features do not depend on its batch.
    With `classes` the decoder and the discriminator are told the label, and the encoder is not, as in `vae`.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        feature_std: σ of the features' law N(Dis_l(x); Dis_l(remade), σ²), what an error weighs against the rate; the paper's
            is 1, and its features are those of an unpenalised discriminator, which are larger.
        gamma: weight of the reconstruction error beside the game in the decoder's loss.
        r1: γ, weight of the penalty γ/2 E ‖∇ D(x)‖² at real items, images taken in [-1, 1] (Mescheder et al. 2018).
        r2: γ of the same penalty at samples from the prior.
        network: "mlp", "conv" (DCGAN), "resnet" (residual blocks), or by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the data to the latent; the decoder mirrors them.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.
        classes: number of classes to condition on, 0 for none.
    """

    logistic = True
    """Realness is a logit."""

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 64,
        feature_std: float = 0.2,
        gamma: float = 0.02,
        r1: float = 0.1,
        r2: float = 0.0,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 256),
        width: int = 32,
        classes: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(0, gamma=gamma, r1=r1, r2=r2, classes=classes)
        if not feature_std > 0:
            raise ConfigError(f"feature_std must be positive, got {feature_std:g}.")
        self.shape, self.latent_dim, self.classes = shape, latent_dim, classes
        self.feature_std, self.gamma, self.r1, self.r2 = feature_std, gamma, r1, r2
        kind, leaky = networks.kind_for(shape, network), partial(nn.LeakyReLU, 0.2)
        self.encoder = networks.encoder(shape, 2 * latent_dim, kind=kind, hidden=hidden, width=width)
        self.decoder = networks.decoder(self.code_dim, shape, kind=kind, hidden=hidden[::-1], width=width)
        judge = networks.encoder(
            shape, max(1, classes), kind=kind, hidden=hidden, width=width, norm="none", activation=leaky
        )
        self.discriminator = nn.Sequential(*_halves(judge))
        if (
            kind == "conv"
        ):  # the N(0, .02) of DCGAN's networks would fade from layer to layer, with no norm to restore it
            self.discriminator.apply(ladder.initialise)
        self.prior = adversarial.prior(latent_dim, classes)

    @property
    def code_dim(self) -> int:
        """Size of a code: the latent, and beside it the label's one-hot vector if the model is conditional."""
        return self.latent_dim + self.classes

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape) == "mlp" else 8_000, "batch_size": 64}

    def objectives(self) -> list[Objective]:
        # The paper's optimizer and rate (section 4). Each player draws its own posterior and prior samples.
        descend = partial(RMSprop, lr=3e-4)
        posterior = {"eps": normal(self.latent_dim)}
        both = {**posterior, "z": self.prior["z"]}
        encode, decode, judge = self.encoder_loss, self.decoder_loss, self.discriminator_loss
        return [
            Objective(name="encoder", loss=encode, over=("encoder",), optimizer=descend, draws=posterior),
            Objective(name="decoder", loss=decode, over=("decoder",), optimizer=descend, draws=both),
            Objective(name="discriminator", loss=judge, over=("discriminator",), optimizer=descend, draws=both),
        ]

    def encoder_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """L_prior + L_llike, what the encoder descends in algorithm 1."""
        x, label = adversarial.labelled(batch, self.classes)
        mean, log_var = self.moments(x)
        rate = losses.kl_to_standard_normal(mean, log_var).mean()
        z = mean + (log_var / 2).exp() * step.noise["eps"]
        error = self.feature_error(x, self.decode(self.code(z, label)))
        return rate + error, {"rate": rate, "feature_error": error}

    def decoder_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """γ L_llike - L_GAN, what the decoder descends in algorithm 1, the game in its non-saturating form.

        Both of its products are judged: reconstructions and samples from the prior.
        """
        x, label = adversarial.labelled(batch, self.classes)
        remade, made = self.products(x, label, step.noise)
        error = self.feature_error(x, remade)
        game = losses.non_saturating_generator_loss(self.realness(remade, label))
        game = game + losses.non_saturating_generator_loss(self.realness(made, label))
        return self.gamma * error + game, {"feature_error": error, "game": game}

    def discriminator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-L_GAN = -log D(x) - log(1 - D(Dec(Enc(x)))) - log(1 - D(Dec(z))), and the penalty."""
        x, label = adversarial.labelled(batch, self.classes)
        with torch.no_grad():
            remade, made = self.products(x, label, step.noise)
        judged = partial(self.judged, label=label)
        penalty, on_real = losses.r1_penalty(judged, self.scale(x))
        on_remade, on_made = self.realness(remade, label), self.realness(made, label)
        # The second kind of fake has no real items of its own: its share of the game is the minimax loss with its sign turned.
        loss = losses.discriminator_loss(on_real, on_remade) - losses.minimax_generator_loss(on_made)
        parts = {"d_real": on_real, "d_remade": on_remade, "d_made": on_made}
        logs = {name: logit.sigmoid().mean() for name, logit in parts.items()}
        loss, logs = loss + self.r1 / 2 * penalty, logs | {"r1": penalty}
        if self.r2:
            logs["r2"] = losses.r1_penalty(judged, self.scale(made))[0]
            loss = loss + self.r2 / 2 * logs["r2"]
        return loss, logs

    def products(self, x: Tensor, label: Tensor | None, noise: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The decoder's two, of the items' classes: reconstructions through q(z|x), and samples from the prior."""
        mean, log_var = self.moments(x)
        z = mean + (log_var / 2).exp() * noise["eps"]
        return self.decode(self.code(z, label)), self.decode(self.code(noise["z"], label))

    def code(self, z: Tensor, label: Tensor | None) -> Tensor:
        """What the decoder is given: (N, latent_dim), (N,) ↦ (N, code_dim)."""
        return adversarial.code(z, label, self.classes)

    def feature_error(self, x: Tensor, remade: Tensor) -> Tensor:
        """L_llike: -log N(Dis_l(x); Dis_l(remade), σ²) without its constant, a mean over the batch."""
        return losses.squared_error(self.features(remade), self.features(x)).mean() / (2 * self.feature_std**2)

    def features(self, x: Tensor) -> Tensor:
        """Dis_l(x): the discriminator in front of its last layer."""
        return self.discriminator[0](self.scale(x))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x)."""
        mean, log_var = self.encoder(self.scale(x)).chunk(2, dim=1)
        return mean, log_var

    def scale(self, x: Tensor) -> Tensor:
        """Images to [-1, 1], the decoder's tanh range; vectors stay."""
        return 2 * x - 1 if networks.is_image(self.shape) else x

    def realness(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The discriminator's logit, of a label if one is given: (N, *shape) ↦ (N,)."""
        return self.judged(self.scale(x), label)

    def judged(self, scaled: Tensor, label: Tensor | None) -> Tensor:
        return adversarial.of_label(self.discriminator(scaled), label)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x): (N, *shape) ↦ (N, latent_dim), (N, latent_dim)."""
        mean, log_var = self.moments(x)
        return mean, (log_var / 2).exp()

    def encode(self, x: Tensor) -> Tensor:
        """The posterior's mean, of a conditional model with the label that remakes x best: (N, *shape) ↦ (N, code_dim)."""
        mean = self.moments(x)[0]
        if not self.classes:
            return mean
        own, labels = self.features(x), torch.arange(self.classes, device=x.device)
        codes = [self.code(mean, label.expand(len(x))) for label in labels]
        errors = [losses.squared_error(self.features(self.decode(code)), own) for code in codes]
        return self.code(mean, torch.stack(errors).argmin(0))

    def decode(self, z: Tensor) -> Tensor:
        output = self.decoder(z)
        return (torch.tanh(output) + 1) / 2 if networks.is_image(self.shape) else output

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        return self.decode(self.code(noise["z"], noise.get("label")))


def _halves(network: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """A network in front of its last layer with weights, and from there on."""
    layers = list(network.children())
    last = max(number for number, layer in enumerate(layers) if next(layer.parameters(), None) is not None)
    return nn.Sequential(*layers[:last]), nn.Sequential(*layers[last:])
