"""What a model that translates looks like while it trains: as `signals`, direction by direction.

The names are those of `signals` behind that of the direction ("a2b/auc"), translations of fixed held-out images standing
where samples are. All is of the weights in training.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.engine import sampling
from nacre.engine.signals import HELD_OUT, TRAIN, Found, begun, gradients, plain, still, units
from nacre.engine.update import Update
from nacre.metrics import glance
from nacre.protocols import JudgesTranslations, device_of, dtype_of

SHOWN = 32
"""Images of a side that are translated at a look."""

JUDGED = 128
"""Real images that a judge is shown."""

CHUNK = 8
"""Images that are translated together."""

KEPT = ("diversity", "judge", "distance", "outside", "unreached", "piled")
"""What a glance at so few images can tell."""


@dataclass(frozen=True)
class Direction:
    """What one direction is measured by.

    Attributes:
        given, wanted: held-out images to translate, and such as translations should be.
        given_seen, wanted_seen: such as are trained on.
        reference: of the images wanted.
        total: their variance.
    """

    given: Tensor
    wanted: Tensor
    given_seen: Tensor
    wanted_seen: Tensor
    reference: glance.Reference
    total: float


class TranslationSignals:
    """Measures a model that translates, whenever it is asked to.

    Args:
        model: the weights in training.
        updates: the model's objectives, for the gradients of their last steps.
        train: images (N, C, H, W) and (M, C', H, W) of sides A and B that are trained on, float.
        held_out: such as are not; none where nothing was kept aside.
        paired: whether row i of A belongs to row i of B.
    """

    def __init__(
        self,
        model: Any,
        updates: Sequence[Update],
        train: Sequence[Tensor],
        held_out: Sequence[Tensor],
        paired: bool,
    ) -> None:
        self.model = model
        self.updates, self.paired = updates, paired
        self.unseen = min(map(len, held_out)) >= glance.FEW
        others = held_out if self.unseen else train
        sides = {"a2b": (0, 1), "b2a": (1, 0)}
        self.directions = {name: direction(train, others, *sides[name]) for name in model.directions}

    def measure(self, done: int = sys.maxsize) -> Found:
        """All of it when `done` steps are done, by name: numbers, and lists of them; null where one is not finite."""
        found = gradients(self.updates)
        if not begun(self.updates, done):
            return found
        with still(self.model), units(self.model) as alive:
            for name, direction in self.directions.items():
                found |= {f"{name}/{signal}": value for signal, value in self.look(name, direction).items()}
        found |= {f"dead/{part}": share for part, share in alive().items()}
        return {name: plain(value) for name, value in found.items()}

    def look(self, name: str, on: Direction) -> Found:
        """One direction's signals."""
        made = self.translated(on.given[:SHOWN], name)
        if not bool(made.isfinite().all()):
            return {"finite": float(made.isfinite().double().mean())}
        judged = on.reference.judge(made)
        found: Found = {"bins": on.reference.bins(made).tolist(), **{kept: judged[kept] for kept in KEPT}}
        if self.paired:
            found["explained"] = explained(made, on.wanted[:SHOWN], on.total)
        if self.paired and self.unseen:
            remade = self.translated(on.given_seen[:SHOWN], name)
            found["explained_train"] = explained(remade, on.wanted_seen[:SHOWN], on.total)
        return found | (self.game(name, on, made) if isinstance(self.model, JudgesTranslations) else {})

    def translated(self, x: Tensor, name: str) -> Tensor:
        """Translations (N, C', H, W), on the CPU."""
        return sampling.apply(lambda part: self.model.translate(part, name), x, self.model, chunk=CHUNK).float().cpu()

    def game(self, name: str, on: Direction, made: Tensor) -> Found:
        """How the judge of a direction stands."""
        real = self.judged(on.given, on.wanted, name)
        seen = self.judged(on.given_seen, on.wanted_seen, name)
        fake = self.judged(on.given[: len(made)], made, name)
        logistic = bool(getattr(self.model, "logistic", False))
        found: Found = {"auc": glance.above(real, fake), "judged": min(len(real), len(seen))}
        for kind, values in (("real", real), ("train", seen), ("fake", fake)):
            found[f"d_{kind}"] = float((values.sigmoid() if logistic else values).mean())
        found |= {"auc_train": glance.above(seen, real)} if self.unseen else {}
        if logistic:
            value = float(F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean())
            return found | {"value": value, "jsd": (value + math.log(4)) / 2}
        if getattr(self.model, "least_squares", False):
            found["residual"] = float((real - 1).square().mean() + fake.square().mean()) / 2
        return found

    def judged(self, given: Tensor, wanted: Tensor, name: str) -> Tensor:
        """The judge's values of images as translations of others, as many as there are of both: (N,) float64."""
        count = min(len(given), len(wanted), JUDGED)
        device, dtype = device_of(self.model), dtype_of(self.model)
        values = [
            self.model.realness_of(
                *(side[at : min(at + CHUNK, count)].to(device, dtype) for side in (given, wanted)), name
            )
            for at in range(0, count, CHUNK)
        ]
        return torch.cat(values).double().cpu()


def direction(seen: Sequence[Tensor], others: Sequence[Tensor], given: int, wanted: int) -> Direction:
    """From one side to the other, by images of both that are trained on and others."""
    reference = glance.Reference(seen[wanted][:TRAIN], others[wanted][:HELD_OUT])
    total = float(others[wanted].flatten(1).double().var(0, unbiased=False).sum())
    own, aim, own_seen, aim_seen = (
        each[:JUDGED].clone() for each in (others[given], others[wanted], seen[given], seen[wanted])
    )
    return Direction(own, aim, own_seen, aim_seen, reference, total)


def explained(made: Tensor, wanted: Tensor, total: float) -> float:
    """1 - error / variance: 1 for the very images, 0 for their average each time."""
    error = (made.double() - wanted.double()).flatten(1).square().sum(1).mean()
    return 1 - float(error) / (total or 1.0)
