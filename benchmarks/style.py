"""Which of two styles of drawing an image is in, said by two judges that share nothing: trees, and networks.

The forest sees the colours of an image and the sizes of its steps from pixel to pixel. The networks see the image and its steps,
lifted by tanh so that one level of 255 shows; they learn from copies whose palette is shifted, channel by channel, and so know
shading, outlines and forms but no exact colours; what they say is the sum of their logits. Both judges learn from copies that a
person takes for the same style, with noise and blur: a drawing is flat to the last bit and no translation is, so that they would
tell these two apart rather than styles.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier
from torch import Tensor, nn

STYLES = ("noto", "twemoji")
BACK = {"a2b": "b2a", "b2a": "a2b"}
Images = dict[str, Tensor]
"""Images under the direction that begins at them, or that made them."""

COPIES = (
    *((noise, 0.0, 0) for noise in (0.0, 4.0, 8.0)),
    *((0.0, 0.5, 0), (3.0, 0.5, 0), (8.0, 1.0, 0)),
    *((0.0, 0.0, 16), (0.0, 0.0, 8), (4.0, 0.5, 16)),
)
"""Noise, in levels of 255, share of blur, and number of colours (0 for all) of copies whose style a person would not doubt."""

INK, STEPS = 0.97, tuple(0.002 * 2**power for power in range(9))
"""What is darker than this is ink; steps between pixels are told apart by these sizes."""


def forest(train: Images) -> Callable[[Tensor, str], Tensor]:
    """300 trees on colours and edges of copies of the training images: whether translations are of the wanted style."""
    seen = np.concatenate([palette_and_edges(copied(each, *copy)) for copy in COPIES for each in train.values()])
    styles = np.tile(np.repeat(STYLES, [*map(len, train.values())]), len(COPIES))
    trees = ExtraTreesClassifier(300, max_features=60, random_state=0).fit(seen, styles)
    return lambda made, way: torch.from_numpy(
        trees.predict(palette_and_edges((255 * made.clamp(0, 1)).round().byte())) == STYLES[way == "a2b"]
    )


def copied(items: Tensor, noise: float, blur: float, colours: int) -> Tensor:
    """Images of so many colours, a share of them blurred (binomially, 3×3), with normal noise: (N, 3, H, W) uint8 ↦ the same."""
    sharp = (of_colours(items, colours) if colours else items).float()
    smooth = smoothed(sharp)
    rough = noise * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0))
    return (torch.lerp(sharp, smooth, blur) + rough).clamp(0, 255).round().byte()


def of_colours(items: Tensor, count: int) -> Tensor:
    """Each image in its `count` most telling colours, by Pillow's median cut and k-means: (N, 3, H, W) uint8 ↦ the same."""
    flat = [
        np.asarray(Image.fromarray(pixels).quantize(count, kmeans=count, dither=Image.Dither.NONE).convert("RGB"))
        for pixels in items.permute(0, 2, 3, 1).numpy()
    ]
    return torch.from_numpy(np.stack(flat)).permute(0, 3, 1, 2).contiguous()


