"""nacre: autoencoders, VAEs and GANs trained on your own images, measured honestly and put to use."""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ALWAYS": "nacre.protocols",
    "Interrupted": "nacre.errors",
    "NacreError": "nacre.errors",
    "Objective": "nacre.protocols",
    "Pretrained": "nacre.pretrained",
    "Run": "nacre.run",
    "Step": "nacre.protocols",
    "check_model": "nacre.contract",
    "load": "nacre.pretrained",
    "losses": "nacre",
    "networks": "nacre",
    "normal": "nacre.seeds",
    "resume": "nacre.run",
    "train": "nacre.run",
    "uniform": "nacre.seeds",
}
"""The promised names and where they live. They are imported when first asked for: `nacre --help` needs no torch."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nacre' has no attribute '{name}'")
    if _HOMES[name] == "nacre":
        return importlib.import_module(f"nacre.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
