"""The diagnosis as a classifier: runs of every disease and healthy ones, and what an oracle says of each.

    python benchmarks/diagnosis.py run --split set --limit-minutes 30
    python benchmarks/diagnosis.py run --split test --limit-minutes 240
    python benchmarks/diagnosis.py report --split test

A run is trained, diagnosed from its log alone, and then looked at by the oracle, which has what a diagnosis has not: the known
modes of a mixture and labelled images by the thousand, thousands of samples, all training and held-out items, the weights
at many steps, and exact gradients. A recipe is only meant to make a run sick; what it is, the oracle says. Thresholds of the
verdicts were set on the split "set" (toy densities and digits) and are tested on "test" (MNIST and Fashion-MNIST).

One JSON line a run goes to the file of --out, so that a benchmark that is stopped goes on where it was.
"""

import argparse
import json
import logging
import math
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

import nacre
from nacre import data, images
from nacre.data import DataSettings
from nacre.data.toys import MIXTURES
from nacre.engine import checkpoint, sampling, signals
from nacre.engine.log import read
from nacre.metrics import glance, points
from nacre.metrics.sliced import sliced_wasserstein
from nacre.metrics.verdicts import NAMES, Facts, verdicts
from nacre.models.gan import GAN
from nacre.models.vae import VAE
from nacre.networks import is_image
from nacre.protocols import Discriminates, Infers, Objective, Reconstructs, Samples
from nacre.run.config import recorded
from nacre.spec import spec
from rows import write_row

HERE = Path(__file__).resolve()
OUT = Path("runs/diagnosis")
DISEASES = [name for name in NAMES if name not in ("healthy", "partial-collapse")]
"""Full and partial collapse are one disease of two degrees."""


# Models with mistakes that people make.


class Uneven(GAN):
    """A GAN whose players learn at different paces.

    Args:
        shape: of an item.
        latent_dim: of the latent.
        loss: the game.
        r1: weight of the penalty.
        network: of both players.
        hidden: of the MLPs.
        norm: of convolutions.
        beta1: Adam's.
        width: of convolutions.
        judge_times: the discriminator's learning rate, times the ordinary one.
        maker_times: the generator's.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int = 64,
        loss: str = "non-saturating",
        r1: float = 0.0,
        network: str = "auto",
        hidden: tuple[int, ...] = (128, 128),
        norm: str = "auto",
        beta1: float = 0.5,
        width: int = 16,
        judge_times: float = 1.0,
        maker_times: float = 1.0,
    ) -> None:
        super().__init__(
            shape,
            latent_dim=latent_dim,
            loss=loss,  # type: ignore[arg-type]
            r1=r1,
            network=network,  # type: ignore[arg-type]
            hidden=hidden,
            norm=norm,  # type: ignore[arg-type]
            beta1=beta1,
            width=width,
        )
        self.judge_times, self.maker_times = judge_times, maker_times

    def objectives(self) -> list[Objective]:
        table = super().objectives()
        times = {"discriminator": self.judge_times, "generator": self.maker_times}
        return [
            Objective(**{**vars(row), "optimizer": partial(Adam, lr=5e-4 * times[row.name], betas=(self.beta1, 0.999))})
            for row in table
        ]


class Unscaled(GAN):
    """A GAN whose samples are left as the tanh made them, in [-1, 1].

    Args:
        shape: of an item.
        latent_dim: of the latent.
        network: of both players.
        hidden: of the MLPs.
        width: of convolutions.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int = 64,
        network: str = "auto",
        hidden: tuple[int, ...] = (128, 128),
        width: int = 16,
    ) -> None:
        super().__init__(shape, latent_dim=latent_dim, network=network, hidden=hidden, width=width)  # type: ignore[arg-type]

    def decode(self, z: Tensor) -> Tensor:
        return 2 * self.generator(z) - 1


class UnscaledVAE(VAE):
    """A VAE whose means are shown as if they were in [-1, 1].

    Args:
        shape: of an item.
        latent_dim: of the latent.
        hidden: of the MLP.
    """

    def __init__(self, shape: tuple[int, ...], *, latent_dim: int = 16, hidden: tuple[int, ...] = (128, 128)) -> None:
        super().__init__(shape, latent_dim=latent_dim, hidden=hidden)

    def decode(self, z: Tensor) -> Tensor:
        return 2 * super().decode(z) - 1


class Bounded(GAN):
    """A GAN of vectors whose outputs a sigmoid keeps in [0, 1], whatever the data.

    Args:
        shape: of an item.
        latent_dim: of the latent.
        hidden: of the MLPs.
        r1: weight of the penalty.
    """

    def __init__(
        self, shape: tuple[int, ...], *, latent_dim: int = 16, hidden: tuple[int, ...] = (128, 128), r1: float = 0.1
    ) -> None:
        super().__init__(shape, latent_dim=latent_dim, hidden=hidden, r1=r1)
        self.generator.append(nn.Sigmoid())


