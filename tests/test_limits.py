"""Functions and modules stay short enough to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (
    "toolchain",
    "exporters",
    "runtime_samples",
    "benchmarks",
    "docs_build",
    "android_demo/offline",
    "docs/examples",
)
FUNCTION_LINES, MODULE_LINES = 60, 400
# What may be longer, and why
LONGER: dict[str, str] = {}


def modules() -> Iterator[tuple[str, str]]:
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def long_functions(name: str, text: str) -> Iterator[str]:
    """Functions over the limit; parameters and nested functions count, the docstring does not."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _lines(node) - (_lines(node.body[0]) if ast.get_docstring(node) else 0)
            if lines > FUNCTION_LINES:
                yield f"{name}:{node.name} has {lines} lines"


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_function_is_over_60_lines() -> None:
    found = [one for name, text in modules() for one in long_functions(name, text)]
    assert [one for one in found if one.partition(" ")[0] not in LONGER] == []


def test_no_module_is_over_400_lines() -> None:
    lengths = {name: len(text.splitlines()) for name, text in modules()}
    assert len(lengths) > 300
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES and name not in LONGER} == {}


def test_exceptions_are_still_needed() -> None:
    found = {one.partition(" ")[0] for name, text in modules() for one in long_functions(name, text)}
    found |= {name for name, text in modules() if len(text.splitlines()) > MODULE_LINES}
    assert set(LONGER) <= found


def test_a_long_function_is_found() -> None:
    text = "def f():\n" + "    x = 1\n" * 60
    assert list(long_functions("m.py", text)) == ["m.py:f has 61 lines"]
    described = text.replace("f():\n", 'f():\n    """One.\n\n    Two.\n    """\n')
    assert list(long_functions("m.py", described)) == ["m.py:f has 61 lines"]
