"""A benchmark's result as a dated JSON file: what was measured, how, on which code and machine, with its interval.

started = time.perf_counter()
...
write_row("ring8", "2,500 samples of the final average …", {"modes": [8, 8, 8]}, seeds=[0, 1, 2], n=2500,
          wall_seconds=time.perf_counter() - started)
"""

import json
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

import nacre
from nacre.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def write_row(
    name: str,
    protocol: str,
    values: Mapping[str, float | Sequence[float]],
    seeds: Sequence[int],
    n: int,
    *,
    results: Path = RESULTS,
    wall_seconds: float | None = None,
    **extra: Any,
) -> Path:
    """Write one row as `results/YYYY-MM-DD-<name>-<short commit>.json`; later ones are numbered, none is replaced.

    Args:
        name: lower-case letters, digits, "." and "-".
        protocol: what was done, in words that let a reader do it again.
        values: for each metric one number, or one for each seed, which are then summed up by `interval`.
        seeds: of the runs.
        n: samples that each value was computed on.
        results: the folder of the rows.
        wall_seconds: how long the benchmark took; by default, since this module was imported.
        extra: anything else worth keeping: numbers, strings, arrays, and lists and dictionaries of them.

    Returns:
        The file. Numbers that are not finite are null in it, for JSON has no others.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise ValueError(f"expected a name of lower-case letters, digits, '.' and '-', not {name!r}")
    now = datetime.now(UTC)
    row = {
        "name": name,
        "date": now.isoformat(timespec="seconds"),
        "commit": COMMIT,
        "machine": machine(),
        "versions": versions(),
        "protocol": protocol,
        "n": n,
        "seeds": list(seeds),
        "values": {metric: summary(value, seeds) for metric, value in values.items()},
        "wall_seconds": time.perf_counter() - STARTED if wall_seconds is None else wall_seconds,
    }
    if taken := row.keys() & extra.keys():
        raise ValueError(f"{', '.join(sorted(taken))} cannot be extra: the row has its own")
    results.mkdir(parents=True, exist_ok=True)
    path = free_path(results, f"{now:%Y-%m-%d}-{name}-{COMMIT.removesuffix('-dirty')[:7]}")
    write_text(path, json.dumps(plain(row | extra), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def summary(value: float | Sequence[float], seeds: Sequence[int]) -> float | dict[str, Any]:
    """One number as it is; one for each seed with mean and interval."""
    each = np.asarray(value, dtype=np.float64)
    if each.ndim == 0:
        return float(each)
    if each.shape != (len(seeds),):
        raise ValueError(f"expected one number for each of {len(seeds)} seeds, not {each.shape}")
    return {"each": each.tolist(), **interval(each)}


def interval(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """The mean of independent values, its standard error, and Student's 95 % interval of it ("low", "high").

    One value has no error: those entries are None.
    """
    each = np.asarray(values, dtype=np.float64)
    mean = float(each.mean())
    if len(each) < 2:
        return {"mean": mean, "standard_error": None, "low": None, "high": None}
    error = float(each.std(ddof=1) / math.sqrt(len(each)))
    reach = error * float(stdtrit(len(each) - 1, 0.975))
    return {"mean": mean, "standard_error": error, "low": mean - reach, "high": mean + reach}


def free_path(folder: Path, stem: str) -> Path:
    """`stem`.json in `folder`, or the first of `stem`-2.json, `stem`-3.json … that is not there yet."""
    path, number = folder / f"{stem}.json", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.json", number + 1
    return path


def plain(value: Any) -> Any:
    """Tensors, arrays and their scalars as Python's own; numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ── where and with what ──


def commit_of(folder: Path) -> str:
    """The commit of the repository around `folder`, with "-dirty" if files differ from it; "unknown" if it has none.

    Rows in `benchmarks/results` do not count: the first row of a batch must not make the second look dirty.
    """
    head = git(folder, "rev-parse", "--verify", "HEAD")
    if not head:
        return "unknown"
    top = git(folder, "rev-parse", "--show-toplevel")
    changes = git(Path(top), "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    return f"{head}-dirty" if changes else head


def git(folder: Path, *words: str) -> str:
    """What a git command prints, stripped; nothing if it fails or git is absent."""
    try:
        answer = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores, memory and, if there is one, the accelerator; and the threads that torch uses now."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_model() -> str:
    """The processor's name as Linux knows it, elsewhere as Python does."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def memory_gib() -> float | None:
    """Physical memory, where the system tells."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def versions() -> dict[str, str]:
    """Of Python and the packages that a figure may depend on."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in ("torch", "numpy", "nacre")}}


def version_of(package: str) -> str:
    """The version of an installed package; nacre may run from its source tree, without one."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


# When a benchmark starts, not when its row is written: by then the tree may be another.
STARTED = time.perf_counter()
COMMIT = commit_of(ROOT)


def training_seconds(run: Path) -> float:
    """Seconds that the training of a run took, by its log: the speed of each stretch times its images."""
    done, total = 0.0, 0.0
    for line in nacre.Run(run, 0, 0).history:
        if "images_per_s" in line:
            total += 1000 * (line["kimg"] - done) / line["images_per_s"]
            done = line["kimg"]
    return total
