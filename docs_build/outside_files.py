"""Files outside docs/ that the site shows as pages, and the links to them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

# file of the repository: page of the site
PAGES = {
    "benchmarks/RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "android_demo/README.md": "android_app.md",
    "ready_model/README.md": "ready_model_runs.md",
    "runtime_samples/raspberry_pi/README.md": "tutorials/raspberry_pi.md",
}
SOURCES = ("configs/*.yaml", "runtime_samples/raspberry_pi/*.py")  # shown as they are
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".yaml": "yaml", ".py": "python"}


class OutsideFiles:
    """The pages that files of the repository become.

    Args:
        root: The repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._page_of = dict(PAGES)
        for pattern in SOURCES:
            for path in sorted(root.glob(pattern)):
                self._page_of[path.relative_to(root).as_posix()] = f"sources/{path.name}.md"
        self._file_of = {page: file for file, page in self._page_of.items()}

    def pages(self) -> dict[str, str]:
        """Return the text of every page, by its place below docs/."""
        return {page: self._text(file) for file, page in self._page_of.items()}

    def relink(self, markdown: str, place: str) -> str:
        """Return a page with its links to files of the repository pointed at pages of the site.

        Args:
            markdown: The page's text.
            place: Of the page, below docs/.
        """
        written_in = self._file_of.get(place, f"docs/{place}")

        def target(found: re.Match[str]) -> str:
            link = found[2]
            if re.match(r"[a-z]+:", link):
                return found[0]
            file = posixpath.normpath(posixpath.join(posixpath.dirname(written_in), link))
            page = self._page_of.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
            if page is None:
                return found[0]
            return f"{found[1]}{posixpath.relpath(page, posixpath.dirname(place) or '.')}{found[3]}"

        return LINK.sub(target, markdown)

    def _text(self, file: str) -> str:
        text = (self.root / file).read_text(encoding="utf-8")
        language = LANGUAGES.get(Path(file).suffix)
        return text if language is None else f"# {file}\n\n```{language}\n{text}```\n"
