"""Build this package as one runnable file: `python3 capprune_runtime.pyz caption BUNDLE PHOTO`."""

from __future__ import annotations

import importlib.resources
import io
import zipfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable

ARCHIVE = "capprune_runtime.pyz"

_PACKAGE = "capprune_runtime"
# Old Pythons must be able to run it far enough to print that they are too old.
_MAIN = f"import sys\n\nfrom {_PACKAGE}.__main__ import process\n\nsys.exit(process())\n"
# the earliest date of the zip format; fixed, so that the same sources give the same bytes
_DATE = (1980, 1, 1, 0, 0, 0)


def archive_bytes() -> bytes:
    """Return the archive's bytes. The archive itself can call this function too."""
    files = {"__main__.py": _MAIN.encode()}
    files |= dict(_sources(importlib.resources.files(_PACKAGE), _PACKAGE))
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, _DATE)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, files[name])
    return buffer.getvalue()


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name in the archive, content) of every module and table of a package and its subpackages."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith((".py", ".json")):
            yield f"{name}/{entry.name}", entry.read_bytes()
