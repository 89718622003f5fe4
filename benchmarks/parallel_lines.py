"""Parallel lines: what three games say of the distance between two densities that do not overlap.

    python benchmarks/parallel_lines.py [wgan_gp wgan gan] [--seeds 0 1 2 3 4] [--precision bf16] [--figure FILE.png]

Example 1 of Arjovsky et al. 2017: real items are uniform on the line {0} × [0, 1], generated ones, g_θ(z) = (θ, z), on
{θ} × [0, 1]. Published there, and exact: the Wasserstein distance is θ, the Jensen-Shannon divergence log 2 whatever θ > 0.
Models, losses, optimizers and steps are nacre's; the generator is g_θ, whose one parameter is θ.

WGAN-GP. The critic f maximises E f(x) - E f(x̃) - λ E (‖∇f(x̂)‖ - 1)², x̂ = ε x + (1 - ε) x̃. Let f depend on the first
coordinate u alone, with slope s(u) = -f'(u). The gap E f(x) - E f(x̃) is ∫ s du over [0, θ], and x̂ is uniform there, so

    ∫ s - (λ/θ) (s - 1)² du   is greatest at   1 = (2λ/θ) (s - 1),   s = 1 + θ/2λ:   the gap is θ s = θ + θ²/2λ.

Divided by the mean slope it is θ again. No function of both coordinates is better if the two items of a pair have the same
height ("shared"): x̂ is then uniform on the strip between the lines, and pointwise in x̂ the best gradient is that of f.
Algorithm 1 draws the two independently ("independent"): x̂ is rare near the strip's corners, where steep slopes then cost
little, and the best function has a larger gap, which `optimum` computes (exact but for the size of its cells). A ReLU
critic does not find it. Its curvature is zero wherever it is defined, so that the penalty has no gradient in where the
kinks lie; it ends linear on the strip, with the formula's gap. A critic with softplus in the place of ReLU does find it.

WGAN. The weights' bound c bounds the slope by a constant that depends on c and on the network, and on how many units
live: the gap is K θ, and K says nothing. Played against, g_θ arrives at the real line nevertheless.

GAN. By eq. 1 of Goodfellow et al. 2014 a discriminator's loss is at least 2 log 2 - 2 JSD: log 2 less half of it is a lower
bound of the divergence.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

import rows
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.models.gan import GAN
from nacre.models.wgan import WGAN
from nacre.models.wgan_gp import WGANGP
from nacre.seeds import noise, normal, uniform

Values: TypeAlias = dict[str, list[float]]
"""By name of a figure, one number a seed."""

DISTANCES = (0.5, 1.0, 2.0)
WEIGHTS = (10.0, 0.1)
HEIGHTS = 1000
"""Points on a line that its means are taken over: the midpoints of as many equal parts."""

PENALISED = Training(steps=1000, batch_size=256, lr=2e-3, lr_schedule="cosine")
CLIPPED = Training(steps=400, batch_size=64, lr_schedule="cosine")
SHIFTED = Training(steps=3000, batch_size=64, lr=5e-3, lr_schedule="cosine")
GENERATED = Training(steps=6000, batch_size=64, lr=2e-3, lr_schedule="cosine")
JUDGED = Training(steps=1000, batch_size=64, lr=1e-2, lr_schedule="cosine")

VARIANTS = (("shared", "relu"), ("independent", "relu"), ("independent", "softplus"))
"""Heights of a pair, and the critic's activation; nacre's are the second."""

CRITICS = (((64,), 0.1), ((64,), 0.01), ((16, 16), 0.1))
"""Hidden layers of a clipped critic, and c."""

PROTOCOLS = {
    "wgan_gp": (
        "real {0} x U[0,1], generated {theta} x U[0,1]; nacre's wgan_gp, critic MLP 64-64, its own loss (two-sided) and Adam "
        f"(0, .9), generator frozen, {PENALISED.steps} steps of {PENALISED.batch_size}, lr 2e-3 falling to 0 (cosine), float32 "
        "(bf16 where the row's name says so); gap over 1,000 heights; slope = mean norm of the gradient "
        "over 100 x 100 points of the strip between the lines; keys: "
        "heights of a pair (shared, or independent as in algorithm 1) _ activation (nacre's relu, or softplus(5x) / 5) _ lambda "
        "_ theta; "
        "gap_over_exact against theta + theta^2 / 2 lambda, for independent_softplus against the finite-element optimum (48 x "
        "48 cells); one value a seed"
    ),
    "wgan": (
        "real {0} x U[0,1], generated {theta} x U[0,1]; nacre's wgan, its own loss and RMSProp. scale: gap / theta of a critic "
        f"trained afresh for each theta, generator frozen, {CLIPPED.steps} steps of 64, lr 3e-2 x c falling to 0 (cosine); K: of "
        "the line through the origin by least squares over theta = .5, 1, 2; r2 about the mean of the three gaps, r2_origin "
        f"about zero; keys: hidden layers _ clip value. shift: |theta| of the generator (theta, z) at the end of {SHIFTED.steps} "
        "steps, n_critic 5, lr 5e-3 falling to 0, critic 64, c = .1. generator: nacre's own, MLP 32-32 from 2 normal latents, "
        f"begun at (theta, 0), c = .2, {GENERATED.steps} steps, lr 2e-3 falling to 0: E|u| + W1(v, U[0,1]) over 2,000 samples, "
        "which bounds its W1 to the real line; one value a seed"
    ),
    "gan": (
        "real {0} x U[0,1], generated {theta} x U[0,1]; nacre's gan (minimax, no penalty), discriminator MLP 64, its own loss "
        f"and Adam (.5, .999), generator frozen, {JUDGED.steps} steps of 64, lr 1e-2 falling to 0 (cosine); log 2 less half the "
        "discriminator's loss over 1,000 heights a line, a lower bound of the JSD in nats; theta = 0 is the control; one value "
        "a seed"
    ),
}

FACTS = {
    "wgan_gp": {
        "published": "W1 = theta (Arjovsky et al. 2017, example 1); theta + theta^2 / 2 lambda is exact (derived, not published)",
        "asked": "gap within 2 % of theta + theta^2 / 2 lambda; gap / mean slope within 2 % of theta",
    },
    "wgan": {
        "published": "W1 = theta (Arjovsky et al. 2017, example 1); no figure for a clipped critic's scale",
        "asked": "gap proportional to theta, R^2 >= .99; the trained generator within .05 of its target",
    },
    "gan": {
        "published": "JSD = log 2 = .693147 for every theta > 0 (Arjovsky et al. 2017, example 1; exact)",
        "asked": "JSD stays log 2",
    },
}


class Line(nn.Module):
    """g_θ(z) = (θ, Φ(z)): a normal latent (N, 1) to the line {θ} × [0, 1]."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.theta.expand(len(z), 1), torch.special.ndtr(z)], 1)


