"""MNIST in colour with captions, "a red seven on blue": the set that benchmarks/captions.py makes, and its judge.

Eight colours, two different ones an image; each image's colours differ a little from their names' own. Of the 560 captions one
in five is held out. The judge is not told the caption: the ground is the median of the frame of two pixels, the ink that of the
24 pixels furthest from it, each has the name of the nearest colour, and the digit is read from how far each pixel has gone from
the ground to the ink, by a referee of MNIST that nothing else uses.
"""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.data import DataSettings, load
from nacre.files import whole_file
from nacre.metrics.classifiers import Referee
from nacre.run.extractors import referee

COLORS = {
    "red": (215, 40, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 225, 50),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "purple": (140, 50, 180),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES, FRAME, INK, JITTER = 20_000, 2, 24, 12
HELD_OUT = 0.2
LEAST_ACCURACY = 0.99


class Scene(NamedTuple):
    """What a caption says: the numbers of a digit and of two colours."""

    digit: int
    ink: int
    ground: int

    @property
    def caption(self) -> str:
        ink, ground = (list(COLORS)[color] for color in (self.ink, self.ground))
        return f"{'an' if ink == 'orange' else 'a'} {ink} {DIGITS[self.digit]} on {ground}"


def scenes() -> tuple[list[Scene], list[Scene]]:
    """All scenes, in two parts: those to train on, and those held out."""
    every = [Scene(digit, *pair) for digit in range(10) for pair in permutations(range(len(COLORS)), 2)]
    order = np.random.default_rng(0).permutation(len(every))
    cut = round(HELD_OUT * len(every))
    return [every[place] for place in sorted(order[cut:])], [every[place] for place in sorted(order[:cut])]


def painted(grey: np.ndarray, told: list[Scene], seed: int) -> np.ndarray:
    """Digits (N, 28, 28) uint8 in their scenes' colours, with a frame: (N, 32, 32, 3) uint8."""
    palette, random = np.array(list(COLORS.values()), np.float32), np.random.default_rng(seed)
    share = np.pad(grey, ((0, 0), (FRAME, FRAME), (FRAME, FRAME)))[..., None].astype(np.float32) / 255
    shape = (len(told), 1, 1, 3)
    ink, ground = (
        (palette[[getattr(scene, part) for scene in told]].reshape(shape) + random.uniform(-JITTER, JITTER, shape))
        for part in ("ink", "ground")
    )
    return np.clip(np.rint(ground + share * (ink - ground)), 0, 255).astype(np.uint8)


def drawn(source: str, split: str, among: list[Scene], count: int, seed: int) -> tuple[np.ndarray, list[Scene]]:
    """The first `count` digits of a part of MNIST, each in one of the scenes of its digit."""
    mnist, random = load(DataSettings(data=source)), np.random.default_rng(seed)
    chosen = mnist.rows(split)[:count]  # type: ignore[arg-type]
    assert mnist.labels is not None
    of_digit = [[scene for scene in among if scene.digit == digit] for digit in range(10)]
    told = [of_digit[label][random.integers(len(of_digit[label]))] for label in mnist.labels[chosen]]
    return painted(mnist.items[chosen, 0], told, seed), told


def write(path: Path, source: str) -> Path:
    """The set to train on, as an .npz that nacre reads; written once."""
    if not path.exists():
        images, told = drawn(source, "train", scenes()[0], IMAGES, seed=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside, aside.open("wb") as file:
            np.savez(file, images=images, captions=np.array([scene.caption for scene in told]))
    return path


@dataclass(frozen=True)
class Reading:
    """What the judge sees in images: (N,) int64 each."""

    digit: Tensor
    ink: Tensor
    ground: Tensor

    def right(self, told: list[Scene]) -> dict[str, Tensor]:
        """For each part of the scenes, and for all of them, whether it is as told: (N,) bool."""
        found = {
            part: getattr(self, part) == torch.tensor([getattr(scene, part) for scene in told])
            for part in ("digit", "ink", "ground")
        }
        return {**found, "all": found["digit"] & found["ink"] & found["ground"]}


class Judge:
    """Reads digit and colours out of images.

    Args:
        source: MNIST, on which the referee is trained, or has been.
    """

    def __init__(self, source: str) -> None:
        self.referee: Referee = referee(load(DataSettings(data=source)))
        accuracy = self.referee.card.accuracy or 0.0
        if accuracy < LEAST_ACCURACY:
            raise ValueError(
                f"a judge that is right on {LEAST_ACCURACY} of MNIST's test images was expected: {accuracy}"
            )

    def __call__(self, images: Tensor) -> Reading:
        """(N, 3, 32, 32) in [0, 1]."""
        inner = F.pad(torch.zeros(28, 28), (FRAME,) * 4, value=1.0).bool()
        ground = images[:, :, inner].median(2).values
        apart = (images - ground[:, :, None, None]).flatten(2)
        furthest = apart.norm(dim=1).topk(INK, 1).indices
        way = apart.gather(2, furthest[:, None].expand(-1, 3, -1)).median(2).values
        share = (apart * way[:, :, None]).sum(1) / way.square().sum(1, keepdim=True).clamp(min=1e-4)
        grey = share.clamp(0, 1).view(-1, 1, 32, 32)[:, :, FRAME:-FRAME, FRAME:-FRAME]
        return Reading(self.referee.probabilities(grey).argmax(1), named(ground + way), named(ground))


def named(colors: Tensor) -> Tensor:
    """The number of the nearest colour: (N, 3) in [0, 1] ↦ (N,)."""
    return torch.cdist(255 * colors, torch.tensor(list(COLORS.values())).float()).argmin(1)
