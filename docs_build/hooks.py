"""Hooks that MkDocs calls while it builds the documentation; see `hooks` in mkdocs.yml.

- Files outside docs/ that pages link to (the results, the Raspberry Pi walk, the configs) become pages of the site.
- `<!-- options: COMMAND -->`, `<!-- extras -->`, `<!-- config -->`, `<!-- operators -->` and `<!-- limits -->` are replaced by
  text made from the code.
- Drawings in SVG are put into the page, so that screen readers find their titles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_pages import extras_table, options_of
from config_reference import config_reference
from operator_table import limits_table, operator_table
from outside_files import OutsideFiles

ROOT = Path(__file__).parents[1]
OUTSIDE = OutsideFiles(ROOT)
MARKER = re.compile(r"<!-- (options|extras|config|operators|limits)(?:: ([\w -]+))? -->")
DRAWING = re.compile(r"^!\[([^\]]*)\]\(([\w/.-]+\.svg)\)$", re.MULTILINE)


def on_files(files: Any, *, config: Any) -> Any:
    """Add a page for every file outside docs/ that the site shows."""
    from mkdocs.structure.files import File

    for place, text in OUTSIDE.pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Fill markers, put drawings in, and point links at the pages that files outside docs/ became."""
    place = page.file.src_uri
    markdown = MARKER.sub(lambda found: _made(found[1], found[2]), markdown)
    folder = (Path(config["docs_dir"]) / place).parent
    markdown = DRAWING.sub(lambda found: _drawing(folder / found[2]), markdown)
    return OUTSIDE.relink(markdown, place)


def _made(kind: str, of: str | None) -> str:
    if kind == "options":
        return options_of(str(of))
    made = {"extras": extras_table, "config": config_reference, "operators": operator_table, "limits": limits_table}
    return made[kind]()


def _drawing(path: Path) -> str:
    svg = path.read_text(encoding="utf-8").strip()
    return f'<figure class="drawing" markdown="0">{svg}</figure>'
