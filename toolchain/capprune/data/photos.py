"""Photos of a data set, as files in a folder or as members of tar files, read in place."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final

from capprune.data.archives import unpack_command
from capprune.data.folder import loosely, read_folder
from capprune.data.left_out import LeftOut, LeftOutBook, first_names
from capprune.data.tars import is_plain_member, tar_is_broken
from capprune_runtime.errors import DataError, PhotoError
from capprune_runtime.input_file import open_input
from capprune_runtime.photo import ENDINGS
from capprune_runtime.photo_file import read_stream

NAMED_IN_ERRORS: Final = 3  # names of missing photos in an error


@dataclass(frozen=True)
class PhotoPlace:
    """Location of a photo's bytes: a whole file, or a part of a tar file.

    Attributes:
        path: The file that holds them.
        offset: Offset of their first byte.
        size_bytes: Size of the photo.
        changed_ns: Modification time of the file, in nanoseconds.
    """

    path: Path
    offset: int
    size_bytes: int
    changed_ns: int

    @property
    def identity(self) -> str:
        """Path, offset, size and modification time, which identify the photo and its state."""
        return f"{_real(self.path.parent)}\n{self.path.name}\n{self.offset}\n{self.size_bytes}\n{self.changed_ns}"

    def read(self) -> bytes:
        """Return the bytes of the photo.

        Raises:
            OSError: They cannot be read.
        """
        with io.BufferedReader(open_input(self.path)) as file:
            file.seek(self.offset)
            return file.read(self.size_bytes)


@lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    """Resolve the links of a folder; cached, because all its photos need it."""
    return folder.resolve()


class PhotoStore:
    """The photos under a folder, by their path in it or in a tar file; see `open_photos`.

    Reading is thread-safe. Nothing is unpacked to disk.

    Attributes:
        folder: The data folder.
        left_out: Files that cannot be used as photos, and photos with changed names.
    """

    def __init__(self, folder: Path, left_out: Sequence[LeftOut] = ()) -> None:
        self.folder = folder
        self._book = LeftOutBook()
        self._book.add_all(left_out)
        self._places: dict[str, PhotoPlace] = {}
        self._members: dict[str, PhotoPlace] = {}  # photos in tar files by <tar file>/<member>
        self._tar_of: dict[str, str] = {}  # the tar file of each member with its short name
        self._shared: set[str] = set()  # names that members of several tar files have
        self._tars: dict[Path, int] = {}  # open file descriptors
        self._by_base: dict[str, str | None] = {}  # None if several photos share a base name

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Files that were left out or renamed, by reason."""
        return self._book.entries()

    def names(self) -> tuple[str, ...]:
        """Names of all photos, sorted: paths under the folder, or inside their tar files, with `/`.

        Members of several tar files with the same name are listed as `<tar file>/<member>`.
        """
        return tuple(sorted(self._places))

    def place(self, name: str) -> PhotoPlace:
        """Return the location of a photo's bytes.

        Raises:
            DataError: There is no such photo.
        """
        place = self._place(name)
        if place is None:
            raise self._not_there((name,), 1)
        return place

    def read(self, name: str) -> bytes:
        """Return the bytes of one photo file.

        Args:
            name: Its path, or its base name if it is unique.

        Raises:
            DataError: There is no such photo, or it cannot be read, or is far too large.
        """
        place = self.place(name)
        try:
            if place.path not in self._tars:
                with open_input(place.path) as file:
                    return read_stream(file, f"{place.path}, photo {name}", place.size_bytes)
            content = os.pread(self._tars[place.path], place.size_bytes, place.offset)
        except OSError as error:
            raise PhotoError(
                "a photo cannot be read", where=f"{place.path}, photo {name}", found=error.strerror
            ) from error
        if len(content) != place.size_bytes:
            raise DataError("a tar file has changed while it was read", where=f"{place.path}, photo {name}")
        return content

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that do not match exactly one photo, or match only a photo with another name."""
        asked = tuple(dict.fromkeys(names))
        meant = Counter(self.resolved(name) for name in asked)
        return tuple(
            name
            for name in asked
            if (found := self.resolved(name)) is None
            or (meant[found] > 1 and name != found and name not in self._members)
        )

    def require(self, names: Sequence[str]) -> None:
        """Check that every photo exists.

        Raises:
            DataError: Some do not; the message counts them and names the first.
        """
        missing = self.missing(names)
        if missing:
            raise self._not_there(missing, len(names))

    def nearest(self, names: Iterable[str]) -> tuple[str | None, ...]:
        """Return for each missing name a photo that differs only in case, Unicode form or ending, else None."""
        alike: dict[str, str] = {}
        for photo in reversed(self.names()):
            alike[loosely(PurePosixPath(photo).name)] = photo
        for photo in reversed(self.names()):
            alike[f"/{loosely(photo)}"] = photo
        return tuple(alike.get(f"/{loosely(name)}") or alike.get(loosely(PurePosixPath(name).name)) for name in names)

    def resolved(self, name: str) -> str | None:
        """Return the full name of the photo that a name refers to, as in `names`; None if there is none."""
        if name in self._places or name in self._members:
            return name
        return self._by_base.get(PurePosixPath(name).name)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a SHA-256 over locations, sizes and modification times of photos, in order.

        It changes when a photo is replaced, even by one of the same size. The content is not hashed, because reading a
        large data set can take more than an hour.
        """
        digest = hashlib.sha256()
        for name in names:
            place = self._place(name)
            digest.update(f"{name}\n{place and place.identity}\n".encode("utf-8", "surrogateescape"))
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

    def _add(self, name: str, place: PhotoPlace) -> None:
        if name in self._places:
            raise DataError(
                "two photos have one name",
                where=name,
                found=f"{self._places[name].path} and {place.path}",
                hint="remove one of them, or rename it",
            )
        self._places[name] = place
        base = PurePosixPath(name).name
        self._by_base[base] = None if base in self._by_base else name

    def _add_tar(self, tar: str) -> None:
        path = self.folder / tar
        for name, place in _tar_photos(path):
            long = f"{tar}/{name}"
            self._members[long] = place
            other = self._tar_of.get(name)
            if name in self._shared or (other is not None and other != tar):
                self._go_by_long_names(name, other)
                self._add(long, place)
                self._book.add("photos of one name in several tar files, named <tar file>/<photo>", long)
            else:
                self._add(name, place)
                self._tar_of[name] = tar
        self._tars[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _go_by_long_names(self, name: str, tar: str | None) -> None:
        """Give a tar member its long name, now that another member has the same short name."""
        self._shared.add(name)
        if tar is not None:
            self._by_base.pop(PurePosixPath(name).name, None)
            self._add(f"{tar}/{name}", self._places.pop(name))
            self._book.add("photos of one name in several tar files, named <tar file>/<photo>", f"{tar}/{name}")
            del self._tar_of[name]

    def _place(self, name: str) -> PhotoPlace | None:
        if name in self._places:
            return self._places[name]
        if name in self._members:
            return self._members[name]
        full = self._by_base.get(PurePosixPath(name).name)
        return None if full is None else self._places[full]

    def _not_there(self, missing: Sequence[str], asked: int) -> DataError:
        return DataError(
            "captions for photos that do not exist",
            where=self.folder,
            expected=f"a photo for each of {asked:,} names, in the folder or in a .tar",
            found=f"{len(missing):,} missing: {first_names(missing, NAMED_IN_ERRORS)}",
            hint="photos may be in other folders, but each once and with the file name from the captions; "
            f"capprune data check {self.folder} lists all problems",
        )


def open_photos(folder: Path) -> PhotoStore:
    """Find the photos of a data set by their endings, at any depth, in the folder or in its tar files.

    Tar files (uncompressed, `*.tar`) are read in place. Only plain files in them count as photos. Links, devices and
    members with an absolute path or `..` do not.

    Args:
        folder: The folder given as `--data`.

    Returns:
        The photos; close it, or use it in a `with`.

    Raises:
        UsageError: There is no such folder.
        DataError: A tar file is broken or compressed, a photo in a tar file has the name of another in it or in the
            folder, or there is no photo at all.
    """
    contents = read_folder(folder)
    store = PhotoStore(folder, contents.left_out)
    try:
        for name in contents.photos:
            status = contents.path(name).stat()
            store._add(name, PhotoPlace(contents.path(name), 0, status.st_size, status.st_mtime_ns))
        for name in contents.tars:
            store._add_tar(name)
        if not store.names():
            kinds = ", ".join(sorted(ENDINGS))
            raise DataError(
                "there are no photos",
                where=folder,
                expected=f"{kinds}, at any depth or in a .tar",
                hint=unpack_command(contents),
            )
    except OSError as error:
        store.close()
        raise DataError("a photo cannot be read", where=error.filename, found=error.strerror) from error
    except BaseException:
        store.close()
        raise
    return store


def _tar_photos(path: Path) -> Iterator[tuple[str, PhotoPlace]]:
    status = path.stat()
    with tar_is_broken(path), tarfile.open(path, "r:") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.suffix.lower() not in ENDINGS or not is_plain_member(member):
                continue
            if member.offset_data + member.size > status.st_size:
                raise tarfile.ReadError("unexpected end of data")
            yield name.as_posix(), PhotoPlace(path, member.offset_data, member.size, status.st_mtime_ns)
