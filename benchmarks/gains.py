"""What each gain of the engine is worth: the same training with it and without, in one process and in turn.

    python benchmarks/gains.py [--data DIR] [--only matmul …] [--rounds 5] [--seconds 2]

One row, with the ratio of speeds (with over without) of each gain. What folding is worth has a benchmark of its own, as
have decoding (data.py) and starts (scale.py).
"""

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import rows
from nacre import images as pictures
from nacre import losses, seeds
from nacre.data.stream import Stream
from nacre.engine import adam, numerics, update
from nacre.engine.update import Update
from nacre.models.wgan_gp import WGANGP
from nacre.networks import slopes
from nacre.protocols import Batch, Logs, Step
from nacre.run import session
from nacre.run.session import build
from nacre.spec import Spec, spec
from peer_works import Contestant, Work, images, nacre_run
from peers import arguments, raced, spread

PROTOCOL = (
    "With over without, samples/s, within a round; the median of the rounds. vae: MLP 784-400-20, MNIST, batch 128. dcgan: 32 "
    "pixels, width 64, batch 64, random pixels, r1 0. cyclegan: 64 pixels, default flags, batch 1, random pixels. wgan-gp: "
    "MLP 2-512-512-512, ring of 8, batch 256. All in float32, eager and without an average of the weights unless the gain is "
    "about that. "
)

MALLOC_AS_IT_IS = (128 << 10, 128 << 10)
"""glibc's initial thresholds for mmap and trimming. They are held there, while malloc by itself would raise them to what
was freed last; so this is what a new process does at first, and later no more than a bound."""


def vae(data: str | None, **settings: Any) -> Contestant:
    """A small VAE of fully connected layers."""
    chosen = spec("vae", {"latent_dim": 20, "hidden": (400,), "network": "mlp", "likelihood": "bernoulli"})
    return contestant(chosen, images(1, 28, data), 128, **settings)


def dcgan(data: str | None, reuse: bool = False, **settings: Any) -> Contestant:
    """DCGAN at 32 pixels."""
    chosen = spec("gan", {"latent_dim": 100, "width": 64, "r1": 0.0, "network": "conv", "reuse_fakes": reuse})
    return contestant(chosen, images(3, 32, None, 20_000), 64, lr=2e-4, **settings)


def wgan_gp(data: str | None, **settings: Any) -> Contestant:
    """WGAN-GP on points."""
    from nacre.data import DataSettings, load

    chosen = spec("wgan_gp", {"latent_dim": 2, "hidden": (512, 512, 512)})
    return contestant(chosen, load(DataSettings(data="toy:ring8")), 256, **settings)


def cyclegan(data: str | None, **settings: Any) -> Contestant:
    """CycleGAN at 64 pixels, as its flags are by default."""
    dataset = images(3, 64, None, 1_000)
    return contestant(spec("cyclegan"), replace(dataset, other=dataset), 1, **settings)


def contestant(
    chosen: Spec,
    dataset: Any,
    batch: int,
    alter: Callable[[nn.Module], nn.Module] = lambda model: model,
    **settings: Any,
) -> Contestant:
    """nacre's loop on a model."""
    model = alter(build(chosen, dataset.shape, 0))
    run = nacre_run(model, dataset, batch, chosen=chosen, **{"ema": 0.0, **settings})
    return Contestant("nacre", run, batch)


def under(made: Contestant, *settings: Any) -> Contestant:
    """The same with something replaced whenever it runs."""

    def run(steps: int) -> None:
        with mock.patch.object(*settings):
            made.run(steps)

    return Contestant("without", run, made.items)


@contextmanager
def malloc_as_it_is() -> Iterator[None]:
    """glibc's thresholds as a new process has them."""
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in zip((numerics._MMAP_THRESHOLD, numerics._TRIM_THRESHOLD), MALLOC_AS_IT_IS, strict=True):
        mallopt(parameter, value)
    yield


def torchs_own(optimizer: Optimizer) -> Callable[[], object]:
    """Adam as torch makes it by default."""
    return optimizer.step


