"""Cache of model files expanded from packed bundles; reading one is ten times as fast as expanding it.

A file is named after its SHA-256, which the header of the packed bundle lists. The packed bundle and the cached file
are read and hashed on every use. A cached file that has changed is expanded again and replaced. The verifier runs every
time; only the expansion is skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime.atomic import PARTIAL, write_bytes
from capprune_runtime.bundle.capz import CapzMembers
from capprune_runtime.bundle.members import read_plain_file
from capprune_runtime.errors import BundleError, CapPruneError

MOST_CACHED_BYTES = 256 << 20  # beyond this the oldest files are removed
_FOLDER = "expanded"
_DIGEST = hashlib.sha256().digest_size


def user_cache() -> Path | None:
    """Return the folder of all caches, `$CAPPRUNE_CACHE` or else `~/.cache/capprune`, or None without a home folder."""
    try:
        return Path(os.environ.get("CAPPRUNE_CACHE") or Path.home() / ".cache" / "capprune")
    except RuntimeError:
        return None


def expanded_cache(cache: Path | None = None) -> Path | None:
    """Return the user's folder of expanded files, or None if the user has no home folder.

    Args:
        cache: Its parent folder. [default: that of `user_cache`]
    """
    base = cache or user_cache()
    return None if base is None else base / _FOLDER


@dataclass(frozen=True)
class CachedMembers:
    """The files of a packed bundle, some of them already expanded in the cache.

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
        """Read an unchanged file from the cache; otherwise expand and cache it.

        Raises the errors of `CapzMembers.read`.
        """
        digest = self.packed.slow_digest(name)
        if digest is None:
            return self.packed.read(name, cap_bytes)
        kept = self.folder / digest.hex()
        with contextlib.suppress(BundleError):  # missing, a link or too large: expand it
            content = read_plain_file(kept, cap_bytes)
            if hashlib.sha256(content).digest() == digest:
                return content
        content = self.packed.read(name, cap_bytes)
        with contextlib.suppress(CapPruneError, OSError):  # a cache that cannot be written only costs time
            keep(kept, content, MOST_CACHED_BYTES)
        return content


def kept_or_made(place: Path | None, make: Callable[[], bytes], most_bytes: int) -> bytes:
    """Return the content of a file in a cache; if there is none, or a damaged one, make the content and keep it.

    Args:
        place: The file, which ends with the SHA-256 of its content; None without a cache.
        make: Returns the content.
        most_bytes: Limit on the total of the file's folder; beyond it the oldest files are removed.
    """
    if place is None:
        return make()
    with contextlib.suppress(OSError):
        stored = place.read_bytes()
        content, digest = stored[:-_DIGEST], stored[-_DIGEST:]
        if hashlib.sha256(content).digest() == digest:
            place.touch()
            return content
    content = make()
    with contextlib.suppress(CapPruneError, OSError):  # a cache that cannot be written only costs time
        place.parent.mkdir(parents=True, exist_ok=True)
        keep(place, content + hashlib.sha256(content).digest(), most_bytes)
    return content


def keep(place: Path, content: bytes, most_bytes: int) -> None:
    """Write one file to a cache, and remove the oldest files of its folder while their total exceeds a limit.

    Args:
        place: The file.
        content: Its content.
        most_bytes: The limit.

    Raises:
        CapPruneError: The file cannot be written.
        OSError: The same, or the folder cannot be read.
    """
    if place.is_symlink():
        place.unlink()  # otherwise a link's target would be overwritten
    write_bytes(place, content)
    entries = [(entry.stat(), entry) for entry in place.parent.iterdir() if not entry.name.endswith(PARTIAL)]
    total = sum(status.st_size for status, _ in entries)
    for status, entry in sorted(entries, key=lambda found: found[0].st_mtime):
        if total <= most_bytes or entry == place:
            break
        entry.unlink(missing_ok=True)
        total -= status.st_size
