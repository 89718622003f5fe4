"""Codes of what a person names, and what is said about how they were had."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nacre.cli import flags
from nacre.cli.given import Given, each, numbers
from nacre.data.progress import bar
from nacre.editing import latents
from nacre.editing.inversion import Inversion, Search, find, invert
from nacre.errors import ConfigError
from nacre.pretrained import Pretrained
from nacre.protocols import Encodes
from nacre.spec import Field, fields

logger = logging.getLogger("nacre")

SEARCH = fields(Search)
"""Flags of the search for latents, for models without an encoder."""

MOST = 1000, 64
"""Images of a folder that are used where nothing else is said: by an encoder, and by search."""


@dataclass(frozen=True)
class Coded:
    """Codes of items that one word names.

    Attributes:
        codes: (N, code_dim) on the CPU.
        items: (N, *shape), the originals; of samples, what the codes decode to.
        names: N.
        sampled: whether they are samples of the model's own.
    """

    codes: Tensor
    items: Tensor
    names: list[str]
    sampled: bool


def search_of(parsed: Any) -> Search:
    """How latents are searched for, by the flags that were given."""
    return Search(**flags.given(parsed, SEARCH))


def label_of(parsed: Any, model: Pretrained, count: int) -> Tensor | None:
    """The label that --label gives to `count` codes, if it was given."""
    if parsed.label is None:
        return None
    if not latents.label_count(model.module):
        raise ConfigError("the model is not conditional, so it knows no --label; train one with --conditional.")
    return torch.full((count,), model.class_number(parsed.label))


def coded(
    words: Sequence[str], model: Pretrained, search: Search, *, seed: int, most: int | None = None
) -> list[Coded]:
    """The codes of each word: an image's, those of a folder's images, or of samples by their numbers ("3,17,42").

    Args:
        words: paths, data sources, or numbers.
        model: encodes, or decodes.
        search: how, where there is no encoder.
        seed: of the samples and of the search.
        most: images of a folder; by default 1,000, or 64 where they have to be searched for.
    """
    latents.decoding(model.module)
    if most is None:
        most = MOST[0] if isinstance(model.module, Encodes) else MOST[1]
    listed = [numbers(word) for word in words]
    seen = each([word for word, own in zip(words, listed, strict=True) if own is None], model, most=most)
    codes = iter(_codes_of(seen, model, search, seed))
    return [next(codes) if own is None else _sampled(own, model, seed) for own in listed]


def _codes_of(seen: Sequence[Given], model: Pretrained, search: Search, seed: int) -> list[Coded]:
    """The codes of images, all searched for together."""
    if not seen:
        return []
    found = found_by(model, torch.cat([one.items for one in seen]), search, seed=seed)
    tell_missed(found, [name for one in seen for name in one.names], search)
    parts = torch.split(found.codes.cpu(), [len(one.items) for one in seen])
    return [Coded(part, one.items, one.names, False) for part, one in zip(parts, seen, strict=True)]


def _sampled(listed: list[int], model: Pretrained, seed: int) -> Coded:
    codes = latents.numbered_codes(model.module, listed, seed=seed).cpu()
    return Coded(codes, latents.decode(model.module, codes).cpu(), [f"sample {n}" for n in listed], True)


def found_by(model: Pretrained, items: Tensor, search: Search, *, seed: int) -> Inversion:
    """Codes by the model's encoder or by search, with a bar where it takes long."""
    if isinstance(model.module, Encodes):
        return find(model.module, items, search, seed=seed)
    with bar(len(items), "searching latents", "image", True) as shown:
        return invert(model.module, items, search, seed=seed, chunk=16, tell=shown.update)


def tell_missed(found: Inversion, names: Sequence[str], search: Search) -> None:
    """Say which images the search did not reach; an encoder promises nothing."""
    missed = (~found.converged & (found.searches > 0)).nonzero().squeeze(1).tolist()
    if missed:
        worst = max(missed, key=lambda row: found.residual[row].item())
        logger.info(
            f"{len(missed)} of {len(names)} images were not reached to a mean squared error of {search.tolerance:g}: what "
            f"follows is of their nearest likeness (worst: {names[worst]}, {found.residual[worst]:.2g})."
        )


SEED = Field("seed", int, 0, "of samples, 0 to 4294967295, as in `nacre sample`; and of the search for latents")
LABEL = Field("label", str | None, None, "the class, by number or name, of a model trained with --conditional")