class SlowNorm(GAN):
    """A GAN whose generator's batch norms hardly follow.

    Args:
        shape: of an item.
        latent_dim: of the latent.
        network: of both players.
        hidden: of the MLPs.
        width: of convolutions.
        momentum: of the norms.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int = 64,
        network: str = "auto",
        hidden: tuple[int, ...] = (128, 128),
        width: int = 16,
        momentum: float = 1e-4,
    ) -> None:
        super().__init__(shape, latent_dim=latent_dim, network=network, hidden=hidden, width=width, norm="batch")  # type: ignore[arg-type]
        self.momentum = momentum
        for module in self.generator.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum


class Stillborn(VAE):
    """A VAE whose hidden units start with a bias that keeps them shut.

    Args:
        shape: of an item.
        latent_dim: of the latent.
        hidden: of the MLP.
        bias: of every hidden unit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int = 16,
        hidden: tuple[int, ...] = (128, 128),
        bias: float = -3.0,
    ) -> None:
        super().__init__(shape, latent_dim=latent_dim, hidden=hidden)
        self.bias = bias
        for part in (self.encoder, self.decoder):
            layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
            for layer in layers[:-1]:
                nn.init.constant_(layer.bias, bias)


# Recipes.


@dataclass(frozen=True)
class Recipe:
    """A run to make.

    Attributes:
        name: unique.
        split: "set" or "test".
        meant: what it is meant to become; the oracle decides.
        model: of the catalogue, or a class of this file.
        data: the source, with settings.
        flags: of model and training.
    """

    name: str
    split: str
    meant: str
    model: str
    data: Mapping[str, Any]
    flags: Mapping[str, Any] = field(default_factory=dict)


MLP = {"hidden": (128, 128), "batch_size": 64}
SMALL = {"network": "conv", "width": 16, "batch_size": 64}
"""For images of 16 pixels."""

FEW = {"few": 30, "batch_size": 16}
"""Items that a model can learn by heart; its discriminator as well where it is shown no augmented ones."""

BARE = {**FEW, "augment": False}

HEALTHY: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {**MLP, "network": "mlp", "latent_dim": 16, "steps": 2000}),
    "ae": ("ae", {**MLP, "network": "mlp", "latent_dim": 16, "steps": 1000}),
    "conv": ("gan", {**SMALL, "r1": 1.0, "steps": 1200}),
    "gan": ("gan", {**MLP, "network": "mlp", "r1": 0.3, "lr": 1e-3, "steps": 3000}),
    "vae-conv": ("vae", {**SMALL, "latent_dim": 16, "steps": 600}),
    "ae-conv": ("ae", {**SMALL, "latent_dim": 16, "steps": 400}),
    "vaegan": ("vaegan", {**MLP, "network": "mlp", "latent_dim": 16, "steps": 1500}),
    "wgan_gp": ("wgan_gp", {**MLP, "network": "mlp", "steps": 4000, "lr": 1e-3}),
    "vae-wide": ("vae", {"hidden": (256,), "batch_size": 64, "network": "mlp", "latent_dim": 32, "steps": 2000}),
    "ae-wide": ("ae", {"hidden": (256,), "batch_size": 64, "network": "mlp", "latent_dim": 32, "steps": 1000}),
    "hinge": ("gan", {**SMALL, "loss": "hinge", "r1": 0.3, "steps": 1200}),
    "r3gan": ("r3gan", {**MLP, "network": "mlp", "steps": 2500}),
    "iwae": (
        "iwae",
        {"hidden": (100, 100), "batch_size": 64, "network": "mlp", "latent_dim": 16, "k": 5, "steps": 1500},
    ),
    "ae-narrow": ("ae", {**MLP, "network": "mlp", "latent_dim": 8, "steps": 1000}),
    "light": ("gan", {**SMALL, "r1": 0.1, "steps": 1200}),
    "lsgan": ("gan", {**SMALL, "loss": "least-squares", "r1": 1.0, "steps": 1200}),
    "vae-narrow": ("vae", {**MLP, "network": "mlp", "latent_dim": 8, "steps": 2000}),
    "ae-deep": ("ae", {**MLP, "hidden": (128, 128, 128), "network": "mlp", "latent_dim": 16, "steps": 1000}),
}

