"""The stacked autoencoder (Hinton & Salakhutdinov 2006): deep, symmetric about its coding layer.

It is trained at once, or one pair of layers after the other and then as a whole (Bengio et al. 2007). Hinton and
Salakhutdinov's layers were restricted Boltzmann machines in the first phase; here, as in Bengio et al., each is an
autoencoder of the layer below it, and with `masking` a denoising one (Vincent et al. 2010).
"""

import math
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses, networks
from nacre.errors import ConfigError, at_least
from nacre.networks import Activation, Shape
from nacre.protocols import ALWAYS, Batch, Logs, Objective, Step
from nacre.seeds import Draw, coarse


class StackedAE(nn.Module):
    """Stacked autoencoder, symmetric about its code, trained at once or greedily (Hinton & Salakhutdinov 2006).

    Args:
        shape: shape of an item: (channels, height, width) in [0, 1], or (dimensions,) of any reals.
        latent_dim: size of the code.
        hidden: sizes of the layers between the data and the code; those back to the data mirror them.
        activation: of all layers but the code and the output. Of bounded ones ("tanh", "sigmoid") greedy training makes the
            most: what a layer has to reproduce is bounded as well, and none of its units dies.
        loss: what reconstruction is judged by: "bce", binary cross-entropy on grey values (images only), or "mse",
            squared error; "auto" takes bce for images, mse for vectors.
        greedy: train one pair of layers after the other, each to reproduce what the pair below gives, and then all.
        layer_steps: steps that each pair is trained for; what is left of the run's goes to all of them.
        masking: share of the numbers set to 0 in what is encoded while it is learned: in what each pair is given, or
            in the data where all are trained.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        latent_dim: int = 32,
        hidden: tuple[int, ...] = (512, 256),
        activation: Activation = "tanh",
        loss: Literal["auto", "bce", "mse"] = "auto",
        greedy: bool = False,
        layer_steps: int = 2000,
        masking: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, hidden=hidden, layer_steps=layer_steps)
        if not 0 <= masking < 1:
            raise ConfigError(f"masking is a share of the numbers, from 0 to less than 1; got {masking}.")
        if loss == "bce" and not networks.is_image(shape):
            raise ConfigError(f"loss 'bce' is for images, got vectors of shape {shape}; use 'mse'.")
        self.shape, self.latent_dim, self.greedy, self.layer_steps = shape, latent_dim, greedy, layer_steps
        self.loss = ("bce" if networks.is_image(shape) else "mse") if loss == "auto" else loss
        self.masking = masking
        self.sizes = (math.prod(shape), *hidden, latent_dim)
        between = networks.ACTIVATIONS[activation]
        last = len(self.sizes) - 2
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for index, (below, above) in enumerate(pairwise(self.sizes)):
            self.encoders.append(nn.Sequential(nn.Linear(below, above), *([between()] if index < last else [])))
            self.decoders.append(nn.Sequential(nn.Linear(above, below), *([between()] if index > 0 else [])))

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps and batch size that give good pictures at this shape."""
        return {"steps": 10_000, "batch_size": 128}

    @property
    def encoder(self) -> nn.Sequential:
        """All layers from the data to the code: (N, *shape) ↦ (N, latent_dim)."""
        return nn.Sequential(nn.Flatten(), *(layer for pair in self.encoders for layer in pair.children()))

    def objectives(self) -> list[Objective]:
        """A row a pair of layers, each on its own steps, if they are trained greedily; and one for all of them."""
        pairs = [self.layer_objective(index) for index in range(len(self.encoders))] if self.greedy else []
        when, draws = ALWAYS[len(pairs) * self.layer_steps :], self.draws(0)
        over, adam = ("encoders", "decoders"), partial(Adam, lr=1e-3)
        everything = Objective(
            name="all", loss=self.reconstruction_loss, over=over, optimizer=adam, draws=draws, when=when
        )
        return [*pairs, everything]

    def layer_objective(self, index: int) -> Objective:
        """The row of the pair of layers `index`, counted from the data."""
        return Objective(
            name=f"layer{index}",
            loss=partial(self.layer_loss, index),
            over=(f"encoders.{index}", f"decoders.{index}"),
            optimizer=partial(Adam, lr=1e-3),
            draws=self.draws(index),
            when=ALWAYS[index * self.layer_steps : (index + 1) * self.layer_steps],
        )

    def reconstruction_loss(self, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Mean over the batch of the loss summed over an item's numbers."""
        return self.judged(self.decoded(self.encode(self.corrupt(x, step))), x.flatten(1))

    def layer_loss(self, index: int, x: Batch, step: Step) -> tuple[Tensor, Logs]:
        """The reconstruction, by one pair of layers, of what the pairs below it give; Bengio et al. 2007, section 2.3."""
        with torch.no_grad():
            below = x.flatten(1)
            for encoder in self.encoders[:index]:
                below = encoder(below)
        output = self.decoders[index](self.encoders[index](self.corrupt(below, step)))
        if index == 0:
            return self.judged(output, below)
        error = losses.squared_error(output, below).mean()
        return error, {"mse": error / below.shape[1]}

    def judged(self, output: Tensor, x: Tensor) -> tuple[Tensor, Logs]:
        """The loss of the outermost layer's output against the data."""
        error = losses.squared_error(self.activate(output), x).mean()
        loss = losses.binary_cross_entropy(output, x).mean() if self.loss == "bce" else error
        return loss, {"mse": error / x.shape[1]}

    def draws(self, index: int) -> dict[str, Draw]:
        """The noise that hides some of what the pair `index` is given."""
        return {"mask": coarse(self.sizes[index])} if self.masking else {}

    def corrupt(self, x: Tensor, step: Step) -> Tensor:
        """Masking noise, Vincent et al. 2010, section 3.3."""
        return torch.where(step.noise["mask"].view(x.shape) < self.masking, 0.0, x) if self.masking else x

    def decoded(self, z: Tensor) -> Tensor:
        """The outermost layer's output, before the sigmoid: (N, latent_dim) ↦ (N, numbers of an item)."""
        for decoder in reversed(self.decoders):
            z = decoder(z)
        return z

    def activate(self, output: Tensor) -> Tensor:
        """Images lie in [0, 1]; vectors are any reals."""
        return torch.sigmoid(output) if networks.is_image(self.shape) else output

    def encode(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for encoder in self.encoders:
            x = encoder(x)
        return x

    def decode(self, z: Tensor) -> Tensor:
        return self.activate(self.decoded(z)).reshape(-1, *self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
