"""The two players of every adversarial game here: a generator of items, and a judge of them.

A judge is a discriminator or a critic: which, its losses decide. Labels, packing, augmentation and spectral
normalization are the same for all games, and live here.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nacre import losses
from nacre.augment import diff_augment
from nacre.errors import ConfigError, ShapeError, at_least
from nacre.networks import Shape, is_image, slopes
from nacre.seeds import Draw, category, normal

JudgeActivation: TypeAlias = Literal["leaky-relu", "relu", "elu", "maxout"]

ACTIVATIONS: dict[JudgeActivation, Callable[[], nn.Module]] = {
    "leaky-relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "elu": nn.ELU,
}

PIECES = 5
"""Linear pieces of a maxout unit: PacGAN's and the first GAN's number."""


def prior(latent_dim: int, classes: int = 0) -> dict[str, Draw]:
    """What one sample takes: a latent, and of a conditional model a label."""
    return {"z": normal(latent_dim)} | ({"label": category(classes)} if classes else {})


def labelled(batch: Any, classes: int) -> tuple[Tensor, Tensor | None]:
    """A batch as items and, for a conditional model, their labels."""
    return batch if classes else (batch, None)


def code(z: Tensor, label: Tensor | None, classes: int) -> Tensor:
    """What a generator is given: z, beside it the one-hot label if there is one: (N, latent_dim + classes)."""
    return z if label is None or not classes else torch.cat([z, F.one_hot(label, classes).to(z.dtype)], 1)


def of_label(values: Tensor, label: Tensor | None) -> Tensor:
    """A judge's value for each item, in float32 at least: (N, outputs) ↦ (N,).

    Of one output, it; of one a class, the label's, or, where no label is given, log of the mean of exp over the classes.
    """
    values, outputs = losses.in_full(values), values.shape[1]
    if outputs == 1:
        return values.squeeze(1)
    if label is None:
        return values.logsumexp(1) - math.log(outputs)
    return values.gather(1, label.view(-1, 1)).squeeze(1)


class Generator(nn.Sequential):
    """Codes to items: (N, inputs) ↦ (N, *shape). Images reach [0, 1] through a tanh; vectors come as they are.

    Args:
        shape: shape of an item.
        inputs: size of a code.
        build: (inputs, shape) ↦ the network, without an output activation.
    """

    def __init__(self, shape: Shape, inputs: int, build: Callable[[int, Shape], nn.Module]) -> None:
        super().__init__(*build(inputs, shape).children())
        self.image = is_image(shape)

    def forward(self, code: Tensor) -> Tensor:
        output: Tensor = super().forward(code)  # type: ignore[no-untyped-call]
        return (torch.tanh(output) + 1) / 2 if self.image else output


class Judge(nn.Sequential):
    """A discriminator's logit or a critic's value of items, in two steps: `show` prepares items, the call judges them.

    With classes it has one output for each, and the label's is taken: a projection discriminator (Miyato & Koyama
    2018, eq. 3) without the part that all classes share.

    Args:
        shape: shape of an item.
        build: (shape, outputs) ↦ the network.
        classes: number of classes, 0 for a judge that knows no labels.
        pack: m, items that are judged together (PacGAN, Lin et al. 2018): neighbours in the batch, their channels
            side by side. Items that are too much alike give a generator away.
        spectral_norm: divide each layer's weights by their largest singular value (`SpectralNorm`).

    Raises:
        ConfigError: packs of items with classes of their own.
    """

    def __init__(
        self,
        shape: Shape,
        build: Callable[[Shape, int], nn.Module],
        *,
        classes: int = 0,
        pack: int = 1,
        spectral_norm: bool = False,
    ) -> None:
        at_least(1, pack=pack)
        at_least(0, classes=classes)
        if classes and pack > 1:
            raise ConfigError(
                "a pack is judged as a whole, and its items may be of different classes: packing and conditioning on "
                "labels do not go together; leave one of them out."
            )
        super().__init__(*build((pack * shape[0], *shape[1:]), max(1, classes)).children())
        self.shape, self.classes, self.pack = shape, classes, pack
        if spectral_norm:
            normalise_spectrally(self)

    def show(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Items as they are judged, a pack in the place of one item: (N, *shape) ↦ (N / m, m C, …).

        Args:
            x: images in [0, 1], which are taken to [-1, 1], or vectors, which stay.
            noise: (N, 7) uniform, of images to augment (`nacre.augment`).

        Raises:
            ShapeError: the items cannot be put into packs.
        """
        if is_image(self.shape):
            x = 2 * x - 1
        if noise is not None:
            x = diff_augment(x, noise)
        if self.pack == 1:
            return x
        if len(x) % self.pack:
            raise ShapeError(
                f"{len(x)} items cannot be judged in packs of {self.pack}; take a batch size that is a multiple of it."
            )
        return x.reshape(len(x) // self.pack, -1, *x.shape[2:])

    def forward(self, shown: Tensor, label: Tensor | None = None) -> Tensor:
        """(N / m,) values of what `show` has prepared; of an unknown class, log of the mean of exp over the classes."""
        return of_label(super().forward(shown), label)  # type: ignore[no-untyped-call]

    def given(self, label: Tensor | None) -> "Given":
        """The judge of items with these labels."""
        return Given(self, label)

    def realness(self, x: Tensor) -> Tensor:
        """(N, *shape) ↦ (N,), each item for itself; a judge of packs is shown m copies of it."""
        return self(self.show(x.repeat_interleave(self.pack, 0) if self.pack > 1 else x))


@dataclass(frozen=True)
class Given:
    """A judge and the labels of what it is shown."""

    judge: Judge
    label: Tensor | None

    def __call__(self, shown: Tensor) -> Tensor:
        """(N / m, …) ↦ (N / m,)."""
        values: Tensor = self.judge(shown, self.label)
        return values

    def value_and_slope(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Values and their slopes: (N / m, …) ↦ (N / m,), (N / m, …).

        Of MLPs of ReLUs by a chain of matrix products, in the precision that autocast says; of others by autograd, in
        float32 at least.
        """
        one = self.label is not None or self.judge.classes == 0
        if not (one and slopes.has_chain(self.judge)):
            return losses.value_and_slope(self.__call__, shown)
        values, slope = slopes.by_chain(self.judge, shown, self.label if self.judge.classes else None)
        return of_label(values, self.label), slope


class SpectralNorm(nn.Module):
    """W ↦ W / σ(W), so that a layer's slope is at most one (Miyato et al. 2018, "Spectral Normalization for GANs").

    σ = uᵀ W v, u and v the estimates of W's first singular vectors: constants of the loss, like any state that enters
    it. `advance` moves them after the layer's own step: one power iteration, as in algorithm 1.
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.register_buffer("left", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(columns), dim=0))
        for _ in range(20):
            self.iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        return weight / torch.dot(self.left, weight.flatten(1) @ self.right)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One power iteration: v ← Wᵀu / ‖Wᵀu‖, u ← Wv / ‖Wv‖."""
        matrix = weight.flatten(1)
        self.right.copy_(F.normalize(self.left @ matrix, dim=0))
        self.left.copy_(F.normalize(matrix @ self.right, dim=0))


def normalise_spectrally(network: nn.Module) -> None:
    """Give every layer with a matrix of weights a `SpectralNorm`."""
    for layer in list(network.modules()):
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim > 1:
            parametrize.register_parametrization(layer, "weight", SpectralNorm(weight))


def advance(network: nn.Module) -> None:
    """A power iteration of every `SpectralNorm` in a network: for `after`."""
    for layer, norm in spectral_norms(network):
        norm.iterate(layer.original)


def spectral_norms(network: nn.Module) -> Iterator[tuple[parametrize.ParametrizationList, SpectralNorm]]:
    """Every `SpectralNorm` in a network, after the layer that holds its weight."""
    for layer in network.modules():
        if isinstance(layer, parametrize.ParametrizationList) and isinstance(layer[0], SpectralNorm):
            yield layer, layer[0]


class Maxout(nn.Linear):
    """The largest of `PIECES` linear functions (Goodfellow et al. 2013): (N, inputs) ↦ (N, units)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, PIECES * units)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(len(x), -1, PIECES).amax(2)