def loaded(self: Stream, step: int) -> Tensor:
    """A batch of floats by torch's DataLoader, without workers."""
    if not hasattr(self, "loader"):
        items = torch.from_numpy(self.items[self.rows]).float() / 255
        loader = DataLoader(TensorDataset(items), self.batch_size, shuffle=True, drop_last=True)
        self.loader = (batch for _ in iter(int, 1) for (batch,) in loader)
    return next(self.loader)


def bernoulli(x: Tensor, chance: Tensor) -> Tensor:
    """Binarization that draws its own noise."""
    return torch.bernoulli(x)


def all_gradients(self: Update, batch: Batch, step: Step) -> tuple[tuple[Tensor, ...], Logs]:
    """backward() through everything, as with one loss a player and no freezing."""
    loss, parts = self.objective.loss(update._each(self.prepared, batch), step)
    loss.backward()
    gradients = tuple(parameter.grad for parameter in self.parameters)
    for parameter in self.everything:  # type: ignore[attr-defined]
        parameter.grad = None
    return gradients, {name: part.detach() for name, part in {"loss": loss, **parts}.items()}  # type: ignore[return-value]


class TwoPasses(WGANGP):
    """Real and fake through the critic one after the other."""

    def critic_loss(self, real: Batch, step: Step) -> tuple[Tensor, Logs]:
        with torch.no_grad():
            fake = self.sample(step.noise)
        gap = self.realness(real).mean() - self.realness(fake).mean()
        penalty = losses.gradient_penalty(
            self.critic.given(None), self.critic.show(real), self.critic.show(fake), step.noise["mix"]
        )
        return self.gp_weight * penalty - gap, {"gap": gap, "penalty": penalty}


def in_two_passes(model: nn.Module) -> nn.Module:
    """The same model with another loss."""
    model.__class__ = TwoPasses
    return model


def not_frozen(data: str | None) -> Contestant:
    """DCGAN whose losses are differentiated by everything."""
    everything: list[nn.Parameter] = []

    def alter(model: nn.Module) -> nn.Module:
        everything.extend(model.parameters())
        return model

    Update.everything = everything  # type: ignore[attr-defined]
    with mock.patch.object(Update, "gradients", all_gradients):
        return dcgan(data, alter=alter)


def in_order(model: nn.Module) -> nn.Module:
    """Weights with the channels first."""
    return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def channels_first(self: Update, items: Tensor) -> Tensor:
    """Items as float, in the order in which they came."""
    return pictures.to_float(items)


def full(draws: dict[str, seeds.Draw]) -> dict[str, seeds.Draw]:
    """Pixel noise at 23 bits."""
    return {name: seeds.uniform(*d.shape) if d.law == "coarse" else d for name, d in draws.items()}


def at_full_precision(model: nn.Module) -> nn.Module:
    """A VAE whose pixels are binarized by 23 bits of noise."""
    model.likelihood.draws = full(model.likelihood.draws)  # type: ignore[union-attr, arg-type, assignment]
    return model


def with_channels_last(data: str | None, **settings: Any) -> Contestant:
    """CycleGAN laid out as networks without instance norms are."""
    with mock.patch.object(session, "memory_format", last), mock.patch.object(update, "memory_format", last):
        return cyclegan(data, **settings)


