"""`toy:pearls`: the story that GANs are taught with, as images of which everything is known.

A pearl is a white superellipse |x/r|ⁿ + |y/r|ⁿ ≤ 1 with a soft edge, in the middle of a black image of 16×16 pixels. Two
numbers make it: its radius r in pixels, and its squareness 1 - 2/n, which is 0 for a disc and nears 1 for a square. Real
pearls have a radius of 5 ± .5 and a squareness of .3 ± .1; a forger has to hit both, and what was hit can be measured on
any image.
"""

import numpy as np

SIDE = 16
COUNT = 10_000
FINER = 6
"""Dots along a pixel's side, of which a pixel's grey is a weighted mean."""

RADIUS, SQUARENESS = (5.0, 0.5), (0.3, 0.1)
"""Mean and standard deviation among real pearls; both are normal, cut off at three standard deviations."""

LARGEST_SQUARENESS = 0.95
BLOCK = 1000


def draw(parameters: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
    """Pearls of known radius and squareness.

    Args:
        parameters: (N, 2): radii in pixels, from 1 to 8, and squareness, from 0 to .95.
        generator: rounds grey values up or down at random, each to what it is on average; by default to the nearest.

    Returns:
        (N, 16, 16) uint8.
    """
    # A quarter is drawn, and mirrored into the other three. A pixel sees the dots up to one pixel away along either
    # axis, the nearer the more: pixels that see only their own square would not tell where an edge runs in it.
    dots = (np.arange((SIDE // 2 + 1) * FINER) + 0.5) / FINER
    middles = np.arange(SIDE // 2)[:, None] + 0.5
    weights = np.maximum(0, 1 - np.abs(dots - middles)) + np.maximum(0, 1 - np.abs(dots + middles))
    weights = (weights / FINER).astype(np.float32)
    quarters = []
    for start in range(0, len(parameters), BLOCK):
        radius, squareness = parameters[start : start + BLOCK].T[:, :, None]
        power = 2 / (1 - squareness)
        widths = radius * np.maximum(0, 1 - (dots / radius) ** power) ** (1 / power)
        # Exact along one axis, and on dots along the other; and since a pearl is its own transpose, the same again.
        inside = np.clip(FINER * widths[:, :, None] - np.arange(len(dots)), 0, 1).astype(np.float32)
        inside = (inside + inside.transpose(0, 2, 1)) / 2
        quarters.append(255 * (weights @ inside @ weights.T))
    half = np.concatenate(quarters)
    half = np.concatenate([half[:, ::-1], half], 1)
    grey = np.concatenate([half[:, :, ::-1], half], 2)
    rounding = 0.5 if generator is None else generator.random(grey.shape, dtype=np.float32)
    return np.minimum(grey + rounding, 255).astype(np.uint8)


def pearls(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` real pearls.

    Returns:
        (count, 16, 16) uint8, and what made them: (count, 2) float64, radius and squareness.
    """
    within_three = np.clip(generator.standard_normal((count, 2)), -3, 3)
    means, stds = np.array([RADIUS, SQUARENESS]).T
    parameters = means + stds * within_three
    # Rounded to the nearest grey, one pearl in twenty would have the very pixels of another, slightly different one.
    return draw(parameters, generator), parameters


def measure(images: np.ndarray) -> np.ndarray:
    """Radius and squareness of the superellipse that has an image's mass and fourth harmonic, as good as they can be told.

    The squareness is read off ∫ ρ⁴ cos 4φ / (∫ ρ²)², which is 0 for a disc, and falls as it becomes a square; the radius
    then off the area. On real pearls both have an error of about .013 (standard deviation).

    Args:
        images: (N, 16, 16), in [0, 1] or 0 to 255.

    Returns:
        (N, 2) float64: radius in pixels, and squareness within [0, .95]. Of a black image 0 and 0.
    """
    grey = np.asarray(images, np.float64) / (255 if np.asarray(images).dtype == np.uint8 else 1)
    area = grey.sum((1, 2))
    safe = np.maximum(area, 1e-9)
    middles = np.arange(SIDE) - (SIDE - 1) / 2
    x, y = (np.einsum(f"nyx,{axis}->n", grey, middles) / safe for axis in "xy")
    dx, dy = middles - x[:, None], middles - y[:, None]
    fourth = (np.einsum("nyx,nx->n", grey, dx**4) + np.einsum("nyx,ny->n", grey, dy**4)) / safe
    crossed = np.einsum("nyx,nx,ny->n", grey, dx**2, dy**2) / safe
    second = (np.einsum("nyx,nx->n", grey, dx**2) + np.einsum("nyx,ny->n", grey, dy**2)) / safe
    # What the soft edge adds to the moments is taken off: 1/6 of variance along each axis, and fourth cumulants of -1/60.
    harmonic = (fourth - 6 * crossed + 1 / 30) / np.square(np.maximum(second - 1 / 3, 1e-9))
    squareness = np.interp(-harmonic, -_harmonics(), _STEPS)
    radius = np.sqrt(area / np.exp(_log_area(squareness)))
    return np.stack([radius, np.where(area > 0, squareness, 0)], 1)


_STEPS = np.linspace(0, LARGEST_SQUARENESS, 200)


def _log_area(squareness: np.ndarray) -> np.ndarray:
    """log of the area of a superellipse of radius 1."""
    return np.log(4) + _log_moment(squareness, 0, 0)


def _log_moment(squareness: np.ndarray, a: int, b: int) -> np.ndarray:
    """log ∫ xᵃ yᵇ over the positive quarter of a superellipse of radius 1: Dirichlet's integral."""
    from scipy.special import gammaln  # an eighth of a second, which every command would wait for

    share = (1 - squareness) / 2  # 1/n
    numerator = gammaln((a + 1) * share) + gammaln((b + 1) * share)
    return numerator + 2 * np.log(share) - gammaln((a + b + 2) * share + 1)


def _harmonics() -> np.ndarray:
    """∫ ρ⁴ cos 4φ / (∫ ρ²)² at `_STEPS`, integrals being means over the superellipse; descending from 0."""
    whole = _log_moment(_STEPS, 0, 0)
    x4, x2y2, x2 = (np.exp(_log_moment(_STEPS, a, b) - whole) for a, b in ((4, 0), (2, 2), (2, 0)))
    return (2 * x4 - 6 * x2y2) / np.square(2 * x2)
