"""Checks of tar files: which members are read, and the error of a broken file."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from capprune_runtime.errors import DataError


def is_plain_member(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a plain file inside the archive: no link, no device, no absolute path, no `..`."""
    name = PurePosixPath(member.name)
    return member.isreg() and not member.issparse() and not name.is_absolute() and ".." not in name.parts


@contextmanager
def tar_is_broken(path: Path) -> Iterator[None]:
    """Convert exceptions of a broken tar file into an error for the user."""
    try:
        yield
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(
            "a tar file is broken",
            where=path,
            expected="an uncompressed .tar",
            found=error,
            hint="it may have been cut off or be compressed; unpack it, or download it again",
        ) from error
