"""What can be looked at in the lab, each with its settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from PIL import Image

from nacre.data import DataSettings
from nacre.data.toys import MIXTURES
from nacre.engine.settings import Training
from nacre.errors import ConfigError, at_least
from nacre.lab.play import Facts, model_on, watched
from nacre.models.gan import GAN
from nacre.models.vae import VAE
from nacre.theory.dirac import Method

Frames = Iterator[tuple[Image.Image, Facts]]
"""Pages, each with what it shows in numbers."""


@dataclass(frozen=True, kw_only=True)
class Game:
    """The game of forger and investigator on data of which everything is known, D beside D* = p/(p + q).

    Args:
        data: "ring8" or "grid25", mixtures in the plane; or "pearls", images whose size and squareness the forger has to hit.
        loss: the forger's: "minimax", E log(1 - D(G(z))), or "non-saturating", -E log D(G(z)).
        r1: γ, weight of the penalty γ/2 E ‖∇ D(x)‖² at real items; by default .01 on points and .1 on images.
        latent_dim: size of the latent.
        hidden: sizes of the hidden layers of both players on points.
        steps: length of the training; by default 4000 on points and 1200 on images.
        batch_size: items in a step; by default 256 points or 64 images.
        lr: learning rate of both players; by default 1e-3 on points and 5e-4 on images.
        count: frames to draw.
        seed: of everything random.
    """

    data: str = "ring8"
    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    r1: float | None = None
    latent_dim: int = 8
    hidden: tuple[int, ...] = (128, 128)
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    count: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse data of which not everything is known. Raises ConfigError."""
        at_least(2, count=self.count)
        known = (*MIXTURES, "pearls")
        if self.name not in known:
            raise ConfigError(f"the lab plays on data whose density is known, {' or '.join(known)}; got '{self.data}'.")

    @property
    def name(self) -> str:
        """Of the data, without "toy:"."""
        return self.data.removeprefix("toy:")

    def frames(self) -> Frames:
        """Train, and draw."""
        from nacre.lab import forgery, ring

        points = self.name in MIXTURES
        steps = (4000 if points else 1200) if self.steps is None else self.steps
        training = Training(
            steps=steps,
            batch_size=self.batch_size or (256 if points else 64),
            lr=self.lr or (1e-3 if points else 5e-4),
            seed=self.seed,
        )
        r1 = (0.01 if points else 0.1) if self.r1 is None else self.r1
        own = {"hidden": self.hidden} if points else {"width": 16}
        parameters = {"loss": self.loss, "r1": r1, "latent_dim": self.latent_dim, **own}
        model, dataset, training = model_on("gan", parameters, DataSettings(data=f"toy:{self.name}"), training)
        gan, moments = cast(GAN, model), watched(model, dataset, training, self.count)
        if points:
            return ring.frames(gan, ring.Plane(self.name), moments, steps, self.seed)
        return forgery.frames(gan, dataset, moments, steps, self.seed)

    def sentence(self, facts: Facts) -> str:
        """How it ended."""
        if "modes" in facts:
            return (
                f"{facts['modes']} of {facts['of']} modes; V(D, G) {facts['value']:.3f}, -log 4 + 2 JSD "
                f"{facts['best_value']:.3f} nats"
            )
        sizes = (
            f"{name}: radius {facts[f'{name}_radius']:.2f} ± {facts[f'{name}_radius_std']:.2f}, squareness "
            f"{facts[f'{name}_squareness']:.2f} ± {facts[f'{name}_squareness_std']:.2f}"
            for name in ("real", "forged")
        )
        return "; ".join(sizes)


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """A discriminator on its way to D*: of N(0, 1) from a forger's normal density, who never learns.

    Args:
        mean: of the forger's density.
        std: its standard deviation.
        hidden: sizes of the discriminator's hidden layers.
        steps: length of the training; its learning rate falls to 0.
        batch_size: real points in a step, and as many forged ones.
        count: frames to draw.
        seed: of everything random.
    """

    mean: float = 1.0
    std: float = 1.0
    hidden: tuple[int, ...] = (16, 16)
    steps: int = 2000
    batch_size: int = 1024
    count: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn. Raises ConfigError."""
        at_least(2, count=self.count)
        at_least(0.01, std=self.std)

    def frames(self) -> Frames:
        """Train, and draw."""
        from nacre.lab import lines

        training = Training(steps=self.steps, batch_size=self.batch_size, lr_schedule="cosine", seed=self.seed)
        return lines.frames(self.mean, self.std, self.hidden, training, self.count)

    def sentence(self, facts: Facts) -> str:
        """How it ended."""
        low, high = facts["region"]
        return (
            f"logit D is off by {facts['logit_error']:.3f} at most in [{low:.2f}, {high:.2f}]; V(D, G) "
            f"{facts['value']:.5f}, -log 4 + 2 JSD {facts['best_value']:.5f} nats"
        )


@dataclass(frozen=True, kw_only=True)
class Latents:
    """One image's true posterior p(z|x) under a VAE with two latents, against the encoder's q(z|x), while it trains.

    Args:
        data: a data source of grey images; small ones are quicker.
        index: which of the images that are kept aside.
        hidden: sizes of the hidden layers, from the data to the latent.
        steps: length of the training.
        lr: learning rate.
        count: frames to draw.
        seed: of everything random.
    """

    data: str = "digits"
    index: int = 0
    hidden: tuple[int, ...] = (64,)
    steps: int = 3000
    lr: float = 2e-3
    count: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn. Raises ConfigError."""
        at_least(2, count=self.count)
        at_least(0, index=self.index)

    def frames(self) -> Frames:
        """Train, and draw."""
        from nacre.lab import latents

        training = Training(steps=self.steps, lr=self.lr, seed=self.seed)
        parameters = {"latent_dim": 2, "hidden": self.hidden, "activation": "tanh", "likelihood": "bernoulli"}
        model, dataset, training = model_on(
            "vae", {**parameters, "network": "mlp"}, DataSettings(data=self.data), training
        )
        kept = len(dataset.rows("validation"))
        if self.index >= kept or dataset.shape[0] != 1:
            raise ConfigError(
                f"--index takes one of the {kept} grey images that are kept aside, 0 to {kept - 1}; got {self.index} of "
                f"{dataset.source}, {'×'.join(map(str, dataset.shape))}."
            )
        moments = watched(model, dataset, training, self.count)
        return latents.frames(cast(VAE, model), dataset, moments, self.steps, index=self.index, seed=self.seed)

    def sentence(self, facts: Facts) -> str:
        """How it ended."""
        return (
            f"log p(x) {facts['log_p']:.3f} = L {facts['elbo']:.3f} + KL(q || p(z|x)) {facts['kl']:.3f} nats, to "
            f"{abs(facts['identity_error']):.0e}; HMC within {facts['hmc_off']:.1f} standard errors of the grid"
        )


