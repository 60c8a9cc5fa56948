"""Finds the files of a checkpoint in a folder, next to a `.pth`, or in the archive as it was distributed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from capprune.importing.zips import MAX_TOTAL_BYTES, ZipMembers, is_zip, open_zip
from capprune_runtime.bundle.members import read_plain_file
from capprune_runtime.errors import BundleError, MissingFile, UsageError

CONFIG: Final = "config.json"
WORD_MODEL: Final = "tokenizer/word.model"
PREFERRED: Final = "model_best_pruned_sparse.pth"  # preferred among several: the pruned weights, without the zeros
_MOST_ENTRIES: Final = 10_000  # in a folder


class Files(Protocol):
    """Files of one checkpoint, by names with `/`."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the files on the first level and of the tokenizer."""

    def read(self, name: str, cap_bytes: int) -> bytes:
        """Return the content of one file; raises an error if it is missing or larger than `cap_bytes`."""

    def place(self, name: str) -> str:
        """Return the location of a file, for messages."""


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint, and the one with the weights."""

    files: Files
    weights: str


def find_files(path: Path) -> CheckpointFiles:
    """Find the files of a checkpoint.

    Args:
        path: The folder, the `.pth`, or the `.zip` archive.

    Raises:
        UsageError: There is no such file, or several files could be the weights.
        MissingFile: There is no file of weights.
        BundleError: The archive is broken or unsafe.
    """
    if path.is_dir():
        files: Files = _Folder(path)
        return CheckpointFiles(files, _weights(files, path))
    if not path.is_file():
        raise UsageError(
            "there is no such checkpoint", where=path, expected="a .pth file, its folder, or the .zip archive"
        )
    if path.suffix.lower() == ".zip":
        files = _archive(path)
        return CheckpointFiles(files, _weights(files, path))
    return CheckpointFiles(_Folder(path.parent), path.name)


@dataclass(frozen=True)
class _Folder:
    folder: Path

    def names(self) -> tuple[str, ...]:
        found = []
        for number, path in enumerate(self.folder.iterdir()):
            if number >= _MOST_ENTRIES:
                raise UsageError("too many files in the folder", where=self.folder, hint="name the .pth file itself")
            found.append(path.name)
        return tuple(sorted(found))

    def read(self, name: str, cap_bytes: int) -> bytes:
        return read_plain_file(self.folder / name, cap_bytes, "checkpoint", follow_links=True)

    def place(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True)
class _Archive:
    members: ZipMembers
    top: str  # "" or a folder with `/`

    def names(self) -> tuple[str, ...]:
        inner = (name.removeprefix(self.top) for name in self.members.names() if name.startswith(self.top))
        return tuple(sorted(name for name in inner if "/" not in name or name.startswith("tokenizer/")))

    def read(self, name: str, cap_bytes: int) -> bytes:
        return self.members.read(self.top + name, cap_bytes)

    def place(self, name: str) -> str:
        return f"{self.members.where}, {self.top}{name}"


def _archive(path: Path) -> _Archive:
    data = read_plain_file(path, MAX_TOTAL_BYTES, "checkpoint", follow_links=True)
    if not is_zip(data):
        raise BundleError("this is not a zip archive", where=path, found=f"first bytes {data[:8].hex(' ') or 'none'}")
    members = open_zip(data, str(path))
    tops = {name.removesuffix(CONFIG) for name in members.names() if PurePosixPath(name).name == CONFIG}
    if len(tops) != 1 or (top := tops.pop()).count("/") > 1:
        raise MissingFile(
            "the archive does not hold one checkpoint",
            where=path,
            expected=f"one {CONFIG}, on the first level or in the one folder there",
            found=f"{len(tops)} of them" if tops else "none",
            hint="name the .pth file itself if this archive is one that torch.save wrote",
        )
    return _Archive(members, top)


def _weights(files: Files, where: Path) -> str:
    found = [name for name in files.names() if name.endswith(".pth")]
    if not found:
        raise MissingFile("no file of weights", where=where, expected=f"{PREFERRED} or another .pth")
    if PREFERRED in found:
        return PREFERRED
    if len(found) > 1:
        raise UsageError(
            "several files could be the weights", where=where, found=", ".join(found[:5]), hint="name the one to import"
        )
    return found[0]
