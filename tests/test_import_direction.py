"""The direction of imports is the architecture: a module may lean only on stages before its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "capprune": ROOT / "toolchain" / "capprune",
    "capprune_exporters": ROOT / "exporters" / "capprune_exporters",
    "capprune_runtime": ROOT / "runtime_samples" / "capprune_runtime",
}
MAY_IMPORT = {
    "capprune": {"capprune", "capprune_exporters", "capprune_runtime"},
    "capprune_exporters": {"capprune_exporters", "capprune_runtime"},
    "capprune_runtime": {"capprune_runtime"},
}
STAGES = [
    "config",
    "captioning",
    "data",
    "models",
    "pruning",
    "training",
    "evaluation",
    "exporting",
    "sweeping",
    "devices",
    "report",
    "cli",
]
RUNTIME_NEEDS = {"numpy", "PIL", "ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime"}


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative imports hide the direction"
            yield node.module or "", node.lineno


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_packages_below_them(package: str) -> None:
    steps_back = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imported(path)
        if name.partition(".")[0] in PACKAGES and name.partition(".")[0] not in MAY_IMPORT[package]
    ]
    assert modules(package) and not steps_back


def test_stages_import_only_stages_before_them() -> None:
    def stage(name: str) -> int | None:
        part = name.split(".")[1] if name.startswith("capprune.") else ""
        return STAGES.index(part) if part in STAGES else None

    steps_back = []
    for path in modules("capprune"):
        own = stage(".".join(("capprune", *path.relative_to(PACKAGES["capprune"]).with_suffix("").parts)))
        for name, line in imported(path):
            other = stage(name)
            if own is not None and other is not None and other > own:
                steps_back.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not steps_back


def test_every_stage_is_known() -> None:
    modules = {path.stem for path in PACKAGES["capprune"].glob("*.py")}
    packages = {path.parent.name for path in PACKAGES["capprune"].glob("*/__init__.py")}
    assert packages and (modules | packages) - {"__init__", "__main__"} <= {*STAGES}


def test_the_runtime_needs_only_numpy_pillow_and_an_interpreter() -> None:
    import sys

    allowed = set(sys.stdlib_module_names) | RUNTIME_NEEDS | {"capprune_runtime"}
    foreign = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules("capprune_runtime")
        for name, line in imported(path)
        if name.partition(".")[0] not in allowed
    ]
    assert not foreign
