"""A VAE's half of the theory: one item's true posterior, and the encoder's answer, while both change with training."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nacre import images, seeds
from nacre.data import DataSet
from nacre.lab.page import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, Page, Panel, one_sided
from nacre.lab.play import Facts
from nacre.models.vae import VAE
from nacre.theory import Chains, Gaussian, Posterior, elbo, hmc, posterior, sample_bounds
from nacre.theory.posterior import LogLikelihood

K = 50
"""Samples of the tighter bound that is drawn."""

DOTS = 600


def frames(
    vae: VAE, dataset: DataSet, steps: Iterator[int], length: int, *, index: int, seed: int
) -> Iterator[tuple[Image.Image, Facts]]:
    """Draw the posterior of one held-out item at each moment; in the last frame with HMC's samples of it.

    Args:
        vae: with two latents, while it is trained by `steps`.
        dataset: the item is the `index`th that was kept aside for validation.
        length: number of the last step.
        seed: of the item's binarization, and of all samples.
    """
    held_out = dataset.rows("validation")
    item = images.to_float(torch.from_numpy(np.ascontiguousarray(dataset.items[held_out[index : index + 1]]))).double()
    pixels = seeds.noises(vae.likelihood.draws, seed, "lab", rows=range(1), dtype=torch.float64)
    x = vae.likelihood.observe(item, pixels)
    history: list[tuple[float, ...]] = []
    for step in steps:
        model = deepcopy(vae).double().eval()
        log_likelihood, q = asked(model, x)
        truth = posterior(log_likelihood, 2, q)
        bound, gap = elbo(log_likelihood, q), truth.kl_from(q)
        tighter = sample_bounds(log_likelihood, q, (K,), draws=100 * K, seed=seed)[K]
        history.append((step, truth.log_evidence.value, tighter.value, bound.value))
        facts = {
            "step": step,
            "log_p": truth.log_evidence.value,
            "elbo": bound.value,
            f"bound_{K}": tighter.value,
            "kl": gap.value,
            "identity_error": truth.log_evidence.value - bound.value - gap.value,
            "mean": truth.mean.tolist(),
            "std": truth.covariance.diagonal().sqrt().tolist(),
            "q_mean": q.mean.tolist(),
            "q_std": q.std.tolist(),
        }
        chains = hmc(log_likelihood, 2, seed=seed) if step == length else None
        if chains is not None:
            facts |= told(chains, truth)
        with torch.no_grad():
            decoded = model.decode(q.mean[None])
        yield _page(torch.cat([item, x, decoded]), truth, q, chains, np.array(history), length, facts), facts


def asked(model: VAE, x: Tensor) -> tuple[LogLikelihood, Gaussian]:
    """log p(x|z) and q(z|x) of one observed item (1, *shape)."""
    with torch.no_grad():
        mean, std = model.posterior(x)
    return lambda z: model.log_density(x.expand(len(z), *x.shape[1:]), z), Gaussian(mean[0], std[0])


def told(chains: Chains, truth: Posterior) -> Facts:
    """HMC's moments, and by how many of their standard errors they are off the grid's at most."""
    off = [
        ((value - exact).abs() / error).max()
        for (value, error), exact in ((chains.mean, truth.mean), (chains.covariance, truth.covariance))
    ]
    return {
        "hmc_mean": chains.mean[0].tolist(),
        "hmc_std": chains.covariance[0].diagonal().sqrt().tolist(),
        "hmc_off": float(torch.stack(off).max()),
        "hmc_accepted": chains.accepted,
    }


def _page(
    shown: Tensor,
    truth: Posterior,
    q: Gaussian,
    chains: Chains | None,
    history: np.ndarray,
    length: int,
    facts: Facts,
) -> Image.Image:
    page = Page(760, 590, f"p(z|x) of one image and q(z|x): step {facts['step']:,} of {length:,}")
    plane = Panel(page, (34, 62, 324, 352), (-3.5, 3.5), (-3.5, 3.5), "the latent plane")
    spreads = 3.5 * torch.maximum(truth.covariance.diagonal().sqrt(), q.std)
    low = torch.minimum(truth.mean, q.mean) - spreads
    high = torch.maximum(truth.mean, q.mean) + spreads
    reach = float((high - low).max()) / 2
    middle = ((low + high) / 2).tolist()
    spans = [(center - reach, center + reach) for center in middle]
    near = Panel(page, (360, 62, 650, 352), spans[0], spans[1], "the same, closer")
    for panel in (plane, near):
        panel.map(one_sided(_heights(truth, panel)))
    for radius in (1, 2, 3):
        plane.ellipse(np.zeros(2), radius**2 * np.eye(2), FAINT, 1)
    if chains is not None:
        dots = chains.samples.flatten(0, 1)
        near.dots(dots[:: max(1, len(dots) // DOTS)].numpy(), INK, 0.8)
    for panel in (plane, near):
        for sigmas in (1, 2):
            panel.ellipse(q.mean.numpy(), np.diag((sigmas * q.std.numpy()) ** 2), ORANGE)
    plane.frame(ticks=([-2, 0, 2], [-2, 0, 2]))
    near.frame(ticks=([round(spans[0][0] + share * reach, 2) for share in (0.5, 1.5)], []))
    near.legend([("p(z|x)", BLUE), ("q(z|x)", ORANGE), *([("HMC", INK)] if chains is not None else [])])
    for place, (picture, words) in enumerate(zip(shown, ("image", "as seen", "decoded q"), strict=True)):
        grey = np.repeat(images.to_uint8(picture[0]).numpy()[..., None], 3, 2)
        page.text(666, 62 + 100 * place - 2, words, size=11, color=GREY, anchor="ld")
        page.paste(grey, 666, 62 + 100 * place, 80, 80, smooth=False)
    _curves(page, history, length, facts)
    if chains is not None:
        page.text(744, 572, _moments(facts), size=11, color=GREY, anchor="ra")
    return page.finished()


def _curves(page: Page, history: np.ndarray, length: int, facts: Facts) -> None:
    """log p(x) and its bounds over time, and beside them what the bound misses."""
    ticks = np.linspace(0, length, 3).tolist()
    bottom, top = float(history[:, 3].min()), float(history[:, 1].max())
    bounds = Panel(page, (54, 410, 470, 548), (0, length), (bottom - 2, top + 2), "nats")
    for column, color in ((1, INK), (2, GREEN), (3, ORANGE)):
        bounds.line(history[:, [0, column]], color)
    bounds.frame(ticks=(ticks, np.linspace(bottom, top, 3).round().tolist()))
    words = (("log p(x)", "log_p", INK), (f"L, {K} samples", f"bound_{K}", GREEN), ("L", "elbo", ORANGE))
    bounds.legend([(f"{name} {facts[key]:.2f}", color) for name, key, color in words])
    gaps = history[:, 1] - history[:, 3]
    highest = max(0.1, 1.1 * float(gaps.max()))
    missed = Panel(page, (520, 410, 744, 548), (0, length), (0, highest))
    missed.line(np.stack([history[:, 0], gaps], 1), PURPLE)
    missed.frame(ticks=(ticks, [0, round(highest / 2, 2)]))
    missed.legend([(f"KL(q || p(z|x)) {facts['kl']:.3f}", PURPLE)])


def _moments(facts: Facts) -> str:
    pairs = (
        (name, facts[f"{key}mean"], facts[f"{key}std"]) for name, key in (("grid", ""), ("HMC", "hmc_"), ("q", "q_"))
    )
    told = (f"{name} ({mean[0]:.3f}, {mean[1]:.3f}) ± ({std[0]:.3f}, {std[1]:.3f})" for name, mean, std in pairs)
    return "means ± standard deviations: " + "   ".join(told)


def _heights(truth: Posterior, panel: Panel) -> np.ndarray:
    """p(z|x) over a panel as shares of its highest point, (rows, columns): the first latent runs along x."""
    axes = [axis.numpy() for axis in truth.axes]
    steps = [axis[1] - axis[0] for axis in axes]
    density = (truth.log_density - truth.log_density.max()).exp().numpy()
    count = 145
    places = [
        np.rint((np.linspace(*span, count) - axis[0]) / step).astype(int)
        for span, axis, step in zip((panel.x, panel.y), axes, steps, strict=True)
    ]
    inside = [(place >= 0) & (place < len(axis)) for place, axis in zip(places, axes, strict=True)]
    picked = density[np.ix_(*(place.clip(0, len(axis) - 1) for place, axis in zip(places, axes, strict=True)))]
    return (picked * np.outer(*inside)).T
