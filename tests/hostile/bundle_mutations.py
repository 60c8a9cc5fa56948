"""Mutations of what stands around the models: manifest, vocabulary, golden captions and photos; and sealing afterwards."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capprune_runtime.errors import BundleError, MissingFile

Files = dict[str, bytes]
Random = np.random.Generator

VALUES: tuple[Any, ...] = (
    0, 1, 2, 3, -1, 5, 8, 16, 17, 24, 1 << 31, 1 << 63, 10**400, 0.5, 1.5, 16.0, 1e308, True, False, None, "", "x", "lstm",
    "gru", "../x", "a" * 300, "\x00", "\u202e", [], {}, [0], [1], [0, 1, 2, 3], [[]], {"a": 1}, ["h"], ["h", "c"], ["c", "h"],
)  # fmt: skip


@dataclass(frozen=True)
class MemoryMembers:
    """The files of a bundle, in memory."""

    files: Mapping[str, bytes]
    place: Path = Path("bundle")
    packed_bytes: int | None = None

    def names(self, cap: int) -> tuple[str, ...]:
        if len(self.files) > cap:
            raise BundleError("a bundle holds too many files")
        return tuple(sorted(self.files))

    def read(self, name: str, cap_bytes: int) -> bytes:
        if name not in self.files:
            raise MissingFile("a file of the bundle is missing", where=name)
        if len(self.files[name]) > cap_bytes:
            raise BundleError("a file of the bundle is too large", where=name)
        return self.files[name]


def entries_of(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in sorted(files.items())
        if name != "manifest.json"
    }


def sealed(files: Mapping[str, bytes], change: Callable[[dict[str, Any]], object] = lambda tree: None) -> Files:
    """The files with a manifest whose sizes and hashes fit, after `change` was made to it."""
    tree = json.loads(files["manifest.json"])
    tree["files"] = entries_of(files)
    change(tree)
    return {**files, "manifest.json": json.dumps(tree).encode()}


def mutated_bundle(files: Files, generator: Random) -> tuple[Files, str]:
    """A bundle with one part mutated and every hash right again, and the name of that part."""
    files = dict(files)
    part = str(
        generator.choice(["manifest.json", "manifest.json", "vocabulary.txt", "golden/golden.json", "photo", "files"])
    )
    if part == "manifest.json":
        return _mutated_manifest(files, generator), part
    if part == "vocabulary.txt":
        files[part] = _mutated_text(files[part], generator)
    elif part == "golden/golden.json":
        files[part] = _mutated_json(files[part], generator)
    elif part == "photo":
        name = next(name for name in files if name.endswith(".png"))
        files[name] = _mutated_text(files[name], generator)
    else:
        _move_file(files, generator)
    return sealed(files), part


def _mutated_manifest(files: Files, generator: Random) -> Files:
    if generator.random() < 0.2:
        return {**files, "manifest.json": _mutated_text(files["manifest.json"], generator)}
    tree = json.loads(files["manifest.json"])
    _change_somewhere(tree, generator)
    return {**files, "manifest.json": json.dumps(tree).encode(errors="surrogatepass")}


def _move_file(files: Files, generator: Random) -> None:
    name = str(generator.choice([name for name in files if name != "manifest.json"]))
    other = str(generator.choice(["golden/other.png", "../up.png", "quality.json", "weights.pkl", "golden", *files]))
    if other != "manifest.json":
        files[other] = files[name]
    if generator.random() < 0.5:
        del files[name]


def _mutated_json(content: bytes, generator: Random) -> bytes:
    if generator.random() < 0.3:
        return _mutated_text(content, generator)
    tree = json.loads(content)
    for _ in range(int(generator.integers(1, 3))):
        _change_somewhere(tree, generator)
    return json.dumps(tree).encode(errors="surrogatepass")


def _change_somewhere(tree: Any, generator: Random) -> None:
    places = list(_containers(tree))
    holder = places[int(generator.integers(len(places)))]
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    value = copy.deepcopy(VALUES[int(generator.integers(len(VALUES)))])
    if not keys or generator.random() < 0.15:
        if isinstance(holder, dict):
            holder[str(generator.choice(["more", "", "schema_version", "file"]))] = value
        else:
            holder.append(value)
        return
    key = keys[int(generator.integers(len(keys)))]
    if generator.random() < 0.2:
        del holder[key]
    else:
        holder[key] = value


def _containers(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _containers(value)


def _mutated_text(content: bytes, generator: Random) -> bytes:
    lines = bytearray(content)
    for _ in range(int(generator.integers(1, 3))):
        kind, place = int(generator.integers(5)), int(generator.integers(len(lines) + 1))
        if kind == 0:
            lines[place:place] = bytes(generator.integers(0, 256, 1).astype(np.uint8))
        elif kind == 1:
            del lines[place : place + int(generator.integers(1, 5))]
        elif kind == 2 and place < len(lines):
            lines[place] ^= 1 << int(generator.integers(8))
        elif kind == 3:
            pieces = (
                b"\n",
                b"\r",
                b"\0",
                b"\xff",
                b"\xef\xbb\xbf",
                b"NaN",
                b"{",
                b"]",
                b"\xe2\x80\xae",
                b"<end>\n",
                b" ",
            )
            lines[place:place] = pieces[int(generator.integers(len(pieces)))]
        else:
            del lines[place:]
    return bytes(lines)
