"""The game on a mixture in the plane: data, samples, the discriminator's field, and the best one's beside it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from nacre import seeds
from nacre.data.toys import MIXTURES
from nacre.lab.page import BLUE, GREEN, GREY, INK, ORANGE, Page, Panel, Span, cells, two_sided
from nacre.lab.play import Facts, played
from nacre.metrics.modes import modes
from nacre.models.gan import GAN
from nacre.theory import logit_of, toy

CELLS = 320
"""Along each axis of the grid on which densities are compared."""

FIELD = 100
ARROWS = 15
SHOWN, JUDGED, COUNTED = 400, 5_000, 20_000
"""Samples that are drawn, that V is estimated on, and that the generator's density is counted from."""

LOG_4 = math.log(4)


@dataclass(frozen=True)
class Plane:
    """A mixture, and the grid on which a generator is compared with it.

    A generator's density is not known: it is counted from samples and blurred by a round Gaussian kernel three modes
    wide, and so is the mixture's. What JSD says of two blurred densities is at most what it says of the densities.

    Attributes:
        name: of the mixture.
    """

    name: str

    @property
    def span(self) -> Span:
        """Of the plane that is looked at, along either axis."""
        reach = 1.5 * float(np.abs(MIXTURES[self.name].centers).max())
        return -reach, reach

    @property
    def width(self) -> float:
        """The kernel's standard deviation."""
        return 3 * MIXTURES[self.name].sigma

    def grid(self, count: int) -> np.ndarray:
        """(count², 2) middles of cells, row by row from below."""
        line = cells(self.span, count)
        return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)

    def data_density(self) -> np.ndarray:
        """Of the blurred mixture: (CELLS, CELLS), the first index along y."""
        return np.exp(toy(self.name).seen_through(self.width).log_density(self.grid(CELLS))).reshape(CELLS, CELLS)

    def density_of(self, samples: np.ndarray) -> np.ndarray:
        """Of blurred samples (N, 2), in the same cells; samples from beyond them are missing in its mass."""
        side = (self.span[1] - self.span[0]) / CELLS
        counts, _, _ = np.histogram2d(samples[:, 1], samples[:, 0], bins=CELLS, range=[self.span] * 2)
        return gaussian_filter(counts, self.width / side, mode="constant") / (len(samples) * side**2)

    def divergence(self, p: np.ndarray, q: np.ndarray) -> float:
        """JSD in nats of two densities in the cells; what is missing in either lies where the other is not."""
        area = ((self.span[1] - self.span[0]) / CELLS) ** 2
        middle = (p + q) / 2
        inside = sum(
            float((each * np.log(each / middle, out=np.zeros_like(each), where=each > 0)).sum()) * area
            for each in (p, q)
        )
        outside = 2 - float(p.sum() + q.sum()) * area
        return (inside + max(0.0, outside) * math.log(2)) / 2


def frames(gan: GAN, plane: Plane, steps: Iterator[int], length: int, seed: int) -> Iterator[tuple[Image.Image, Facts]]:
    """Draw the game at each of its moments.

    Args:
        gan: while it is trained by `steps`.
        length: number of the last step.
        seed: of what is sampled to be drawn and judged.
    """
    mixture = MIXTURES[plane.name]
    data, _ = mixture.sample(JUDGED, np.random.default_rng(seed))
    p = plane.data_density()
    noise = seeds.noises(gan.prior, seed, "lab", rows=range(COUNTED))
    history: list[tuple[float, float, float]] = []
    for step in steps:
        gan.eval()
        with torch.no_grad():
            samples = gan.sample(noise)
        value = played(gan, torch.from_numpy(data), samples[:JUDGED])
        points = samples.numpy().astype(np.float64)
        q = plane.density_of(points)
        apart = plane.divergence(p, q)
        history.append((step, value, apart))
        found = modes(points[:JUDGED], mixture.centers, mixture.sigma)
        best = p / np.maximum(p + q, 1e-300)
        # Where samples of neither are to be expected, nothing is to be known.
        best[(p + q) * (plane.width**2) < 1e-6] = np.nan
        facts = {
            "step": step,
            "value": value,
            "best_value": 2 * apart - LOG_4,
            "jsd_nats": apart,
            "jsd_bits": apart / math.log(2),
            "modes": found.captured,
            "of": found.of,
            "high_quality": found.high_quality,
        }
        yield _page(gan, plane, data[:SHOWN], points[:SHOWN], best, history, length, facts), facts


def _page(
    gan: GAN,
    plane: Plane,
    data: np.ndarray,
    samples: np.ndarray,
    best: np.ndarray,
    history: list[tuple[float, float, float]],
    length: int,
    facts: Facts,
) -> Image.Image:
    page = Page(720, 600, f"{plane.name}: step {facts['step']:,} of {length:,}")
    page.text(704, 12, f"{facts['modes']} of {facts['of']} modes", size=13, anchor="ra")
    left = Panel(page, (30, 62, 350, 382), plane.span, plane.span, "D(x), trained")
    right = Panel(page, (384, 62, 704, 382), plane.span, plane.span, "D*(x) = p / (p + q)")
    logit = logit_of(gan.realness)
    field = logit(plane.grid(FIELD)).reshape(FIELD, FIELD)
    left.map(two_sided(1 / (1 + np.exp(-np.clip(field, -50, 50)))))
    right.map(two_sided(best))
    left.arrows(*_pushes(gan, plane))
    for panel in (left, right):
        panel.dots(samples, ORANGE, 1.3)
        panel.dots(data, BLUE, 1.1)
        panel.frame()
    right.legend([("data", BLUE), ("samples", ORANGE)])
    page.text(
        30, 388, "blue field: looks real; orange: looks forged; arrows: where samples are pushed", size=11, color=GREY
    )
    page.text(704, 388, f"both blurred by {plane.width:g}; grey: neither is there", size=11, color=GREY, anchor="ra")
    past = np.array(history)
    curves = Panel(page, (60, 440, 704, 572), (0, length), (-1.75, 0.95), "nats")
    curves.level(-LOG_4, words="-log 4")
    curves.level(math.log(2), words="log 2")
    curves.line(np.stack([past[:, 0], 2 * past[:, 2] - LOG_4], 1), GREEN)
    curves.line(past[:, [0, 2]], INK)
    curves.line(past[:, :2], ORANGE)
    curves.frame(ticks=(np.linspace(0, length, 5).tolist(), [-1, 0]))
    curves.legend(
        [
            (f"V(D, G) {facts['value']:.3f}", ORANGE),
            (f"-log 4 + 2 JSD {facts['best_value']:.3f}", GREEN),
            (f"JSD {facts['jsd_nats']:.3f} ({facts['jsd_bits']:.3f} bits)", INK),
        ]
    )
    return page.finished()


def _pushes(gan: GAN, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Arrows along the slope of the discriminator's logit, all but the faintest of one length."""
    line = cells(plane.span, ARROWS)
    starts = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    x = torch.from_numpy(starts).float().requires_grad_()
    (slope,) = torch.autograd.grad(gan.realness(x).sum(), x)
    moves = slope.double().numpy()
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    longest = 0.7 * (line[1] - line[0])
    return starts, longest * moves / (lengths + 0.1 * np.median(lengths) + 1e-9)
