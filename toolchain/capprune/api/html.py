"""HTML of results for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CELL = "padding:2px 10px;text-align:{}"


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; every column but the first is aligned to the right."""
    head = _row("th", columns)
    body = "".join(_row("td", row) for row in rows)
    caption = f'<caption style="text-align:left">{escape(title)}</caption>' if title else ""
    return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    styles = (CELL.format("left" if index == 0 else "right") for index in range(len(cells)))
    filled = (f'<{tag} style="{style}">{escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True))
    return f"<tr>{''.join(filled)}</tr>"
