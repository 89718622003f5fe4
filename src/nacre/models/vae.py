"""The variational autoencoder (Kingma & Welling 2014, "Auto-Encoding Variational Bayes")."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks, schedules, seeds
from nacre.errors import at_least
from nacre.networks import Activation, Kind, Shape, likelihoods
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import Draw, category, normal


class VAE(nn.Module):
    """Variational autoencoder: an encoder q(z|x), a decoder p(x|z), and the evidence lower bound (Kingma & Welling 2014).

    With `classes` it is conditional (Sohn et al. 2015): the decoder p(x|z,y) is told the label, and the encoder q(z|x) is
    not, so that it leaves to z what the label does not say and can be asked about items without one.

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the latent.
        likelihood: p(x|z). "bernoulli": pixels in {0, 1}, grey values being binarized at random at every look;
            "gaussian": one σ for all pixels of dequantized images, or for all dimensions of vectors;
            "continuous-bernoulli": a density on [0, 1]; "discretized-logistic": masses on the 256 grey levels.
            "auto": bernoulli for grey images under 32 pixels, otherwise gaussian.
        sigma: σ of the Gaussian likelihood; without it one is learned, of 1/256 or more on images.
        beta: weight of the rate KL(q(z|x) || p(z)); 1 is the ELBO (Higgins et al. 2017 call more a β-VAE).
        free_bits: nats of each latent's KL that cost nothing (Kingma et al. 2016); 0 for none.
        kl_warmup: steps in which the rate's weight grows from 0 to beta; 0 for none.
        k_eval: samples of the bound that is evaluated; 1 is the ELBO, more is L_k (Burda et al. 2016), which is tighter.
        classes: number of labels to be conditional on; 0 for none.
        network: "mlp", "conv", "resnet" (residual blocks), or by the shape: conv for images of 32 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the data to the latent; the decoder mirrors them.
        activation: between the MLP's layers.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 32,
        likelihood: likelihoods.Name = "auto",
        sigma: float | None = None,
        beta: float = 1.0,
        free_bits: float = 0.0,
        kl_warmup: int = 0,
        k_eval: int = 1,
        classes: int = 0,
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 256),
        activation: Activation = "relu",
        width: int = 32,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width, k_eval=k_eval)
        at_least(0, beta=beta, free_bits=free_bits, kl_warmup=kl_warmup, classes=classes)
        self.shape, self.latent_dim, self.classes, self.beta = shape, latent_dim, classes, beta
        self.free_bits, self.kl_warmup, self.k_eval = free_bits, kl_warmup, k_eval
        self.likelihood = likelihoods.likelihood(shape, likelihood, sigma)
        kind = networks.kind_for(shape, network, smallest=32)
        act = networks.ACTIVATIONS[activation]
        self.encoder = networks.encoder(shape, 2 * latent_dim, kind=kind, hidden=hidden, width=width, activation=act)
        self.decoder = networks.decoder(
            latent_dim + classes, shape, kind=kind, hidden=hidden[::-1], width=width, activation=act
        )
        self.prior = {"z": normal(latent_dim)} | ({"label": category(classes)} if classes else {})

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 20_000 if networks.kind_for(shape, smallest=32) == "mlp" else 4_000, "batch_size": 128}

    @property
    def code_dim(self) -> int:
        """Size of a code: the latent, and beside it the label's one-hot vector if the model is conditional."""
        return self.latent_dim + self.classes

    @property
    def likelihood_name(self) -> str:
        """What the bound bounds; it is part of the number."""
        return f"{'ELBO' if self.k_eval == 1 else f'L_{self.k_eval}'}, {self.likelihood.name}"

    @property
    def likelihood_draws(self) -> dict[str, Draw]:
        """The noise of `log_likelihood`, for as many samples as `k_eval` says."""
        z = normal(self.latent_dim) if self.k_eval == 1 else normal(self.k_eval, self.latent_dim)
        return {"z": z, **self.likelihood.draws}

    def objectives(self) -> list[Objective]:
        over = ("encoder", "decoder", "likelihood")
        adam = partial(Adam, lr=1e-3)
        draws = {"z": normal(self.latent_dim), **self.likelihood.draws}
        return [Objective(name="elbo", loss=self.elbo_loss, over=over, optimizer=adam, draws=draws)]

    def elbo_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Distortion + β rate, in nats an item. With β = 1 this is -ELBO (eq. 3)."""
        x, label = batch if self.classes else (batch, None)
        x = self.likelihood.observe(x, step.noise)
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        z = mean + (log_var / 2).exp() * step.noise["z"]  # the reparameterization trick, section 2.4
        distortion = self.likelihood.nll(self.decoder(self.code(z, label)), x).mean()
        kl = losses.kl_per_latent(mean, log_var)
        rate = kl.sum(1).mean()
        paid = losses.with_free_bits(kl, self.free_bits).mean() if self.free_bits else rate
        loss = distortion + self.beta * schedules.kl_weight(step.index, self.kl_warmup) * paid
        parts = {"elbo": -distortion - rate, "distortion": distortion, "rate": rate}
        return loss, parts | self.likelihood.bits(distortion + rate)

    def code(self, z: Tensor, label: Tensor | None) -> Tensor:
        """What the decoder is given: (N, latent_dim), (N,) ↦ (N, code_dim)."""
        return z if label is None else torch.cat([z, F.one_hot(label, self.classes).to(z.dtype)], 1)

    def log_likelihood(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """The ELBO in nats, or for noise["z"] of shape (N, k, latent_dim) L_k, lower bounds on log p(x): (N, *shape) ↦ (N,)."""
        x = self.likelihood.observe(x, noise)
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        if noise["z"].ndim == 2:
            z = mean + (log_var / 2).exp() * noise["z"]
            return self.log_density(x, z) - losses.kl_to_standard_normal(mean, log_var)
        weigh = partial(self.log_weights, x, mean, log_var)
        return losses.importance_bound(losses.log_weights_in_parts(weigh, noise["z"]))

    def log_weights(self, x: Tensor, mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
        """log p(x, z) - log q(z|x) at samples from q: noise (N, k, latent_dim) ↦ (k, N)."""
        count, k = noise.shape[:2]
        mean, log_var = mean[:, None], log_var[:, None]
        z = mean + (log_var / 2).exp() * noise
        likely = self.log_density(x.repeat_interleave(k, 0), z.flatten(0, 1)).view(count, k)
        ratio = losses.gaussian_log_density(z) - losses.gaussian_log_density(z, mean, log_var)
        return (likely + ratio).T

    def log_density(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), of a conditional model log (1/K) Σ_y p(x|z,y): (N, *shape), (N, latent_dim) ↦ (N,).

        y is independent of z, so that the sum keeps a bound a bound, and no label is needed.
        """
        if not self.classes:
            return -self.likelihood.nll(self.decoder(z), x)
        return losses.importance_bound(self.log_density_by_class(x, z))

    def log_density_by_class(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z,y) for every label y: (N, *shape), (N, latent_dim) ↦ (classes, N)."""
        labels = torch.arange(self.classes, device=z.device)
        return torch.stack([-self.likelihood.nll(self.decoder(self.code(z, y.expand(len(z)))), x) for y in labels])

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x): (N, *shape) ↦ (N, latent_dim), (N, latent_dim)."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, (log_var / 2).exp()

    def encode(self, x: Tensor) -> Tensor:
        """The posterior's mean, of a conditional model with the label that explains x best: (N, *shape) ↦ (N, code_dim)."""
        mean = self.posterior(x)[0]
        return self.code(mean, self.log_density_by_class(x, mean).argmax(0)) if self.classes else mean

    def decode(self, z: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(z))

    def reconstruct(self, x: Tensor, *, draws: int | None = None, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """Items through the posterior's mean and back, or through `draws` samples of the posterior.

        Args:
            x: (N, *shape).
            draws: how many, for a result of shape (N, draws, *shape).
            noise: {"z": (N, draws, latent_dim)} standard normal; by default always the same, row by row.
        """
        code = self.encode(x)
        if draws is None:
            return self.decode(code)
        at_least(1, draws=draws)
        law = {"z": normal(draws, self.latent_dim)}
        own = noise or seeds.noises(law, 0, "reconstruct", rows=range(len(x)), device=x.device, dtype=x.dtype)
        mean, std = (each[:, None] for each in self.posterior(x))
        z = mean + std * own["z"]
        label = code[:, None, self.latent_dim :].expand(-1, draws, -1)
        return self.decode(torch.cat([z, label], 2).flatten(0, 1)).view(len(x), draws, *self.shape)

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """The mean of p(x|z) for z, and the label if there are any, from the prior."""
        return self.decode(self.code(noise["z"], noise.get("label")))
