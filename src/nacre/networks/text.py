"""Captions as vectors, and images beside them: a small encoder of each, learned from which belongs to which."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.networks import Shape
from nacre.networks.dcgan import dcgan_encoder


class TextEncoder(nn.Module):
    """Captions ↦ unit vectors: (…, words, features) integers, 0 for nothing, ↦ (…, dim).

    A word is the mean of the vectors of its features; a convolution looks at three words at a time, and the largest of its
    answers and their mean make the sentence.

    Args:
        buckets: features are 1 to `buckets`.
        dim: size of the answer.
        hidden: size of a word.
    """

    def __init__(self, buckets: int, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.features = nn.Embedding(buckets + 1, hidden, padding_idx=0)
        self.neighbours = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.sentence = nn.Linear(2 * hidden, dim)

    def forward(self, captions: Tensor) -> Tensor:
        flat = captions.reshape(-1, *captions.shape[-2:]).long()
        there = flat > 0
        share = there / there.sum(2, keepdim=True).clamp(min=1)
        # A weighted sum a word, in one go: vectors of all features side by side would take thirty times the memory.
        weights = share.to(self.features.weight.dtype).flatten(0, 1)
        words = F.embedding_bag(flat.flatten(0, 1), self.features.weight, per_sample_weights=weights, mode="sum")
        words = words.view(*flat.shape[:2], -1)
        spoken = there.any(2, keepdim=True)
        words = words + F.relu(self.neighbours(words.transpose(1, 2))).transpose(1, 2)
        mean = (words * spoken).sum(1) / spoken.sum(1).clamp(min=1)
        # A caption of no word has no largest answer either.
        largest = words.masked_fill(~spoken, -1e4).amax(1) * spoken.any(1)
        return F.normalize(self.sentence(torch.cat([mean, largest], 1)), dim=1).view(*captions.shape[:-2], -1)


class SentenceReader(nn.Module):
    """Vectors of a frozen sentence encoder ↦ unit vectors: (…, inputs) ↦ (…, dim), by one linear layer."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, dim)

    def forward(self, sentences: Tensor) -> Tensor:
        return F.normalize(self.linear(sentences), dim=-1)


class ImageEncoder(nn.Module):
    """Images ↦ unit vectors, with which captions are compared: (N, C, H, W) in [0, 1] ↦ (N, dim)."""

    def __init__(self, shape: Shape, dim: int, width: int) -> None:
        super().__init__()
        self.network = dcgan_encoder(shape, dim, width=width, norm="layer")

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.network(2 * x - 1), dim=1)
