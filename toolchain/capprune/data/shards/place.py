"""Location of shards: a folder, or a URL of any file system that fsspec supports.

A remote shard is fetched whole, once.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from capprune.data.shards.index import INDEX, ROWS, TAR, IndexedShard, ShardIndex, parse_index
from capprune.file_lock import locked
from capprune_runtime.atomic import atomic_file
from capprune_runtime.errors import CapPruneError, DataError, MissingExtra

ATTEMPTS: Final = 3  # to read a remote file before it is reported as missing
PAUSE_S: Final = 0.5  # before the second attempt; doubled after each
Result = TypeVar("Result")


def is_url(place: str) -> bool:
    """Return whether a place is a URL rather than a path."""
    return "://" in place or "::" in place


class ShardPlace:
    """A local or remote folder of shards.

    Args:
        place: A folder, or a URL that fsspec opens, such as `s3://bucket/shards` or `https://host/shards`.
        cache: Folder of all caches; holds the remote shards that are in use.
        open_shards: Number of shards that are kept open; open remote shards take their size on the disk.

    Raises:
        DataError: There is no index, or it is broken.
        MissingExtra: The file system needs a package that is not installed.
    """

    def __init__(self, place: str, cache: Path, *, open_shards: int = 8) -> None:
        self.place, self._cache, self._most = place.rstrip("/") or place, cache / "shards", open_shards
        self._open: OrderedDict[str, tuple[int, Path | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._system: Any = None
        self._root = self.place
        if is_url(place):
            self._connect()
        self.index: ShardIndex = parse_index(self.read(INDEX), self.where(INDEX))

    def where(self, name: str) -> str:
        """Return the name of a file for messages."""
        return f"{self.place}/{name}"

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            DataError: It does not exist, or cannot be read.
        """
        return self._attempted(name, lambda: self._read(name))

    def rows_of(self, shard: IndexedShard) -> bytes:
        """Return the rows of a shard, as written.

        Raises:
            DataError: They are missing, truncated or altered.
        """
        name = shard.name + ROWS
        content = self.read(name)
        if len(content) != shard.rows_bytes or hashlib.sha256(content).hexdigest() != shard.rows_sha256:
            raise self._altered(name, shard.rows_bytes, len(content))
        return content

    def check(self, shards: Sequence[IndexedShard]) -> None:
        """Check that local shards exist in their full size; remote ones are checked when they are fetched.

        Raises:
            DataError: A shard is missing or truncated; the message names it.
        """
        if self._system is not None:
            return
        for shard in shards:
            path = Path(self._root) / (shard.name + TAR)
            try:
                found = path.stat().st_size
            except OSError as error:
                raise self._missing(shard.name + TAR, error) from error
            if found != shard.size_bytes:
                raise self._altered(shard.name + TAR, shard.size_bytes, found)

    def part(self, shard: IndexedShard, offset: int, size_bytes: int) -> bytes:
        """Return some bytes of a shard; thread-safe.

        Raises:
            DataError: The shard is missing or truncated.
        """
        with self._lock:
            descriptor = os.dup(self._descriptor(shard))
        try:
            content = os.pread(descriptor, size_bytes, offset)
        finally:
            os.close(descriptor)
        if len(content) != size_bytes:
            raise self._altered(shard.name + TAR, shard.size_bytes, offset + len(content))
        return content

    def keep_open(self, shards: int) -> None:
        """Keep at least this many shards open."""
        self._most = max(self._most, shards)

    def close(self) -> None:
        """Close all shards; fetched ones are deleted."""
        with self._lock:
            while self._open:
                self._put_away(*self._open.popitem()[1])

    def _connect(self) -> None:
        try:
            from fsspec.core import url_to_fs

            self._system, self._root = url_to_fs(self.place)
        except ImportError as error:
            raise MissingExtra(
                "this place needs a package that is not installed",
                where=self.place,
                found=error,
                hint="pip install 'capprune[shards]', and the package that the message names",
            ) from error
        except ValueError as error:
            raise DataError("no file system is known for this URL", where=self.place, found=error) from error
        if "file" in (self._system.protocol if isinstance(self._system.protocol, tuple) else (self._system.protocol,)):
            self._system = None  # a local path after all

    def _read(self, name: str) -> bytes:
        if self._system is None:
            return (Path(self._root) / name).read_bytes()
        content: bytes = self._system.cat_file(f"{self._root}/{name}")
        return content

    def _attempted(self, name: str, read: Callable[[], Result]) -> Result:
        """Return the result of `read`; reads of remote files are repeated after a failure."""
        attempts = 1 if self._system is None else ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                return read()
            except FileNotFoundError as error:
                raise self._missing(name, error) from error
            except CapPruneError:
                raise
            except Exception as error:  # every file system has its own exceptions
                if self._system is None and not isinstance(error, OSError):
                    raise
                if attempt == attempts:
                    raise self._missing(name, error) from error
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError

    def _descriptor(self, shard: IndexedShard) -> int:
        if shard.name in self._open:
            self._open.move_to_end(shard.name)
            return self._open[shard.name][0]
        while len(self._open) >= self._most:
            self._put_away(*self._open.popitem(last=False)[1])
        name = shard.name + TAR
        fetched = None if self._system is None else self._fetch(shard)
        path = fetched or Path(self._root) / name
        descriptor = self._attempted(name, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        if (found := os.fstat(descriptor).st_size) != shard.size_bytes:
            os.close(descriptor)
            raise self._altered(name, shard.size_bytes, found)
        self._open[shard.name] = descriptor, fetched
        return descriptor

    def _fetch(self, shard: IndexedShard) -> Path:
        """Copy a remote shard to the disk and check it; processes of one machine share the copy."""
        path, name = self._cache / f"{shard.sha256}.tar", shard.name + TAR
        with locked(self._cache / f"{shard.sha256[:24]}.lock"):
            if path.is_file() and path.stat().st_size == shard.size_bytes:
                return path
            with atomic_file(path, needed_bytes=shard.size_bytes) as temporary:
                self._attempted(name, lambda: self._system.get_file(f"{self._root}/{name}", str(temporary)))
                if sha256_of(temporary) != shard.sha256:
                    raise self._altered(name, shard.size_bytes, temporary.stat().st_size)
        return path

    def _put_away(self, descriptor: int, fetched: Path | None) -> None:
        os.close(descriptor)
        if fetched is not None:
            fetched.unlink(missing_ok=True)  # another process that reads it has it open

    def _missing(self, name: str, error: Exception) -> DataError:
        found = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        what = "there is no index of shards here" if name == INDEX else "a shard is missing or cannot be read"
        hint = "capprune data shard DATA --out FOLDER makes one" if name == INDEX else "copy it again, or make it again"
        return DataError(what, where=self.where(name), found=found, hint=hint)

    def _altered(self, name: str, expected: int, found: int) -> DataError:
        changed = "other bytes of the same number" if expected == found else f"{found:,} bytes"
        return DataError(
            "a shard is cut off or has been altered",
            where=self.where(name),
            expected=f"{expected:,} bytes, as its index says",
            found=changed,
            hint="copy it again; or remove it, and run the command that made the shards again",
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
