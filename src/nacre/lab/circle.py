"""The Dirac-GAN: five games in the plane of their two parameters, and how far each stays from its equilibrium."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from nacre.lab.page import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, Color, Page, Panel
from nacre.lab.play import Facts
from nacre.theory.dirac import GAMES, Game, Method, path, velocity

COLORS: dict[Game, Color] = {
    "plain": BLUE,
    "non-saturating": GREEN,
    "wgan": PURPLE,
    "wgan-gp": (140, 110, 40),
    "r1": ORANGE,
}
TITLES: dict[Game, str] = {
    "plain": "GAN, as first published",
    "non-saturating": "non-saturating",
    "wgan": "WGAN, clipped",
    "wgan-gp": "WGAN-GP",
    "r1": "GAN with R1",
}
REACH = 2.2


def frames(
    start: tuple[float, float], method: Method, step_size: float, steps: int, r1: float, gp_weight: float, count: int
) -> Iterator[tuple[Image.Image, Facts]]:
    """Draw the paths of all games, a little further in each frame."""
    settings = {"r1": r1, "gp_weight": gp_weight}
    ways = {game: path(game, start, steps=steps, step_size=step_size, method=method, **settings) for game in GAMES}
    away = {game: np.linalg.norm(way, axis=1) for game, way in ways.items()}
    fields = {game: _field(game, settings) for game in GAMES}
    for done in np.unique(np.rint(np.linspace(0, steps, max(2, count))).astype(int)).tolist():
        page = Page(790, 606, f"The Dirac-GAN, {method}: step {done} of {steps}")
        for place, game in enumerate(GAMES):
            left, top = 34 + 254 * (place % 3), 64 + 268 * (place // 3)
            panel = Panel(page, (left, top, left + 228, top + 228), (-REACH, REACH), (-REACH, REACH), TITLES[game])
            panel.arrows(*fields[game], (190, 190, 190))
            panel.line(ways[game][: done + 1], COLORS[game], 1.5)
            panel.dots(np.zeros((1, 2)), INK, 2.5)
            panel.dots(ways[game][done : done + 1], COLORS[game], 4)
            panel.frame(ticks=([-2, 0, 2], [-2, 0, 2]))
        page.text(
            34, 574, "across: the generator's place; up: the discriminator's slope", size=11, color=(150, 150, 150)
        )
        _distances(page, away, done, steps)
        yield page.finished(), {"step": done} | {game: float(away[game][done]) for game in GAMES}


def _distances(page: Page, away: dict[Game, np.ndarray], done: int, steps: int) -> None:
    top = min(REACH, 1.1 * max(float(each.max()) for each in away.values()))
    panel = Panel(page, (542, 332, 770, 560), (0, steps), (0, top), "distance from the equilibrium")
    for each in away.values():
        panel.line(np.stack([np.arange(steps + 1), each], 1), FAINT, 1)
    for game, each in away.items():
        panel.line(np.stack([np.arange(done + 1), each[: done + 1]], 1), COLORS[game])
    panel.frame(ticks=([0, steps // 2, steps], [0, 1]))


def _field(game: Game, settings: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-REACH, REACH, 14)[1:-1]
    starts = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    moves = velocity(game, starts, r1=settings["r1"], gp_weight=settings["gp_weight"])
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    return starts, 0.26 * moves / (lengths + 0.2)
