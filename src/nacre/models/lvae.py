"""The ladder variational autoencoder (Sønderby et al. 2016), with convolutions for images."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks, schedules
from nacre.errors import ConfigError, at_least
from nacre.networks import Shape, ladder, likelihoods
from nacre.networks.ladder import Rung
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import Draw, normal


class Layer(NamedTuple):
    """A stochastic layer in use: its latent, and mean and log-variance of its posterior and prior."""

    z: Tensor
    posterior: tuple[Tensor, Tensor]
    prior: tuple[Tensor, Tensor]


class LVAE(nn.Module):
    """Ladder variational autoencoder: a hierarchy of latents, inferred from the top down (Sønderby et al. 2016).

    Three things differ from the paper: images have convolutions and several latents at each size, as in Vahdat & Kautz
    2020; the evidence for a latent is read from the item together with the latents above it, as there; and the networks
    are residual without batch norm, so that an item's bound does not depend on its batch.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the top latent.
        layers: latents at each size of the image below the top.
        latent_channels: channels of each of these.
        likelihood: p(x|z): "bernoulli", "gaussian", "continuous-bernoulli", "discretized-logistic", or by the shape, as in
            `vae`.
        sigma: σ of the Gaussian likelihood; without it one is learned.
        free_bits: nats of each latent's KL that cost nothing (Kingma et al. 2016); 0 for none.
        kl_warmup: steps in which the weight of the KL grows from 0 to 1; without them upper latents may never be used.
        k_eval: samples of the bound that is evaluated; 1 is the ELBO, more is L_k (Burda et al. 2016), which is tighter.
        network: "mlp", "conv", or by the shape: conv for images of 16 pixels and more.
        hidden: sizes of the MLP's layers, from the data up, each with a latent; they double in size downwards.
        width: channels at half the image's size, where the largest convolutions are.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 16,
        layers: int = 1,
        latent_channels: int = 4,
        likelihood: likelihoods.Name = "auto",
        sigma: float | None = None,
        free_bits: float = 0.0,
        kl_warmup: int = 1000,
        k_eval: int = 1,
        network: Literal["auto", "mlp", "conv"] = "auto",
        hidden: tuple[int, ...] = (512, 256, 128),
        width: int = 16,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, layers=layers, latent_channels=latent_channels, hidden=hidden, width=width)
        at_least(1, k_eval=k_eval)
        at_least(0, free_bits=free_bits, kl_warmup=kl_warmup)
        self.shape, self.latent_dim, self.k_eval = shape, latent_dim, k_eval
        self.free_bits, self.kl_warmup = free_bits, kl_warmup
        self.likelihood = likelihoods.likelihood(shape, likelihood, sigma)
        if networks.kind_for(shape, network) == "mlp":
            if len(hidden) < 2:
                raise ConfigError(f"a ladder has two hidden layers or more, got {hidden}; for one take `vae`.")
            parts = ladder.mlp_ladder(shape, latent_dim, hidden)
        else:
            parts = ladder.conv_ladder(shape, latent_dim, width=width, latent_channels=latent_channels, layers=layers)
        self.encoder, self.rungs, self.out, self.scale = parts.up, parts.rungs, parts.out, parts.scale
        self.latents = [rung.latent for rung in self.downwards()]
        self.prior = self.draws(1)

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape) == "mlp" else 6_000, "batch_size": 128}

    @property
    def code_dim(self) -> int:
        """Size of a code: all latents side by side, the top one first."""
        return sum(math.prod(latent) for latent in self.latents)

    @property
    def names(self) -> list[str]:
        """Names of the latents' noise, downwards from the top."""
        return ["z", *(f"z{number}" for number in range(1, len(self.latents)))]

    @property
    def likelihood_name(self) -> str:
        """What the bound bounds; it is part of the number."""
        return f"{'ELBO' if self.k_eval == 1 else f'L_{self.k_eval}'}, {self.likelihood.name}"

    @property
    def likelihood_draws(self) -> dict[str, Draw]:
        """The noise of `log_likelihood`, for as many samples as `k_eval` says."""
        return self.draws(self.k_eval) | self.likelihood.draws

    def downwards(self) -> list[Rung]:
        """The rungs from the top."""
        return cast(list[Rung], list(self.rungs))

    def draws(self, k: int) -> dict[str, Draw]:
        """The latents' noise, for k samples of each if k is not 1."""
        samples = () if k == 1 else (k,)
        return {name: normal(*samples, *latent) for name, latent in zip(self.names, self.latents, strict=True)}

    def objectives(self) -> list[Objective]:
        over = ("encoder", "rungs", "out", "likelihood")
        adam = partial(Adam, lr=2e-3)
        draws = self.draws(1) | self.likelihood.draws
        return [Objective(name="elbo", loss=self.elbo_loss, over=over, optimizer=adam, draws=draws)]

    def elbo_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Distortion + the KLs of all layers, in nats an item: -ELBO once the warm-up is over."""
        x = self.likelihood.observe(x, step.noise)
        output, layers = self.descend(self.latent_noise(step.noise), self.features(x))
        kl = self.kl(layers)
        distortion, rate = self.likelihood.nll(output, x).mean(), kl.sum(1).mean()
        top_rate = kl[:, : self.latents[0][0]].sum(1).mean()
        paid = losses.with_free_bits(kl, self.free_bits).mean() if self.free_bits else rate
        loss = distortion + schedules.kl_weight(step.index, self.kl_warmup) * paid
        parts = {"elbo": -distortion - rate, "distortion": distortion, "rate": rate, "top_rate": top_rate}
        return loss, parts | self.likelihood.bits(distortion + rate)

    def latent_noise(self, noise: Mapping[str, Tensor]) -> list[Tensor]:
        return [noise[name] for name in self.names]

    def features(self, x: Tensor) -> list[Tensor]:
        """The deterministic way up: for each rung, what it is told of observed items."""
        levels = []
        for network in self.encoder:
            x = network(x)
            levels.append(x)
        return [levels[level] for level in self.scale]

    def descend(self, noise: Sequence[Tensor], features: Sequence[Tensor] | None) -> tuple[Tensor, list[Layer]]:
        """The way down: latents from the posteriors, or without features from the priors.

        Returns:
            The decoder's output (N, *shape), and the layers from the top.
        """
        state, layers = None, []
        for number, rung in enumerate(self.downwards()):
            prior = rung.expected(state, noise[number])
            seen = None if features is None else rung.seen(features[number], state)
            mean, log_var = prior if seen is None else ladder.precision_weighted(seen, prior)
            z = mean + (log_var / 2).exp() * noise[number]
            layers.append(Layer(z, (mean, log_var), prior))
            state = rung.descend(state, z)
        return self.out(state), layers

    def kl(self, layers: Sequence[Layer]) -> Tensor:
        """KL of each latent's posterior from its prior, given the latents above: (N, code_dim) nats."""
        return ladder.side_by_side(losses.kl_between_normals(*layer.posterior, *layer.prior) for layer in layers)

    def log_likelihood(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """The ELBO in nats, or for noise (N, k, *latent) of each latent L_k, lower bounds on log p(x): (N, *shape) ↦ (N,)."""
        x = self.likelihood.observe(x, noise)
        features, draws = self.features(x), self.latent_noise(noise)
        if draws[0].ndim == 1 + len(self.latents[0]):
            output, layers = self.descend(draws, features)
            return -self.likelihood.nll(output, x) - self.kl(layers).sum(1)
        weigh = partial(self.log_weights, x, features)
        return losses.importance_bound(losses.log_weights_in_parts(weigh, *draws, rows=1024))

    def log_weights(self, x: Tensor, features: Sequence[Tensor], *noise: Tensor) -> Tensor:
        """log p(x, z) - log q(z|x) at samples from q: noise (N, k, *latent) of each ↦ (k, N)."""
        count, k = noise[0].shape[:2]
        repeated = [level.repeat_interleave(k, 0) for level in features]
        output, layers = self.descend([draw.flatten(0, 1) for draw in noise], repeated)
        total = -self.likelihood.nll(output, x.repeat_interleave(k, 0))
        for z, posterior, prior in layers:
            flat = [each.flatten(1) for each in (z, *posterior, *prior)]
            total = total + losses.gaussian_log_density(flat[0], *flat[3:])
            total = total - losses.gaussian_log_density(flat[0], *flat[1:3])
        return total.view(count, k).T

    def means(self, x: Tensor) -> list[Layer]:
        """The way down along the posteriors' means."""
        return self.descend([x.new_zeros(len(x), *latent) for latent in self.latents], self.features(x))[1]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each latent, given the means of those above: (N, *shape) ↦ (N, code_dim) twice."""
        layers = self.means(x)
        std = ladder.side_by_side((layer.posterior[1] / 2).exp() for layer in layers)
        return ladder.side_by_side(layer.posterior[0] for layer in layers), std

    def posterior_sample(self, x: Tensor, noise: Tensor) -> Tensor:
        """Codes from q(z|x), each latent given the draws of those above: (N, *shape), (N, code_dim) ↦ (N, code_dim)."""
        return ladder.side_by_side(layer.z for layer in self.descend(self.apart(noise), self.features(x))[1])

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Items of all latents, the top one first: (N, code_dim) ↦ (N, *shape)."""
        state = None
        for rung, part in zip(self.downwards(), self.apart(z), strict=True):
            state = rung.descend(state, part)
        return self.likelihood.mean(self.out(state))

    def apart(self, z: Tensor) -> list[Tensor]:
        """The latents that stand side by side in codes: (N, code_dim) ↦ (N, *latent) of each, the top one first."""
        parts = torch.split(z, [math.prod(latent) for latent in self.latents], 1)
        return [part.view(-1, *latent) for part, latent in zip(parts, self.latents, strict=True)]

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """The mean of p(x|z) for latents drawn from the top down."""
        return self.likelihood.mean(self.descend(self.latent_noise(noise), None)[0])