def line(theta: float, heights: Tensor) -> Tensor:
    """Points (N, 2) of {θ} × [0, 1] at heights (N, 1)."""
    return torch.cat([torch.full_like(heights, theta), heights], 1)


def midpoints(count: int) -> Tensor:
    """(count, 1), in the middle of equal parts of [0, 1]."""
    return ((torch.arange(count) + 0.5) / count).unsqueeze(1)


def train(model: nn.Module, training: Training, *, players: int, shared: bool = False) -> None:
    """Play the model's first `players` objectives against real items of {0} × [0, 1].

    Args:
        model: its table's first objective is the judge's and draws z.
        training: with steps and batch size.
        players: 1 leaves the generator as it is.
        shared: real items have the heights of the generated ones that they are paired with.
    """
    updates = [Update(model, objective, training) for objective in model.objectives()[:players]]
    make = partial(noise, rows=range(training.batch_size))
    for step in range(training.steps):
        if shared:  # the noise that the judge's loss is about to be given
            z = make(normal(1), training.seed, updates[0].objective.name, "z", at=step)
            heights = torch.special.ndtr(z)
        else:
            heights = make(uniform(1), training.seed, "heights", at=step)
        for update in updates:
            if step in update.objective.when:
                update(step, line(0.0, heights))


@torch.no_grad()
def gap_of(model: nn.Module, theta: float) -> float:
    """E f(x) - E f(x̃) between the lines at 0 and at θ."""
    heights = midpoints(HEIGHTS)
    return (model.realness(line(0.0, heights)) - model.realness(line(theta, heights))).mean().item()


