"""Modes of the ring of 8 and of the grid of 25: how many a GAN covers, how well, and how wide.

    python benchmarks/modes.py ring8 r3gan [--seeds 0 1 …] [--out DIR]
    python benchmarks/modes.py grid25 gan wgan_gp pacgan r3gan --seeds 0 1 2 3 4 --steps 6000 --figure docs/grid25.png

One row for each model; runs that --out holds already are resumed, or only judged if they are complete. Protocol: the
mixtures of VEEGAN (Srivastava et al. 2017) with PacGAN's parameters, 100,000 points; a latent of two standard normal
numbers; 2,500 samples of the averaged weights of the last step; a point is of high quality within three standard
deviations of the mode nearest to it, reverse KL is of the shares of the modes among those points, and spread is the
median distance to the nearest mode as a multiple of the mixture's own; a mode is reached if at least a quarter of its
share of the samples, whatever their quality, is nearest to it. All seeds are in the row.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import nacre
import rows
from nacre.data.toys import MIXTURES, Mixture
from nacre.metrics.modes import Modes, modes

COUNT = 2500
NETS = {"latent_dim": 2, "hidden": (256, 256, 256, 256)}
JUDGE = (128, 128)
TRAINING = {
    "batch_size": 256,
    "sample_every": 0,
    "validation": 0.0,
    "log_every": 1000,
    "lr_schedule": "cosine",
    "compile": "on",
    "lr": 1e-3,
    "ema": 0.998,
}
STEPS = {"ring8": 12_000, "grid25": 16_000}

R3GAN = {
    "ring8": {"gamma": 0.3, "gamma_final": 0.003, "fourier": 50.0},
    "grid25": {"gamma": 0.3, "gamma_final": 0.1, "fourier": 20.0},
}
"""What the two mixtures differ in: a frequency half (ring) or once (grid) over the width of a mode, and a penalty that falls
for half of the steps and in the end lets the judge be as steep as that asks for, at the mixture's scale. The other models have
the same networks, frequency and training, so that they differ in the game alone."""

PUBLISHED = {
    ("ring8", "gan"): "6.3 modes, 98.2 %, KL .45 (Lin et al. 2018)",
    ("ring8", "pacgan"): "PacGAN2 7.9 ± .1 modes, 95.6 ± 2.0 %, KL .07 ± .03 (Lin et al. 2018)",
    ("grid25", "pacgan"): "PacGAN4 24.8 ± .2 modes, 93.6 ± .6 %, KL .04 ± .01 (Lin et al. 2018)",
}
ASKED = {
    "ring8": "8 modes, high quality ≥ 97 %, KL ≤ .02, spread in [.8, 1.2]",
    "grid25": "25 modes, high quality ≥ 95 %, KL ≤ .03, spread in [.8, 1.2]",
}

Recipe = tuple[str, dict[str, Any], dict[str, Any]]


def recipe(toy: str, name: str, steps: int) -> Recipe:
    """The model, its flags and the training's."""
    training = {**TRAINING, "steps": steps}
    nets = {**NETS, "fourier": R3GAN[toy]["fourier"], "network": "mlp"}
    if name == "wgan_gp":  # λ is the authors' code's for toys
        return name, {**nets, "critic_hidden": JUDGE, "gp_weight": 0.1}, training
    nets["discriminator_hidden"] = JUDGE
    if name == "r3gan":
        return name, {**nets, **R3GAN[toy], "gamma_steps": steps // 2}, training
    return "gan", {**nets, "r1": 0.0, "pack": {"gan": 1, "pacgan": {"ring8": 2, "grid25": 4}[toy]}[name]}, training


def trained(toy: str, name: str, seed: int, steps: int, out: Path) -> nacre.Pretrained:
    """One run's model."""
    model, parameters, training = recipe(toy, name, steps)
    place = out / f"{toy}-{name}-{steps}-{seed}"
    nacre.train(model, data=f"toy:{toy}", out=place, seed=seed, or_resume=True, **parameters, **training)
    return nacre.load(place)


def judged(model: nacre.Pretrained, mixture: Mixture, seed: int) -> tuple[np.ndarray, Modes]:
    """Samples (2,500, 2) and what they cover."""
    samples = np.asarray(model.sample(COUNT, seed=seed)).reshape(COUNT, 2)
    return samples, modes(samples, mixture.centers, mixture.sigma)


def reached(samples: np.ndarray, mixture: Mixture) -> int:
    """Modes to which at least a quarter of their share of the samples is nearest, of whatever quality: what collapse leaves."""
    nearest = np.linalg.norm(samples[:, None] - mixture.centers, axis=2).argmin(1)
    counts = np.bincount(nearest, minlength=len(mixture.centers))
    return int((counts >= len(samples) / len(counts) / 4).sum())


def drawn(samples: np.ndarray, mixture: Mixture, size: int = 200) -> np.ndarray:
    """(size, size, 3) uint8: samples in black on rings in red, three standard deviations (at least 3 pixels) wide."""
    reach = np.abs(mixture.centers).max() * 1.25

    def pixels(points: np.ndarray) -> np.ndarray:
        return np.floor((points / reach + 1) / 2 * size).astype(int)

    picture = np.full((size, size, 3), 255, np.uint8)
    rows_, columns = np.mgrid[:size, :size]
    radius = max(3.0, 3 * mixture.sigma / reach * size / 2)
    for column, row in pixels(mixture.centers):
        distance = np.hypot(columns - column, rows_ - (size - 1 - row))
        picture[np.abs(distance - radius) < 0.8] = (240, 140, 140)
    at = pixels(samples)
    at = at[((at > 0) & (at < size)).all(1)]
    for right, down in ((0, 0), (-1, 0), (0, -1), (-1, -1)):  # a sample is 2×2 pixels
        picture[size - 1 - at[:, 1] - down, at[:, 0] + right] = 0
    return picture


def figure(cells: dict[str, list[tuple[np.ndarray, str]]], seeds: list[int], place: Path) -> None:
    """A row for each model, a column for each seed; over each cell what is said of it."""
    gap, margin, head = 6, 90, 18
    size = len(next(iter(cells.values()))[0][0])
    page = Image.new("RGB", (margin + len(seeds) * (size + gap), head + len(cells) * (size + head + gap)), "white")
    pencil, letters = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, seed in enumerate(seeds):
        pencil.text((margin + column * (size + gap), 2), f"seed {seed}", "black", letters)
    for row, (name, line) in enumerate(cells.items()):
        top = head + row * (size + head + gap)
        pencil.text((2, top + head + size // 2 - 8), name, "black", letters)
        for column, (picture, said) in enumerate(line):
            left = margin + column * (size + gap)
            pencil.text((left, top), said, "black", letters)
            page.paste(Image.fromarray(picture), (left, top + head))
            pencil.rectangle((left, top + head, left + size - 1, top + head + size - 1), outline="silver")
    page.quantize(32).save(place, optimize=True)


def main() -> None:
    """Train, judge, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("toy", choices=list(MIXTURES))
    parser.add_argument("models", nargs="+", choices=["gan", "wgan_gp", "pacgan", "r3gan"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--steps", type=int, help=f"of training; by default {STEPS}")
    parser.add_argument("--out", type=Path, default=Path("runs/modes"))
    parser.add_argument("--figure", type=Path, help="a picture of the samples of all models and seeds")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    asked.steps = asked.steps or STEPS[asked.toy]
    mixture, cells = MIXTURES[asked.toy], {}
    for name in asked.models:
        begun, found, near, line = time.perf_counter(), [], [], []
        for seed in asked.seeds:
            samples, covered = judged(trained(asked.toy, name, seed, asked.steps, asked.out), mixture, seed)
            found.append(covered)
            near.append(reached(samples, mixture))
            said = f"{near[-1]} of {covered.of} reached, {covered.high_quality:.0%} good"
            line.append((drawn(samples, mixture), said))
            print(f"{name} seed {seed}: {covered}", flush=True)
        cells[name] = line
        write(asked, name, found, near, time.perf_counter() - begun)
    if asked.figure:
        figure(cells, asked.seeds, asked.figure)


def write(asked: argparse.Namespace, name: str, found: list[Modes], near: list[int], seconds: float) -> None:
    """One model's row."""
    model, parameters, training = recipe(asked.toy, name, asked.steps)
    values = {
        "captured": [one.captured for one in found],
        "reached": near,
        "high_quality": [one.high_quality for one in found],
        "reverse_kl": [one.reverse_kl for one in found],
        "spread": [one.spread for one in found],
        "narrowest_mode": [one.spreads[0] for one in found],
        "widest_mode": [one.spreads[1] for one in found],
    }
    place = rows.write_row(
        f"modes-{asked.toy}-{name.replace('_', '-')}",
        f"{__doc__.split('Protocol: ')[1].strip()} nacre train {model} {parameters}, {training}",
        values,
        asked.seeds,
        COUNT,
        results=asked.results,
        wall_seconds=seconds,
        published=PUBLISHED.get((asked.toy, name), ""),
        asked=ASKED[asked.toy],
    )
    print(place)


if __name__ == "__main__":
    main()
