"""Semi-supervised learning with deep generative models: M2 and M1+M2 of Kingma et al. 2014."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Activation, Kind, Shape, likelihoods
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import category, normal


class M2(nn.Module):
    """A VAE with a label for a latent: it learns to classify from a few labels and many items (Kingma et al. 2014, M2).

    p(y) is uniform, p(z) standard normal, p(x|y,z) the decoder; q(y|x) is the classifier and q(z|x,y) the encoder, which
    here share no weights, as in the paper. Where a label is missing (-1) the classes are summed out.

    With `encoder` it is M1+M2: a VAE trained without labels, M1, stays as it is, and M2 takes samples of that one's q(z1|x)
    in place of the items.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        classes: number of labels; from the data on the command line.
        encoder: a run or model folder of a `vae` or `iwae` without labels, M1; the class itself also takes the model.
        origin: what `encoder` was built as, filled in from the run, so that this model can do without that one later.
        labelled_share: the least share of a batch that is labelled where few items are: these come around more often. The
            paper has 0, each as often as the others.
        latent_dim: size of the latent beside the label.
        alpha: weight of the classifier's -log q(y|x) at each labelled item, beside one bound an item. The paper's α = .1 N
            on the mean over N_l labelled items is here .1 N / N_l: 50 for 100 labels among 50,000 items.
        likelihood: p(x|y,z): "bernoulli", "gaussian", "continuous-bernoulli", "discretized-logistic", or by the shape, as in
            `vae`; of M1's latents a Gaussian with a mean and a σ for each.
        sigma: σ of the Gaussian likelihood; without it one is learned.
        network: "mlp", "conv", "resnet" (residual blocks), or by the shape: conv for images of 32 pixels and more; over M1's
            latents, mlp.
        hidden: sizes of the MLP's hidden layers, from the data to the latent; the decoder mirrors them. The last is also
            how many features of an item the encoder sees beside the label.
        activation: between the MLP's layers.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.

    Raises:
        ConfigError: there are fewer than two classes, or `encoder` is no VAE of such items.
    """

    supervised = True
    semi_supervised = True

    def __init__(
        self,
        shape: Shape,
        *,
        classes: int = 0,
        encoder: str | None = None,
        origin: dict[str, Any] | None = None,
        labelled_share: float = 0.0,
        latent_dim: int = 50,
        alpha: float = 10.0,
        likelihood: likelihoods.Name = "auto",
        sigma: float | None = None,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 256),
        activation: Activation = "relu",
        width: int = 32,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(f"m2 classifies into two classes or more, got {classes}; give it data with labels.")
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(0, alpha=alpha)
        if not hidden:
            raise ConfigError("m2 needs one hidden layer at least; its last is what the encoder sees beside the label.")
        if not 0 <= labelled_share <= 1:
            raise ConfigError(f"labelled_share is a share, from 0 to 1; got {labelled_share}.")
        self.shape, self.classes, self.latent_dim, self.alpha = shape, classes, latent_dim, alpha
        self.labelled_share, self.below = labelled_share, _frozen(encoder, shape)
        inner = (self.below.latent_dim,) if self.below else shape
        self.likelihood, outputs = likelihoods.likelihood(inner, likelihood, sigma), inner
        if self.below:  # most of its latents may say nothing, and one σ for all would be that of these
            if likelihood != "auto" or sigma is not None:
                raise ConfigError(
                    "on an encoder's latents m2 has a Gaussian of its own; leave --likelihood and --sigma out."
                )
            self.likelihood, outputs = likelihoods.DiagonalGaussian(inner), (2 * self.below.latent_dim,)
        kind, act = networks.kind_for(inner, network, smallest=32), networks.ACTIVATIONS[activation]
        network_of = partial(networks.encoder, inner, kind=kind, width=width, activation=act)
        self.classifier = network_of(classes, hidden=hidden)
        features = hidden[-1]
        self.encoder = nn.Sequential(network_of(features, hidden=hidden[:-1]), act())
        self.posterior_head = networks.mlp((features + classes, features, 2 * latent_dim), act)
        self.decoder = networks.decoder(
            latent_dim + classes, outputs, kind=kind, hidden=hidden[::-1], width=width, activation=act
        )
        self.prior = {"z": normal(latent_dim), "label": category(classes)}
        self.likelihood_draws = {"z": normal(latent_dim), **self.likelihood.draws}
        if self.below:
            own = {f"below_{name}": draw for name, draw in self.below.likelihood.draws.items()}
            self.likelihood_draws |= {"below_z": normal(self.below.latent_dim), **own}

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape, smallest=32) == "mlp" else 4_000, "batch_size": 128}

    @property
    def code_dim(self) -> int:
        """Size of a code: the latent, and beside it the label's one-hot vector."""
        return self.latent_dim + self.classes

    @property
    def likelihood_name(self) -> str:
        """What the bound bounds; it is part of the number."""
        observed = self.below or self
        return f"ELBO with the classes summed out, {observed.likelihood.name}"

    def objectives(self) -> list[Objective]:
        over = ("classifier", "encoder", "posterior_head", "decoder", "likelihood")
        adam = partial(Adam, lr=1e-3)
        return [Objective(name="bound", loss=self.loss, over=over, optimizer=adam, draws=self.likelihood_draws)]

    def loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """The mean of L(x, y) at labelled items, U(x) at the others (eq. 8), and α times the classifier's own loss (eq. 9)."""
        x, label = batch
        x = self.looked_at(x, step.noise)
        log_q = self.classifier(x).log_softmax(1)
        labelled = (label >= 0).to(log_q.dtype)
        truth = F.one_hot(label.clamp(min=0), self.classes).to(log_q.dtype)
        bounds = self.bounds(x, step.noise["z"])
        elbo = labelled * (truth * bounds).sum(1) + (1 - labelled) * summed_out(bounds, log_q)
        wrong = -labelled * (truth * log_q).sum(1)
        parts = {"elbo": elbo.mean(), "label_nll": wrong.mean(), "labelled": labelled.mean()}
        return self.alpha * wrong.mean() - elbo.mean(), parts | self.likelihood.bits(-elbo.mean())

    def looked_at(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """What M2 learns from: items as the likelihood observes them, or z1 from q(z1|x)."""
        return self.inferred(x, noise)[0] if self.below else self.likelihood.observe(x, noise)

    def inferred(self, x: Tensor, noise: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """z1 from M1's q(z1|x), log q(z1|x) in nats, and the items as M1 observed them."""
        own = {name.removeprefix("below_"): value for name, value in noise.items() if name.startswith("below_")}
        x = self.below.likelihood.observe(x, own)
        mean, std = self.below.posterior(x)
        z = mean + std * own["z"]
        return z, losses.gaussian_log_density(z, mean, 2 * std.log()), x

    def features(self, x: Tensor) -> Tensor:
        """What M2 sees of items once it is trained: they themselves, or the mean of q(z1|x)."""
        return self.below.posterior(x)[0] if self.below else x

    def bounds(self, x: Tensor, noise: Tensor) -> Tensor:
        """-L(x, y) for every label y, in nats (eq. 6), a lower bound on log p(x, y): (N, *shape) ↦ (N, classes).

        One draw of noise (N, latent_dim) serves all labels.
        """
        count, k = len(x), self.classes
        label = torch.arange(k, device=x.device).repeat(count)
        mean, log_var = self.given(self.encoder(x).repeat_interleave(k, 0), label)
        z = mean + (log_var / 2).exp() * noise.repeat_interleave(k, 0)
        likely = -self.likelihood.nll(self.decoder(self.code(z, label)), x.repeat_interleave(k, 0))
        return (likely - math.log(k) - losses.kl_to_standard_normal(mean, log_var)).view(count, k)

    def given(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x,y)."""
        mean, log_var = self.posterior_head(self.code(features, label)).chunk(2, dim=1)
        return mean, log_var

    def code(self, numbers: Tensor, label: Tensor) -> Tensor:
        """Numbers beside the label's one-hot vector: (N, D), (N,) ↦ (N, D + classes)."""
        return torch.cat([numbers, F.one_hot(label, self.classes).to(numbers.dtype)], 1)

    def classify(self, x: Tensor) -> Tensor:
        """q(y|x): (N, *shape) ↦ (N, classes)."""
        return self.classifier(self.features(x)).softmax(1)

    def log_likelihood(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """-U(x) in nats (eq. 7), a lower bound on log p(x) that needs no label: (N, *shape) ↦ (N,)."""
        if self.below is None:
            x = self.likelihood.observe(x, noise)
            return summed_out(self.bounds(x, noise["z"]), self.classifier(x).log_softmax(1))
        z, log_q, x = self.inferred(x, noise)  # log p(x|z1) + log p(z1) - log q(z1|x)
        inner = summed_out(self.bounds(z, noise["z"]), self.classifier(z).log_softmax(1))
        return inner - log_q - self.below.likelihood.nll(self.below.decoder(z), x)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x,y) and the label y that the classifier finds likeliest: (N, *shape) ↦ (N, code_dim)."""
        x = self.features(x)
        label = self.classifier(x).argmax(1)
        return self.code(self.given(self.encoder(x), label)[0], label)

    def decode(self, z: Tensor) -> Tensor:
        x = self.likelihood.mean(self.decoder(z))
        return self.below.decode(x) if self.below else x

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """The mean of p(x|y,z) for a label and a latent from the prior."""
        return self.decode(self.code(noise["z"], noise["label"]))

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take M1's weights.

        Raises:
            ConfigError: they do not fit.
        """
        assert self.below is not None
        try:
            self.below.load_state_dict(dict(weights))
        except RuntimeError:
            raise ConfigError(
                "the encoder is not what it was when this model was laid out; leave --origin out."
            ) from None

    def train(self, mode: bool = True) -> "M2":
        """As any module; but M1's batch norms keep the statistics of their own training."""
        super().train(mode)
        if self.below:
            self.below.eval()
        return self


def _frozen(model: Any, shape: Shape) -> Any:
    """M1, which learns no more; None without one."""
    if model is None:
        return None
    name = type(model).__name__
    able = all(hasattr(model, each) for each in ("posterior", "decoder", "decode", "likelihood", "latent_dim"))
    if not able or getattr(model, "classes", None) or len(getattr(model, "dims", ())) > 1:
        raise ConfigError(f"m2 stands on a `vae` or `iwae` without labels and with one layer of latents, got {name}.")
    if tuple(model.shape) != tuple(shape):
        raise ConfigError(f"the encoder of {name} takes items of shape {tuple(model.shape)}, and the data are {shape}.")
    return model.requires_grad_(False).eval()


def summed_out(bounds: Tensor, log_q: Tensor) -> Tensor:
    """-U(x) = Σ_y q(y|x) (-L(x, y)) + H(q(y|x)) (eq. 7): (N, classes), (N, classes) ↦ (N,)."""
    return (log_q.exp() * (bounds - log_q)).sum(1)
