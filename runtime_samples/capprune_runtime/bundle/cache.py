"""Expanded model files of packed bundles, kept for the next process: reading one is ten times as fast as expanding it.

A file is named after its SHA-256, which the header of the packed bundle lists. The packed bundle is read and hashed whenever it
is used, and so is the kept file: one that has changed is expanded again and replaced. The verifier runs every time; only the
expansion is saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime.atomic import PARTIAL, write_bytes
from capprune_runtime.bundle.capz import CapzMembers
from capprune_runtime.bundle.members import read_plain_file
from capprune_runtime.errors import BundleError, CapPruneError

MOST_CACHED_BYTES = 256 << 20  # the oldest files go beyond it
_FOLDER = "expanded"


def expanded_cache(cache: Path | None = None) -> Path | None:
    """Return the user's folder of expanded files, or None where the user has no home.

    Args:
        cache: The folder around it; `$CAPPRUNE_CACHE`, or else `~/.cache/capprune`, where it is not given.
    """
    try:
        return Path(cache or os.environ.get("CAPPRUNE_CACHE") or Path.home() / ".cache" / "capprune") / _FOLDER
    except RuntimeError:
        return None


@dataclass(frozen=True)
class CachedMembers:
    """The files of a packed bundle, some of which may have been expanded before.

    Attributes:
        packed: The packed bundle, read and checked.
        folder: The folder of expanded files.
    """

    packed: CapzMembers
    folder: Path

    @property
    def place(self) -> Path:
        """See `Members`."""
        return self.packed.place

    @property
    def packed_bytes(self) -> int | None:
        """See `Members`."""
        return self.packed.packed_bytes

    def names(self, cap: int) -> tuple[str, ...]:
        """See `Members`."""
        return self.packed.names(cap)

    def read(self, name: str, cap_bytes: int) -> bytes:
        """Read one file from the cache if it is there unchanged, else expand and keep it; errors as of `CapzMembers.read`."""
        digest = self.packed.slow_digest(name)
        if digest is None:
            return self.packed.read(name, cap_bytes)
        kept = self.folder / digest.hex()
        with contextlib.suppress(BundleError):  # missing, a link, too large: it is expanded
            content = read_plain_file(kept, cap_bytes)
            if hashlib.sha256(content).digest() == digest:
                return content
        content = self.packed.read(name, cap_bytes)
        with contextlib.suppress(CapPruneError, OSError):  # a cache that cannot be written to costs time only
            _keep(kept, content)
        return content


def _keep(place: Path, content: bytes) -> None:
    """Write one file, and remove the oldest ones where all become too large together."""
    if place.is_symlink():
        place.unlink()  # or the file that it points to would be written over
    write_bytes(place, content)
    entries = [(entry.stat(), entry) for entry in place.parent.iterdir() if not entry.name.endswith(PARTIAL)]
    total = sum(status.st_size for status, _ in entries)
    for status, entry in sorted(entries, key=lambda found: found[0].st_mtime):
        if total <= MOST_CACHED_BYTES or entry == place:
            break
        entry.unlink(missing_ok=True)
        total -= status.st_size
