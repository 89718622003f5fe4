"""The numeric path: chosen by a table, vetoed by an error, restored afterwards."""

import pytest
import torch
from torch import nn

from nacre.engine import numerics
from nacre.engine.settings import Training
from nacre.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forgetful():
    numerics.matmul_path.cache_clear()
    yield
    numerics.matmul_path.cache_clear()


def test_processors_that_are_not_in_the_table_keep_the_default(monkeypatch):
    monkeypatch.setattr(numerics, "_processor", lambda: ("GenuineIntel", "6"))
    assert numerics.matmul_path("cpu") == "default"
    assert numerics.matmul_path("cuda") == "default"


def test_an_inexact_path_is_vetoed(monkeypatch):
    monkeypatch.setattr(numerics, "_processor", lambda: ("AuthenticAMD", "26"))
    monkeypatch.setattr(numerics, "_matmul_error", lambda: 4e-3)
    assert numerics.matmul_path("cpu") == "default"


def test_an_exact_path_is_taken_and_put_back(monkeypatch):
    monkeypatch.setattr(numerics, "_processor", lambda: ("AuthenticAMD", "26"))
    monkeypatch.setattr(numerics, "_matmul_error", lambda: 1e-7)
    assert numerics.describe(Training(), CPU)["matmul"] == "onednn"
    before = torch.get_float32_matmul_precision()
    with numerics.applied(CPU):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


def test_the_path_that_is_taken_here_is_float32():
    with numerics.applied(CPU):
        assert numerics._matmul_error() < numerics.LARGEST_ERROR


def test_differences_are_named():
    now = numerics.describe(Training(), CPU)
    assert numerics.differences(now, now) == []
    assert numerics.differences({**now, "threads": 77}, now) == [f"threads (was 77, is {now['threads']})"]


def test_compiling_depends_on_model_and_length_only(monkeypatch):
    monkeypatch.setattr(numerics.shutil, "which", lambda name: f"/usr/bin/{name}")
    mlp, conv = nn.Linear(2, 2), nn.Conv2d(1, 1, 3)
    assert numerics.compile_pays(mlp, CPU, 100_000)
    assert not numerics.compile_pays(mlp, CPU, 1_000)
    assert not numerics.compile_pays(conv, CPU, 100_000)
    monkeypatch.setattr(numerics.shutil, "which", lambda name: None)
    assert not numerics.compile_pays(mlp, CPU, 100_000)


def test_memory_that_is_kept_changes_nothing():
    torch.manual_seed(0)
    a = torch.randn(512, 512)
    outside = a @ a
    with numerics._memory_kept():
        inside = a @ a
    assert torch.equal(inside, outside)


def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="--device abacus cannot be used here"):
        numerics.device_for("abacus")
    assert numerics.device_for("cpu") == CPU