def palette_and_edges(items: Tensor) -> np.ndarray:
    """`palette`; the shares of steps from pixel to pixel, across and down, in ten classes of size, where there is ink; and how
    much of the image, its rows and its columns has ink: (N, 3, H, W) uint8 ↦ (N, 535).
    """
    x = floats(items)
    ink = x.amin(1) < INK
    across, down = (x.diff(dim=axis).abs().amax(1) for axis in (3, 2))
    found = [palette(items)]
    for steps, there in ((across, ink[:, :, 1:]), (down, ink[:, 1:])):
        sizes = torch.bucketize(steps, torch.tensor(STEPS), right=True)
        counts = F.one_hot(sizes, len(STEPS) + 1).flatten(1, 2).float()
        counts = (counts * there.flatten(1, 2)[..., None]).sum(1)
        found.append((counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy())
    found.append(torch.stack([part.float().mean(1) for part in (ink.flatten(1), ink.any(2), ink.any(1))], 1).numpy())
    return np.concatenate(found, 1)


def palette(items: Tensor) -> np.ndarray:
    """Roots of the shares of 8×8×8 colours among the pixels that are not white: (N, 3, H, W) uint8 ↦ (N, 512)."""
    levels = items.numpy()
    numbers = np.tensordot([64, 8, 1], levels // 32, ([0], [1]))
    coloured = levels.min(1) < 248
    counts = [np.bincount(row[mask], minlength=512) for row, mask in zip(numbers, coloured, strict=True)]
    return np.sqrt([count / max(1, count.sum()) for count in counts])


def networks(train: Images, count: int = 5, steps: int = 1_200, batch: int = 24) -> Callable[[Tensor, str], Tensor]:
    """Networks that differ in their seed alone: whether translations are of the wanted style."""
    several = [learned(train, seed, steps, batch) for seed in range(count)]

    def right(made: Tensor, way: str) -> Tensor:
        with torch.no_grad():
            shown = [floats((255 * part.clamp(0, 1)).round()) for part in made.split(256)]
            second = torch.cat([torch.stack([eyes(part) for eyes in several]).sum(0) > 0 for part in shown])
        return second == (way == "a2b")

    return right


def learned(train: Images, seed: int, steps: int, batch: int) -> "Eyes":
    """A network that has learned from disturbed training images."""
    generator, states = torch.Generator().manual_seed(seed), torch.random.get_rng_state()
    torch.manual_seed(seed)
    eyes = Eyes()
    torch.random.set_rng_state(states)
    adam = torch.optim.AdamW(eyes.parameters(), 1e-3, weight_decay=0.05)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    truth = torch.cat([torch.full((batch,), float(way == "b2a")) for way in train])
    for _ in range(steps):
        chosen = [each[torch.randint(len(each), (batch,), generator=generator)] for each in train.values()]
        shown = disturbed(floats(torch.cat(chosen)), generator)
        with torch.autocast("cpu", torch.bfloat16):
            values = eyes(shown).float()
        adam.zero_grad()
        torch.autograd.backward(F.binary_cross_entropy_with_logits(values, truth))
        adam.step()
        slower.step()
    return eyes


class Eyes(nn.Module):
    """(N, 3, H, W) in [0, 1] ↦ (N,), above 0 for the second style."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels, layers = [15, width, 2 * width, 4 * width, 4 * width], list[nn.Module]()
        for number, (before, after) in enumerate(pairwise(channels)):
            conv = nn.Conv2d(before, after, 4, 2, 1) if number else nn.Conv2d(before, after, 3, 1, 1)
            layers += [conv, nn.GroupNorm(8, after), nn.LeakyReLU(0.1)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(8 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        around = torch.tanh(16 * (x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)))
        across = torch.tanh(32 * F.pad(x.diff(dim=3), (0, 1, 0, 0)))
        down = torch.tanh(32 * F.pad(x.diff(dim=2), (0, 0, 0, 1)))
        seen = self.body(torch.cat([2 * x - 1, around, across, down, around.abs()], 1))
        values: Tensor = self.head(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))[:, 0]
        return values


def disturbed(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images with their ink's channels shifted by up to .05, half of them blurred, half with noise of up to 8 levels, half of the
    batches mirrored: (N, 3, H, W) in [0, 1] ↦ the same.
    """

    def some(*shape: int) -> Tensor:
        return torch.rand(len(x), *shape, generator=generator)

    ink = (x.amin(1, keepdim=True) < INK).float()
    x = x + 0.1 * ink * (some(3, 1, 1) - 0.5)
    x = torch.lerp(x, smoothed(x), some(1, 1, 1) * (some(1, 1, 1) < 0.5))
    level = 8 / 255 * some(1, 1, 1) * (some(1, 1, 1) < 0.5)
    x = x + level * torch.randn(x.shape, generator=generator)
    mirrored = torch.rand((), generator=generator) < 0.5
    return (x.flip(3) if mirrored else x).clamp(0, 1)


def smoothed(x: Tensor) -> Tensor:
    """Binomial blur, 3×3, channel by channel: (N, 3, H, W) ↦ the same."""
    row = torch.tensor([0.25, 0.5, 0.25])
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(padded, (row[:, None] * row)[None, None]).view_as(x)


def floats(items: Tensor) -> Tensor:
    """Images in [0, 1]."""
    return items.float() / 255