SICK: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "collapse": [
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "beta1": 0.9, "lr": 2e-3, "steps": 800}),
        ("gan", {**SMALL, "r1": 0.0, "norm": "none", "lr": 2e-3, "steps": 400}),
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "loss": "minimax", "lr": 1e-3, "steps": 800}),
        ("Uneven", {**MLP, "network": "mlp", "maker_times": 10.0, "steps": 800}),
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "latent_dim": 1, "steps": 800}),
    ],
    "strong-discriminator": [
        ("Uneven", {**MLP, "network": "mlp", "loss": "minimax", "judge_times": 5.0, "maker_times": 0.02, "steps": 500}),
        ("Uneven", {**SMALL, "loss": "minimax", "judge_times": 2.0, "maker_times": 0.05, "steps": 400}),
        ("Uneven", {**MLP, "network": "mlp", "judge_times": 5.0, "maker_times": 0.01, "steps": 500}),
        ("Uneven", {**MLP, "network": "mlp", "loss": "minimax", "judge_times": 2.0, "maker_times": 0.05, "steps": 500}),
    ],
    "weak-discriminator": [
        ("Uneven", {**MLP, "network": "mlp", "judge_times": 0.01, "steps": 500}),
        ("gan", {**SMALL, "r1": 3000.0, "steps": 400}),
        ("gan", {**MLP, "network": "mlp", "r1": 3000.0, "steps": 500}),
        ("Uneven", {**SMALL, "judge_times": 0.003, "steps": 400}),
    ],
    "oscillation": [
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "beta1": 0.9, "lr": 1e-3, "steps": 800}),
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "beta1": 0.95, "lr": 2e-3, "loss": "minimax", "steps": 800}),
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "beta1": 0.9, "loss": "hinge", "lr": 2e-3, "steps": 800}),
    ],
    "divergence": [
        ("gan", {**MLP, "network": "mlp", "r1": 0.0, "lr": 0.1, "steps": 300}),
        ("vae", {**MLP, "network": "mlp", "latent_dim": 16, "lr": 1.0, "steps": 300}),
        ("wgan_gp", {**MLP, "network": "mlp", "lr": 0.3, "steps": 300}),
        ("r3gan", {**MLP, "network": "mlp", "lr": 0.1, "steps": 300}),
    ],
    "overfit-discriminator": [
        ("gan", {"hidden": (256, 256), **BARE, "network": "mlp", "r1": 0.1, "lr": 1e-3, "steps": 1200}),
        ("gan", {**SMALL, **BARE, "r1": 0.01, "steps": 400}),
        ("gan", {**SMALL, **BARE, "few": 200, "r1": 0.1, "steps": 600}),
    ],
    "posterior-collapse": [
        ("vae", {**MLP, "network": "mlp", "latent_dim": 16, "beta": 50.0, "steps": 600}),
        ("vae", {**SMALL, "latent_dim": 16, "beta": 50.0, "steps": 400}),
        ("vae", {**MLP, "network": "mlp", "latent_dim": 16, "likelihood": "gaussian", "sigma": 5.0, "steps": 600}),
        ("vae", {**MLP, "network": "mlp", "latent_dim": 8, "beta": 20.0, "steps": 600}),
    ],
    "blurry-decoder": [
        ("vae", {**MLP, "network": "mlp", "latent_dim": 16, "beta": 12.0, "steps": 800}),
        ("ae", {**MLP, "network": "mlp", "latent_dim": 1, "steps": 500}),
        ("vae", {**MLP, "network": "mlp", "latent_dim": 16, "likelihood": "gaussian", "sigma": 1.5, "steps": 800}),
    ],
    "memorization": [
        (
            "gan",
            {**BARE, "hidden": (256, 256), "latent_dim": 8, "network": "mlp", "r1": 0.3, "lr": 1e-3, "steps": 2000},
        ),
        (
            "vae",
            {**MLP, **FEW, "network": "mlp", "latent_dim": 2, "likelihood": "gaussian", "sigma": 0.05, "steps": 1500},
        ),
        (
            "vae",
            {**MLP, **FEW, "network": "mlp", "latent_dim": 8, "likelihood": "gaussian", "sigma": 0.2, "steps": 1500},
        ),
    ],
    "little-data": [
        ("ae", {**MLP, **FEW, "network": "mlp", "latent_dim": 32, "steps": 800}),
        ("vae", {**MLP, **FEW, "few": 100, "network": "mlp", "latent_dim": 16, "steps": 1000}),
        ("vae", {**SMALL, **FEW, "few": 100, "latent_dim": 16, "steps": 600}),
    ],
    "dead-units": [
        ("Stillborn", {**MLP, "bias": -3.0, "steps": 400}),
        ("Stillborn", {"hidden": (256, 128), "batch_size": 64, "bias": -6.0, "steps": 400}),
        ("ae", {**MLP, "network": "mlp", "latent_dim": 16, "lr": 0.1, "steps": 400}),
    ],
    "value-range": [
        ("Unscaled", {**MLP, "network": "mlp", "steps": 400}),
        ("UnscaledVAE", {**MLP, "steps": 400}),
        ("Unscaled", {**SMALL, "steps": 300}),
    ],
    "batchnorm-drift": [
        ("SlowNorm", {**MLP, "network": "mlp", "steps": 400}),
        ("SlowNorm", {**SMALL, "steps": 300}),
        ("SlowNorm", {**SMALL, "momentum": 1e-3, "steps": 300}),
    ],
}

