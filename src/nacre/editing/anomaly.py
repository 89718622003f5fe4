"""Anomalies: which items are not of the kind that a model has learned.

detector = Detector(model, method="reconstruction").fit(normal, held_out)
detector.score_samples(items)  # the lower, the more anomalous, as scikit-learn has it
detector.p_values(items)
"""

import io
import math
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nacre import images, losses, seeds
from nacre.editing import latents, optimise
from nacre.editing.features import features_of
from nacre.editing.inversion import Search, invert
from nacre.editing.items import checked
from nacre.errors import CapabilityError, ConfigError, ShapeError, at_least
from nacre.networks import is_image
from nacre.protocols import Decodes, Discriminates, Encodes, LogLikelihood, Reconstructs, check_seed

Method: TypeAlias = Literal[
    "auto", "reconstruction", "inversion", "features", "realness", "regret", "complexity", "likelihood"
]

DRAWS = 4
"""Draws of a likelihood's noise, the same for every item, over which it is averaged."""

ADVICE = "take --method features, or a run of a vae"


class Detector:
    """Scores of items by a trained model, and a threshold for them from items that were kept aside.

    Raw likelihood is never chosen by itself: models give simple images of another kind a higher one than their own
    (Nalisnick et al. 2019).

    Args:
        model: a trained module; it is asked in evaluation mode.
        method: "reconstruction": the squared error of what the model makes of an item; "inversion": the same of the nearest item
            that a generator can make (AnoGAN, Schlegl et al. 2017); "features": the distance to the nearest normal items in what
            the model's last layer sees; "realness": minus the judge's; "regret": how much the bound gains from a posterior of the
            item's own (Xiao et al. 2020); "complexity": the negative log-likelihood beyond the length of the compressed item
            (Serrà et al. 2020); "likelihood": minus the log-likelihood as it is. "auto": reconstruction if the model
            reconstructs, otherwise features.
        neighbours: of "features".
        steps: of "regret": of Adam, in searching the item's own posterior.
        seed: of the likelihood's noise and of searches.

    Raises:
        CapabilityError: the model does not do what the method asks for.
        ConfigError: there is no such method, or a setting is out of range.
    """

    reference_: Tensor
    held_out_: Tensor

    def __init__(
        self, model: nn.Module, method: Method = "auto", *, neighbours: int = 5, steps: int = 100, seed: int = 0
    ) -> None:
        at_least(1, neighbours=neighbours)
        at_least(0, steps=steps)
        check_seed(seed)
        self.model, self.neighbours, self.steps, self.seed = model, neighbours, steps, seed
        self.method = method_for(model, method)

    def fit(self, normal: Tensor, held_out: Tensor) -> "Detector":
        """Learn what is normal.

        Args:
            normal: (M, *shape), items as the model was trained on; only "features" looks at them.
            held_out: (N, *shape), normal items that it was not trained on, which the threshold comes from.

        Raises:
            ShapeError: items that are not of the model's shape, images that are not floats in [0, 1], or numbers that are not
                finite.
        """
        if self.method == "features":
            normal = checked(self.model, normal)
            with latents.evaluating(self.model):
                seen = self._seen(normal)
            self.scale_ = seen.std(0).clamp(min=1e-6)
            self.reference_ = seen / self.scale_
        self.held_out_ = self.scores(held_out).sort().values
        return self

    def scores(self, items: Tensor) -> Tensor:
        """(N, *shape) ↦ (N,) float64: the higher, the more anomalous. An item's does not depend on the others.

        Raises:
            ShapeError: as `fit`.
            ConfigError: the method needs `fit` first.
        """
        items = checked(self.model, items)
        with latents.evaluating(self.model):
            found: Tensor = getattr(self, f"_{self.method}")(items)
        return found.double().cpu()

    def score_samples(self, items: Tensor) -> Tensor:
        """Minus the scores, for scikit-learn's outlier detectors have it so: the lower, the more anomalous."""
        return -self.scores(items)

    def p_values(self, items: Tensor) -> Tensor:
        """Share of normal items, these among them, that are at least as anomalous: (N,) float64 in (0, 1].

        (1 + how many of n held-out scores are as high) / (n + 1): if an item is normal, p ≤ r happens with probability r at most.
        """
        return self.p_of(self.scores(items))

    def p_of(self, scores: Tensor) -> Tensor:
        """`p_values` of scores. Raises ConfigError before `fit`."""
        held_out = self._fitted("held_out_")
        lower = torch.searchsorted(held_out, scores)
        return (1 + len(held_out) - lower).double() / (len(held_out) + 1)

    def threshold(self, rate: float = 0.05) -> float:
        """The score that `rate` of the held-out items exceed; infinite if there are too few to tell.

        Raises:
            ConfigError: a rate that is no share between 0 and 1, or `fit` has not been called.
        """
        _check_rate(rate)
        held_out = self._fitted("held_out_")
        place = math.ceil((1 - rate) * (len(held_out) + 1))
        return float(held_out[place - 1]) if place <= len(held_out) else math.inf

    def predict(self, items: Tensor, rate: float = 0.05) -> Tensor:
        """(N,) int64: -1 for an anomaly, 1 for a normal item, of which `rate` are taken for anomalies. Raises as `threshold`."""
        _check_rate(rate)
        return torch.where(self.p_values(items) <= rate, -1, 1)

    def heat_map(self, items: Tensor) -> Tensor:
        """Where an image differs from what the model makes of it: (N, C, H, W) ↦ (N, H, W), squared error, a mean over channels.

        Raises:
            CapabilityError: the model neither reconstructs nor decodes.
            ShapeError: vectors, or as `fit`.
        """
        if items.ndim != 4:
            raise ShapeError(f"heat maps are of images (N, C, H, W), got {tuple(items.shape)}.")
        items = checked(self.model, items)
        with latents.evaluating(self.model):
            return (self._remade(items) - items).square().mean(1).cpu()

    def _fitted(self, name: str) -> Tensor:
        """What `fit` has learned under that name."""
        if not hasattr(self, name):
            raise ConfigError("the detector does not know yet what is normal; call fit first.")
        return getattr(self, name)

    def _remade(self, items: Tensor) -> Tensor:
        if isinstance(self.model, Reconstructs) and self.method != "inversion":
            return latents.apply(self.model, self.model.reconstruct, items)
        return invert(self.model, items, Search(restarts=2, lbfgs_steps=50), seed=self.seed).remade

    def _reconstruction(self, items: Tensor) -> Tensor:
        return (self._remade(items) - items).square().flatten(1).mean(1)

    _inversion = _reconstruction

    def _realness(self, items: Tensor) -> Tensor:
        return -latents.apply(self.model, self.model.realness, items)  # type: ignore[arg-type]

    def _seen(self, items: Tensor) -> Tensor:
        """What the model's last layer is given, each channel at 4×4 places at most: (N, F)."""
        see = features_of(self.model)

        def last(part: Tensor) -> Tensor:
            layer = see(part)[-1]
            if layer.ndim == 4 and max(layer.shape[2:]) > 4:
                layer = nn.functional.adaptive_avg_pool2d(layer, 4)
            return layer.flatten(1)

        return latents.apply(self.model, last, items)

    def _features(self, items: Tensor) -> Tensor:
        """The mean distance to the nearest normal items, each feature divided by its deviation among these."""
        # In float64, since a product of matrices gives near points the rounding of their norms for a distance.
        reference, seen = self._fitted("reference_").double(), (self._seen(items) / self.scale_).double()
        parts = [torch.cdist(part, reference) for part in torch.split(seen, latents.CHUNK)]
        count = min(self.neighbours, len(reference))
        return torch.cat(parts).topk(count, 1, largest=False).values.mean(1)

    def _likelihood(self, items: Tensor) -> Tensor:
        return self._noisily(items, lambda part, noise: -self.model.log_likelihood(part, noise))  # type: ignore[operator]

    def _complexity(self, items: Tensor) -> Tensor:
        """-log p(x) - L(x), in nats, both of what the model sees: of grey levels, or of binarized pixels."""
        law = getattr(self.model, "likelihood", None)
        levels = getattr(law, "bin_nats", None)

        def beyond(part: Tensor, noise: dict[str, Tensor]) -> Tensor:
            nll = -self.model.log_likelihood(part, noise)  # type: ignore[operator]
            if levels is not None:
                return nll + levels - compressed(part)
            seen = law.observe(part, noise) if law is not None else part
            return nll - compressed(seen, bits=bool(((seen == 0) | (seen == 1)).all()))

        return self._noisily(items, beyond)

    def _noisily(self, items: Tensor, ask: Any) -> Tensor:
        """The mean over draws of noise that are the same for every item."""
        draws: Any = self.model.likelihood_draws
        parts = []
        for draw in range(DRAWS):
            one = seeds.noises(draws, self.seed, "anomaly", rows=range(draw, draw + 1), dtype=items.dtype)
            noise = {name: value.to(items.device) for name, value in one.items()}

            def asked(part: Tensor, noise: dict[str, Tensor] = noise) -> Tensor:
                return ask(
                    part, {name: value.expand(len(part), *value.shape[1:]) for name, value in noise.items()}
                ).double()

            parts.append(latents.apply(self.model, asked, items))
        return torch.stack(parts).mean(0)

    def _regret(self, items: Tensor) -> Tensor:
        """Likelihood regret: the ELBO with the best q(z) = N(μ, σ²) of the item's own, less the one with the encoder's.

        The posterior's mean and deviation are searched, as the definition has it; the authors' code trains the encoder on the
        item instead.
        """
        model: Any = self.model
        size = model.latent_dim
        one = seeds.noises(model.likelihood.draws, self.seed, "anomaly", rows=range(1), dtype=items.dtype)
        eps = seeds.noise(seeds.normal(8, size), self.seed, "regret", rows=range(1), dtype=items.dtype)[0].to(
            items.device
        )
        parts = []
        for part in torch.split(items, latents.CHUNK):
            noise = {name: value.to(items.device).expand(len(part), *value.shape[1:]) for name, value in one.items()}
            x = model.likelihood.observe(part, noise)
            with torch.no_grad():
                mean, std = model.posterior(x)

            def loss(points: Tensor, rows: Tensor, x: Tensor = x) -> Tensor:
                mean, log_std = points.chunk(2, 1)
                z = mean[:, None] + log_std.exp()[:, None] * eps
                likely = model.log_density(x[rows].repeat_interleave(len(eps), 0), z.flatten(0, 1)).view(len(rows), -1)
                return losses.kl_to_standard_normal(mean, 2 * log_std) - likely.mean(1)

            start = torch.cat([mean, std.log()], 1)
            best = optimise.adam(loss, start, steps=self.steps, lr=0.05).losses
            parts.append(loss(start, torch.arange(len(part), device=items.device)).detach() - best)
        return torch.cat(parts)


