"""The importance-weighted autoencoder (Burda et al. 2016), with one or more stochastic layers."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import at_least
from nacre.networks import Activation, Kind, Shape, likelihoods
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import Draw, normal

Normal: TypeAlias = tuple[Tensor, Tensor]
"""Mean and log-variance."""


class IWAE(nn.Module):
    """Importance-weighted autoencoder: a VAE that is trained on the tighter bound of k samples (Burda et al. 2016).

    The paper's two networks are `--latent-dim 50`, and with two stochastic layers `--latent-dim 100 --upper-dims 50`. Its
    decoder's last bias starts at the data's log-odds; here it starts near zero, and is there within an epoch.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent next to the data, which is the code.
        upper_dims: sizes of further latents above it, each inferred from the one below; none for one stochastic layer.
        upper_hidden: sizes of the hidden layers between latents, upwards.
        k: samples of the bound that is trained; 1 is a VAE's.
        k_eval: samples of the bound that is evaluated; the paper's tables have 5,000.
        estimator: of the encoder's gradient: "iwae", the bound's own, or "dreg", of the same expectation and of less
            variance when k is large (Tucker et al. 2019).
        likelihood: p(x|z): "bernoulli", "gaussian", "continuous-bernoulli", "discretized-logistic", or by the shape, as in
            `vae`.
        sigma: σ of the Gaussian likelihood; without it one is learned.
        network: "mlp", "conv", "resnet" (residual blocks), or by the shape: conv for images of 32 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the data to the latent; the decoder mirrors them.
        activation: between the MLP's layers.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 50,
        upper_dims: tuple[int, ...] = (),
        upper_hidden: tuple[int, ...] = (100, 100),
        k: int = 5,
        k_eval: int = 50,
        estimator: Literal["iwae", "dreg"] = "iwae",
        likelihood: likelihoods.Name = "auto",
        sigma: float | None = None,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (200, 200),
        activation: Activation = "tanh",
        width: int = 32,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, upper_dims=upper_dims, upper_hidden=upper_hidden, hidden=hidden)
        at_least(1, k=k, k_eval=k_eval, width=width)
        self.shape, self.latent_dim, self.k, self.k_eval, self.estimator = shape, latent_dim, k, k_eval, estimator
        self.likelihood = likelihoods.likelihood(shape, likelihood, sigma)
        kind, act = networks.kind_for(shape, network, smallest=32), networks.ACTIVATIONS[activation]
        self.encoder = networks.encoder(shape, 2 * latent_dim, kind=kind, hidden=hidden, width=width, activation=act)
        self.decoder = networks.decoder(latent_dim, shape, kind=kind, hidden=hidden[::-1], width=width, activation=act)
        self.dims = (latent_dim, *upper_dims)
        steps = list(pairwise(self.dims))
        self.upper_encoders = nn.ModuleList(networks.mlp((low, *upper_hidden, 2 * high), act) for low, high in steps)
        self.upper_decoders = nn.ModuleList(
            networks.mlp((high, *upper_hidden[::-1], 2 * low), act) for low, high in steps
        )
        self.prior = {name: normal(size) for name, size in zip(self.names, self.dims, strict=True)}

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape, smallest=32) == "mlp" else 4_000, "batch_size": 64}

    @property
    def names(self) -> list[str]:
        """Names of the latents' noise, upwards from the data."""
        return ["z", *(f"z{level}" for level in range(1, len(self.dims)))]

    @property
    def likelihood_name(self) -> str:
        """What the bound bounds; it is part of the number."""
        return f"L_{self.k_eval}, {self.likelihood.name}"

    @property
    def likelihood_draws(self) -> dict[str, Draw]:
        """The noise of `log_likelihood`, for as many samples as `k_eval` says."""
        return self.draws(self.k_eval)

    def draws(self, k: int) -> dict[str, Draw]:
        """The noise of a bound of k samples."""
        latents = {name: normal(k, size) for name, size in zip(self.names, self.dims, strict=True)}
        return latents | self.likelihood.draws

    def objectives(self) -> list[Objective]:
        over = ("encoder", "decoder", "upper_encoders", "upper_decoders", "likelihood")
        adam = partial(Adam, lr=1e-3, eps=1e-4)  # the paper's, section 5
        loss = self.bound_loss if self.estimator == "iwae" else self.dreg_loss
        return [Objective(name="bound", loss=loss, over=over, optimizer=adam, draws=self.draws(self.k))]

    def bound_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-L_k (section 3); its gradient weighs each sample by its share of the weights."""
        x = self.likelihood.observe(x, step.noise)
        latents, posteriors = self.infer(self.first(x), self.latent_noise(step.noise))
        loss = -losses.importance_bound(self.log_weights(x, latents, posteriors)).mean()
        return loss, {"bound": -loss} | self.likelihood.bits(loss)

    def dreg_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-L_k, with the doubly reparameterized gradient for the encoder: Σ w̃² ∂log w/∂z ∂z/∂φ (Tucker et al. 2019).

        The latents are made leaves, and the posteriors' densities see the encoder's parameters as constants. So the bound's
        slope at the latents is w̃ ∂log w/∂z: one more w̃ and the chain rule, and it is the encoder's gradient. The decoder's
        is the bound's own. Both are found in one pass back, and carried out of here by a sum that has them as its gradients.
        """
        x = self.likelihood.observe(x, step.noise)
        latents, posteriors = self.infer(self.first(x), self.latent_noise(step.noise))
        leaves = [z.detach().requires_grad_() for z in latents]
        log_weights = self.log_weights(x, leaves, self.constant(leaves, posteriors[0]))
        loss = -losses.importance_bound(log_weights).mean()
        generative = nn.ModuleList([self.decoder, self.upper_decoders, self.likelihood])
        own = [parameter for parameter in generative.parameters() if parameter.requires_grad]
        slopes = torch.autograd.grad(loss, [*leaves, *own])
        share = log_weights.detach().softmax(0).T[..., None]
        gradients = [share * slope for slope in slopes[: len(leaves)]] + list(slopes[len(leaves) :])
        carried = [(g.detach() * each).sum() for g, each in zip(gradients, [*latents, *own], strict=True)]
        carrier = torch.stack(carried).sum()
        loss = loss.detach()
        return loss + carrier - carrier.detach(), {"bound": -loss} | self.likelihood.bits(loss)

    def constant(self, latents: list[Tensor], first: Normal) -> list[Normal]:
        """The posteriors at given latents, their parameters without gradients."""
        posteriors = [(first[0].detach(), first[1].detach())]
        for network, below in zip(self.upper_encoders, latents, strict=False):
            frozen = {name: parameter.detach() for name, parameter in network.named_parameters()}
            posteriors.append(functional_call(network, frozen, (below,)).chunk(2, dim=-1))
        return posteriors

    def latent_noise(self, noise: Mapping[str, Tensor]) -> list[Tensor]:
        return [noise[name] for name in self.names]

    def first(self, x: Tensor) -> Normal:
        """q(h1|x), with room for samples: (N, *shape) ↦ (N, 1, latent_dim) twice."""
        mean, log_var = self.encoder(x)[:, None].chunk(2, dim=-1)
        return mean, log_var

    def infer(self, first: Normal, noise: list[Tensor]) -> tuple[list[Tensor], list[Normal]]:
        """Latents from q(h1|x) q(h2|h1) … and their posteriors, for noise (N, k, size of the latent) of each."""
        posteriors, latents = [first], [first[0] + (first[1] / 2).exp() * noise[0]]
        for network, draw in zip(self.upper_encoders, noise[1:], strict=True):
            mean, log_var = network(latents[-1]).chunk(2, dim=-1)
            posteriors.append((mean, log_var))
            latents.append(mean + (log_var / 2).exp() * draw)
        return latents, posteriors

    def log_weights(self, x: Tensor, latents: list[Tensor], posteriors: list[Normal]) -> Tensor:
        """log p(x, h) - log q(h|x) of k latents for each of N observed items: (k, N)."""
        count, k = latents[0].shape[:2]
        repeated = x[:, None].expand(-1, k, *self.shape).flatten(0, 1)
        total = -self.likelihood.nll(self.decoder(latents[0].flatten(0, 1)), repeated).view(count, k)
        for z, posterior, prior in zip(latents, posteriors, self.priors(latents), strict=True):
            total = total + losses.gaussian_log_density(z, *prior) - losses.gaussian_log_density(z, *posterior)
        return total.T

    def priors(self, latents: list[Tensor]) -> list[tuple[Tensor, Tensor] | tuple[()]]:
        """Of each latent given the one above; of the highest, standard normal."""
        given: list[tuple[Tensor, Tensor] | tuple[()]] = [
            network(above).chunk(2, dim=-1) for network, above in zip(self.upper_decoders, latents[1:], strict=True)
        ]
        return [*given, ()]

    def log_likelihood(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """L_k in nats, a lower bound on log p(x), for noise (N, k, size of the latent) of each: (N, *shape) ↦ (N,)."""
        x = self.likelihood.observe(x, noise)
        first = self.first(x)

        def weigh(*draws: Tensor) -> Tensor:
            return self.log_weights(x, *self.infer(first, list(draws)))

        return losses.importance_bound(losses.log_weights_in_parts(weigh, *self.latent_noise(noise)))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(h1|x): (N, *shape) ↦ (N, latent_dim), (N, latent_dim)."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, (log_var / 2).exp()

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """The mean of p(x|h1) for latents drawn from the highest down."""
        *below, z = self.latent_noise(noise)
        for network, draw in zip(reversed(self.upper_decoders), reversed(below), strict=True):
            mean, log_var = network(z).chunk(2, dim=-1)
            z = mean + (log_var / 2).exp() * draw
        return self.decode(z)
