"""The story that GANs are taught with: real pearls, forged ones, and the size and shape that the forger has come to."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from nacre import images, seeds
from nacre.data import DataSet, pearls
from nacre.lab.page import BLUE, GREY, INK, ORANGE, Page, Panel
from nacre.lab.play import Facts, played
from nacre.models.gan import GAN

SHOWN, JUDGED = 25, 500
RADII, SQUARENESSES = (2.0, 8.0), (-0.02, 1.0)


def frames(
    gan: GAN, dataset: DataSet, steps: Iterator[int], length: int, seed: int
) -> Iterator[tuple[Image.Image, Facts]]:
    """Draw the game at each of its moments.

    Args:
        gan: while it is trained by `steps`.
        dataset: real pearls, some held out.
        length: number of the last step.
        seed: of what is sampled.
    """
    held_out = dataset.items[dataset.rows("validation")[:JUDGED]]
    real = images.to_float(torch.from_numpy(np.ascontiguousarray(held_out)))
    truth = pearls.measure(held_out[:, 0])
    noise = seeds.noises(gan.prior, seed, "lab", rows=range(len(real)))
    history: list[np.ndarray] = []
    for step in steps:
        gan.eval()
        with torch.no_grad():
            fake = gan.sample(noise)
        forged = pearls.measure(fake[:, 0].double().numpy())
        history.append(np.array([step, *forged.mean(0), *forged.std(0)]))
        facts = {"step": step, "value": played(gan, real, fake)}
        for name, values in (("real", truth), ("forged", forged)):
            for column, what in enumerate(("radius", "squareness")):
                facts[f"{name}_{what}"] = float(values[:, column].mean())
                facts[f"{name}_{what}_std"] = float(values[:, column].std())
        yield _page(real[:SHOWN], fake[:SHOWN], truth, forged, np.stack(history), length, facts), facts


def _page(
    real: torch.Tensor,
    fake: torch.Tensor,
    truth: np.ndarray,
    forged: np.ndarray,
    history: np.ndarray,
    length: int,
    facts: Facts,
) -> Image.Image:
    page = Page(760, 568, f"pearls: step {facts['step']:,} of {length:,}")
    page.text(744, 12, f"V(D, G) {facts['value']:.3f}, at equilibrium -1.386", size=13, anchor="ra")
    for left, title, shown in ((16, "real", real), (262, "forged", fake)):
        page.text(left, 56, title, anchor="ld")
        grid = images.grid(shown, 5, gap=1)
        page.paste(np.repeat(grid[..., None], 3, 2), left, 62, 232, 232, smooth=False)
    plane = Panel(page, (540, 62, 744, 294), RADII, SQUARENESSES, "squareness over radius")
    plane.dots(truth, BLUE, 1.3)
    plane.dots(np.clip(forged, [2.05, 0], [7.95, 0.99]), ORANGE, 1.3)
    plane.frame(ticks=([2, 4, 6, 8], [0, 0.5, 1]))
    for column, (title, span, left) in enumerate((("radius, pixels", RADII, 46), ("squareness", SQUARENESSES, 426))):
        panel = Panel(page, (left, 350, left + 318, 526), (0, length), span, title)
        _band(panel, history, column, truth)
        panel.frame(ticks=(np.linspace(0, length, 5).tolist(), [2, 4, 6, 8] if column == 0 else [0, 0.5, 1]))
        panel.legend([("real", BLUE), ("forged", ORANGE)])
    page.text(
        744,
        548,
        "dashed: the mean of real pearls, thin lines: one standard deviation",
        size=11,
        color=GREY,
        anchor="ra",
    )
    return page.finished()


def _band(panel: Panel, history: np.ndarray, column: int, truth: np.ndarray) -> None:
    """The forger's mean over time, a standard deviation to either side, beside those of real pearls."""
    steps, mean, std = history[:, 0], history[:, 1 + column], history[:, 3 + column]
    middle, spread = truth[:, column].mean(), truth[:, column].std()
    panel.level(middle, BLUE)
    for sign in (-1, 1):
        panel.line(np.array([[panel.x[0], middle + sign * spread], [panel.x[1], middle + sign * spread]]), BLUE, 0.5)
        panel.line(np.stack([steps, mean + sign * std], 1), ORANGE, 0.5)
    panel.line(np.stack([steps, mean], 1), ORANGE, 2)
    panel.dots(np.array([[steps[-1], mean[-1]]]), INK, 2)
