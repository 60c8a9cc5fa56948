"""What an attack is: a whole bundle or packed bundle, made from sound ones, that a reader must refuse, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from world import World

from capprune_runtime.errors import CapPruneError

BUNDLE, PACKED = "bundle", "capz"
PACKED_NAME = "bundle.capz"

# What a reader of bundles must refuse. README.md says more of each row, and which rows are not about files.
ROWS = {
    1: "anything that names code: pickle, object arrays",
    3: "names that lead elsewhere: .., absolute, backslash, NUL, links; names twice or of another case",
    4: "bombs: more files, larger files, more in them than their caps",
    5: "documents that are too large, not UTF-8, no object, with keys twice, unknown or of another type",
    6: "layouts with overlaps, holes, references past the end, truncation",
    7: "shapes whose product overflows, with sizes that cannot be; memory asked for before sizes are checked",
    8: "sparse tensors whose row pointers or columns are out of range, out of order or too many",
    9: "coded streams that do not end where they say, tables that are none",
    10: "scales that are no positive numbers or do not fit; zero points out of range; -128 in symmetric int8",
    11: "weights that are not finite",
    12: "a hash or a size that does not fit, a file missing or not listed, a later format",
    13: "token tables that are not the model's: twice, missing, not UTF-8, control characters, too long",
    14: "ONNX: data outside the file, operators or domains that are not allowed, positions out of range",
    15: "TFLite: custom operators, more signatures, operands and shapes that do not go together",
    16: "photos that are bombs, of no size, truncated, or no photos",
}


@dataclass(frozen=True)
class Link:
    """In place of a file's bytes: a symbolic link."""

    target: str


HostileFiles = Mapping[str, bytes | Link]


@dataclass(frozen=True)
class Attack:
    """One hostile file.

    Args:
        row: Of `ROWS`.
        name: What is wrong with it.
        make: The files, from the sound ones.
        error: What a reader raises.
        says: A regular expression that the error's message holds.
        kind: `BUNDLE`: a folder; `PACKED`: one file named `PACKED_NAME`.
    """

    row: int
    name: str
    make: Callable[[World], HostileFiles]
    error: type[CapPruneError]
    says: str
    kind: str = BUNDLE

    @property
    def id(self) -> str:
        return f"{self.row:02}-{self.kind}-{self.name}"


def write_files(files: HostileFiles, folder: Path) -> None:
    """Write a hostile bundle; names are those that an attack really puts on a disk."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)
