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
# The rooms of each package in the order in which they may import: a room imports itself and the rooms before it.
# A room is a folder or a module right under its package; "" is the ground floor, which is every module not named here.
ROOMS = {
    "capprune": [
        "",
        "config",
        "ineffective",
        "data",
        "metrics",
        "labelling",
        "models",
        "pruning",
        "rounding",
        "training",
        "importing",
        "validation",
        "trained",
        "ensembling",
        "lengths",
        "exporting",
        "sweeping",
        "devices",
        "reporting",
        "serving",
        "api",
        "cli",
        "__main__",
    ],
    "capprune_exporters": [
        "cost_tables",
        "",
        "tflite",
        "onnx",
        "pack",
        "plan",
        "balanced",
        "baselines",
        "targets",
        "ledger",
    ],
    "capprune_runtime": ["", "tflite", "onnx", "bundle", "caption", "measure", "command", "__main__"],
}
RUNTIME_NEEDS = {"numpy", "PIL", "pillow_heif", "ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime"}


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative imports hide the direction"
            yield from ((name, node.lineno) for name in (node.module or "", *_members(node)))


def _members(node: ast.ImportFrom) -> list[str]:
    """What is imported from a package may be a module of it."""
    return [f"{node.module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_packages_below_them(package: str) -> None:
    steps_back = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imported(path)
        if name.partition(".")[0] in PACKAGES and name.partition(".")[0] not in MAY_IMPORT[package]
    ]
    assert modules(package) and not steps_back


def module_name(path: Path, package: str) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *parts)).removesuffix(".__init__")


def room(name: str) -> str:
    """The room of a module: the folder or file right under its package; "" for a module on the ground floor."""
    package, *parts = name.split(".")
    return parts[0] if parts and parts[0] in ROOMS[package] else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_only_rooms_before_them(package: str) -> None:
    order = ROOMS[package]
    steps_back = []
    for path in modules(package):
        if (name := module_name(path, package)) == package:
            continue  # the package's own names come from its rooms
        own = room(name)
        for name, line in imported(path):
            if name.partition(".")[0] == package and order.index(room(name)) > order.index(own):
                steps_back.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not steps_back


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_is_a_known_room(package: str) -> None:
    folders = {path.relative_to(PACKAGES[package]).parts[0] for path in PACKAGES[package].glob("*/**/*.py")}
    missing = {name for name in ROOMS[package] if name and not any(PACKAGES[package].glob(f"{name}*"))}
    assert folders <= {*ROOMS[package]} and not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    paths = {module_name(path, package): path for path in modules(package)}
    imports = {name: {other for other, _ in imported(path) if other in paths} for name, path in paths.items()}
    circles: list[str] = []
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circles.append(" > ".join((*way[way.index(name) :], name)))
        elif name not in done:
            for other in imports[name] - {name, package}:
                visit(other, (*way, name))
            done.add(name)

    for name in imports:
        visit(name, ())
    assert paths and not circles


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
