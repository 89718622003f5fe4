"""Paired image-to-image translation with a conditional GAN (Isola et al. 2017, "pix2pix")."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from nacre import losses
from nacre.errors import at_least
from nacre.networks import Shape, translation
from nacre.networks.translation import TranslatorKind, Upsampling
from nacre.protocols import Batch, Logs, Objective, Step


class Pix2Pix(nn.Module):
    """Translates images into others, learned from pairs: L1 and a judge that sees both images (Isola et al. 2017).

    Eq. 4: the cGAN's loss and λ times the L1 distance, in [-1, 1] as in the authors' code; the judge's loss is halved
    (section 3.3). Three things differ from the paper: no dropout, so that a translation is a function of its image; instance
    norm (the paper's test time) throughout; and a U-Net whose depth follows the image's size.

    Args:
        shape: shape of an image of side A, which is given: (channels, height, width) in [0, 1].
        channels_b: channels of side B's images, which are wanted; by default, and for 0, as many as of A's.
        l1: λ, weight of the L1 distance.
        network: translator: "unet" or "resnet" (residual blocks, as in CycleGAN).
        width: channels of the translator's first layer; 64 in the paper.
        judge_width: channels of the judge's first layer; 64 in the paper.
        blocks: residual blocks of a resnet; by default 6, or 9 from 256 pixels on.
        depth: halvings of a U-Net; by default down to two pixels of the shorter side, eight at most.
        upsampling: how a translator doubles sizes: "deconvolution", as in the paper, or "resize", whose results have no dots and
            which takes more time.
        judge_layers: convolutions of stride 2 in the judge: 3 judge patches of 70×70 pixels, 2 of 34×34, 1 of 16×16; by
            default as many as see hardly more than the image.
    """

    sides = "paired"
    directions = ("a2b",)
    logistic = True

    def __init__(
        self,
        shape: Shape,
        *,
        channels_b: int = 0,
        l1: float = 100.0,
        network: TranslatorKind = "unet",
        width: int = 64,
        judge_width: int = 32,
        blocks: int | None = None,
        depth: int | None = None,
        upsampling: Upsampling = "deconvolution",
        judge_layers: int | None = None,
    ) -> None:
        super().__init__()
        translation.check_images("pix2pix", shape)
        at_least(1, width=width, judge_width=judge_width, blocks=blocks or 1, judge_layers=judge_layers or 1)
        at_least(2, depth=2 if depth is None else depth)
        at_least(0, l1=l1, channels_b=channels_b)
        a, b = shape[0], channels_b or shape[0]
        self.shape, self.shape_b, self.l1 = shape, (b, *shape[1:]), l1
        size = partial(translation.translator, shape=shape, width=width, blocks=blocks, depth=depth)
        self.a2b = size(a, b, kind=network, upsampling=upsampling)
        self.judge = translation.patch_judge(a + b, shape, width=judge_width, layers=judge_layers)

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """Steps that two cores take within the hour at 64 pixels; the paper's batches are of 1 to 10."""
        return {"steps": 10_000, "batch_size": 4, "lr_schedule": "flat-linear"}

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=2e-4, betas=(0.5, 0.999))
        return [
            Objective(name="judge", loss=self.judge_loss, over=("judge",), optimizer=adam),
            Objective(name="translator", loss=self.translator_loss, over=("a2b",), optimizer=adam),
        ]

    def judge_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-½ E log D(x, y) - ½ E log(1 - D(x, G(x))): eq. 1, halved (section 3.3)."""
        a, b = batch
        with torch.no_grad():
            fake = self.a2b(a)
        real, made = (self.judge(torch.cat([a, side], 1)) for side in (b, fake))
        return losses.discriminator_loss(real, made) / 2, {"real": real.mean(), "fake": made.mean()}

    def translator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-E log D(x, G(x)) + λ ‖y - G(x)‖₁: eq. 4, the first term in the form of section 3.3."""
        a, b = batch
        fake = self.a2b(a)
        fooling = losses.non_saturating_generator_loss(self.judge(torch.cat([a, fake], 1)))
        l1 = 2 * (fake - b).abs().mean()  # of images in [-1, 1]
        return fooling + self.l1 * l1, {"fooling": fooling, "l1": l1}

    def realness_of(self, given: Tensor, wanted: Tensor, direction: str) -> Tensor:
        """The judge's mean logit over its patches of images as translations: (N, C, H, W), (N, C', H, W) ↦ (N,)."""
        values: Tensor = self.judge(torch.cat([given, wanted], 1))
        return values.flatten(1).mean(1)

    def translate(self, x: Tensor, direction: str) -> Tensor:
        """Images of side A as B's: (N, C, H, W) ↦ (N, C', H, W) in [0, 1], H and W any."""
        translated: Tensor = {"a2b": self.a2b}[direction](x)
        return translated
