"""Photos of a data set, as files in a folder or as members of tar files, read in place."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final

from capprune_runtime.errors import DataError, UsageError
from capprune_runtime.photo import ENDINGS

NAMED_IN_ERRORS: Final = 3  # of the photos that are not there


@dataclass(frozen=True)
class _Place:
    """Where a photo's bytes are: a whole file, or a part of a tar file."""

    path: Path
    offset: int
    size_bytes: int


class PhotoStore:
    """The photos under a folder, by their path in it or in a tar file; see `open_photos`.

    Reading is safe from several threads at once. Nothing is ever unpacked to disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        self._tars: dict[Path, int] = {}  # open file descriptors
        self._by_base: dict[str, str | None] = {}  # None where several photos share a base name

    def names(self) -> tuple[str, ...]:
        """Every photo, sorted: its path under the folder, or inside its tar file, with `/`."""
        return tuple(sorted(self._places))

    def read(self, name: str) -> bytes:
        """The bytes of one photo file.

        Args:
            name: Its path, or its base name where no other photo has the same.

        Raises:
            DataError: There is no such photo, or it cannot be read.
        """
        place = self._place(name)
        if place is None:
            raise self._not_there((name,), 1)
        try:
            if place.path not in self._tars:
                return place.path.read_bytes()
            content = os.pread(self._tars[place.path], place.size_bytes, place.offset)
        except OSError as error:
            raise DataError(
                "a photo cannot be read", where=f"{place.path}, photo {name}", found=error.strerror
            ) from error
        if len(content) != place.size_bytes:
            raise DataError("a tar file has changed while it was read", where=f"{place.path}, photo {name}")
        return content

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that no photo, or more than one, answers to."""
        return tuple(name for name in names if self._place(name) is None)

    def require(self, names: Sequence[str]) -> None:
        """Check that every photo is there.

        Raises:
            DataError: Some are not; the message counts them and names the first.
        """
        missing = self.missing(names)
        if missing:
            raise self._not_there(missing, len(names))

    def fingerprint(self, names: Iterable[str]) -> str:
        """SHA-256 over names and sizes of photos, in order: changes when a photo is put in another's place.

        Sizes instead of content, because a data set can be larger than an hour of reading.
        """
        digest = hashlib.sha256()
        for name in names:
            place = self._place(name)
            digest.update(f"{name}\n{place.size_bytes if place else None}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the tar files."""
        while self._tars:
            os.close(self._tars.popitem()[1])

    def __enter__(self) -> PhotoStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, name: str, place: _Place) -> None:
        if name in self._places:
            raise DataError("two photos have one name", where=name, found=f"{self._places[name].path} and {place.path}")
        self._places[name] = place
        base = PurePosixPath(name).name
        self._by_base[base] = None if base in self._by_base else name

    def _add_tar(self, path: Path) -> None:
        for name, place in _tar_photos(path):
            self._add(name, place)
        self._tars[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _place(self, name: str) -> _Place | None:
        if name in self._places:
            return self._places[name]
        full = self._by_base.get(PurePosixPath(name).name)
        return None if full is None else self._places[full]

    def _not_there(self, missing: Sequence[str], asked: int) -> DataError:
        first = ", ".join(missing[:NAMED_IN_ERRORS])
        return DataError(
            "captions for photos that are not there",
            where=self.folder,
            expected=f"a photo for each of {asked:,} names, in the folder or in a .tar",
            found=f"{len(missing):,} not there: {first}{', …' if len(missing) > NAMED_IN_ERRORS else ''}",
            hint="photos may lie in folders of their own, but under the captions' file names, each once",
        )


def open_photos(folder: Path) -> PhotoStore:
    """Find the photos of a data set: .jpg, .jpeg, .png and .webp, at any depth, in the folder or in its tar files.

    Tar files (uncompressed, `*.tar`) are read in place. Of their members only plain files count; links, devices
    and members with an absolute path or `..` in it are no photos.

    Args:
        folder: What `--data` names.

    Returns:
        The photos; close it, or use it in a `with`.

    Raises:
        UsageError: There is no such folder.
        DataError: A tar file is broken or compressed, two photos have one name, or there is no photo at all.
    """
    if not folder.is_dir():
        raise UsageError("there is no such data folder", where=folder, hint="name the folder of captions and photos")
    store = PhotoStore(folder)
    try:
        for path in _files(folder):
            if path.suffix.lower() == ".tar":
                store._add_tar(path)
            elif path.suffix.lower() in ENDINGS:
                store._add(path.relative_to(folder).as_posix(), _Place(path, 0, path.stat().st_size))
        if not store.names():
            kinds = ", ".join(sorted(ENDINGS))
            raise DataError("there are no photos", where=folder, expected=f"{kinds}, at any depth or in a .tar")
    except OSError as error:
        store.close()
        raise DataError("a photo cannot be read", where=error.filename, found=error.strerror) from error
    except BaseException:
        store.close()
        raise
    return store


def _files(folder: Path) -> Iterator[Path]:
    """All files at any depth, sorted. Linked folders are followed, because large photo sets are often linked."""
    seen = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        status = Path(current).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(current, name) for name in sorted(files) if Path(current, name).is_file())


def _tar_photos(path: Path) -> Iterator[tuple[str, _Place]]:
    size_bytes = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not member.isreg() or member.issparse() or name.suffix.lower() not in ENDINGS:
                    continue
                if name.is_absolute() or ".." in name.parts:
                    continue
                if member.offset_data + member.size > size_bytes:
                    raise tarfile.ReadError("unexpected end of data")
                yield name.as_posix(), _Place(path, member.offset_data, member.size)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(
            "a tar file is broken",
            where=path,
            expected="an uncompressed .tar",
            found=error,
            hint="it may have been cut off or be compressed; unpack it, or fetch it again",
        ) from error
