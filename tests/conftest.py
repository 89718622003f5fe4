"""Every test has its own cache and working directory, and two threads at most."""

import os
from pathlib import Path

os.environ.setdefault("NACRE_COMPILE_BACKEND", "aot_eager")

import pytest
import torch


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's cache, data folder or working directory."""
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NACRE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