SOURCES = {
    "ring8": {"data": "toy:ring8"},
    "grid25": {"data": "toy:grid25"},
    "swissroll": {"data": "toy:swissroll"},
    "digits": {"data": "digits"},
    "mnist": {"data": "mnist", "image_size": 16},
    "fashion": {"data": "fashion-mnist", "image_size": 16},
    "mnist28": {"data": "mnist"},
}
TOYS = ("ring8", "grid25", "swissroll")
PLACES = {"set": ("digits", *TOYS), "test": ("mnist", "fashion")}
SEEDS = 6
EACH, WANTED = 8, {"healthy": 60}
"""Runs of each disease, and of none."""


def recipes(split: str, first_seed: int = 0) -> Iterator[Recipe]:
    """All of a split; within what a run is meant for, ways and places take turns, and seeds come last."""
    ways = {**SICK, "healthy": list(HEALTHY.values())}
    places = PLACES[split]
    for seed in range(first_seed, first_seed + SEEDS):
        for shift in range(len(places)):
            for meant, several in ways.items():
                for number, (model, flags) in enumerate(several):
                    place = places[(number + seed + shift) % len(places)]
                    name = list(HEALTHY)[number] if meant == "healthy" else f"{meant}-{number}"
                    recipe = _recipe(name, split, meant, model, place, flags, seed)
                    if recipe:
                        yield recipe


def due(left: Sequence[Recipe], rows: Sequence[Mapping[str, Any]]) -> Recipe:
    """The next of some recipes: of what is furthest from the number of runs that is wanted, by the oracle and by intent.

    What is made thus stays balanced, however often a recipe fails to do what it is meant to. What the diagnosis says is not
    looked at.
    """
    have = Counter(name for row in rows for name in labels(row["truth"]) or {"healthy"})
    made = Counter(row["meant"] for row in rows)
    return min(left, key=lambda recipe: (have[recipe.meant] + made[recipe.meant]) / WANTED.get(recipe.meant, EACH))


def _recipe(
    way: str, split: str, meant: str, model: str, place: str, flags: Mapping[str, Any], seed: int
) -> Recipe | None:
    """One run; None where the data cannot be had so."""
    toy = place in TOYS
    images_only = {"Unscaled", "UnscaledVAE"}
    if toy and (flags.get("network") == "conv" or model in images_only or flags.get("likelihood")):
        return None
    if (
        toy
        and model in ("vae", "ae", "iwae", "Stillborn", "vaegan")
        and meant in ("blurry-decoder", "healthy", "posterior-collapse")
    ):
        return None
    settings, own = dict(SOURCES[place]), dict(flags)
    if place == "digits" and flags.get("network") == "conv":
        settings["image_size"] = 16
    few = own.pop("few", None)
    if few and toy:
        return None
    if few:
        # Of digits, all splits are drawn; the others have test images of their own.
        drawn = {"validation": 0.95 - (few + 20) / 1797}
        settings |= drawn if place == "digits" else {"validation": 1 - few / 60_000, "test": 0.0}
    if toy:
        own |= {"latent_dim": min(16, own.get("latent_dim", 16))}
    return Recipe(f"{way}.{place}.{seed}", split, meant, model, settings, {**own, "seed": seed})


# The oracle.

loaded = cache(data.load)


@cache
def labelled(settings: DataSettings) -> tuple[Tensor, Tensor]:
    """Up to 5,000 training images of a data set as points, and their labels."""
    dataset = loaded(settings)
    rows = dataset.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, min(5_000, len(rows))).astype(int)]
    assert dataset.labels is not None
    items = images.to_float(torch.from_numpy(np.ascontiguousarray(dataset.items[rows])))
    return items.flatten(1), torch.from_numpy(dataset.labels[rows])


def voted(known: Tensor, labels: Tensor, x: Tensor) -> Tensor:
    """The class that most of the five nearest training images are of: (N, …) ↦ (N,).

    Not that of a classifier: one that had learned 16×16 MNIST to 99 % took blurred, plain ones for eights.
    """
    nearest = torch.cdist(x.flatten(1), known).topk(VOTERS, largest=False).indices
    return labels[nearest].mode(1).values


VOTERS = 5

SAMPLES = 2000
"""That the oracle looks at."""

REAL = 2000
"""Held-out items, at most."""


