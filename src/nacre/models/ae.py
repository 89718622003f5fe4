"""The autoencoder: an encoder to a small code and a decoder back, trained to reproduce its input."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import at_least
from nacre.networks import Kind, Shape
from nacre.protocols import Batch, Logs, Objective, Step


class AE(nn.Module):
    """Autoencoder: compress to a code and reproduce (Rumelhart et al. 1986; Hinton & Salakhutdinov 2006).

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the code.
        loss: what reconstruction is judged by: "bce", binary cross-entropy on grey values (images only; a
            reconstruction loss, no likelihood), or "mse", squared error; "auto" takes bce for images, mse for vectors.
        network: "mlp", "conv", "resnet" (residual blocks), or by the shape: conv for images of 32 pixels and more.
        hidden: sizes of the MLP's hidden layers, from the data to the code; the decoder mirrors them.
        width: channels of the first convolution; of a resnet, at all sizes up to 32 pixels.
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
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, width=width)
        self.shape, self.latent_dim = shape, latent_dim
        self.loss = ("bce" if networks.is_image(shape) else "mse") if loss == "auto" else loss
        kind = networks.kind_for(shape, network, smallest=32)
        self.encoder = networks.encoder(shape, latent_dim, kind=kind, hidden=hidden, width=width)
        self.decoder = networks.decoder(latent_dim, shape, kind=kind, hidden=hidden[::-1], width=width)

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 10_000 if networks.kind_for(shape, smallest=32) == "mlp" else 4_000, "batch_size": 128}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=1e-3)
        over = ("encoder", "decoder")
        return [Objective(name="reconstruction", loss=self.reconstruction_loss, over=over, optimizer=adam)]

    def reconstruction_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Mean over the batch of the loss summed over an item's numbers."""
        output = self.decoder(self.encoder(x))
        error = losses.squared_error(self.activate(output), x)
        loss = losses.binary_cross_entropy(output, x).mean() if self.loss == "bce" else error.mean()
        return loss, {"mse": error.mean() / x[0].numel()}

    def activate(self, output: Tensor) -> Tensor:
        """Images lie in [0, 1]; vectors are any reals."""
        return torch.sigmoid(output) if networks.is_image(self.shape) else output

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.activate(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
