"""Text to image by a tree of generators (Zhang et al. 2018, "StackGAN++", its StackGAN-v2)."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from nacre import augment as augmentation
from nacre import losses
from nacre.data.captions import BUCKETS, FEATURES
from nacre.data.sentences import sentence_encoder
from nacre.errors import CapabilityError, ConfigError, at_least
from nacre.networks import Shape, is_image
from nacre.networks.text import ImageEncoder, SentenceReader, TextEncoder
from nacre.networks.tree import ScaleJudge, Tree, color_distance, initialise, scale_shapes, smaller
from nacre.protocols import ALWAYS, Batch, Logs, Objective, Step
from nacre.seeds import category, normal, uniform

EXAMPLES = 256
"""Captions of the training set that a model keeps, to sample from without being told a text."""

WARMTH = 10.0
"""Factor on the cosines that captions compete by."""


class StackGAN(nn.Module):
    """Images of growing size from a text, each size with a judge of its own (Zhang et al. 2018, StackGAN-v2).

    The authors' code is followed: the KL term of the conditioning augmentation is a mean over its numbers, weighed by 2.
    Five things are not theirs: sizes come from the data; a wrong pair is an image itself with another's caption, so that
    the head that judges images alone is shown it once, as real; the text encoder is a small one that learns from the
    captions before the game begins, by telling an image's own caption from others; with what it has learned it then holds
    made images against their captions as well, beside the game (AttnGAN, Xu et al. 2018, section 3.2, of whole sentences
    only); and real images are made smaller by means over areas.
    Without captions it is their unconditional tree, in which consecutive sizes agree in colour (eq. 10 of the paper).

    Args:
        shape: shape of an image: (channels, height, width) in [0, 1].
        words: words of a caption that are read, given by the data; 0 for a model without text.
        text_encoder: folder of a frozen sentence encoder, as Hugging Face's hub has them (config.json, model.safetensors and
            the tokenizer), which reads captions in place of the small one; needs transformers.
        text_origin: what `text_encoder` is: size of its vectors, tokens that it reads, hash of its weights. It is filled in,
            so that prompts are read by the same one.
        latent_dim: size of the latent.
        text_dim: size of a caption's vector.
        condition_dim: size of the condition that is drawn from it (conditioning augmentation).
        scales: sizes, each half of the next; by default three at most, none under 16 pixels.
        width: channels of the generator at the full size; twice as many at each halving.
        judge_width: channels of a judge's first layer.
        blocks: residual blocks at each size after the first.
        matching_steps: steps in which only the text encoder learns, before the game.
        matching: weight of what the text encoder has learned, held against made images beside the game; 0 as in the paper.
        kl_weight: weight of the condition's KL from N(0, 1), which is a mean over its numbers.
        alone: weight of the judges' heads that see no text.
        augment: show the judges only images that are moved and have a piece cut out, real and made (DiffAugment, Zhao et al.
            2020, without its changes of colour, since captions speak of colours): for long trainings on few images,
            against the noise that over-fitted judges leave.
        color: weight of the distance between the colours of consecutive sizes: of means, and five times of covariances; by
            default 50 without text (as in the code) and 0 with it.
    """

    captioned = True
    logistic = True

    def __init__(
        self,
        shape: Shape,
        *,
        words: int = 0,
        text_encoder: str | None = None,
        text_origin: dict[str, Any] | None = None,
        latent_dim: int = 64,
        text_dim: int = 128,
        condition_dim: int = 64,
        scales: int | None = None,
        width: int = 16,
        judge_width: int = 32,
        blocks: int = 1,
        matching_steps: int = 1500,
        matching: float = 1.0,
        kl_weight: float = 2.0,
        alone: float = 1.0,
        augment: bool = False,
        color: float | None = None,
    ) -> None:
        super().__init__()
        if not is_image(shape) or min(shape[1:]) < 8:
            raise ConfigError(f"stackgan makes images of 8 pixels and more, got items of shape {shape}.")
        at_least(
            1, latent_dim=latent_dim, text_dim=text_dim, condition_dim=condition_dim, width=width, scales=scales or 1
        )
        at_least(1, judge_width=judge_width)
        at_least(0, words=words, blocks=blocks, matching_steps=matching_steps, matching=matching)
        at_least(0, kl_weight=kl_weight, alone=alone)
        self.shape, self.words, self.shapes = shape, words, scale_shapes(shape, scales)
        self.latent_dim, self.condition_dim = latent_dim, condition_dim if words else 0
        self.matching_steps = matching_steps if words else 0
        # An encoder that has learned nothing knows nothing of made images either.
        self.matching = matching if self.matching_steps else 0.0
        self.kl_weight, self.alone, self.augment = kl_weight, alone, augment
        self.color = (0.0 if words else 50.0) if color is None else color
        self.text_encoder = text_encoder
        if text_encoder and text_origin is None:
            text_origin = sentence_encoder(text_encoder).origin
        self.text_origin: dict[str, Any] | None = text_origin
        self.prior = {"z": normal(latent_dim)}
        if words:
            self.text, self.eye = self.reading(text_dim), ImageEncoder(shape, text_dim, judge_width)
            self.augmentation = nn.Linear(text_dim, 4 * condition_dim).apply(initialise)
            self.register_buffer("examples", self.blank())
            self.prior |= {"condition": normal(condition_dim), "caption": category(EXAMPLES)}
        self.generator = Tree(latent_dim + self.condition_dim, self.shapes, width=width, blocks=blocks)
        judges = [ScaleJudge(each, self.condition_dim, width=judge_width) for each in self.shapes]
        self.judges = nn.ModuleList(judges)

    @classmethod
    def recommended(cls, shape: Shape) -> dict[str, Any]:
        """By the time of one step, two cores take 40 to 50 minutes at 64 pixels."""
        return {"steps": 7_000, "batch_size": 32}

    def reading(self, dim: int) -> nn.Module:
        """The network that captions, as they are told, go through first."""
        return SentenceReader(self.text_origin["dim"], dim) if self.text_origin else TextEncoder(BUCKETS, dim)

    def blank(self) -> Tensor:
        """Captions of nothing, as many as are kept."""
        if self.text_origin:
            return torch.zeros(EXAMPLES, self.text_origin["dim"])
        return torch.zeros(EXAMPLES, self.words, FEATURES, dtype=torch.int32)

    def remember(self, captions: Tensor) -> None:
        """Keep captions to sample from, as they are told: M ≥ 1, repeated as often as need be."""
        rows = torch.arange(EXAMPLES) % len(captions)
        self.examples: Tensor
        self.examples.copy_(captions[rows])

    def objectives(self) -> list[Objective]:
        adam = partial(Adam, lr=2e-4, betas=(0.5, 0.999))
        draws = {name: draw for name, draw in self.prior.items() if name != "caption"}
        if self.augment:
            draws |= {name: uniform(augmentation.PLACES) for name in ("augment_made", "augment_real")}
        makers = ("generator", "augmentation") if self.words else ("generator",)
        game = ALWAYS[self.matching_steps :]
        table = [
            Objective(name="judges", loss=self.judges_loss, over=("judges",), optimizer=adam, draws=draws, when=game),
            Objective(name="generator", loss=self.generator_loss, over=makers, optimizer=adam, draws=draws, when=game),
        ]
        if not self.matching_steps:
            return table
        reading = ALWAYS[: self.matching_steps]
        matching = Objective(
            name="matching",
            loss=self.matching_loss,
            over=("text", "eye"),
            optimizer=partial(Adam, lr=1e-3),
            when=reading,
        )
        return [matching, *table]

    def matching_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """-log of the share that an image's own caption has among itself and the wrong ones, by the cosines' softmax."""
        x, own, wrong = batch
        loss, right = self.matched(x, self.text(torch.cat([own[:, None], wrong], 1)))
        return loss, {"right": right}

    def matched(self, x: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of images and the vectors of their captions, (N, 1 + wrong, text_dim), and how many are told right."""
        cosines = (texts * self.eye(x)[:, None]).sum(2)
        return -F.log_softmax(WARMTH * cosines, 1)[:, 0].mean(), (cosines.argmax(1) == 0).float().mean()

    def judges_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Σ over the sizes: real pairs against wrong and made ones, and real images against made ones (eq. 5 and 8)."""
        x, own, others = self.parted(batch, 1)
        with torch.no_grad():
            drawn, _ = self.conditions(own, step)
            fakes = shown(self.generator(self.code(step.noise["z"], drawn)), step.noise.get("augment_made"))
            told, wrong = self.means(own), None if others is None else self.means(others[:, 0])
        reals = shown(smaller(x, self.shapes), step.noise.get("augment_real"))
        total, parts = x.new_zeros(()), {}
        for number, (judge, real, fake) in enumerate(zip(self.scale_judges(), reals, fakes, strict=True)):
            on_real, on_fake = judge(real), judge(fake)
            loss = self.alone_weight * losses.discriminator_loss(judge.image(on_real), judge.image(on_fake))
            if told is not None and wrong is not None:
                loss = loss + losses.discriminator_loss(judge.pair(on_real, told), judge.pair(on_fake, told))
                loss = loss + F.softplus(judge.pair(on_real, wrong)).mean()
            total, parts[f"judge_{number}"] = total + loss, loss
        return total, parts

    def generator_loss(self, batch: Batch, step: Step) -> tuple[Tensor, Logs]:
        """Σ over the sizes of the non-saturating losses of both heads (eq. 6 and 9), KL of the condition, matching loss."""
        _, own, others = self.parted(batch)
        drawn, kl = self.conditions(own, step)
        fakes = self.generator(self.code(step.noise["z"], drawn))
        means = self.means(own)
        total, parts = fakes[0].new_zeros(()), {}
        seen = shown(fakes, step.noise.get("augment_made"))
        for number, (judge, fake) in enumerate(zip(self.scale_judges(), seen, strict=True)):
            features = judge(fake)
            loss = self.alone_weight * losses.non_saturating_generator_loss(judge.image(features))
            if means is not None:
                loss = loss + losses.non_saturating_generator_loss(judge.pair(features, means))
            total, parts[f"fooling_{number}"] = total + loss, loss
        if self.words:
            total, parts["kl"] = total + self.kl_weight * kl, kl
        if self.matching and own is not None and others is not None:
            loss, parts["right"] = self.matched(fakes[-1], torch.cat([own[:, None], others], 1))
            total, parts["matching"] = total + self.matching * loss, loss
        if self.color and len(fakes) > 1:
            parts["color"] = torch.stack([color_distance(*pair) for pair in pairwise(fakes)]).sum()
            total = total + self.color * parts["color"]
        return total, parts

    def scale_judges(self) -> list[ScaleJudge]:
        """The judges, of the smallest size first."""
        return cast(list[ScaleJudge], list(self.judges))

    @property
    def alone_weight(self) -> float:
        """Weight of the heads without text, which are all there is where there is none."""
        return self.alone if self.words else 1.0

    def parted(self, batch: Batch, wrong: int | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Images, and the vectors of their own captions, (N, text_dim), and of the wrong ones, (N, wrong, text_dim)."""
        if not self.words:
            return batch, None, None
        x, own, others = batch
        with torch.no_grad():
            texts = self.text(torch.cat([own[:, None], others[:, :wrong]], 1))
        return x, texts[:, 0], texts[:, 1:]

    def conditions(self, text: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor]:
        """c ~ N(μ(text), σ(text)) and the mean over its numbers of KL(N(μ, σ) || N(0, 1)): section 3.1, conditioning."""
        if text is None:
            return None, torch.zeros(())
        mean, log_var = self.gaussian(text)
        drawn = mean + (log_var / 2).exp() * step.noise["condition"]
        return drawn, losses.kl_per_latent(mean, log_var).mean()

    def gaussian(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of the condition, by a gated linear layer: (N, text_dim) ↦ (N, condition_dim) twice."""
        # A unit vector's numbers are small: times √text_dim they weigh as much as those of the noise.
        value, gate = self.augmentation(text * text.shape[1] ** 0.5).chunk(2, dim=1)
        mean, log_var = (value * torch.sigmoid(gate)).chunk(2, dim=1)
        return mean, log_var

    def means(self, text: Tensor | None) -> Tensor | None:
        """μ of the condition, which judges are told."""
        return None if text is None else self.gaussian(text)[0]

    def code(self, z: Tensor, condition: Tensor | None) -> Tensor:
        return z if condition is None else torch.cat([condition, z], 1)

    def read(self, captions: Tensor) -> Tensor:
        """The unit vectors of captions: (N, words, features), or (N, D) of a sentence encoder, ↦ (N, text_dim)."""
        vectors: Tensor = self.text(captions)
        return vectors

    def fitting(self, x: Tensor, texts: Tensor) -> Tensor:
        """How well images go with texts, as the text encoder has learned it: the cosines of (N, *shape) and (N, text_dim), (N,).

        Raises:
            CapabilityError: the model has never learned which caption belongs to which image.
        """
        if not self.matching_steps:
            raise CapabilityError(
                "this model has not learned which text an image goes with (--matching-steps 0), so it cannot reject by it."
            )
        return (texts * self.eye(x)).sum(1)

    def realness(self, x: Tensor) -> Tensor:
        """The logit of the judge of the full size, without text: (N, *shape) ↦ (N,)."""
        judge = self.scale_judges()[-1]
        return judge.image(judge(x))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """Images of the full size, of the vectors in "text" (N, text_dim), or else of captions that it has kept."""
        condition = None
        if self.words:
            text = noise["text"] if "text" in noise else self.read(self.examples[noise["caption"]])
            mean, log_var = self.gaussian(text)
            condition = mean + (log_var / 2).exp() * noise["condition"]
        made: list[Tensor] = self.generator(self.code(noise["z"], condition))
        return made[-1]


def shown(sizes: list[Tensor], noise: Tensor | None) -> list[Tensor]:
    """Images of each size, in [0, 1], as judges see them: as they are, or all sizes of one moved and cut alike."""
    if noise is None:
        return sizes
    return [(augmentation.moved_and_cut(2 * x - 1, noise) + 1) / 2 for x in sizes]
