"""Two densities on the line, a forger who never learns, and a discriminator on its way to D* = p/(p + q)."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from nacre import seeds
from nacre.data.stream import Stream
from nacre.engine.settings import Training
from nacre.lab.page import BLUE, GREEN, GREY, INK, ORANGE, Page, Panel
from nacre.lab.play import Facts, moments
from nacre.run.watch import watch
from nacre.theory import FixedForger, Gaussians, Verdict, against_exact, logit_of, normal, optimal_discriminator

DATA = 1 << 18
"""Points of the data that are learned from."""


def frames(
    mean: float, std: float, hidden: tuple[int, ...], training: Training, count: int
) -> Iterator[tuple[Image.Image, Facts]]:
    """Draw the discriminator of N(0, 1) from N(mean, std²) at each moment."""
    real, forged = normal(), normal(mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.mix(training.seed, "weights"))
        game = FixedForger((1,), forger=forged, hidden=hidden)
    points = real.sample(DATA, np.random.default_rng(training.seed)).astype(np.float32)
    length = training.steps or 0
    stream = Stream(points, np.arange(DATA), training.batch_size or 0, seed=training.seed)
    history = []
    for step in watch(game, stream, training, moments(length, count)):
        logit = logit_of(game.eval().realness)
        verdict = against_exact(logit, real, forged)
        history.append((step, verdict.value.value))
        facts = {
            "step": step,
            "value": verdict.value.value,
            "best_value": verdict.best.value,
            "missing": verdict.best.value - verdict.value.value,
            "logit_error": verdict.logit_error,
            "region": list(verdict.region),
        }
        x = np.linspace(min(-4, mean - 4 * std), max(4, mean + 4 * std), 400)[:, None]
        trained = 1 / (1 + np.exp(-logit(x)))
        yield _page(real, forged, x[:, 0], trained, verdict, np.array(history), length), facts


def _page(
    real: Gaussians,
    forged: Gaussians,
    x: np.ndarray,
    trained: np.ndarray,
    verdict: Verdict,
    history: np.ndarray,
    length: int,
) -> Image.Image:
    page = Page(720, 560, f"A forger who never learns: step {history[-1, 0]:,.0f} of {length:,}")
    panel = Panel(page, (40, 62, 704, 340), (x[0], x[-1]), (0, 1.03), f"logit off by at most {verdict.logit_error:.3f}")
    densities = [np.exp(density.log_density(x[:, None])) for density in (real, forged)]
    best = optimal_discriminator(real, forged)(x[:, None])
    for values, color in zip(densities, (BLUE, ORANGE), strict=True):
        panel.line(np.stack([x, values], 1), color, 1)
    panel.line(np.stack([x, best], 1), GREEN, 5)
    panel.line(np.stack([x, trained], 1), INK, 1.5)
    for edge in verdict.region:
        panel.line(np.array([[edge, 0], [edge, 1.03]]), GREY, 0.5)
    panel.frame(ticks=(list(range(int(np.ceil(x[0])), int(x[-1]) + 1)), [0, 0.5, 1]))
    panel.legend([("p, data", BLUE), ("q, forged", ORANGE), ("D* = p / (p + q)", GREEN), ("D, trained", INK)])
    page.text(704, 358, "between the grey lines: the middle 95 % of (p + q) / 2", size=11, color=GREY, anchor="ra")
    low = min(-1.5, float(history[:, 1].min()))
    curves = Panel(page, (60, 410, 704, 530), (0, length), (max(low, -2.5), verdict.best.value + 0.1), "nats")
    curves.level(verdict.best.value, GREEN)
    curves.line(history, INK)
    curves.frame(ticks=(np.linspace(0, length, 5).tolist(), [-2, -1.5] if low < -2 else [-1.4, -1.2]))
    curves.legend([(f"V(D, G) {verdict.value.value:.4f}", INK), (f"-log 4 + 2 JSD {verdict.best.value:.4f}", GREEN)])
    return page.finished()
