"""Networks of transformers from folders that are at hand: safetensors only, none of a folder's own code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from nacre.errors import CheckpointError, ConfigError

OWN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""For every folder: nothing is downloaded, no code of the folder's runs, and no question is put on the terminal."""

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""One of these files holds the words of a tokenizer."""


def library(what: str) -> Any:
    """The library, for somebody who needs it. Raises ConfigError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"{what} needs transformers: pip install transformers") from None
    return transformers


def loaded(name: str, folder: Path) -> nn.Module:
    """A model of a class of transformers: from safetensors only, all of its weights, and no code of the folder's.

    Raises:
        ConfigError: transformers is not installed, or there is no such folder.
        CheckpointError: the folder holds something else.
    """
    transformers = library(f"reading {folder}")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"there is no model folder at {folder}; it should hold config.json and model.safetensors.")
    try:
        with _without_bars(transformers):
            model, found = getattr(transformers, name).from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, dtype=torch.float32, **OWN
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{folder} holds no {name} of transformers that can be read ({reason}).") from None
    if found["missing_keys"]:
        raise CheckpointError(f"{folder} lacks weights of {name}: {sorted(found['missing_keys'])[0]} among others.")
    return model


def tokenizer(folder: Path) -> Any:
    """The tokenizer that lies in a model's folder.

    Raises:
        CheckpointError: there is none that can be read.
    """
    transformers = library(f"{folder}, a tokenizer,")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        # Without one the library makes a tokenizer that knows no word, and says nothing.
        raise CheckpointError(
            f"{folder} holds no tokenizer that can be read; it should hold tokenizer.json or vocab.txt."
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), **OWN)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{folder} holds no tokenizer that can be read ({reason}).") from None


@contextmanager
def _without_bars(transformers: Any) -> Iterator[None]:
    """Nothing of the library's is drawn over a run's own progress."""
    told = transformers.utils.logging
    shown = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            told.enable_progress_bar()
