"""Captions as vectors of a frozen sentence encoder, from a folder of transformers' that is at hand."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.data import captions, hugging_face
from nacre.errors import ConfigError

LONGEST = 256
"""Tokens of a text that are read, where the folder does not say."""

TOGETHER = 64
"""Texts that go through an encoder at a time."""


class Reader(Protocol):
    """Texts as a model reads them.

    Attributes:
        longest: words, or tokens, of a text that are read.
        unit: which of the two.
    """

    longest: int
    unit: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...

    def unread(self, text: str) -> int: ...


class Words:
    """Texts ↦ their words and letters as numbers: (N,) texts ↦ (N, words, features) int32."""

    longest, unit = captions.WORDS, "words"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return captions.tokens(texts)

    def unread(self, text: str) -> int:
        """How many words of a text go unread."""
        return captions.unread(text)


class SentenceEncoder:
    """Texts ↦ unit vectors, by a transformer whose weights stay as they are: (N,) texts ↦ (N, dim) float32.

    As the models of sentence-transformers do (Reimers & Gurevych 2019, section 3): the mean of the last layer over the
    tokens of a text, or its first token where the folder's `1_Pooling/config.json` says so; then of length 1.

    Args:
        folder: holds `config.json`, `model.safetensors` and the tokenizer's files, as Hugging Face's hub has them.

    Attributes:
        longest: tokens of a text that are read, the marks at its ends included.
        origin: what it is: "dim", the size of a vector, "longest", and "sha256" of the weights' file.

    Raises:
        ConfigError: there is no such folder, its way to pool is none of the two, or transformers is not installed.
        CheckpointError: the folder holds something else.
    """

    unit = "tokens"

    def __init__(self, folder: Path) -> None:
        self.model = hugging_face.loaded("AutoModel", folder).eval().requires_grad_(False)
        self.tokenizer = hugging_face.tokenizer(folder)
        self.by_first = _pools_by_first(folder)
        config: Any = self.model.config
        self.longest = _longest(folder, getattr(config, "max_position_embeddings", LONGEST))
        self.dim = int(config.hidden_size)
        self.origin = {"dim": self.dim, "longest": self.longest, "sha256": _sha256(folder)}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        different = sorted(set(texts), key=lambda text: (len(text), text))
        parts = [self._encoded(different[at : at + TOGETHER]) for at in range(0, len(different), TOGETHER)]
        row = {text: number for number, text in enumerate(different)}
        vectors = torch.cat([torch.zeros(0, self.dim), *parts]).numpy()
        return vectors[[row[text] for text in texts]] if texts else vectors

    def unread(self, text: str) -> int:
        """How many tokens of a text go unread."""
        return max(0, len(self.tokenizer(text, verbose=False)["input_ids"]) - self.longest)

    @torch.no_grad()
    def _encoded(self, texts: list[str]) -> Tensor:
        told = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        states = self.model(**told).last_hidden_state
        if self.by_first:
            return F.normalize(states[:, 0], dim=1)
        there = told["attention_mask"].unsqueeze(2)
        return F.normalize((states * there).sum(1) / there.sum(1), dim=1)


@lru_cache(maxsize=1)
def sentence_encoder(folder: str) -> SentenceEncoder:
    """The encoder in a folder, opened once."""
    return SentenceEncoder(Path(folder))


def reader_of(model: object, folder: str | None = None) -> Reader:
    """Who turns texts into what a model reads: words and letters, or the sentence encoder that it was trained with.

    Args:
        model: that reads.
        folder: where its sentence encoder lies now; by default where it was in training.

    Raises:
        ConfigError: the folder is gone, or holds another encoder; or the model has none.
    """
    origin: dict[str, Any] | None = getattr(model, "text_origin", None)
    if origin is None:
        if folder is not None:
            raise ConfigError("this model reads words and letters itself; leave --text-encoder out.")
        return Words()
    folder = folder or str(getattr(model, "text_encoder", ""))
    if not Path(folder).is_dir():
        raise ConfigError(f"the sentence encoder is no longer at {folder}; say where it is by --text-encoder.")
    encoder = sentence_encoder(folder)
    if encoder.origin["sha256"] != origin["sha256"]:
        raise ConfigError(f"{folder} holds another sentence encoder than the one that this model was trained with.")
    return encoder


def _pools_by_first(folder: Path) -> bool:
    told = _json(folder / "1_Pooling" / "config.json")
    chosen = sorted(name for name, on in told.items() if name.startswith("pooling_mode") and on is True)
    if chosen not in ([], ["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise ConfigError(
            f"{folder} pools by {', '.join(chosen)}; encoders that take the mean or the first token are read."
        )
    return chosen == ["pooling_mode_cls_token"]


def _longest(folder: Path, most: int) -> int:
    told = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return min(most, told if isinstance(told, int) else LONGEST)


def _json(path: Path) -> dict[str, Any]:
    """What a file says; nothing where it is missing or says something else."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _sha256(folder: Path) -> str:
    with open(folder / "model.safetensors", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