def slopes_of(model: nn.Module, theta: float, count: int = 100) -> Tensor:
    """‖∇f‖ at count × count points, evenly on the strip between the lines: (count²,)."""
    points = torch.cartesian_prod(theta * midpoints(count).squeeze(1), midpoints(count).squeeze(1)).requires_grad_()
    (slope,) = torch.autograd.grad(model.realness(points).sum(), points)
    return slope.norm(dim=1)


def density(mix: Tensor, height: Tensor) -> Tensor:
    """Density of the height ε y + (1 - ε) y' of an interpolate, given ε, for y and y' uniform and independent: a trapezium."""
    narrow = torch.minimum(mix, 1 - mix)
    return torch.minimum(torch.minimum(height, 1 - height), narrow) / (narrow * (1 - narrow))


def optimum(theta: float, weight: float, *, shared: bool, cells: int = 48) -> tuple[float, Tensor]:
    """The gap of the best of all critics under the penalty, and its slopes, by finite elements.

    The critic is linear on each of 2 cells² triangles. Slopes under one are not punished: that makes the problem convex, and
    changes nothing where the best critic has none (its least slope tells).

    Args:
        theta: θ.
        weight: λ.
        shared: whether the items of a pair have the same height.
        cells: along either axis.

    Returns:
        The gap, and the slopes on the triangles, (2, cells, cells) float64.
    """
    # The centroids of a cell's two triangles are a third and two thirds of its side from its corner.
    grid = (torch.arange(cells, dtype=torch.float64) + torch.tensor([[1 / 3], [2 / 3]])) / cells
    mass = torch.ones(2, cells, cells).double() if shared else density(grid.unsqueeze(2), grid.unsqueeze(1))

    def slopes(f: Tensor) -> Tensor:
        along, up = f.diff(dim=0) * cells / theta, f.diff(dim=1) * cells
        return torch.stack([along[:, :-1].hypot(up[:-1]), along[:, 1:].hypot(up[1:])])

    def gap(f: Tensor) -> Tensor:
        ends = f[0] - f[-1]
        return (ends[1:] + ends[:-1]).mean() / 2

    def negative(values: np.ndarray) -> tuple[float, np.ndarray]:
        f = torch.from_numpy(values).view(cells + 1, cells + 1).requires_grad_()
        value = weight * (mass * (slopes(f) - 1).clamp(min=0).square()).mean() - gap(f)
        (gradient,) = torch.autograd.grad(value, f)
        return value.item(), gradient.flatten().numpy()

    start = -theta * torch.linspace(0, 1, cells + 1, dtype=torch.float64).unsqueeze(1).expand(
        -1, cells + 1
    )  # slope one
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-13, "gtol": 1e-9, "maxcor": 30}
    found = minimize(negative, start.flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
    best = torch.from_numpy(found.x).view(cells + 1, cells + 1)
    return gap(best).item(), slopes(best)


def penalised(seeds: list[int], precision: Literal["fp32", "bf16"] = "fp32") -> tuple[Values, dict[str, Any]]:
    """WGAN-GP's critic: gap and slope beside their exact values, for each λ, θ and variant."""
    values: Values = {}
    exact: dict[str, Any] = {}
    for weight, theta in product(WEIGHTS, DISTANCES):
        formula = theta + theta**2 / (2 * weight)
        best, slopes = optimum(theta, weight, shared=False)
        place = f"lambda{weight:g}_theta{theta:g}"
        exact[place] = {"formula": formula, "optimum_independent": best, "its_least_slope": slopes.min().item()}
        for (heights, activation), seed in product(VARIANTS, seeds):
            torch.manual_seed(seed)
            model = WGANGP((2,), latent_dim=1, gp_weight=weight, hidden=(64, 64))
            model.generator = Line(theta)
            if activation == "softplus":
                soften(model.critic)
            train(model, replace(PENALISED, seed=seed, precision=precision), players=1, shared=heights == "shared")
            gap, slope = gap_of(model, theta), slopes_of(model, theta)
            aim = best if activation == "softplus" else formula
            note(
                values,
                f"{heights}_{activation}_{place}",
                gap=gap,
                gap_over_exact=gap / aim,
                gap_over_slope_over_theta=gap / slope.mean().item() / theta,
                spread_of_slope=(slope.std() / slope.mean()).item(),
            )
    return values, {"exact": exact}


def soften(critic: nn.Sequential) -> None:
    """A softplus in the place of each ReLU."""
    for index, layer in enumerate(critic):
        if isinstance(layer, nn.ReLU):
            critic[index] = nn.Softplus(beta=5)


def clipped(seeds: list[int]) -> tuple[Values, dict[str, Any]]:
    """WGAN's critic: gap against θ; and where the generator ends."""
    values: Values = {}
    for (hidden, bound), seed in product(CRITICS, seeds):
        gaps = []
        for theta in DISTANCES:
            torch.manual_seed(seed)
            model = WGAN((2,), latent_dim=1, clip_value=bound, hidden=hidden)
            model.generator = Line(theta)
            train(model, replace(CLIPPED, seed=seed, lr=0.03 * bound), players=1)
            gaps.append(gap_of(model, theta))
        scales = {f"scale_theta{theta:g}": gap / theta for theta, gap in zip(DISTANCES, gaps, strict=True)}
        note(values, f"{'-'.join(map(str, hidden))}_c{bound:g}", **through_origin(DISTANCES, gaps), **scales)
    for theta, seed in product(DISTANCES, seeds):
        torch.manual_seed(seed)
        model = WGAN((2,), latent_dim=1, clip_value=0.1, hidden=(64,))
        model.generator = Line(theta)
        train(model, replace(SHIFTED, seed=seed), players=2)
        note(values, f"from_theta{theta:g}", shift=abs(model.generator.theta.item()))
    for theta, seed in product(DISTANCES, seeds):
        torch.manual_seed(seed)
        model = WGAN((2,), latent_dim=2, clip_value=0.2, hidden=(32, 32))
        with torch.no_grad():
            model.generator[-2].bias[0] += theta
        train(model, replace(GENERATED, seed=seed), players=2)
        note(values, f"from_theta{theta:g}", generator=distance_to_real(model))
    return values, {}


def through_origin(thetas: Sequence[float], gaps: Sequence[float]) -> dict[str, float]:
    """The line gap = K θ by least squares, and what share of the gaps' variance it explains, about their mean and about zero."""
    x, y = np.asarray(thetas), np.asarray(gaps)
    scale = (x @ y) / (x @ x)
    rest = np.square(y - scale * x).sum()
    return {"K": scale, "r2": 1 - rest / np.square(y - y.mean()).sum(), "r2_origin": 1 - rest / np.square(y).sum()}


@torch.no_grad()
def distance_to_real(model: WGAN, count: int = 2000) -> float:
    """E |u| + W1(v, U[0, 1]) over `count` samples (u, v): each is moved to the real line, and then along it."""
    u, v = model.decode(noise(model.prior["z"], "samples", rows=range(count))).T
    return (u.abs().mean() + (v.sort().values - midpoints(count).squeeze(1)).abs().mean()).item()


def divergence(seeds: list[int]) -> tuple[Values, dict[str, Any]]:
    """GAN's discriminator: the bound on the Jensen-Shannon divergence that its loss gives."""
    values: Values = {}
    heights = midpoints(HEIGHTS)
    for theta, seed in product((0.0, *DISTANCES), seeds):
        torch.manual_seed(seed)
        model = GAN((2,), latent_dim=1, loss="minimax", r1=0.0, hidden=(64,))
        model.generator = Line(theta)
        train(model, replace(JUDGED, seed=seed), players=1)
        with torch.no_grad():
            loss = model.game(model.realness(line(0.0, heights)), model.realness(line(theta, heights))).item()
        note(values, f"theta{theta:g}", jsd_bound=math.log(2) - loss / 2)
    return values, {}


def note(values: Values, place: str, **measured: float) -> None:
    """One seed's figures, kept and printed."""
    for name, value in measured.items():
        values.setdefault(f"{place}_{name}", []).append(float(value))
    print(place, *(f"{name} {value:.5g}" for name, value in measured.items()), sep="  ", flush=True)


PARTS: dict[str, Callable[[list[int]], tuple[Values, dict[str, Any]]]] = {
    "wgan_gp": penalised,
    "wgan": clipped,
    "gan": divergence,
}


def draw(values: Values, place: Path) -> None:
    """What each game says against θ, both axes logarithmic; each point a seed. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="θ", ylabel="what the judge says")
    fine = np.geomspace(0.45, 2.2)
    axes.plot(fine, fine, "k--", label="Wasserstein distance: θ")
    for colour, weight in zip(("C0", "C1"), WEIGHTS, strict=True):
        axes.plot(fine, fine + fine**2 / (2 * weight), colour, label=f"WGAN-GP, λ = {weight:g}: θ + θ²/2λ")
        points(axes, values, f"independent_relu_lambda{weight:g}_theta{{:g}}_gap", colour)
    for colour, (hidden, bound) in zip(("C2", "C3", "C4"), CRITICS, strict=True):
        name = "-".join(map(str, hidden))
        scale = np.mean(values[f"{name}_c{bound:g}_K"])
        axes.plot(fine, scale * fine, colour, label=f"clipped, {name}, c = {bound:g}: {scale:.2g} θ")
        points(axes, values, f"{name}_c{bound:g}_scale_theta{{:g}}", colour, by_theta=True)
    axes.plot(fine, np.full_like(fine, math.log(2)), "C5", label="GAN, Jensen-Shannon: log 2")
    points(axes, values, "theta{:g}_jsd_bound", "C5")
    axes.set_xticks(DISTANCES, [f"{theta:g}" for theta in DISTANCES])
    axes.minorticks_off()
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(place, dpi=120)


def points(axes: Any, values: Values, key: str, colour: str, by_theta: bool = False) -> None:
    """Every seed at every θ; `by_theta` where the values are gaps over θ."""
    for theta in DISTANCES:
        each = np.asarray(values[key.format(theta)]) * (theta if by_theta else 1)
        axes.plot(np.full_like(each, theta), each, "o", color=colour, markersize=4)


def main() -> None:
    """Play the parts asked for and write a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of wgan_gp")
    parser.add_argument("--figure", type=Path, help="draw all parts into this file; needs matplotlib")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(PARTS)}")
    if asked.figure and asked.parts:
        parser.error("--figure draws all parts: name none of them")
    drawn: Values = {}
    for part in asked.parts or PARTS:
        begun = time.perf_counter()
        reduced = part == "wgan_gp" and asked.precision == "bf16"
        values, extra = penalised(asked.seeds, "bf16") if reduced else PARTS[part](asked.seeds)
        name = f"parallel-lines-{part.replace('_', '-')}{'-bf16' if reduced else ''}"
        seconds = time.perf_counter() - begun
        print(
            rows.write_row(
                name, PROTOCOLS[part], values, asked.seeds, HEIGHTS, wall_seconds=seconds, **FACTS[part], **extra
            )
        )
        drawn |= values
    if asked.figure:
        draw(drawn, asked.figure)


if __name__ == "__main__":
    main()
