"""Tar files of other people: which members count, and what a broken one raises."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from capprune_runtime.errors import DataError


def is_plain_member(member: tarfile.TarInfo) -> bool:
    """Whether a member is a plain file inside: no link, no device, no absolute path, no `..`."""
    name = PurePosixPath(member.name)
    return member.isreg() and not member.issparse() and not name.is_absolute() and ".." not in name.parts


@contextmanager
def tar_is_broken(path: Path) -> Iterator[None]:
    """Turn what reading a broken tar file raises into the user's error."""
    try:
        yield
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(
            "a tar file is broken",
            where=path,
            expected="an uncompressed .tar",
            found=error,
            hint="it may have been cut off or be compressed; unpack it, or fetch it again",
        ) from error
