"""The progress bar of everything in here that may take longer than two seconds."""

from typing import Any


def bar(total: int, what: str, unit: str, progress: bool) -> Any:
    """A tqdm bar on standard error, which appears after two seconds if `progress` and if that is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, delay=2, leave=False, disable=None if progress else True)
