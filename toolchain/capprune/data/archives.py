"""Archives in a data folder that are not read in place, and the command that unpacks them."""

from __future__ import annotations

import shlex
from typing import Final

from capprune.data.folder import FolderContents, ending, folder_of, without_ending

_UNPACK: Final = {
    ".zip": "unzip {file} -d {folder}",
    ".rar": "unrar x {file} {folder}/",
    ".7z": "7z x {file} -o{folder}",
    ".tgz": "tar -xzf {file} -C {folder}",
    ".tar.gz": "tar -xzf {file} -C {folder}",
    ".tar.bz2": "tar -xjf {file} -C {folder}",
    ".tar.xz": "tar -xJf {file} -C {folder}",
    ".tar.zst": "tar --zstd -xf {file} -C {folder}",
    ".gz": "gunzip {file}",
    ".bz2": "bunzip2 {file}",
    ".xz": "unxz {file}",
    ".zst": "unzstd --rm {file}",
}


def unpack_command(contents: FolderContents) -> str | None:
    """Return the command that unpacks the first kind of archives in a folder; None if there are none."""
    packed = [name for name in contents.files if _kind(name) in _UNPACK]
    if not packed:
        return None
    kind, place = _kind(packed[0]), folder_of(packed[0])
    alike = [name for name in packed if _kind(name) == kind and folder_of(name) == place]
    folder = shlex.quote(str(contents.folder / place))
    if len(alike) == 1:
        return _UNPACK[kind].format(file=shlex.quote(str(contents.folder / alike[0])), folder=folder)
    command = _UNPACK[kind].format(file='"$f"', folder=folder)
    return f"for f in {folder}/*{kind}; do {command}; done"


def _kind(name: str) -> str:
    """Return the ending of an archive, including a `.tar` before it."""
    return (".tar" if ending(without_ending(name)) == ".tar" else "") + ending(name)
