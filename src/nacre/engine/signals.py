"""What a model in training looks like: measurements on fixed items and fixed noise, from which a diagnosis is made.

Nothing that is trained changes by them: batch norms keep their statistics, no generator of random numbers moves, and the
device is asked for an answer at the cadence only. What is measured depends on what a model can be asked for; the game is
that of the weights in training, all else is of the averaged weights, which samples and results come from.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre import losses, seeds
from nacre.engine import sampling
from nacre.engine.ranks import batch_norms
from nacre.engine.update import Update
from nacre.metrics import glance
from nacre.networks import is_image
from nacre.protocols import (
    Decodes,
    Discriminates,
    Encodes,
    Infers,
    LogLikelihood,
    Reconstructs,
    Samples,
    device_of,
    dtype_of,
)

HELD_OUT, TRAIN = 512, 2048
"""Held-out items, as many samples, and training items whose neighbourhood these are looked for in."""

BATCH = 256
"""Items of a kind that a discriminator judges, and whose likelihood is taken."""

SLOPES = 64
"""Samples through which gradients are taken."""

UNITS = 128
"""Items over which a unit has to move to be alive."""

ACTIVE = 0.01
"""Variance over items of a posterior mean above which a latent is active (Burda et al. 2016, section 5)."""

DIGITS = 5
"""Significant digits of a number in the log."""

Found = dict[str, Any]


class Signals:
    """Measures a model in training, whenever it is asked to.

    Args:
        model: the weights in training.
        average: the weights that samples and results come from; perhaps the same ones.
        updates: the model's objectives, for the gradients of their last steps.
        train: (T, *shape) float, items that are trained on.
        held_out: (N, *shape) float, items that are not; none where nothing was kept aside.
        seed: of the fixed noise.
        labels: (T,) int64 of the training items, where the data have any.
    """

    def __init__(
        self,
        model: nn.Module,
        average: nn.Module,
        updates: Sequence[Update],
        train: Tensor,
        held_out: Tensor,
        seed: int,
        labels: Tensor | None = None,
    ) -> None:
        self.model, self.average, self.updates, self.seed = model, average, updates, seed
        self.unseen = len(held_out) >= glance.FEW
        train, held_out = train[:TRAIN], held_out[:HELD_OUT] if self.unseen else train[:HELD_OUT]
        labels = labels if labels is None else labels[:TRAIN]
        self.device, self.dtype = device_of(model), dtype_of(model)
        self.train = train[:HELD_OUT].to(self.device, self.dtype)
        self.held_out = held_out.to(self.device, self.dtype)
        able = isinstance(model, Samples) and len(train) > 1
        self.reference = glance.Reference(train, held_out, labels) if able else None
        self.total = float(held_out.flatten(1).double().var(0, unbiased=False).sum())
        self.makers: list[Update] | None = None
        self.normed = bool(batch_norms(model))

    def measure(self, done: int = sys.maxsize) -> Found:
        """All that the model's capabilities allow when `done` steps are done, by name: numbers, and lists of them; null where
        one is not finite."""
        model, found = self.model, gradients(self.updates)
        if not begun(self.updates, done):
            return found
        with still(model), still(self.average):
            with units(model) as alive, by_batch(model):
                if isinstance(model, Discriminates) and isinstance(model, Samples):
                    found |= self.game(model)
                elif isinstance(model, Reconstructs):
                    model.reconstruct(self.held_out[:UNITS])
                elif isinstance(model, Samples):
                    model.sample(self.noise(model, UNITS))
            found |= {f"dead/{part}": share for part, share in alive().items()}
            if isinstance(self.average, Samples):
                found |= self.samples(self.average)
            if isinstance(self.average, Reconstructs):
                found |= self.reconstructions(self.average)
            if isinstance(self.average, Infers):
                found |= self.latents(self.average)
            elif isinstance(self.average, Encodes):
                found |= self.codes(self.average)
            if isinstance(self.average, LogLikelihood):
                found |= self.likelihood(self.average)
        return {name: plain(value) for name, value in found.items()}

    def noise(self, model: Samples, count: int) -> dict[str, Tensor]:
        """The fixed noise of the first `count` samples."""
        rows = range(count)
        return seeds.noises(model.prior, self.seed, "signals", rows=rows, device=self.device, dtype=self.dtype)

    def game(self, model: Any) -> Found:
        """How the two players stand, both as in training: norms of batches are those of a batch of either kind.

        A judge of packs is not asked: what it says of copies of one item is not what it says in the game.
        """
        fake = model.sample(self.noise(model, BATCH))
        if not bool(fake.isfinite().all()):
            return {"finite": float(fake.isfinite().double().mean())}
        found: Found = {}
        if self.reference:
            found["bins"] = self.reference.bins(fake.float().cpu()).tolist()
        if getattr(model, "pack", 1) > 1:
            return found
        real, seen = self.held_out[:BATCH], self.train[:BATCH]
        on_real, on_seen, on_fake = (model.realness(items).double() for items in (real, seen, fake))
        logistic = bool(getattr(model, "logistic", False))
        for name, values in (("real", on_real), ("train", on_seen), ("fake", on_fake)):
            found[f"d_{name}"] = float((values.sigmoid() if logistic else values).mean())
        found |= {"auc": glance.above(on_real.cpu(), on_fake.cpu())}
        found |= {"auc_train": glance.above(on_seen.cpu(), on_real.cpu())} if self.unseen else {}
        found |= self.slopes(model)
        if not logistic:
            found |= self.steepness(model, fake, float(on_real.mean() - on_fake.mean()))
        else:
            value = float(F.logsigmoid(on_real).mean() + F.logsigmoid(-on_fake).mean())
            right = torch.cat([on_real > 0, on_fake < 0]).double().mean()
            found |= {"value": value, "jsd": (value + math.log(4)) / 2, "accuracy": float(right)}
        return found

    @torch.enable_grad()
    def slopes(self, model: Any) -> Found:
        """What the judge tells the generator: slopes at its samples, and how much of them its loss lets through.

        `pull` is the mean norm of ∂realness/∂x at samples, times the spread of the data: what realness gains if a sample moves
        by one standard deviation along it. `passed` is the norm of the generator's last gradient over that of the gradient
        of its samples' mean realness, on two batches: about 1 for a critic, σ(-D) for the non-saturating loss, σ(D) for the
        minimax one. It may be over 1: what a batch averages out differs from one to the other.
        """
        fake = model.sample(self.noise(model, SLOPES))
        if not fake.requires_grad:
            return {}
        own = [p for update in self.makers_of(model) for p in update.parameters]
        slope, *through = torch.autograd.grad(model.realness(fake).sum(), [fake, *own], allow_unused=True)
        whole, last = _norm(through), _norm([p.grad for p in own])
        found: Found = {"pull": float(slope.flatten(1).norm(dim=1).mean()) * math.sqrt(self.total)}
        if whole is not None and last is not None and float(whole) > 0:
            found["passed"] = float(last) / (float(whole) / len(fake))
        return found

    @torch.enable_grad()
    def steepness(self, model: Any, fake: Tensor, gap: float) -> Found:
        """A critic's mean slope between samples and held-out items, and its gap at slope one: a Wasserstein distance."""
        count = min(SLOPES, len(self.held_out), len(fake))
        mix = seeds.noise(seeds.uniform(1), self.seed, "signals", "mix", rows=range(count))
        mix = mix.to(self.device, self.dtype).view(-1, *[1] * (fake.ndim - 1))
        between = (mix * self.held_out[:count] + (1 - mix) * fake[:count]).detach().requires_grad_()
        steep = float(torch.autograd.grad(model.realness(between).sum(), between)[0].flatten(1).norm(dim=1).mean())
        return {"slope": steep, "wasserstein": gap / steep if steep > 0 else math.nan}

    def makers_of(self, model: Any) -> list[Update]:
        """The objectives that move nothing but what samples are made with."""
        if self.makers is None:
            made = model.sample(self.noise(model, 2))
            names = [p for p in self.model.parameters() if p.requires_grad]
            slopes = torch.autograd.grad(made.sum(), names, allow_unused=True) if made.requires_grad else [None]
            used = {id(p) for p, slope in zip(names, slopes, strict=False) if slope is not None}
            self.makers = [update for update in self.updates if all(id(p) in used for p in update.parameters)]
        return self.makers

    def samples(self, model: Any) -> Found:
        """What samples look like beside real items, and whether batch norms make them others than in training."""
        noise = self.noise(model, HELD_OUT)
        parts = [slice(at, at + BATCH) for at in range(0, HELD_OUT, BATCH)]
        made = torch.cat([model.sample({name: each[at] for name, each in noise.items()}) for at in parts])
        if not self.reference or not bool(made.isfinite().all()):
            return {"finite": float(made.isfinite().double().mean())}
        found: Found = dict(self.reference.judge(made.float().cpu()))
        if not self.unseen:
            found = {name: value for name, value in found.items() if name not in ("nearest", "copies")}
        if self.normed:
            with by_batch(self.average):
                other = model.sample(self.noise(model, min(BATCH, len(made))))
            mine = made[: len(other)].flatten(1)
            moved = (other.flatten(1) - mine).square().sum(1).mean().sqrt()
            # As in training: there, each batch has statistics of its own, and samples vary with their company.
            found["drift"] = float(moved) / (math.sqrt(self.total) or 1.0)
        return found

    def reconstructions(self, model: Any) -> Found:
        """How much of the items comes back: the share of their variance, of held-out and of training items."""
        found: Found = {}
        remade = model.reconstruct(self.held_out[:BATCH])
        real = self.held_out[:BATCH]
        found["explained"] = self.explained(remade, real)
        if self.unseen:
            found["explained_train"] = self.explained(model.reconstruct(self.train[:BATCH]), self.train[:BATCH])
        if isinstance(model, Encodes) and isinstance(model, Decodes):
            others = model.decode(model.encode(real).roll(1, 0))
            found["gain"] = found["explained"] - self.explained(others, real)
        if is_image(tuple(real.shape[1:])):
            found["sharpness"] = float(_edges(remade)) / (float(_edges(real)) or 1.0)
        low, high = real.min(), real.max()
        slack = 0.05 * (high - low)
        found["outside_remade"] = float(((remade < low - slack) | (remade > high + slack)).double().mean())
        return found

    def explained(self, remade: Tensor, real: Tensor) -> float:
        """1 - error / variance: 1 for perfect copies, 0 for the same average item each time."""
        error = (remade.double() - real.double()).flatten(1).square().sum(1).mean()
        return 1 - float(error) / (self.total or 1.0)

    def latents(self, model: Any) -> Found:
        """Which latents say something: KL(q(z_j|x) || N(0, 1)) of each in nats, and how many means vary."""
        mean, std = sampling.posterior(model, self.held_out[:BATCH])
        active = int((mean.var(0) > ACTIVE).sum())
        laws = [law.shape for name, law in getattr(model, "prior", {}).items() if name != "label"]
        if laws != [tuple(mean.shape[1:])]:  # latents of several layers: the lower ones' prior is another
            return {"active": active, "latents": mean.shape[1]}
        kl = losses.kl_per_latent(mean, 2 * std.log()).mean(0)
        return {"kl": kl.tolist(), "rate": float(kl.sum()), "active": active, "latents": mean.shape[1]}

    def codes(self, model: Any) -> Found:
        """How many numbers of a code never change."""
        codes = model.encode(self.held_out[:BATCH]).double()
        spread = codes.std(0)
        return {"dead_codes": float((spread <= 1e-4 * (spread.max() + 1e-12)).double().mean())}

    def likelihood(self, model: Any) -> Found:
        """The bound on held-out and on training items, in nats, and the standard error of their difference."""
        count = max(BATCH // 8, BATCH // int(getattr(model, "k_eval", 1)))
        held_out = sampling.log_likelihood(model, self.held_out[:count])
        found: Found = {"elbo": float(held_out.mean())}
        if self.unseen:
            seen = sampling.log_likelihood(model, self.train[:count])
            found["elbo_train"] = float(seen.mean())
            found["elbo_error"] = math.sqrt(sum(float(each.var()) / len(each) for each in (held_out, seen)))
        return found


def gradients(updates: Sequence[Update]) -> Found:
    """The norm of each objective's last gradient, as its optimizer was given it, and the learning rate."""
    norms = {update.objective.name: _norm([p.grad for p in update.parameters]) for update in updates}
    rates = {f"lr/{update.objective.name}": update.optimizer.param_groups[0]["lr"] for update in updates}
    return rates | {f"gradient/{name}": float(norm) for name, norm in norms.items() if norm is not None}


def begun(updates: Sequence[Update], done: int) -> bool:
    """Whether each objective has had its first turn: what is not trained yet is not to be judged."""
    return all(update.objective.when.start < done for update in updates)


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """A model that is looked at and left as it was: evaluation mode, no gradients, no random numbers used up."""
    device = device_of(model)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), sampling.evaluating(model):
        yield


