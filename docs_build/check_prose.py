"""Checks the text of the documentation: proselint's rules of grammar and style, and phrases that read as translated.

python docs_build/check_prose.py

Prints a line for each finding, and exits with 1 if there is any. Code is not checked.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proselint.checks import __register__ as CHECKS
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md", "docs/**/*.md")
# Exceptions: groups of proselint's checks that do not fit these pages, with the reason
LEFT_OUT = {
    "typography": "blocks are called 1x16, and code has straight quotes and three dots",
    "dates_times": "p.m. and ranges of dates are found in numbers",
}
# Phrases of texts that were translated word by word, and what to write instead
TRANSLATED = {
    r"\bin turns\b": "interleaved",
    r"\bsittings?\b": "run",
    r"(?<!captions )\bwithout a word\b": "without an error",
    r"\bis (?:not )?told\b": "is (not) printed",
    r"\bwaited for for\b": "waits up to",
    r"\bnobody's business\b": "private",
    r"\bgo(?:es)? on where it\b": "continues",
    r"\bso many\b": "N",
    r"\bsays? of (?:a|the|every) photo\b": "generates for",
    r"\b0\.\d+ times\b": "a ratio above 1",
    r"\btimes as (?:fast|small|large)\b": "2.1x faster",
    r"\bwhat is honest\b": "trade-offs",
}


def prose(markdown: str) -> str:
    """Return the text of a page with its code blanked out; lines keep their numbers, and every line ends a sentence."""
    blank = re.sub(r"^```.*?^```$", lambda found: "\n" * found[0].count("\n"), markdown, flags=re.MULTILINE | re.DOTALL)
    blank = re.sub(r"<!--.*?-->|\]\([^)\n]*\)", " ", blank)
    numbers = itertools.count()  # the same word twice, or a number beside an equal one, would read as a repetition
    blank = re.sub(r"`[^`\n]*`", lambda _: f"c{next(numbers)}ode", blank)
    return re.sub(r"^(#.*|\|.*|[-*] .*)$", r"\1.", blank, flags=re.MULTILINE)


def findings(name: str, markdown: str) -> Iterator[str]:
    """Yield a line for every finding of a page."""
    text = prose(markdown)
    checks = {**DEFAULT["checks"], **dict.fromkeys(LEFT_OUT, False)}
    for found in LintFile(name, text).lint({**DEFAULT, "checks": checks}) if text.strip() else []:
        yield f"{name}:{found.pos[0]}: {' '.join(found.check_result.message.split())}"
    for number, line in enumerate(text.splitlines(), 1):
        for phrase, better in TRANSLATED.items():
            if again := re.search(phrase, line, re.IGNORECASE):
                yield f"{name}:{number}: {again[0]!r} reads as translated; write {better!r}"


def main() -> int:
    """Check every page."""
    CheckRegistry().register_many(CHECKS)
    found = [
        line
        for pattern in PAGES
        for page in sorted(ROOT.glob(pattern))
        for line in findings(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
    ]
    print("\n".join(found) or "the text has no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