class Fourier(nn.Module):
    """Random Fourier features: x beside the sines and cosines of x in random directions (Tancik et al. 2020).

    A multilayer perceptron learns slow functions first, and with inputs as they are it never learns one as fine as the modes
    of a mixture whose width is a hundredth of their distance. Frequencies are spread evenly over the orders of magnitude,
    where the paper takes one: a judge of high frequencies alone has no slope between the modes.

    Args:
        inputs: D.
        highest: standard deviation of the last direction's entries, in radians per unit; the first one's is 1.
        count: directions.
    """

    directions: Tensor

    def __init__(self, inputs: int, highest: float, count: int = 64) -> None:
        super().__init__()
        scales = torch.logspace(0, math.log10(highest), count)
        self.register_buffer("directions", scales * torch.randn(inputs, count))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) ↦ (N, D + 2 count)."""
        angles = x @ self.directions
        return torch.cat([x, angles.sin(), angles.cos()], 1)


def check_fourier(shape: Shape, fourier: float) -> None:
    """Raise ConfigError for Fourier features of images, or of a frequency that is none."""
    if fourier and (is_image(shape) or fourier < 1):
        raise ConfigError(
            f"fourier is a frequency of 1 and more, for vectors; got {fourier} for items of shape {shape}."
        )


def judge_mlp(
    shape: Shape,
    outputs: int,
    *,
    hidden: tuple[int, ...],
    activation: JudgeActivation,
    bias: bool = True,
    fourier: float = 0.0,
) -> nn.Sequential:
    """Items of any shape, flattened, through layers of the sizes `hidden`: (N, *shape) ↦ (N, outputs).

    With `fourier` the first layer reads them through `Fourier` features up to that frequency.
    """
    inputs = math.prod(shape)
    layers: list[nn.Module] = [nn.Flatten()]
    if fourier:
        layers.append(features := Fourier(inputs, fourier))
        inputs += 2 * features.directions.shape[1]
    sizes = (inputs, *hidden)
    for inputs, units in pairwise(sizes):
        layers += (
            [Maxout(inputs, units)] if activation == "maxout" else [nn.Linear(inputs, units), ACTIVATIONS[activation]()]
        )
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs, bias=bias))


def batch_normed_mlp(inputs: int, shape: Shape, *, hidden: tuple[int, ...]) -> nn.Sequential:
    """Linear layers, each but the last with batch norm and ReLU, as PacGAN's generator: (N, inputs) ↦ (N, *shape)."""
    layers: list[nn.Module] = []
    for before, units in pairwise((inputs, *hidden)):
        layers += [nn.Linear(before, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], math.prod(shape)), nn.Unflatten(1, shape))
