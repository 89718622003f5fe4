"""Small drawings as SVG inside a page: curves, bars, clouds of points, and a number beside its floor.

Colours are the page's own (`style.CSS`): a drawing follows its light and its dark dress.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from nacre.metrics.intervals import Estimate

INKS = 10
"""Colours that a page has for series: `--c0` to `--c9`."""

COLORS = tuple(f"var(--c{number})" for number in range(INKS))

MOST = 300
"""Points of a curve; longer ones are averaged."""


@dataclass(frozen=True)
class Series:
    """A curve: its name, and its points (N,), (N,)."""

    name: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Frame:
    """A drawing's size and what its axes span; the margins leave room for ticks."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 46
    right: float = 10
    top: float = 10
    bottom: float = 22

    def across(self, x: float) -> float:
        """Where x is."""
        return self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.width - self.left - self.right)

    def down(self, y: float) -> float:
        """Where y is."""
        return (
            self.height
            - self.bottom
            - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.height - self.top - self.bottom)
        )


def curves(title: str, series: Sequence[Series], about: str = "", width: int = 320, height: int = 175) -> str:
    """Curves over steps, with axes, a legend of names, and a line on what they say."""
    drawn = [_thinned(each) for each in series]
    low, high = _span(np.concatenate([each.y for each in drawn]))
    x_low, x_high = _span(np.concatenate([each.x for each in drawn]), pad=0)
    frame = Frame(width, height, (x_low, x_high), (low, high))
    parts = _axes(frame, ticks(x_low, x_high, 4), ticks(low, high, 4))
    for number, each in enumerate(drawn):
        places = " ".join(f"{frame.across(x):.1f},{frame.down(y):.1f}" for x, y in zip(each.x, each.y, strict=True))
        ink = COLORS[number % INKS]
        if len(each.x) > 1:
            parts.append(f'<polyline points="{places}" fill="none" stroke="{ink}" stroke-width="1.6"/>')
        else:
            x, y = places.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{ink}"/>')
    legend = "" if len(drawn) == 1 else _legend([each.name for each in drawn])
    return _figure(title, f"{_svg(width, height, title, parts)}{legend}", width, about)


def bars(title: str, values: Sequence[Estimate], names: Sequence[str], width: int = 780, height: int = 200) -> str:
    """A bar for each estimate, with its interval as a whisker; names under them where there is room."""
    top = max([1e-12, *(each.high if math.isfinite(each.high) else each.value for each in values)])
    frame = Frame(width, height, (-0.5, len(values) - 0.5), (0.0, 1.05 * top))
    parts = _axes(frame, [], ticks(0.0, top, 4))
    room = (width - frame.left - frame.right) / len(values)
    wide, every = min(36.0, 0.72 * room), max(1, math.ceil(22 / room))
    for place, (each, name) in enumerate(zip(values, names, strict=True)):
        middle, head = frame.across(place), frame.down(each.value)
        parts.append(
            f'<rect x="{middle - wide / 2:.1f}" y="{head:.1f}" width="{wide:.1f}" '
            f'height="{max(0.0, frame.down(0) - head):.1f}" fill="var(--c0)" opacity=".8"><title>{escape(name)}: '
            f"{each.value:.3g}</title></rect>"
        )
        if math.isfinite(each.low) and room > 5:
            parts.append(_line(middle, frame.down(each.low), middle, frame.down(each.high), "var(--ink)", 1))
        if place % every == 0:
            parts.append(_text(middle, height - 7, name, "middle"))
    return _figure(title, _svg(width, height, title, parts), width)


def cloud(
    title: str,
    points: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    size: int = 420,
    inks: Sequence[str] = COLORS,
) -> str:
    """(N, 2) points, coloured by group (N,), each axis in the same unit; the first group is drawn first."""
    reach = [_span(points[:, axis]) for axis in (0, 1)]
    half = max(high - low for low, high in reach) / 2
    middles = [(high + low) / 2 for low, high in reach]
    spans = [(middle - half, middle + half) for middle in middles]
    frame = Frame(size, size, spans[0], spans[1], left=48, bottom=22, right=8, top=8)
    parts = _axes(frame, ticks(*spans[0], 4), ticks(*spans[1], 4))
    weight = 3.0 if len(points) > 2500 else 4.0 if len(points) > 800 else 5.0
    for number in range(len(names)):
        places = "".join(f"M{frame.across(x):.1f} {frame.down(y):.1f}h0" for x, y in points[groups == number])
        parts.append(
            f'<path d="{places}" stroke="{inks[number]}" stroke-width="{weight}" stroke-linecap="round" opacity=".8"/>'
        )
    return _figure(title, _svg(size, size, title, parts) + _legend(names, inks), size)


