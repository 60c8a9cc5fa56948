"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ready_model" / "README.md",
    ROOT / "runtime_samples" / "raspberry_pi" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
BLOCK = re.compile(r"(<!-- run -->\n)?^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Where it is.
        text: Without its fences.
        runs: Whether the page promises that the commands print what follows them.
    """

    page: Path
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.splitlines()[0] if self.text else ''}"


def blocks() -> Iterator[Block]:
    """Yield every block of code of every page."""
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield Block(page, found[2], found[1] is not None)


def commands_of(text: str) -> Iterator[str]:
    """Yield the `capprune` commands of a block; lines that end in a backslash are joined."""
    for line in text.replace("\\\n", " ").splitlines():
        command = re.sub(r"^(?:\$ |\.venv/bin/|~/capprune/bin/)*", "", line.strip())
        if command.startswith("capprune "):
            yield re.split(r"\s+#\s|\s[|>]\s", command)[0]
