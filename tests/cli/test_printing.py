"""What commands print comes from files of others: it must not reach a terminal raw."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import capprune.cli
from capprune_runtime.streams import printable

FOLDER = Path(capprune.cli.__file__).parent
PRINTS = {"console.py", "app.py"}  # which escape what they print themselves


def prints_raw(source: str) -> list[int]:
    """Lines that print with click.echo, but for JSON documents and the line of progress, which are made here."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("click.echo", "click.secho", "print"):
            text = ast.unparse(call)
            if "json.dumps" not in text and "printable(" not in text and "progress.step" not in text:
                found.append(call.lineno)
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_commands_print_through_the_one_function_that_escapes(path: Path) -> None:
    assert path.name in PRINTS or prints_raw(path.read_text(encoding="utf-8")) == []


def test_raw_printing_is_found() -> None:
    assert prints_raw("import click\nclick.echo(name)\n") == [2]


def test_escape_sequences_and_marks_of_direction_are_spelled_out() -> None:
    assert printable("a\x1b]0;x\x07\u202eb\u2066c\x9b31m\r") == "a\\x1b]0;x\\x07\\u202eb\\u2066c\\x9b31m\\r"
    assert printable("un chien à côté") == "un chien à côté"
