"""Pages to draw on with Pillow: panels with axes, curves, points, arrows and maps of colours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color: TypeAlias = tuple[int, int, int]

# Told apart by the colour-blind as well (Okabe & Ito 2008).
BLUE: Color = (0, 114, 178)
ORANGE: Color = (213, 94, 0)
GREEN: Color = (0, 138, 102)
PURPLE: Color = (160, 90, 150)
INK: Color = (40, 40, 40)
GREY: Color = (150, 150, 150)
FAINT: Color = (225, 225, 225)
WHITE: Color = (255, 255, 255)
INKS = (BLUE, ORANGE, GREEN, PURPLE, INK, GREY)

SCALE = 2
"""Pages are drawn so much larger and reduced in the end, which smooths lines."""

Span: TypeAlias = tuple[float, float]


@dataclass
class Page:
    """A white page of (width, height) pixels, with a line of text at its head."""

    width: int
    height: int
    title: str = ""
    image: Image.Image = field(init=False)
    draw: Any = field(init=False)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (self.width * SCALE, self.height * SCALE), WHITE)
        self.draw = ImageDraw.Draw(self.image)
        self.text(16, 10, self.title, size=15)

    def text(self, x: float, y: float, words: str, *, size: int = 12, color: Color = INK, anchor: str = "la") -> None:
        """Words at a point; `anchor` is Pillow's: "la" is the words' left top, "ra" their right, "mm" their middle."""
        self.draw.text((x * SCALE, y * SCALE), words, fill=color, font=_font(size * SCALE), anchor=anchor)

    def paste(self, picture: np.ndarray, left: float, top: float, width: float, height: float, smooth: bool) -> None:
        """An (h, w, 3) uint8 picture into a box."""
        kind = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
        size = (round(width * SCALE), round(height * SCALE))
        self.image.paste(Image.fromarray(picture).resize(size, kind), (round(left * SCALE), round(top * SCALE)))

    def finished(self) -> Image.Image:
        """The page at its own size."""
        return self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Panel:
    """A part of a page with axes.

    Attributes:
        page: the page.
        box: left, top, right and bottom in its pixels.
        x, y: what the axes span.
        title: words over it.
    """

    page: Page
    box: tuple[float, float, float, float]
    x: Span
    y: Span
    title: str = ""

    def at(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) points in the panel's axes as (N, 2) places on the enlarged page."""
        left, top, right, bottom = self.box
        across = left + (points[:, 0] - self.x[0]) / (self.x[1] - self.x[0]) * (right - left)
        down = bottom - (points[:, 1] - self.y[0]) / (self.y[1] - self.y[0]) * (bottom - top)
        return np.stack([across, down], 1) * SCALE

    def frame(self, *, ticks: tuple[Sequence[float], Sequence[float]] = ((), ())) -> None:
        """The border, the title, and ticks with their values along x and y. Drawn last, it lies over what stands out."""
        left, top, _, bottom = self.box
        self.page.draw.rectangle([SCALE * edge for edge in self.box], outline=GREY, width=SCALE)
        self.page.text(left, top - 6, self.title, anchor="ld")
        for x in ticks[0]:
            place = self.at(np.array([[x, self.y[0]]]))[0] / SCALE
            self.page.text(place[0], bottom + 4, f"{x:g}", size=10, color=GREY, anchor="ma")
        for y in ticks[1]:
            place = self.at(np.array([[self.x[0], y]]))[0] / SCALE
            self.page.text(left - 5, place[1], f"{y:g}", size=10, color=GREY, anchor="rm")

    def map(self, colours: np.ndarray, *, smooth: bool = True) -> None:
        """Fill with colours (rows, columns, 3) uint8, the first row at the bottom."""
        left, top, right, bottom = self.box
        self.page.paste(colours[::-1], left, top, right - left, bottom - top, smooth)

    def line(self, points: np.ndarray, color: Color, width: float = 1.5) -> None:
        """Through (N, 2) points, as far as they lie in the panel's span."""
        if len(points) > 1:
            places = self.at(self._within(points))
            self.page.draw.line(
                [tuple(place) for place in places], fill=color, width=round(width * SCALE), joint="curve"
            )

    def level(self, y: float, color: Color = GREY, *, words: str = "", dash: float = 4) -> None:
        """A dashed horizontal line, with words under its right end."""
        left, _, right, _ = self.box
        height = self.at(np.array([[self.x[0], y]]))[0, 1]
        for start in np.arange(left, right, 2 * dash):
            ends = [(start * SCALE, height), (min(start + dash, right) * SCALE, height)]
            self.page.draw.line(ends, fill=color, width=SCALE)
        self.page.text(right - 6, height / SCALE + 2, words, size=10, color=color, anchor="ra")

    def dots(self, points: np.ndarray, color: Color, radius: float = 1.2) -> None:
        """Dots at (N, 2) points, those outside left out."""
        inside = (points[:, 0] > self.x[0]) & (points[:, 0] < self.x[1])
        inside &= (points[:, 1] > self.y[0]) & (points[:, 1] < self.y[1])
        reach = radius * SCALE
        for across, down in self.at(points[inside]):
            self.page.draw.ellipse([across - reach, down - reach, across + reach, down + reach], fill=color)

    def arrows(self, starts: np.ndarray, moves: np.ndarray, color: Color = INK) -> None:
        """Arrows from (N, 2) starts along (N, 2) moves, both in the panel's axes."""
        for tail, head in zip(self.at(starts), self.at(starts + moves), strict=True):
            along = head - tail
            if np.hypot(*along) < 2 * SCALE:
                continue
            across = np.array([-along[1], along[0]]) * 0.18
            barbs = [tuple(head), tuple(tail + 0.6 * along + across), tuple(tail + 0.6 * along - across)]
            self.page.draw.line([tuple(tail), tuple(head)], fill=color, width=SCALE)
            self.page.draw.polygon(barbs, fill=color)

    def ellipse(self, center: np.ndarray, covariance: np.ndarray, color: Color, width: float = 1.5) -> None:
        """The line one standard deviation from the centre of a Gaussian in the plane."""
        turn = np.linspace(0, 2 * np.pi, 73)
        root = np.linalg.cholesky(covariance)
        self.line(center + np.stack([np.cos(turn), np.sin(turn)], 1) @ root.T, color, width)

    def legend(self, entries: Sequence[tuple[str, Color]]) -> None:
        """Words in their colours, from right to left above the panel."""
        _, top, right, _ = self.box
        for words, color in reversed(entries):
            self.page.text(right, top - 6, words, size=11, color=color, anchor="rd")
            right -= _font(11 * SCALE).getlength(words) / SCALE + 14

    def _within(self, points: np.ndarray) -> np.ndarray:
        return np.stack([np.clip(points[:, 0], *self.x), np.clip(points[:, 1], *self.y)], 1)


def two_sided(shares: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as colours: orange at 0, white at one half, blue at 1; grey where they are no number."""
    nowhere = np.isnan(shares)
    signed = 2 * np.where(nowhere, 0.5, shares)[..., None] - 1
    ends = np.where(signed > 0, np.array([86, 160, 211]), np.array([240, 150, 80]))
    colours = 255 + np.abs(signed) * (ends - 255)
    return np.where(nowhere[..., None], 238, colours).astype(np.uint8)


def one_sided(shares: np.ndarray, color: Color = BLUE) -> np.ndarray:
    """Shares in [0, 1] as colours, from white to `color`."""
    return (255 + shares[..., None] * (np.array(color) - 255)).astype(np.uint8)


def cells(span: Span, count: int) -> np.ndarray:
    """The middles of `count` equal cells of a span."""
    edges = np.linspace(*span, count + 1)
    return (edges[1:] + edges[:-1]) / 2


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
