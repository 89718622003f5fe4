"""What bit-identity depends on besides the seed: written down at step 0, applied again or refused by name on resume."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.errors import ConfigError

FASTER_IN_ONEDNN = frozenset({("AuthenticAMD", "26")})
"""Processors (vendor, family) on which oneDNN's float32 matrix products were measured to beat the default's: on AMD's
Zen 5 the default runs at its AVX2 rate, oneDNN at twice that."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt (malloc.h)."""

WORTH_COMPILING = 30_000
"""Steps from which compiling an MLP's gradients pays for itself on a CPU."""

LARGEST_ERROR = 1e-5
"""Relative error of a float32 matrix product above which a path is not float32: bfloat16 gives about 4e-3."""


def device_for(name: str) -> torch.device:
    """The device of a setting: "auto" is CUDA, else Apple's, else the CPU.

    Raises:
        ConfigError: torch does not know the device or cannot use it here.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if torch.device(name).type in ("cpu", "cuda", "mps", "xpu"):
            return torch.zeros(1, device=name).device
        reason = "nacre runs on cpu, cuda, mps and xpu"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:80]
    raise ConfigError(f"--device {name} cannot be used here ({reason}); try --device auto.")


def describe(
    training: Training, device: torch.device, updates: Sequence[Update] = (), ranks: int = 1
) -> dict[str, Any]:
    """Everything that two runs must have in common to be bit-identical, besides their settings."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": training.precision,
        "compile": "on" if any(update.compiled for update in updates) else "off",
        "matmul": matmul_path(device.type),
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "torch": str(torch.__version__),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def compile_pays(model: nn.Module, device: torch.device, steps: int) -> bool:
    """Whether compiling the gradients saves more than it takes: by the model and the length of the run, never by timing.

    Measured on two cores: 10 to 20 s to compile, .3 to 3 ms saved a step of an MLP, nothing where convolutions do the work.
    """
    convolves = any(parameter.ndim == 4 for parameter in model.parameters())
    return device.type == "cpu" and not convolves and steps >= WORTH_COMPILING and _has_compiler()


def _has_compiler() -> bool:
    """Whether Inductor finds what it compiles with."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def apply(recorded: Mapping[str, Any]) -> None:
    """Set what can be set as it was: the number of threads, which decides how sums are split."""
    threads = recorded.get("threads")
    if isinstance(threads, int) and 0 < threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each as "name (then, now)"."""
    return [f"{name} (was {recorded.get(name)}, is {now[name]})" for name in now if recorded.get(name) != now[name]]


@lru_cache
def matmul_path(device_type: str) -> Literal["onednn", "default"]:
    """The path of float32 matrix products: by the table of processors, vetoed by its error, never by a timing."""
    if device_type != "cpu" or _processor() not in FASTER_IN_ONEDNN:
        return "default"
    with _precision("medium"):
        return "onednn" if _matmul_error() <= LARGEST_ERROR else "default"


@contextmanager
def applied(device: torch.device) -> Iterator[None]:
    """Matrix products by `matmul_path`, and freed memory kept for the next step; afterwards as they were."""
    with ExitStack() as stack:
        if matmul_path(device.type) == "onednn":
            stack.enter_context(_precision("medium"))  # what lets torch hand float32 products to oneDNN
        if device.type == "cpu":
            stack.enter_context(_memory_kept())
        yield


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Let glibc's malloc keep what is freed, which changes no result.

    By default it gives each large tensor back to the system and takes it again a moment later, page fault by page fault:
    600 a step for a small VAE.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
    mallopt(_TRIM_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        mallopt(_TRIM_THRESHOLD, 64 << 20)  # the bound to which malloc adapts by itself, twice the other threshold


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _matmul_error() -> float:
    """Relative error of a float32 product against float64, on fixed random matrices."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 384, 384, generator=generator)
    exact = a.double() @ b.double()
    return float(((a @ b).double() - exact).norm() / exact.norm())


def _processor() -> tuple[str, str]:
    """Vendor and family of the processor, as Linux tells them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "", ""
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    return facts.get("vendor_id", ""), facts.get("cpu family", "")