@contextmanager
def by_batch(model: nn.Module) -> Iterator[None]:
    """Batch norms go by the batch that they are shown, as in training, and remember nothing of it.

    They do so each rank for itself, whatever `ranks.synchronise` has told them: only one of the ranks measures.
    """
    with ExitStack() as stack:
        for norm in batch_norms(model):
            before = norm.__dict__.get("forward")
            norm.forward = partial(_norm_by_batch, norm)
            stack.callback(_put_back, norm, before)
        yield


def _put_back(norm: Any, before: Any) -> None:
    if before is None:
        del norm.forward
    else:
        norm.forward = before


def _norm_by_batch(norm: Any, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)


@contextmanager
def units(model: nn.Module, most: int = UNITS) -> Iterator[Any]:
    """Watch the hidden units of a model: afterwards, the share of dead ones by part.

    A unit is a number, or a channel, that a layer with weights is handed by the layers in front of it. It is dead if it is the
    same for all items that came by. What a part itself is handed, items or codes, is no unit.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    first: dict[str, str] = {}

    def watch(name: str, layer: Any, inputs: tuple[Tensor, ...]) -> None:
        part = name.partition(".")[0]
        x = inputs[0].detach()
        if first.setdefault(part, name) == name or x.ndim < 2 or len(x) < 2:
            return
        over = [dim for dim in range(x.ndim) if dim != (x.ndim - 1 if isinstance(layer, nn.Linear) else 1)]
        low, high = x[:most].amin(over), x[:most].amax(over)
        before = seen.get(name)
        seen[name] = (torch.minimum(before[0], low), torch.maximum(before[1], high)) if before else (low, high)

    def shares() -> dict[str, float]:
        counts: dict[str, list[int]] = {}
        for name, (low, high) in seen.items():
            dead = (high - low) <= 1e-6 * torch.maximum(high.abs(), low.abs())
            of = counts.setdefault(name.partition(".")[0], [0, 0])
            of[0] += int(dead.sum())
            of[1] += dead.numel()
        return {part: dead / total for part, (dead, total) in counts.items()}

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    with ExitStack() as stack:
        for name, layer in layers:
            stack.callback(layer.register_forward_pre_hook(partial(watch, name)).remove)
        yield shares


def _norm(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The norm of all of them together; None if there are none."""
    known = [tensor.detach().float() for tensor in tensors if tensor is not None]
    return torch.stack(torch._foreach_norm(known)).norm() if known else None


def _edges(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def plain(value: Any) -> Any:
    """A number as it stands in the log."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return (float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None) if isinstance(value, float) else value