@dataclass(frozen=True, kw_only=True)
class Dirac:
    """The Dirac-GAN (Mescheder et al. 2018): the smallest game there is, played by five rules.

    Args:
        theta: where the generator starts; the data are at 0.
        psi: the discriminator's slope at the start.
        method: how both move: "flow" as time goes by, "alternating" in turns, "simultaneous" both at once.
        step_size: learning rate.
        steps: length of the paths.
        r1: γ of the penalty γ/2 ψ².
        gp_weight: λ of WGAN-GP's penalty λ (|ψ| - 1)².
        count: frames to draw.
    """

    theta: float = 1.2
    psi: float = 0.6
    method: Method = "flow"
    step_size: float = 0.1
    steps: int = 300
    r1: float = 0.3
    gp_weight: float = 0.25
    count: int = 60

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn. Raises ConfigError."""
        at_least(2, count=self.count)
        at_least(1, steps=self.steps)
        at_least(0, r1=self.r1, gp_weight=self.gp_weight)

    def frames(self) -> Frames:
        """Follow the paths, and draw."""
        from nacre.lab import circle

        start = (self.theta, self.psi)
        return circle.frames(start, self.method, self.step_size, self.steps, self.r1, self.gp_weight, self.count)

    def sentence(self, facts: Facts) -> str:
        """How it ended."""
        told = ", ".join(f"{game} {away:.3g}" for game, away in facts.items() if game != "step")
        return f"distance from the equilibrium: {told}"


SUBJECTS: dict[str, type] = {
    "game": Game,
    "discriminator": Discriminator,
    "vae": Latents,
    "dirac": Dirac,
}
"""Experiments by name: each has `frames`, and a `sentence` about the last one's numbers."""
