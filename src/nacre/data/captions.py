"""Captions as numbers: each word by itself and by its letters, so that a word never seen is still told by its parts."""

import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

WORDS = 16
"""Words of a caption that are read."""

FEATURES = 12
"""Numbers of a word: itself and the first of its letter triples."""

BUCKETS = 8192
"""Features are hashed into so many numbers, from 1; 0 is nothing."""

MOST_WORDS = 20_000
"""Words that are remembered as known."""

_WORD = re.compile(r"\w+|[^\w\s]")


def words(caption: str) -> list[str]:
    """The words of a caption, and its punctuation marks, in small letters."""
    return _WORD.findall(unicodedata.normalize("NFKC", caption).casefold())


def tokens(captions: Sequence[str]) -> np.ndarray:
    """Captions as a model reads them: (N, WORDS, FEATURES) int32; what is over goes unread."""
    table = np.zeros((len(captions), WORDS, FEATURES), np.int32)
    known: dict[str, list[int]] = {}
    for row, caption in enumerate(captions):
        for place, word in enumerate(words(caption[: 64 * WORDS])[:WORDS]):
            numbers = known.setdefault(word, features(word)) if word not in known else known[word]
            table[row, place, : len(numbers)] = numbers
    return table


def features(word: str) -> list[int]:
    """The numbers of a word: itself, and its letter triples with the borders marked (Bojanowski et al. 2017)."""
    marked = f"<{word}>"
    parts = [word, *(marked[at : at + 3] for at in range(max(1, len(marked) - 2)))]
    return [
        zlib.crc32(f"{kind}{part}".encode()) % BUCKETS + 1
        for kind, part in zip("w" + "t" * len(parts), parts, strict=False)
    ][:FEATURES]


def vocabulary(captions: Iterable[str]) -> list[str]:
    """The words of captions, sorted; the most frequent ones if there are very many."""
    counts: dict[str, int] = {}
    for caption in captions:
        for word in words(caption):
            counts[word] = counts.get(word, 0) + 1
    return sorted(sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS])


def unread(caption: str) -> int:
    """How many words of a caption go unread."""
    return max(0, len(words(caption)) - WORDS)


def unknown(caption: str, known: Iterable[str]) -> list[str]:
    """The words of a caption that are not among those known."""
    seen = set(known)
    return [word for word in words(caption)[:WORDS] if word not in seen]