def last(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last, whatever the model."""
    return torch.channels_last


def with_torchs_adam(data: str | None) -> Contestant:
    """The optimizer's default step."""
    with mock.patch.object(update, "fast", torchs_own):
        return vae(data)


def grown(made: Contestant, steps: int = 1_500) -> Contestant:
    """A training that has gone on for long enough that moments which get nothing more have shrunk to subnormal numbers."""
    made.run(steps)
    return made


def without_thresholds(data: str | None) -> Contestant:
    """malloc left alone."""
    return under(vae(data), numerics, "_memory_kept", malloc_as_it_is)


GAINS: dict[str, tuple[Callable[[str | None], Contestant], Callable[[str | None], Contestant], str]] = {
    "matmul": (
        vae,
        lambda data: under(vae(data), numerics, "matmul_path", lambda kind: "default"),
        "vae: float32 matrix products by oneDNN where the table says so; without: torch's default",
    ),
    "malloc": (vae, without_thresholds, "vae: freed memory kept; without: glibc's initial thresholds"),
    "adam": (vae, with_torchs_adam, "vae: one direct fused kernel; without: torch.optim.Adam as it is by default"),
    "sweep": (
        lambda data: grown(vae(data)),
        lambda data: grown(under(vae(data), adam, "SWEEP", 10**9)),
        "vae after 1,500 steps: Adam's moments that no longer count made zero; without: left to become subnormal",
    ),
    "loading": (
        vae,
        lambda data: under(vae(data), Stream, "batch", loaded),
        "vae: uint8 rows taken and converted in the step; without: DataLoader over floats in memory, no workers",
    ),
    "noise": (
        vae,
        lambda data: vae(data, alter=at_full_precision),
        "vae: 16 bits a pixel; without: 23 bits",
    ),
    "binarize": (
        vae,
        lambda data: under(vae(data), pictures, "binarize", bernoulli),
        "vae: by noise drawn outside (its price is paid in both); without: torch.bernoulli on top",
    ),
    "compile": (partial(vae, compiled=True), vae, "vae: gradients compiled; without: eager"),
    "bf16-vae": (
        partial(vae, compiled=True, precision="bf16"),
        partial(vae, compiled=True),
        "vae: compiled in bf16; without: compiled in float32",
    ),
    "bf16-dcgan": (partial(dcgan, precision="bf16"), dcgan, "dcgan: bf16; without: float32"),
    "channels-last": (
        dcgan,
        lambda data: under(dcgan(data, alter=in_order), Update, "prepared", channels_first),
        "dcgan: channels last in memory; without: first",
    ),
    "instance-norm": (cyclegan, with_channels_last, "cyclegan: channels first in memory; without: last"),
    "bf16-instance-norm": (
        partial(cyclegan, precision="bf16"),
        partial(with_channels_last, precision="bf16"),
        "cyclegan, bf16: channels first in memory; without: last",
    ),
    "freezing": (dcgan, not_frozen, "dcgan: gradients of the player's own parameters; without: of all"),
    "reuse": (
        partial(dcgan, reuse=True),
        dcgan,
        "dcgan: the discriminator is shown what the generator made for its own step; without: images of its own",
    ),
    "chain": (
        wgan_gp,
        lambda data: under(wgan_gp(data), slopes, "has_chain", lambda network: False),
        "wgan-gp: the penalty's slope by matrix products; without: by a second backward pass",
    ),
    "one-pass": (
        wgan_gp,
        partial(wgan_gp, alter=in_two_passes),
        "wgan-gp: real and fake in one pass of the critic; without: in two",
    ),
}


def main() -> None:
    """Race each pair, print the ratios, and write the row."""
    asked = arguments(__doc__ or "", list(GAINS))
    begun, found = time.perf_counter(), {}
    for name in asked.only:
        with_it, without, what = GAINS[name]
        pair = [with_it(asked.data), without(asked.data)]
        pair = [Contestant(who, each.run, each.items) for who, each in zip(("with", "without"), pair, strict=True)]
        rates, taken = raced(Work(name, pair, {}, ""), asked.rounds, asked.seconds)
        ratio = spread([a / b for a, b in zip(rates["with"], rates["without"], strict=True)])
        found[name] = {**ratio, "what": what, "samples_per_s": rates, "cores_taken": taken}
        print(f"{name:14} {ratio['median']:6.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]  {what}", flush=True)
    values = {name: statistics.median(each["each"]) for name, each in found.items()}
    took = time.perf_counter() - begun
    place = rows.write_row(
        "gains", PROTOCOL, values, [0], asked.rounds, results=asked.results, wall_seconds=took, gains=found
    )
    print(place)


if __name__ == "__main__":
    main()
