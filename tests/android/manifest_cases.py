"""Manifests of both schemas, sound and mutated, with what Python's reader makes of each."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiny_bundle
from core_cases import write_index

from capprune_runtime.bundle.manifest import Manifest, parse_manifest
from capprune_runtime.errors import CapPruneError
from capprune_runtime.formats import Signature

SEED = 23
VALUES_A_KEY = 14
_ENTRY = {"sha256": "0" * 64, "size_bytes": 1}
_CARRIED = {"shape": [16], "first": "encode", "carry": "replace"}
_CACHE = {"shape": [8, 2, 16], "first": "zeros", "carry": "append"}
_HELD = {"shape": [4, 16], "dtype": "float32"}
_VALUES: tuple[Any, ...] = (
    0, 1, 2, 3, 4, 5, 8, 16, 17, 24, 64, 127, 128, 255, 256, 1024, 1025, 2048, 2049, 65_536, 65_537, 1_000_000, 1_000_001, -1,
    1 << 31, (1 << 31) + 1, 1 << 63, 10**400, 0.0, -0.0, 0.5, 0.49, 0.75, 1.5, 16.0, 127.0, 255.5, 1024.5, 1e308, True, False,
    None, "", "x", "lstm", "gru", "soft_attention", "photo", "regions", "encode", "zeros", "replace", "append", "float32",
    "float64", "encoder.onnx", "decoder.onnx", "step", "Name", "next_h", "token", "a" * 200, "a" * 201, "\u202e", "\x1b[2J",
    [], {}, [0], [1], [8], [16], [16.0], [0, 1, 3], [0, 2], [3, 1], [8, 16], [7, 16], [8, 2, 16], [1, 2, 3, 4], [65_536] * 2,
    [65_536] * 3, [65_537], [4096, 4096], [4096, 4097], [[]], ["h"], ["h", "c"], ["c", "h"], [127, 127, 127], [127.0] * 3,
    [123.675, 116.28, 103.53], [0.5, 1024, 1], [0.49, 1, 1], [256.0, 0, 0], [127.0] * 4, ["127"] * 3, [True] * 3, [1e400] * 3,
    {"a": 1}, _CARRIED, _CACHE, {**_CACHE, "first": "encode"}, {**_CACHE, "shape": [8]}, _HELD, {**_HELD, "dtype": "object"},
    {"input": "regions", "regions": 36, "channels": 2048}, {"input": "regions", "regions": 1025, "channels": 1},
    {"h": _CARRIED}, {"cache": _CACHE}, {"keys": _HELD, "h": _HELD}, {f"s{n}": _CARRIED for n in range(64)},
    {f"n{n}": n for n in range(64)}, {f"n{n}": n for n in range(65)},
)  # fmt: skip
_KEYS = (
    "surprise",
    "no_repeat_ngram",
    "schema_version",
    "input",
    "h",
    "keys",
    "cache",
    "h2",
    "Hidden",
    "token",
    "position",
    "next_h",
    "",
    "a" * 65,
)


def write_manifests(folder: Path, *, every: int = 1) -> None:
    """Write cases into one file, and an index of where they lie and what Python says of them.

    Args:
        folder: A folder that is not there yet.
        every: N; every Nth case is written, and all sound manifests.
    """
    folder.mkdir()
    index, sound = [], _sound()
    with (folder / "cases.bin").open("wb") as content:
        for number, (name, text) in enumerate(_cases()):
            if number % every and name not in sound:
                continue
            entry = {"name": name, "offset": content.tell(), "length": len(text), **_judged(text)}
            content.write(text)
            index.append(entry)
    write_index(folder, index)


def _judged(text: bytes) -> dict[str, Any]:
    try:
        manifest = parse_manifest(text, "m")
    except CapPruneError as error:
        return {"verdict": type(error).__name__, "where": str(error.where)}
    if manifest.encoder.file.endswith(".onnx"):  # the app has no interpreter for these
        return {"verdict": "BundleError", "where": "m, encoder.file"}
    return {"verdict": "accepted", "read": _read(manifest)}


def _read(manifest: Manifest) -> dict[str, Any]:
    """What a manifest means, as both readers must have it."""
    interface, model, decoding = manifest.interface, manifest.model, manifest.decoding
    return {
        "encode_inputs": _signature(manifest.encode_inputs()),
        "encode_outputs": _signature(interface.encode_outputs()),
        "step_inputs": _signature(interface.step_inputs()),
        "step_outputs": _signature(interface.step_outputs()),
        "model": [model.family, model.description, dict(model.sizes)],
        "described": {
            "preprocessing": manifest.preprocessing.described(),
            "decoding": {**decoding.as_json(), "suppress": list(decoding.suppress)},
        },
    }


def _signature(tensors: Signature) -> dict[str, list[object]]:
    return {name: [dtype, *shape] for name, (shape, dtype) in tensors.items()}


def _sound() -> dict[str, dict[str, Any]]:
    """Manifests that are accepted, of every kind that the format knows."""
    trees = {f"schema 1, {cell}": tiny_bundle.schema1_json(cell) for cell in ("lstm", "gru")}
    trees |= {f"schema 2, {cell}": tiny_bundle.manifest_json(cell) for cell in ("lstm", "gru")}
    cached, regions = tiny_bundle.manifest_json("lstm"), tiny_bundle.manifest_json("gru")
    cached["decoder"]["interface"] |= {"held": {}, "state": {"cache": _CACHE}, "regions": None, "position": True}
    cached["preprocessing"] |= {"mean": [123.675, 116.28, 103.53], "scale": [58.395, 57.12, 57.375]}
    cached["model"]["family"] = "any_name"
    cached["decoding"]["no_repeat_ngram"] = 2
    regions["preprocessing"] = {"input": "regions", "regions": 36, "channels": 2048}
    regions["decoder"]["interface"]["state"] = {"h1": {**_CARRIED, "first": "zeros"}, "h2": _CARRIED}
    trees |= {"cache": cached, "regions": regions}
    files = ("encoder.tflite", "decoder.tflite", "vocabulary.txt", "golden/scene-0.png")
    return {name: {**tree, "files": {file: dict(_ENTRY) for file in files}} for name, tree in trees.items()}


def _cases() -> Iterator[tuple[str, bytes]]:
    random = np.random.default_rng(SEED)
    for base, sound in _sound().items():
        yield base, json.dumps(sound).encode()
        for path in _paths(sound):
            yield f"{base}: without {path}", _edited(sound, path)
            for number in random.choice(len(_VALUES), VALUES_A_KEY, replace=False):
                yield f"{base}: {path} = value {number}", _edited(sound, path, _VALUES[number])
            holder = _at(sound, path)
            if isinstance(holder, dict):
                for key in _KEYS:
                    value = _VALUES[int(random.integers(len(_VALUES)))]
                    yield f"{base}: {path} with {key[:9]}", _edited(sound, (*path, key), value)
                for name in ("h2", "h", "cache"):
                    yield f"{base}: {path} with a state {name}", _edited(sound, (*path, name), _CARRIED)
                    yield f"{base}: {path} with a tensor {name}", _edited(sound, (*path, name), _HELD)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key, but those inside `config`, where only the rules of JSON hold."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        if key != "config":
            yield from _paths(value, (*path, key))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _edited(tree: dict[str, Any], path: tuple[Any, ...], *value: Any) -> bytes:
    """The manifest with another value at a path, or without one there."""
    edited = copy.deepcopy(tree)
    holder = _at(edited, path[:-1])
    if value:
        holder[path[-1]] = value[0]
    else:
        del holder[path[-1]]
    return json.dumps(edited).encode()
