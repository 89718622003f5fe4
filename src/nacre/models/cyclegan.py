"""Unpaired image-to-image translation with cycle consistency (Zhu et al. 2017, "CycleGAN")."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses
from nacre.errors import ConfigError, at_least
from nacre.networks import Shape, translation
from nacre.networks.translation import Pool, TranslatorKind, Upsampling
from nacre.protocols import Batch, Logs, Objective, Step
from nacre.seeds import Draw, normal, position, uniform


class CycleGAN(nn.Module):
    """Translates images of one kind into another and back, learned from unpaired examples of both (Zhu et al. 2017).

    The paper's objective is followed (eq. 3, with least squares instead of the logarithms, section 4), and the authors' code
    where it says more: the judges' loss is halved, distances are those of images in [-1, 1], and identity (their section
    5.2) is on at half of λ. The order of play is the code's: translators, then judges, who see new translations.

    Args:
        shape: shape of an image of side A: (channels, height, width) in [0, 1].
        channels_b: channels of side B's images; by default, and for 0, as many as of A's.
        cycle: λ, weight of the cycle's two L1 distances.
        identity: weight of what a translator changes in an image that is of its own side already, as a share of `cycle`;
            by default .5, and 0 where the sides differ in channels.
        network: translators: "resnet" (residual blocks) or "unet".
        width: channels of a translator's first layer; 64 in the paper.
        judge_width: channels of a judge's first layer; 64 in the paper.
        blocks: residual blocks; by default 6, or 9 from 256 pixels on.
        depth: halvings of a U-Net; by default down to two pixels of the shorter side, eight at most.
        upsampling: how a translator doubles sizes: "deconvolution", as in the paper, or "resize", whose results have no dots and
            which takes more time.
        judge_layers: convolutions of stride 2 in a judge: 3 judge patches of 70×70 pixels, 2 of 34×34, 1 of 16×16; by
            default as many as see hardly more than the image.
        judge_edges: κ of the steps between pixels, lifted as tanh(κ Δ), that judges see beside the images; 0 for images alone,
            as in the paper. 32 makes a step of one level of 255 show, so that shading is told from flat colour.
        instance_noise: standard deviation of the normal noise on all that judges see, for images in [0, 1] (Sønderby et al. 2017,
            "Amortised MAP inference"), so that they cannot go by a drawing's last bit; 0 for none, as in the paper.
        pool: translations kept, of which a judge is shown one as often as a new one; 0 for none.
    """

    sides = "unpaired"
    directions = ("a2b", "b2a")
    least_squares = True

    def __init__(
        self,
        shape: Shape,
        *,
        channels_b: int = 0,
        cycle: float = 10.0,
        identity: float | None = None,
        network: TranslatorKind = "resnet",
        width: int = 32,
        judge_width: int = 32,
        blocks: int | None = None,
        depth: int | None = None,
        upsampling: Upsampling = "deconvolution",
        judge_layers: int | None = None,
        judge_edges: float = 0.0,
        instance_noise: float = 0.0,
        pool: int = 50,
    ) -> None:
        super().__init__()
        translation.check_images("cyclegan", shape)
        at_least(1, width=width, judge_width=judge_width, blocks=blocks or 1, judge_layers=judge_layers or 1)
        at_least(2, depth=2 if depth is None else depth)
        at_least(0, cycle=cycle, identity=identity or 0.0, pool=pool, channels_b=channels_b)
        at_least(0, judge_edges=judge_edges, instance_noise=instance_noise)
        a, b = shape[0], channels_b or shape[0]
        if identity and a != b:
            raise ConfigError(
                f"--identity compares images with their translations, and A has {a} channels and B {b}; take 0."
            )
        self.shape, self.shape_b = shape, (b, *shape[1:])
        self.cycle, self.identity = cycle, (0.5 if a == b else 0.0) if identity is None else identity
        size = partial(translation.translator, shape=shape, width=width, blocks=blocks, depth=depth)
        make = partial(size, kind=network, upsampling=upsampling)
        judge = partial(translation.patch_judge, shape=shape, width=judge_width, layers=judge_layers, edges=judge_edges)
        self.instance_noise = instance_noise
        self.a2b, self.b2a = make(a, b), make(b, a)
        self.judge_a, self.judge_b = judge(a), judge(b)
        self.pool_a, self.pool_b = Pool(pool, shape), Pool(pool, self.shape_b)

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """The paper's batch size and schedule: about 55 minutes of a core at 64 pixels."""
        return {"steps": 10_000, "batch_size": 1, "lr_schedule": "flat-linear"}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=2e-4, betas=(0.5, 0.999))
        shown = {"row": position(), "show_a": uniform(1), "show_b": uniform(1)}
        make, judge = ("a2b", "b2a"), ("judge_a", "judge_b")
        on_fakes, on_all = dict[str, Draw](), shown
        if self.instance_noise:
            on_fakes = {"on_fake_a": normal(*self.shape), "on_fake_b": normal(*self.shape_b)}
            on_all = shown | on_fakes | {"on_a": normal(*self.shape), "on_b": normal(*self.shape_b)}
        return [
            Objective(name="translators", loss=self.translators_loss, over=make, optimizer=adam, draws=on_fakes),
            Objective(name="judges", loss=self.judges_loss, over=judge, optimizer=adam, draws=on_all),
        ]

    def translators_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Σ over both directions of E (D(G(x)) - 1)² + λ ‖F(G(x)) - x‖₁ + λ_id ‖G(y) - y‖₁: eq. 1 to 3 and section 5.2."""
        a, b = batch
        if self.identity:  # in one pass with what is translated: norms see one image each
            fake_b, same_b = self.a2b(torch.cat([a, b])).chunk(2)
            fake_a, same_a = self.b2a(torch.cat([b, a])).chunk(2)
        else:
            fake_b, fake_a = self.a2b(a), self.b2a(b)
        fooling = [2 * losses.least_squares_generator_loss(self.judge_b(self._noisy(fake_b, "on_fake_b", step)))]
        fooling += [2 * losses.least_squares_generator_loss(self.judge_a(self._noisy(fake_a, "on_fake_a", step)))]
        returning = distance(self.b2a(fake_b), a) + distance(self.a2b(fake_a), b)
        loss = fooling[0] + fooling[1] + self.cycle * returning
        parts = {"fooling_b": fooling[0], "fooling_a": fooling[1], "cycle": returning}
        if self.identity:
            parts["identity"] = distance(same_b, b) + distance(same_a, a)
            loss = loss + self.cycle * self.identity * parts["identity"]
        return loss, parts

    def judges_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """½ E (D(y) - 1)² + ½ E D(G(x))² for both judges, G(x) new or from the pool."""
        a, b = batch
        with torch.no_grad():
            fake_b, fake_a = self.a2b(a), self.b2a(b)
        fake_b = self.pool_b(fake_b, step.noise["show_b"], step.noise["row"], step.index)
        fake_a = self.pool_a(fake_a, step.noise["show_a"], step.noise["row"], step.index)
        a, fake_a = self._noisy(a, "on_a", step), self._noisy(fake_a, "on_fake_a", step)
        b, fake_b = self._noisy(b, "on_b", step), self._noisy(fake_b, "on_fake_b", step)
        of_a = losses.least_squares_discriminator_loss(self.judge_a(a), self.judge_a(fake_a))
        of_b = losses.least_squares_discriminator_loss(self.judge_b(b), self.judge_b(fake_b))
        return of_a + of_b, {"judge_a": of_a, "judge_b": of_b}

    def _noisy(self, x: Tensor, name: str, step: Step) -> Tensor:
        """Images as judges see them while they train."""
        return x + self.instance_noise * step.noise[name] if self.instance_noise else x

    def realness_of(self, given: Tensor, wanted: Tensor, direction: str) -> Tensor:
        """The judge's mean over its patches of images as translations, whatever of: (N, …), (N, C', H, W) ↦ (N,)."""
        values: Tensor = {"a2b": self.judge_b, "b2a": self.judge_a}[direction](wanted)
        return values.flatten(1).mean(1)

    def translate(self, x: Tensor, direction: str) -> Tensor:
        """Images of one side as the other's: (N, C, H, W) ↦ (N, C', H, W) in [0, 1], H and W any."""
        translated: Tensor = {"a2b": self.a2b, "b2a": self.b2a}[direction](x)
        return translated


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of images in [-1, 1], which is twice that of [0, 1]."""
    return 2 * (one - other).abs().mean()
