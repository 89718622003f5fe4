"""The floors of the house: a module imports only from below, models never import models."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "nacre"

FLOORS = (
    {"errors", "files", "seeds", "images", "losses", "schedules", "augment"},
    {"protocols", "networks", "data"},
    {"models", "editing", "metrics", "latent", "theory"},
    {"engine", "spec"},
    {"pretrained"},
    {"run"},
    {"contract", "estimator", "lab"},
    {"cli"},
    {"__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS, 1) for name in names}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def imported(path: Path) -> set[str]:
    """Dotted names of nacre's modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("nacre.") for name in names if name.startswith("nacre.")}


def place(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_come_from_floors_below(path: Path) -> None:
    here = place(path)
    assert here in FLOOR, f"{here} has no floor yet"
    for name in imported(path):
        there = name.split(".")[0]
        if there == "__version__":
            continue
        same_package = there == here and (SOURCE / here).is_dir()
        assert same_package or FLOOR[there] < FLOOR[here], f"{path} on floor {FLOOR[here]} imports {name}"


def test_models_do_not_import_models() -> None:
    for path in (SOURCE / "models").glob("*.py"):
        assert not {name for name in imported(path) if name.startswith("models")}, path


def test_ground_floor_needs_torch_and_numpy_only() -> None:
    import sys

    for name in FLOORS[0]:
        tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                root = module.split(".")[0]
                assert root in {"torch", "numpy", "nacre"} | sys.stdlib_module_names, f"{name} imports {module}"


def test_files_are_short() -> None:
    for path in MODULES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= (300 if place(path) == "models" else 400), f"{path} has {lines} lines"
