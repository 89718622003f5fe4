"""What bit-identity depends on besides the seed: written down at step 0, applied again or refused by name on resume."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from nacre.engine.settings import Training
from nacre.errors import ConfigError


def device_for(name: str) -> torch.device:
    """The device of a setting: "auto" is CUDA, else Apple's, else the CPU.

    Raises:
        ConfigError: torch does not know the device or cannot use it here.
    """
    if name == "auto" and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); try --device auto."
        ) from None


def describe(training: Training, device: torch.device) -> dict[str, Any]:
    """Everything that two runs must have in common to be bit-identical, besides their settings."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": training.precision,
        "compile": training.compile,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def apply(recorded: Mapping[str, Any]) -> None:
    """Set what can be set as it was: the number of threads, which decides how sums are split."""
    threads = recorded.get("threads")
    if isinstance(threads, int) and 0 < threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each as "name (then, now)"."""
    return [f"{name} (was {recorded.get(name)}, is {now[name]})" for name in now if recorded.get(name) != now[name]]