def method_for(model: nn.Module, method: Method) -> str:
    """The method that is meant.

    Raises:
        CapabilityError: the model does not do what it asks for.
        ConfigError: there is no such method.
    """
    if method == "auto":
        method = "reconstruction" if isinstance(model, Reconstructs) else "features"
    shape: tuple[int, ...] = tuple(getattr(model, "shape", ()))
    needs: dict[str, tuple[bool, str]] = {
        "reconstruction": (isinstance(model, Reconstructs), "does not reconstruct"),
        "inversion": (isinstance(model, Decodes), "does not decode, so that nothing can be searched for"),
        "features": (True, ""),
        "realness": (isinstance(model, Discriminates), "has no discriminator"),
        "likelihood": (isinstance(model, LogLikelihood), "has no likelihood"),
        "complexity": (isinstance(model, LogLikelihood) and is_image(shape), "has no likelihood of images"),
        "regret": (
            isinstance(model, Encodes)
            and all(hasattr(model, name) for name in ("posterior", "log_density", "likelihood")),
            "has no posterior and density to search between",
        ),
    }
    if method not in needs:
        raise ConfigError(f"a method is one of auto, {', '.join(needs)}; got '{method}'.")
    able, lacks = needs[method]
    if not able:
        raise CapabilityError(f"{type(model).__name__} {lacks}, which method '{method}' needs; {ADVICE}.")
    if method == "features":
        features_of(model)
    return method


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ConfigError(f"rate must be a share between 0 and 1, as .05; got {rate:g}.")


def compressed(items: Tensor, *, bits: bool = False) -> Tensor:
    """How long images are as PNGs, in nats: (N, C, H, W) in [0, 1] ↦ (N,) float64. `bits`: they are black and white."""
    lengths = []
    for image in images.to_uint8(items.cpu()).numpy():
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        buffer = io.BytesIO()
        page = Image.fromarray(np.ascontiguousarray(pixels))
        (page.convert("1", dither=Image.Dither.NONE) if bits else page).save(buffer, format="PNG", optimize=True)
        lengths.append(8 * math.log(2) * buffer.tell())
    return torch.tensor(lengths, dtype=torch.float64, device=items.device)
