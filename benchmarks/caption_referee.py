"""The referee of benchmarks/captions.py: which of some captions an image belongs to, and which group it is of.

It shares nothing with the encoders that stackgan learns by: residual blocks and batch norm in place of DCGAN's encoder, sums of
words, pairs of words and letter fours in place of a convolution over words, and a whole batch's captions against each other in
place of fifteen wrong ones (Radford et al. 2021); another seed, and both styles of the emoji that are to train on. It has seen
no held-out image and no held-out caption.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nacre import images
from nacre.data.progress import bar
from nacre.files import whole_file

BUCKETS, DIM, SEED = 16_384, 128, 7
STEPS, BATCH, PEAK_RATE, WEIGHT_DECAY, SHIFT, FORGOTTEN = 1_500, 128, 2e-3, 0.05, 2, 0.15


@dataclass(frozen=True)
class Emoji:
    """Images (N, 3, H, W) uint8, their captions, and the numbers of their groups, (N,) int64."""

    images: Tensor
    captions: list[str]
    groups: Tensor


class Block(nn.Module):
    """Two 3×3 convolutions beside a 1×1 one, then half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (inputs, outputs):
            layers += [nn.Conv2d(before, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
        self.branch, self.way = nn.Sequential(*layers[:-1]), nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.gelu(self.branch(x) + self.way(x)), 2)


class Matcher(nn.Module):
    """Unit vectors of images and of captions, and scores of the groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        stem = [nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.GELU()]
        blocks = [Block(32, 64), Block(64, 128), nn.Flatten(), nn.Linear(128 * 16, 256), nn.GELU(), nn.Dropout(0.3)]
        self.seen, self.pictured = nn.Sequential(*stem, *blocks), nn.Linear(256, DIM)
        self.group = nn.Linear(256, groups)
        self.words = nn.EmbeddingBag(BUCKETS + 1, 256, mode="mean", padding_idx=0)
        self.said = nn.Sequential(
            nn.LayerNorm(256), nn.Dropout(0.2), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, DIM)
        )
        self.warmth = nn.Parameter(torch.tensor(2.0))
        nn.init.normal_(self.words.weight, 0.0, 0.1)

    def see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, 32, 32) in [0, 1] ↦ unit vectors (N, DIM) and scores (N, groups)."""
        features = self.seen(2 * x - 1)
        return F.normalize(self.pictured(features), dim=1), self.group(features)

    def read(self, tokens: Tensor) -> Tensor:
        """Captions as rows of `parts`, 0 for nothing, ↦ unit vectors (N, DIM)."""
        return F.normalize(self.said(self.words(tokens)), dim=1)


class Referee:
    """A trained matcher."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher.eval().requires_grad_(False)

    def cosines(self, x: Tensor, captions: Sequence[str]) -> Tensor:
        """How well each image goes with each caption: (N, 3, 32, 32) in [0, 1] ↦ (N, captions)."""
        return torch.cat([self.matcher.see(part)[0] for part in x.split(256)]) @ self.matcher.read(parts(captions)).T

    def groups(self, x: Tensor) -> Tensor:
        """The number of each image's group: (N,)."""
        return torch.cat([self.matcher.see(part)[1].argmax(1) for part in x.split(256)])


def parts(captions: Sequence[str]) -> Tensor:
    """Numbers of a caption's words, pairs of words and letter fours, 0 for nothing: (N, longest)."""
    rows = []
    for caption in captions:
        words = re.findall(r"\w+", caption.casefold())
        fours = [f"<{word}>"[at : at + 4] for word in words for at in range(max(1, len(word) - 1))]
        told = [*words, *map(" ".join, pairwise(words)), *(f"#{four}" for four in fours)]
        rows.append(torch.tensor([zlib.crc32(part.encode()) % BUCKETS + 1 for part in told]))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def open_referee(path: Path, styles: Sequence[Emoji], groups: int) -> Referee:
    """The referee at `path`, trained first if it is not there.

    Args:
        path: a safetensors file.
        styles: the emoji to train on, the same ones in each style and in the same order.
        groups: how many there are.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        trained = train(styles, groups)
        with whole_file(path) as aside:
            save_file(trained.state_dict(), aside)
    matcher = Matcher(groups)
    matcher.load_state_dict(load_file(path))
    return Referee(matcher)


def train(styles: Sequence[Emoji], groups: int) -> Matcher:
    """Captions against each other and groups, with AdamW, its rate rising for a tenth of the steps and falling to zero."""
    first, random = styles[0], np.random.default_rng(SEED)
    tokens, pictures = parts(first.captions), torch.stack([style.images for style in styles])
    weights = 1 / first.groups.bincount(minlength=groups).float()  # for the accuracy is a mean over groups
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        matcher = Matcher(groups).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(matcher.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
        with bar(STEPS, "training the referee", "step", True) as shown:
            for step in range(STEPS):
                for group in optimizer.param_groups:
                    group["lr"] = PEAK_RATE * min(10 * (step + 1) / STEPS, (STEPS - step) / (0.9 * STEPS), 1.0)
                chosen = torch.from_numpy(random.choice(len(first.captions), BATCH, replace=False))
                seen, scores = matcher.see(moved(pictures[torch.randint(len(styles), (BATCH,)), chosen]))
                told = tokens[chosen] * (torch.rand(BATCH, tokens.shape[1]) > FORGOTTEN)
                logits, own = matcher.warmth.exp() * seen @ matcher.read(told).T, torch.arange(BATCH)
                loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
                loss = loss + F.cross_entropy(scores, first.groups[chosen], weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                shown.update()
    return matcher.to(memory_format=torch.contiguous_format).eval()


def moved(batch: Tensor) -> Tensor:
    """Images in [0, 1], each moved by up to `SHIFT` whole pixels with white coming in."""
    padded = F.pad(images.to_float(batch), (SHIFT,) * 4, value=1.0)
    down, right = (torch.randint(2 * SHIFT + 1, (len(batch), 1)) + torch.arange(size) for size in batch.shape[2:])
    return padded[torch.arange(len(batch))[:, None, None], :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)