class Oracle:
    """What is true of a run.

    Args:
        run: its folder, with all of its checkpoints.
        recipe: for the data; what was meant is not looked at.
    """

    def __init__(self, run: Path, recipe: Recipe, failed: bool) -> None:
        self.run, self.failed = run, failed
        config = recorded(run)
        self.data = loaded(DataSettings(**config["data"]))
        name = config["model"] if ":" not in config["model"] else f"{HERE}:{config['model'].split(':')[1]}"
        self.spec = spec(name, config["parameters"])
        self.seen = self.items("train", 5_000)
        self.real = torch.cat([self.items("validation", REAL), self.items("test", REAL)])[:REAL]
        self.spread = math.sqrt(float(self.real.flatten(1).var(0).sum()))
        self.steps = checkpoint.steps(run / "checkpoints")
        self.kinds, self.counts = self.modes(recipe)

    def items(self, split: str, most: int) -> Tensor:
        rows = self.data.rows(split)
        rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)] if len(rows) else rows
        return images.to_float(torch.from_numpy(np.ascontiguousarray(self.data.items[rows])))

    def model(self, step: int, averaged: bool) -> nn.Module:
        state = checkpoint.load(self.run / "checkpoints", step)
        module = self.spec.build(self.data.shape)
        module.load_state_dict(state["average" if averaged and state["average"] else "model"])
        return module.eval().requires_grad_(False)

    def modes(self, recipe: Recipe) -> tuple[Any, int]:
        """Items to the numbers of their modes: the mixture's, or the classes of their neighbours; and how many there are."""
        toy = recipe.data["data"].removeprefix("toy:")
        if toy in MIXTURES:
            centers = torch.from_numpy(MIXTURES[toy].centers)
            return lambda x: points.nearest_center(x.double(), centers), len(centers)
        if is_image(self.data.shape):
            plain = {name: value for name, value in recipe.data.items() if name != "validation"}
            return partial(voted, *labelled(DataSettings(**plain))), len(self.data.classes)
        centers, _ = points.k_means(self.seen[:4000].double(), 12)
        return lambda x: points.nearest_center(x.double(), centers), len(centers)

    def shares(self, x: Tensor) -> Tensor:
        found = self.kinds(x.float())
        return found.bincount(minlength=self.counts).double() / len(found)

    def truth(self) -> dict[str, Any]:
        """Measures by name; `labels` makes diseases of them."""
        last = self.model(self.steps[-1], averaged=True)
        found: dict[str, Any] = {"train": len(self.data.rows("train"))}
        if isinstance(last, Samples):
            made = sampling.sample(last, SAMPLES).float()
            found["finite"] = float(made.isfinite().double().mean())
            if found["finite"] == 1:
                found |= self.of_samples(made) | self.of_norms(last, made)
        if isinstance(last, Reconstructs):
            found |= self.of_reconstructions(last)
        if isinstance(last, Infers):
            mean, std = last.posterior(self.real)
            kl = ((mean.square() + std.square() - 1) / 2 - std.log()).mean(0)
            if [law.shape for law in getattr(last, "prior", {}).values()] == [tuple(kl.shape)]:
                found |= {"kl": [round(float(each), 4) for each in kl], "rate": float(kl.sum())}
        if hasattr(last, "log_likelihood"):
            count = 1000
            found["elbo"] = float(sampling.log_likelihood(last, self.real[:count]).mean())
            found["elbo_train"] = float(sampling.log_likelihood(last, self.seen[:count]).mean())
        found["dead"] = self.dead(self.model(self.steps[-1], averaged=False))
        if isinstance(last, Discriminates) and isinstance(last, Samples):
            found |= self.of_game()
        return found

    def of_samples(self, made: Tensor) -> dict[str, float]:
        """Modes, neighbours in pixels, range, and how far the samples are off, now and at best."""
        real, got = self.shares(self.seen), self.shares(made)  # of few items, no class may be missed that none is of
        flat, seen, unseen = (each.flatten(1).double() for each in (made, self.seen, self.real))
        centers, _ = points.k_means(seen[:5000], min(50, len(seen) // 10))
        fine, own = (
            points.nearest_center(each, centers).bincount(minlength=len(centers)).double() / len(each)
            for each in (flat, seen)
        )
        near = points.neighbors(flat[:1000], seen)[1][:, 0].sqrt()
        new = points.neighbors(unseen[:1000], seen)[1][:, 0].sqrt()
        low, high = float(self.seen.min()), float(self.seen.max())
        slack = 0.05 * (high - low)
        count = min(len(made), len(self.real))
        fit = glance.above(
            *(points.neighbors(a, b)[1][:, 0] for a, b in ((unseen[:1000], flat), (flat[:1000], unseen)))
        )
        return {
            "lost": float(real[got < real / 5].sum()),
            "lost_fine": float(own[fine < own / 5].sum()),
            "diversity": math.sqrt(float(flat.var(0).sum())) / self.spread,
            "captured": int((got > 0).sum()),
            "nearest": float(near.median() / new.median()),
            "copies": float((near < new.quantile(0.05)).double().mean()),
            "beyond": float(((made < low - slack) | (made > high + slack)).double().mean()),
            "unreached": float(((self.real < made.min() - slack) | (self.real > made.max() + slack)).double().mean()),
            "distance": sliced_wasserstein(made[:count], self.real[:count]) / self.scale(),
            "fit": fit,
        }

    def scale(self) -> float:
        """Standard deviation of the real items along a random direction."""
        return self.spread / math.sqrt(self.real[0].numel())

    def of_norms(self, model: Any, made: Tensor) -> dict[str, float]:
        """How far samples move if batch norms go by the batch."""
        if not signals.batch_norms(model):
            return {}
        with signals.still(model), signals.by_batch(model):
            other = sampling.sample(model, SAMPLES)
        return {"drift": float((other - made).flatten(1).square().sum(1).mean().sqrt()) / self.spread}

    def of_reconstructions(self, model: Any) -> dict[str, float]:
        found = {}
        for name, items in (("explained", self.real), ("explained_train", self.seen[:REAL])):
            remade = sampling.apply(model.reconstruct, items, model)
            error = float((remade - items).flatten(1).double().square().sum(1).mean())
            found[name] = 1 - error / self.spread**2
            low, high = float(items.min()), float(items.max())
            slack = 0.05 * (high - low)
            found[f"{name}_beyond"] = float(((remade < low - slack) | (remade > high + slack)).double().mean())
        return found

    def dead(self, model: Any) -> dict[str, float]:
        """Units that no held-out item and none of 2,000 samples moves."""
        with signals.still(model), signals.units(model, most=2000) as alive, signals.by_batch(model):
            if isinstance(model, Samples):
                made = model.sample(nacre_noise(model, 2000))
            if isinstance(model, Discriminates) and isinstance(model, Samples):
                model.realness(torch.cat([self.real[:1000], made[:1000]]))
            if isinstance(model, Reconstructs):
                model.reconstruct(self.real[:2000])
        return alive()

    def of_game(self) -> dict[str, Any]:
        """Of the weights in training, at the last steps kept: exact gradients, ranks of all items, modes that come and go."""
        kept = [step for step in self.steps if step >= 0.7 * self.steps[-1]]
        rows, shares = [], []
        for step in kept:
            model: Any = self.model(step, averaged=False)
            with signals.still(model), signals.by_batch(model):
                made = sampling_in_batches(model, 2000)
                if not bool(made.isfinite().all()):
                    continue
                shares.append(self.shares(made))
                if step < kept[-4 if len(kept) > 3 else 0]:
                    continue
                on = {
                    name: in_batches(model.realness, items)
                    for name, items in (("real", self.real), ("train", self.seen[:REAL]), ("fake", made))
                }
                row = {
                    "auc": glance.above(on["real"], on["fake"]),
                    "auc_train": glance.above(on["train"], on["real"]),
                    "d_real": float(on["real"].sigmoid().mean()),
                    "d_fake": float(on["fake"].sigmoid().mean()),
                    "right": float(torch.cat([on["real"] > 0, on["fake"] < 0]).double().mean()),
                    "slope": self.slope(model, made[:1000]),
                }
                rows.append(row)
        found: dict[str, Any] = {name: statistics.median(row[name] for row in rows) for name in rows[0]} if rows else {}
        moves = [float((a - b).abs().sum()) / 2 for a, b in pairwise(shares)]
        judged = {"swing": statistics.mean(moves)} if moves else {}
        return found | judged | {"judge": self.judge(made[:1000])} if rows else judged

    def slope(self, model: Any, made: Tensor) -> float:
        """‖∂L/∂x‖ of the generator's own loss at its samples, times the data's spread: what a standard deviation would gain."""
        with torch.enable_grad():
            x = made.detach().requires_grad_()
            logit = in_batches(model.realness, x)
            kind = getattr(model, "loss", "")
            loss = -nn.functional.softplus(logit) if kind == "minimax" else nn.functional.softplus(-logit)
            loss = loss if getattr(model, "logistic", False) else -logit
            gradient = torch.autograd.grad(loss.sum(), x)[0]
        return float(gradient.flatten(1).norm(dim=1).mean()) * self.spread

    def judge(self, made: Tensor) -> float:
        """Accuracy of an independent judge: one nearest neighbour, each item left out in turn, in pixels."""
        count = min(len(made), len(self.real), 1000)
        both = torch.cat([self.real[:count], made[:count]]).flatten(1).double()
        index = points.neighbors(both)[0][:, 0]
        return float(((index < count) == (torch.arange(2 * count) < count)).double().mean())


def nacre_noise(model: Any, count: int) -> dict[str, Tensor]:
    return nacre.seeds.noises(model.prior, 0, "oracle", rows=range(count))


def sampling_in_batches(model: Any, count: int) -> Tensor:
    noise = nacre_noise(model, count)
    parts = [{name: each[at : at + 250] for name, each in noise.items()} for at in range(0, count, 250)]
    return torch.cat([model.sample(part) for part in parts])


def in_batches(function: Any, items: Tensor) -> Tensor:
    return torch.cat([function(items[at : at + 250]) for at in range(0, len(items), 250)])


def labels(truth: Mapping[str, Any]) -> set[str]:
    """The diseases that a run has by the oracle."""
    has = lambda name, test: truth.get(name) is not None and test(truth[name])  # noqa: E731
    found = set()
    if truth.get("failed") or has("finite", lambda x: x < 1):
        return {"divergence"}
    if has("distance", lambda x: x >= 1.5) or has("explained", lambda x: x <= -0.5):
        found.add("divergence")
    if has("lost", lambda x: x >= 0.08) or has("lost_fine", lambda x: x >= 0.5) or has("diversity", lambda x: x <= 0.1):
        found.add("collapse")
    if (
        has("d_fake", lambda x: x <= 0.02)
        and truth.get("logistic")
        and (truth["right"] >= 0.98 or truth["slope"] <= 0.05)
    ):
        found.add("strong-discriminator")
    gross = has("distance", lambda x: x >= 0.4) or has("lost_fine", lambda x: x >= 0.5)
    if has("auc", lambda x: x <= 0.6) and truth["judge"] >= 0.9 and gross:
        found.add("weak-discriminator")
    if has("swing", lambda x: x >= 0.4):
        found.add("oscillation")
    if has("auc_train", lambda x: x >= 0.62):
        found.add("overfit-discriminator")
    if has("rate", lambda x: x <= 0.5):
        found.add("posterior-collapse")
    if has("explained", lambda x: x <= 0.3):
        found.add("blurry-decoder")
    if has("nearest", lambda x: x <= 0.8) and truth["copies"] >= 0.2:
        found.add("memorization")
    gap = has("explained", lambda x: truth["explained_train"] - x >= 0.08)
    nats = has("elbo", lambda x: truth["elbo_train"] - x >= 0.05 * abs(truth["elbo_train"]))
    if truth["train"] < 5000 and (gap or nats or found & {"overfit-discriminator", "memorization"}):
        found.add("little-data")
    if any(share >= 0.75 for share in truth.get("dead", {}).values()):
        found.add("dead-units")
    if any(has(name, lambda x: x >= 0.1) for name in ("beyond", "explained_beyond")):
        found.add("value-range")
    if has("drift", lambda x: x >= 0.5):
        found.add("batchnorm-drift")
    return found


# Runs, and what comes of them.


def play(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train a recipe, diagnose it from its log, and ask the oracle."""
    run = folder / recipe.name
    shutil.rmtree(run, ignore_errors=True)
    model = recipe.model if recipe.model[0].islower() else f"{HERE}:{recipe.model}"
    steps = recipe.flags["steps"]
    cadence = {"signal_every": max(1, steps // 30), "checkpoint_every": max(1, steps // 12), "keep": 20}
    quiet = {"sample_every": 0, "log_every": max(100, steps // 10), "device": "cpu", "compile": "off"}
    begun, failure = time.perf_counter(), ""
    try:
        nacre.train(model, out=run, **recipe.data, **quiet, **cadence, **recipe.flags)
    except nacre.NacreError as error:
        failure = str(error)
        if not (run / "log.jsonl").exists():
            raise
    trained = time.perf_counter() - begun
    lines = [line for line in read(run) if "signals" in line]
    config = recorded(run)
    row: dict[str, Any] = {**asdict(recipe), "seconds": round(trained, 1), "failure": failure, "history": lines}
    row["settings"] = {**config["parameters"], **config["training"]}
    row["finite_weights"] = bool(checkpoint.steps(run / "checkpoints"))
    truth: dict[str, Any] = {"failed": bool(failure), "train": 0, "held_out": 0}
    if row["finite_weights"]:
        oracle = Oracle(run, recipe, bool(failure))
        truth |= oracle.truth()
        truth["held_out"] = len(oracle.data.rows("validation"))
        truth["logistic"] = bool(getattr(oracle.model(oracle.steps[-1], averaged=True), "logistic", False))
    row["truth"], row["oracle_seconds"] = truth, round(time.perf_counter() - begun - trained, 1)
    shutil.rmtree(run, ignore_errors=True)
    return row


def diagnosed(row: Mapping[str, Any]) -> set[str]:
    """What the rules of today say of a run."""
    truth, flags = row["truth"], row["flags"]
    about = Facts("RUN", flags["steps"], truth["train"], truth["held_out"], row["settings"], (), row["failure"])
    said = {verdict.name for verdict in verdicts(row["history"], about) if verdict.severity == "bad"}
    return {"collapse" if name == "partial-collapse" else name for name in said}


def rows_of(out: Path, split: str | None = None) -> list[dict[str, Any]]:
    file = out / "runs.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if split in (None, row["split"])]


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, right / of
    middle, half = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def report(rows: list[dict[str, Any]]) -> str:
    """Recall by disease, false alarms, and what was taken for what, as markdown."""
    judged = [(labels(row["truth"]), diagnosed(row)) for row in rows]
    lines = ["| disease | runs that have it | found | recall (95 %) | said where it is not |", "|---|---|---|---|---|"]
    recalls = []
    for name in DISEASES:
        have = [said for true, said in judged if name in true]
        found = sum(name in said for said in have)
        wrong = sum(name in said for true, said in judged if name not in true)
        low, high = wilson(found, len(have))
        recalls += [found / len(have)] if have else []
        recall = f"{found / len(have):.0%} ({low:.0%} to {high:.0%})" if have else "none"
        lines.append(f"| {NAMES[name]} | {len(have)} | {found} | {recall} | {wrong} |")
    healthy = [said for true, said in judged if not true]
    alarms = sum(bool(said) for said in healthy)
    low, high = wilson(alarms, len(healthy))
    mean = statistics.mean(recalls) if recalls else math.nan
    lines += ["", f"Macro recall over {len(recalls)} diseases: {mean:.1%}."]
    lines += [f"False alarms: {alarms} of {len(healthy)} healthy runs ({low:.1%} to {high:.1%})."]
    columns = [*DISEASES, "healthy"]
    lines += ["", "| true \\ said | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name in columns:
        cells = [said or {"healthy"} for true, said in judged if name in (true or {"healthy"})]
        lines.append(f"| {name} | " + " | ".join(str(sum(c in cell for cell in cells) or "") for c in columns) + " |")
    return "\n".join(lines)


def keep(rows: list[dict[str, Any]]) -> Path:
    """The row of a report: what was found of each disease, and each run with what it has and what was said of it."""
    judged = [(row, labels(row["truth"]), diagnosed(row)) for row in rows]
    found = {}
    for name in DISEASES:
        said = [name in told for _, true, told in judged if name in true]
        low, high = wilson(sum(said), len(said))
        found[name] = {"runs": len(said), "found": sum(said), "low": low, "high": high}
    alarms = [bool(told) for _, true, told in judged if not true]
    values = {
        "macro_recall": statistics.mean(each["found"] / each["runs"] for each in found.values() if each["runs"]),
        "false_alarms": sum(alarms),
        "healthy_runs": len(alarms),
    }
    places = sorted({row["data"]["data"] for row in rows})
    protocol = (
        f"{len(rows)} runs on {', '.join(places)} of 16×16 pixels, made by recipes that are meant to make them ill or not; "
        "truth by an oracle (thousands of samples, neighbours among 5,000 labelled images, all items, checkpoints, exact "
        "gradients), diagnosis from the log alone; thresholds set on toy densities and the 8×8 digits; Wilson intervals of 95 %"
    )
    runs = [{"name": row["name"], "has": sorted(true), "said": sorted(told)} for row, true, told in judged]
    spent = sum(row["seconds"] + row["oracle_seconds"] for row in rows)
    seeds = sorted({row["flags"]["seed"] for row in rows})
    of_test = {row["split"] for row in rows} == {"test"}
    return write_row(
        "diagnosis" if of_test else "diagnosis-set",
        protocol,
        values,
        seeds,
        len(rows),
        wall_seconds=spent,
        recall=found,
        runs=runs,
    )


def misses(rows: list[dict[str, Any]]) -> str:
    """The runs that are diagnosed otherwise than they are."""
    lines = []
    for row in rows:
        true, said = labels(row["truth"]), diagnosed(row)
        if true != said:
            numbers = {k: round(v, 3) if isinstance(v, float) else v for k, v in row["truth"].items() if k != "kl"}
            lines.append(
                f"{row['name']} ({row['split']}): missed {sorted(true - said)}, said {sorted(said - true)}\n    {numbers}"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("run", "report", "misses", "list"))
    parser.add_argument("--split", choices=("set", "test"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--limit-minutes", type=float, default=math.inf)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--first-seed", type=int, default=0, help="of six: others make other runs of the same recipes")
    parser.add_argument("--row", action="store_true", help="write the report's row as well")
    told = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("nacre").setLevel(logging.ERROR)
    splits = [told.split] if told.split else list(PLACES)
    chosen = [recipe for split in splits for recipe in recipes(split, told.first_seed) if told.only in recipe.name]
    if told.task == "list":
        print("\n".join(f"{recipe.split} {recipe.name}" for recipe in chosen))
    elif told.task == "run":
        told.out.mkdir(parents=True, exist_ok=True)
        done = {row["name"] for row in rows_of(told.out)}
        until = time.monotonic() + 60 * told.limit_minutes
        left = [recipe for recipe in chosen if recipe.name not in done]
        while left and time.monotonic() < until:
            recipe = due(left, rows_of(told.out, told.split))
            left.remove(recipe)
            try:
                row = play(recipe, told.out)
            except (
                nacre.NacreError,
                RuntimeError,
                ValueError,
                KeyError,
            ) as error:
                # One run that cannot be judged stops no other.
                print(f"{recipe.name}: {type(error).__name__}: {error}", flush=True)
                continue
            with (told.out / "runs.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            true, said = sorted(labels(row["truth"])), sorted(diagnosed(row))
            print(f"{recipe.name}: {true} / {said} ({row['seconds']} + {row['oracle_seconds']} s)", flush=True)
    else:
        rows = rows_of(told.out, told.split)
        print(report(rows) if told.task == "report" else misses(rows))
        if told.row:
            print(keep(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
