"""The autoencoder: an encoder to a small code and a decoder back, trained to reproduce its input.

Its variants are flags that go together: tied weights, denoising (Vincent et al. 2010), sparse (Ng 2011) and contractive
(Rifai et al. 2011) codes. With linear layers and the squared error it is PCA (Baldi & Hornik 1989).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Activation, Kind, Shape
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import Draw, coarse, normal

SLOPES: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: (h > 0).to(h.dtype),
    "tanh": lambda h: 1 - h.square(),
    "sigmoid": lambda h: h * (1 - h),
    "elu": lambda h: torch.where(h > 0, 1.0, h + 1),
    "linear": torch.ones_like,
}
"""s'(u) as a function of h = s(u)."""


class AE(nn.Module):
    """Autoencoder: compress to a code and reproduce (Rumelhart et al. 1986; Hinton & Salakhutdinov 2006).

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the code.
        loss: what reconstruction is judged by: "bce", binary cross-entropy on grey values (images only; a
            reconstruction loss, no likelihood), or "mse", squared error; "auto" takes bce for images, mse for vectors.
        network: "mlp", "conv", "resnet" (residual blocks), or by the shape: conv for images of 32 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the data to the code; the decoder mirrors them. With none, [],
            one layer leads to the code and one back.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.
        activation: between the MLP's layers. "linear" with the loss mse is PCA, and learns at 1e-2 instead of 1e-3.
        code_activation: of the code.
        output: what makes items of the decoder's numbers: "sigmoid", "linear" (images are then clamped to [0, 1]
            outside the loss), or "auto": sigmoid for images, linear for vectors and where all layers are linear and
            the loss is mse.
        tied: decode with the MLP encoder's weights, transposed, and biases of its own.
        noise: what is done to items before they are encoded; they are to be reproduced without it: "masking" sets a
            share of their numbers to 0, "gaussian" adds noise.
        noise_level: the share that masking destroys, in [0, 1], or the standard deviation of the Gaussian noise.
        sparsity: weight of the penalty on codes that are not sparse; 0 for none.
        sparsity_kind: "l1", Σ|code|, or "kl", which pulls each unit's mean over the batch to `sparsity_target`; it needs
            --code-activation sigmoid.
        sparsity_target: ρ, the mean activation that "kl" asks of a unit, in (0, 1).
        contractive: weight of the squared norm of the code's Jacobian ∂code/∂x; 0 for none. Exact where one layer leads
            to the code, otherwise estimated with one random projection an item.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 32,
        loss: Literal["auto", "bce", "mse"] = "auto",
        network: Kind = "auto",
        hidden: tuple[int, ...] = (512, 256),
        width: int = 32,
        activation: Activation = "relu",
        code_activation: Activation = "linear",
        output: Literal["auto", "sigmoid", "linear"] = "auto",
        tied: bool = False,
        noise: Literal["none", "masking", "gaussian"] = "none",
        noise_level: float = 0.25,
        sparsity: float = 0.0,
        sparsity_kind: Literal["l1", "kl"] = "l1",
        sparsity_target: float = 0.05,
        contractive: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        at_least(0, noise_level=noise_level, sparsity=sparsity, contractive=contractive)
        kind = networks.kind_for(shape, network, smallest=32)
        if kind != "mlp" and (tied or activation != "relu"):
            raise ConfigError(f"tied and activation are of the MLP, and this network is '{kind}'; add --network mlp.")
        if noise == "none" and noise_level != 0.25:
            raise ConfigError(
                f"noise_level is how much of a noise there is, and there is none; add --noise masking or --noise gaussian; got "
                f"{noise_level}."
            )
        if noise == "masking" and noise_level > 1:
            raise ConfigError(f"noise_level is the share that masking destroys, from 0 to 1; got {noise_level}.")
        if not 0 < sparsity_target < 1:
            raise ConfigError(f"sparsity_target must be between 0 and 1, got {sparsity_target}.")
        if sparsity and sparsity_kind == "kl" and code_activation != "sigmoid":
            raise ConfigError(
                f"sparsity_kind 'kl' needs codes from 0 to 1, got code_activation '{code_activation}'; "
                "add --code-activation sigmoid."
            )
        self.shape, self.latent_dim = shape, latent_dim
        usual = "bce" if networks.is_image(shape) and output != "linear" else "mse"
        self.loss = usual if loss == "auto" else loss
        self.linear = activation == code_activation == "linear" and self.loss == "mse"
        self.output = _output(shape, output, self.linear)
        if self.loss == "bce" and not (networks.is_image(shape) and self.output == "sigmoid"):
            raise ConfigError("loss 'bce' is for images out of a sigmoid; take --loss mse, or --output sigmoid.")
        self.noise, self.noise_level = noise, noise_level
        self.sparsity, self.sparsity_kind, self.sparsity_target = sparsity, sparsity_kind, sparsity_target
        self.contractive, self.code_activation = contractive, code_activation
        between = networks.ACTIVATIONS[activation]
        self.encoder = networks.encoder(shape, latent_dim, kind=kind, hidden=hidden, width=width, activation=between)
        self.decoder = (
            networks.TiedDecoder([m for m in self.encoder.modules() if isinstance(m, nn.Linear)], shape, between)
            if tied
            else networks.decoder(latent_dim, shape, kind=kind, hidden=hidden[::-1], width=width, activation=between)
        )
        self.squash = networks.ACTIVATIONS[code_activation]()
        self.shallow = kind == "mlp" and not hidden
        self.draws = self._draws()

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 10_000 if networks.kind_for(shape, smallest=32) == "mlp" else 4_000, "batch_size": 128}

    def objectives(self) -> list[Objective]:
        # Where all is linear, directions part at the pace of the gaps between eigenvalues, and larger steps do no harm.
        adam = partial(Adam, lr=1e-2 if self.linear else 1e-3)
        over, loss = ("encoder", "decoder"), self.reconstruction_loss
        return [Objective(name="reconstruction", loss=loss, over=over, optimizer=adam, draws=self.draws)]

    def reconstruction_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Mean over the batch of the loss summed over an item's numbers, and the penalties that were asked for."""
        code = self.encode(self.corrupt(x, step.noise))
        output = self.decoder(code)
        error = losses.squared_error(self.activate(output), x)
        loss = losses.binary_cross_entropy(output, x).mean() if self.loss == "bce" else error.mean()
        parts: Logs = {}
        if self.sparsity:
            parts["sparsity"] = self.sparsity_penalty(code)
            loss = loss + self.sparsity * parts["sparsity"]
        if self.contractive:
            parts["contractive"] = self.contractive_penalty(x, step.noise)
            loss = loss + self.contractive * parts["contractive"]
        return loss, {"mse": error.mean() / x[0].numel(), **parts}

    def corrupt(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """What the encoder is shown in training; Vincent et al. 2010, section 3.3."""
        if self.noise == "masking":
            return torch.where(noise["mask"] < self.noise_level, 0.0, x)
        return x + self.noise_level * noise["noise"] if self.noise == "gaussian" else x

    def sparsity_penalty(self, code: Tensor) -> Tensor:
        """Σ|code| of an item, or Σ KL(ρ || ρ̂) over the units."""
        if self.sparsity_kind == "kl":
            return losses.sparsity_kl(code, self.sparsity_target)
        return code.abs().sum(1).mean()

    def contractive_penalty(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """E ‖∂code/∂x‖², where one layer leads to the code in closed form: Σ_j s'(u_j)² ‖W_j‖²; Rifai et al. 2011, eq. 7."""
        if not self.shallow:
            return losses.jacobian_norm(self.encode, x, noise["probe"]).mean()
        weight = cast(nn.Linear, cast(nn.Sequential, self.encoder)[-1]).weight
        return (SLOPES[self.code_activation](self.encode(x)).square() * weight.square().sum(1)).sum(1).mean()

    def activate(self, output: Tensor) -> Tensor:
        """The decoder's numbers as the loss judges them."""
        return torch.sigmoid(output) if self.output == "sigmoid" else output

    def encode(self, x: Tensor) -> Tensor:
        return self.squash(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Images lie in [0, 1]; vectors are any reals."""
        items = self.activate(self.decoder(z))
        return items.clamp(0, 1) if networks.is_image(self.shape) and self.output == "linear" else items

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def _draws(self) -> dict[str, Draw]:
        draws = {"masking": {"mask": coarse(*self.shape)}, "gaussian": {"noise": normal(*self.shape)}}.get(
            self.noise, {}
        )
        return draws | ({"probe": normal(self.latent_dim)} if self.contractive and not self.shallow else {})


def _output(shape: Shape, asked: str, linear: bool) -> str:
    if asked != "auto":
        return asked
    return "sigmoid" if networks.is_image(shape) and not linear else "linear"
