"""The index of a folder of shards and the rows of each shard: counts, hashes and the position of each photo."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from capprune.data.left_out import LeftOut
from capprune_runtime import strict_json, typed_json
from capprune_runtime.errors import BundleError, DataError, NewerFormat
from capprune_runtime.typed_json import Problem

INDEX: Final = "shards.json"
KIND: Final = "capprune shards"
SCHEMA: Final = 1
TAR, ROWS = ".tar", ".rows"
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,199}")  # no folders, so that an index cannot lead out of its own

Content = Literal["photos", "features"]


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        name: Name of the tar file and of its rows, without an ending.
        split: Split of its photos.
        photos: Number of photos.
        captions: For each number of captions, the number of photos that have it.
        size_bytes: Size of the tar file.
        sha256: SHA-256 of the tar file.
    """

    name: str
    split: str
    photos: int
    captions: Mapping[str, int]
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexedShard(Shard):
    """A shard in the index.

    Attributes:
        rows_bytes: Size of its rows.
        rows_sha256: SHA-256 of its rows.
    """

    rows_bytes: int
    rows_sha256: str


@dataclass(frozen=True)
class Row:
    """One photo of a shard.

    Attributes:
        name: Name of the photo in the source data set.
        offset: Offset of its bytes, or of its features' file, in the tar file.
        size_bytes: Size of these bytes.
        sha256: SHA-256 of these bytes.
        captions: Captions as written in the data set.
    """

    name: str
    offset: int
    size_bytes: int
    sha256: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class EncoderFacts:
    """The network that computed the features in a shard.

    Attributes:
        key: Identifies weights, preprocessing, size and grid.
        shape: Shape of one photo's features, (R, F) or (H, W, C).
    """

    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Skipped:
    """Photos that could not be written, and why."""

    what: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class ShardIndex:
    """All shards of a folder.

    Attributes:
        kind: `KIND`.
        schema: `SCHEMA`.
        name: The data set's name for itself.
        content: Unchanged photos, or features of them.
        encoder: The network that computed the features; None for photos.
        plan_sha256: Hash of names, captions and settings: equal for the same command on the same data, on every
            machine.
        labelled_by: The model that generated the captions; None if people wrote them.
        skipped: Photos that could not be read.
        shards: In the order of their splits and numbers.
    """

    kind: str
    schema: int
    name: str
    content: Content
    encoder: EncoderFacts | None
    plan_sha256: str
    labelled_by: str | None
    skipped: tuple[Skipped, ...]
    shards: tuple[IndexedShard, ...]

    @property
    def splits(self) -> dict[str, int]:
        """Number of photos in each split."""
        sizes: Counter[str] = Counter()
        for shard in self.shards:
            sizes[shard.split] += shard.photos
        return dict(sizes)

    @property
    def size_bytes(self) -> int:
        """Size of all tar files, in bytes."""
        return sum(shard.size_bytes for shard in self.shards)

    def of_split(self, split: str) -> tuple[IndexedShard, ...]:
        """Return the non-empty shards of a split.

        Raises:
            DataError: There are none; the message names the existing splits.
        """
        chosen = tuple(shard for shard in self.shards if shard.split == split and shard.photos)
        if not chosen:
            found = ", ".join(f"{name} ({size:,} photos)" for name, size in self.splits.items())
            raise DataError(f"there are no shards of the split '{split}'", where=self.name, found=found)
        return chosen

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return the skipped photos in the format of all data readers."""
        return tuple(LeftOut(one.what, one.names) for one in self.skipped)

    def as_bytes(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False).encode() + b"\n"


def parse_index(content: bytes, where: object) -> ShardIndex:
    """Read the index.

    Raises:
        DataError: It is broken, or not an index of shards.
        NewerFormat: A later version of capprune wrote it.
    """
    tree = _json(content, where)
    if not isinstance(tree, dict) or tree.get("kind") != KIND:
        raise DataError("this is not an index of shards", where=where, expected=f"kind: {KIND}")
    if isinstance(tree.get("schema"), int) and tree["schema"] > SCHEMA:
        raise NewerFormat(
            "these shards were written by a later capprune",
            where=where,
            expected=f"schema {SCHEMA}",
            found=tree["schema"],
        )
    index = typed_json.read(ShardIndex, tree, lambda problem: _broken(problem, where), exact=True)
    names = [shard.name for shard in index.shards]
    if not all(_NAME.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise DataError("an index of shards is broken", where=where, found="an invalid or repeated name")
    if (index.encoder is None) is (index.content == "features"):
        raise DataError("an index of shards is broken", where=where, expected="an encoder where there are features")
    return index


def rows_bytes(shard: Shard, rows: Sequence[Row]) -> bytes:
    """Return the file of a shard's rows: one line about the shard, then one line per photo."""
    lines = [{"shard": dataclasses.asdict(shard)}, *(dataclasses.asdict(row) for row in rows)]
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def parse_shard(line: bytes, where: object) -> Shard:
    """Read the first line of a shard's rows.

    Raises:
        DataError: It is broken.
    """
    tree = _json(line, where)
    if not isinstance(tree, dict):
        raise DataError("the rows of a shard are broken", where=where)
    return typed_json.read(Shard, tree.get("shard"), lambda problem: _broken(problem, where), exact=True)


def parse_rows(content: bytes, shard: Shard, where: object) -> tuple[Row, ...]:
    """Read the rows of a shard.

    Raises:
        DataError: They are broken, or their number differs from the index.
    """
    lines = content.splitlines()[1:]
    rows = tuple(
        typed_json.read(Row, _json(line, where), lambda problem: _broken(problem, where), exact=True) for line in lines
    )
    if len(rows) != shard.photos:
        raise DataError("the rows of a shard are broken", where=where, expected=shard.photos, found=len(rows))
    if any(row.offset < 0 or row.size_bytes < 0 or row.offset + row.size_bytes > shard.size_bytes for row in rows):
        raise DataError("the rows of a shard are broken", where=where, found="a photo beyond the end of the tar file")
    return rows


def _json(content: bytes, where: object) -> Any:
    try:
        return strict_json.parse(content)
    except BundleError as error:
        raise DataError("an index of shards is broken", where=where, found=f"{error.what}, {error.where}") from None


def _broken(problem: Problem, where: object) -> DataError:
    return DataError(
        "an index of shards is broken",
        where=f"{where}: {problem.where}",
        expected=problem.expected,
        found=problem.found or problem.fault.value,
    )