def standing(estimate: Estimate, floor: Estimate | None, good: bool | None, width: int = 170, height: int = 22) -> str:
    """A number as a dot with its interval, and its floor as a band behind it, on a line of their own scale."""
    ends = [end for each in (estimate, floor) if each for end in (each.low, each.value, each.high)]
    known = [end for end in ends if math.isfinite(end)]
    if not math.isfinite(estimate.value) or max(known) == min(known):
        return ""
    low, high = _span(np.array(known), pad=0.08)
    frame = Frame(width, height, (low, high), (0, 1), left=6, right=6, top=0, bottom=0)
    middle = height / 2
    parts = [_line(frame.left, middle, width - frame.right, middle, "var(--faint)", 1)]
    if floor is not None:
        edges = [frame.across(end if math.isfinite(end) else floor.value) for end in (floor.low, floor.high)]
        wide = max(3.0, edges[1] - edges[0])
        start = (edges[0] + edges[1] - wide) / 2
        parts.append(
            f'<rect x="{start:.1f}" y="3" width="{wide:.1f}" height="{height - 6}" rx="2" fill="var(--band)"/>'
        )
        place = frame.across(floor.value)
        parts.append(_line(place, 3, place, height - 3, "var(--muted)", 1))
    ink = {True: "var(--good)", False: "var(--bad)", None: "var(--c0)"}[good]
    if math.isfinite(estimate.low):
        parts.append(_line(frame.across(estimate.low), middle, frame.across(estimate.high), middle, ink, 2))
    parts.append(f'<circle cx="{frame.across(estimate.value):.1f}" cy="{middle}" r="3.6" fill="{ink}"/>')
    words = f"{estimate.value:.4g}" + (f", floor {floor.value:.4g}" if floor else "")
    return _svg(width, height, words, parts)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers, about `count` of them, from `low` to `high`."""
    rough = (high - low) / max(1, count)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(each for each in (1, 2, 2.5, 5, 10) if each * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's number: 20k, 1.5M, 0.25."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:.4g}"


def _axes(frame: Frame, across: Sequence[float], down: Sequence[float]) -> list[str]:
    """Lines and numbers of the ticks."""
    parts = []
    for y in down:
        place = frame.down(y)
        parts.append(_line(frame.left, place, frame.width - frame.right, place, "var(--faint)", 1))
        parts.append(_text(frame.left - 6, place + 3.5, short(y), "end"))
    for x in across:
        parts.append(_text(frame.across(x), frame.height - 6, short(x), "middle"))
    return parts


def _thinned(series: Series) -> Series:
    """Finite points, averaged where there are too many to be seen."""
    known = np.isfinite(series.y)
    x, y = series.x[known], series.y[known]
    if len(x) > MOST:
        parts = np.array_split(np.arange(len(x)), MOST)
        x, y = (np.array([each[part].mean() for part in parts]) for each in (x, y))
    return Series(series.name, x, y)


def _span(values: np.ndarray, pad: float = 0.05) -> tuple[float, float]:
    """From the least to the most, with some room; never of no width."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        half = abs(high) * 0.5 or 0.5
        return low - half, high + half
    return low - pad * (high - low), high + pad * (high - low)


def _legend(names: Sequence[str], inks: Sequence[str] = COLORS) -> str:
    keys = "".join(
        f'<span class="key"><i style="background:{inks[number % len(inks)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return f'<div class="legend">{keys}</div>'


def _line(x1: float, y1: float, x2: float, y2: float, ink: str, width: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{ink}" stroke-width="{width}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _figure(title: str, inside: str, width: int, about: str = "") -> str:
    told = f'<span class="about">{escape(about)}</span>' if about else ""
    return f'<figure style="max-width:{width}px"><figcaption>{escape(title)}{told}</figcaption>{inside}</figure>'
