"""Trained models put to use: functions of a model and tensors, which read no files and print nothing."""

import importlib
from typing import Any

_HOMES = {
    "Direction": "directions",
    "Inversion": "inversion",
    "Moved": "arithmetic",
    "Search": "inversion",
    "direction": "arithmetic",
    "factorized": "directions",
    "find": "inversion",
    "invert": "inversion",
    "lerp": "interpolate",
    "manifold": "interpolate",
    "move": "arithmetic",
    "neighbours": "arithmetic",
    "numbered_codes": "latents",
    "principal": "directions",
    "random_codes": "latents",
    "slerp": "interpolate",
    "train_encoder": "inversion",
    "walk": "interpolate",
}
"""The promised names and where they live: imported when first asked for, for a run needs few of them.

No name is that of a module, so that importing the module cannot put itself in its place.
"""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nacre.editing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"nacre.editing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
