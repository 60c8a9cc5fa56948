"""manifest.json: what it says is read back, and everything it must not say is refused with the key's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tiny_bundle

from capprune_runtime.bundle.manifest import allowed, parse_manifest
from capprune_runtime.errors import BundleError, NewerFormat

ENTRY = {"sha256": "0" * 64, "size_bytes": 1}


def sound(cell: str = "lstm") -> dict[str, Any]:
    tree: dict[str, Any] = tiny_bundle.manifest_json(cell)
    tree["files"] = {name: dict(ENTRY) for name in ("encoder.tflite", "decoder.tflite", "vocabulary.txt")}
    return tree


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(tree: dict[str, Any]) -> None:
        section, _, key = path.rpartition("/")
        for parent in filter(None, section.split("/")):
            tree = tree[parent]
        tree[key] = value

    return edit


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(tree: dict[str, Any]) -> None:
        section, _, key = path.rpartition("/")
        for parent in filter(None, section.split("/")):
            tree = tree[parent]
        del tree[key]

    return edit


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_manifest_reads_back_what_it_wrote(cell: str) -> None:
    manifest = parse_manifest(json.dumps(sound(cell)), "m")
    again = parse_manifest(json.dumps(manifest.as_json()), "m")
    assert again == manifest
    assert manifest.model.cell == cell
    assert manifest.decoding.suppress == (0, 1, 3)
    assert manifest.config["train"]["names"] == ["a", None, True]
    assert manifest.files["encoder.tflite"].size_bytes == 1


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (put("surprise", 1), "'surprise'"),
        (put("model/surprise", 1), "model.'surprise'"),
        (put("files/encoder.tflite/mode", "x"), "files['encoder.tflite'].'mode'"),
        (drop("config"), "config"),
        (drop("decoding/beam"), "decoding.beam"),
        (put("model", []), "model"),
        (put("config", []), "config"),
        (put("files", []), "files"),
        (put("model/hidden", "16"), "model.hidden"),
        (put("model/hidden", 16.0), "model.hidden"),
        (put("model/hidden", True), "model.hidden"),
        (put("model/hidden", 0), "model.hidden"),
        (put("model/regions", -1), "model.regions"),
        (put("model/vocabulary", 4), "model.vocabulary"),
        (put("model/family", "transformer"), "model.family"),
        (put("model/cell", "rnn"), "model.cell"),
        (put("preprocessing/size", 100_000), "preprocessing.size"),
        (put("preprocessing/resize", "crop"), "preprocessing.resize"),
        (put("preprocessing/mean", 128), "preprocessing.mean"),
        (put("preprocessing/scale", 127), "preprocessing.scale"),
        (put("decoding/start", 2), "decoding.start"),
        (put("decoding/end", 1), "decoding.end"),
        (put("decoding/suppress", [0, 24]), "decoding.suppress"),
        (put("decoding/suppress", [-1]), "decoding.suppress"),
        (put("decoding/suppress", [1, 0]), "decoding.suppress"),
        (put("decoding/suppress", [0, 0]), "decoding.suppress"),
        (put("decoding/suppress", [0, 2]), "decoding.suppress"),
        (put("decoding/suppress", [0, "1"]), "decoding.suppress[1]"),
        (put("decoding/suppress", 0), "decoding.suppress"),
        (put("decoding/max_tokens", 0), "decoding.max_tokens"),
        (put("decoding/beam", 101), "decoding.beam"),
        (put("encoder/file", "../encoder.tflite"), "encoder.file"),
        (put("encoder/signature", "serving_default"), "encoder.signature"),
        (put("decoder/file", "encoder.tflite"), "decoder.file"),
        (put("decoder/signature", "encode"), "decoder.signature"),
        (put("decoder/state", ["h"]), "decoder.state"),
        (put("decoder/state", ["c", "h"]), "decoder.state"),
        (put("pruning/method", "Super Mask"), "pruning.method"),
        (put("pruning/sparsity", 1.5), "pruning.sparsity"),
        (put("pruning/sparsity", 0.5), "pruning.sparsity"),
        (put("pruning/sparsity", "most"), "pruning.sparsity"),
        (put("pruning/kept_weights", 1001), "pruning.kept_weights"),
        (put("pruning/prunable_weights", -1), "pruning.prunable_weights"),
        (put("quantisation/encoder", ""), "quantisation.encoder"),
        (put("data/name", "a\x1b[31mb"), "data.name"),
        (put("data/licence", ""), "data.licence"),
        (put("created_by", "x" * 201), "created_by"),
        (drop("files/vocabulary.txt"), "files"),
        (put("files/model.pkl", ENTRY), "files['model.pkl']"),
        (put("files", {"..\\encoder.tflite": ENTRY}), "files"),
        (put("files/encoder.tflite", {**ENTRY, "sha256": "0" * 63}), "files['encoder.tflite'].sha256"),
        (put("files/encoder.tflite", {**ENTRY, "sha256": "0" * 64 + "\n"}), "files['encoder.tflite'].sha256"),
        (put("files/encoder.tflite", {**ENTRY, "size_bytes": -1}), "files['encoder.tflite'].size_bytes"),
        (put("schema_version", "1"), "schema_version"),
        (put("schema_version", True), "schema_version"),
        (put("schema_version", 0), "schema_version"),
    ],
)
def test_manifest_is_refused_and_the_key_named(edit: Callable[[dict[str, Any]], None], key: str) -> None:
    tree = sound()
    edit(tree)
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(tree), "bundle/manifest.json")
    assert str(caught.value.where).startswith(f"bundle/manifest.json, {key}")


@pytest.mark.parametrize("name", ["../encoder.tflite", "/etc/passwd", "golden/../x.png", "golden\\x.png", "C:x", "",
                                  "golden/a/b.png", "golden/A.png", "golden/x.png\n", "golden/x\0.png",
                                  "manifest.json", "Encoder.tflite", "golden/.png"])  # fmt: skip
def test_file_names_outside_the_format_are_not_allowed(name: str) -> None:
    assert not allowed(name)


def test_file_names_of_the_format_are_allowed() -> None:
    assert all(allowed(name) for name in ("golden/golden.json", "golden/scene-0.png", "MODEL_CARD.md", "quality.json"))


def test_a_later_format_is_named_as_such_even_with_keys_of_its_own() -> None:
    tree = {**sound(), "schema_version": 2, "later": {}}
    with pytest.raises(NewerFormat, match="later capprune"):
        parse_manifest(json.dumps(tree), "m")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not JSON"),
        ("[]", "not the manifest"),
        ('{"format": "other"}', "not the manifest"),
        ("{", "not JSON"),
        ('{"format": "capprune-bundle", "format": "capprune-bundle"}', "twice"),
        ('{"format": NaN}', "JSON does not have"),
        ('{"format": -Infinity}', "JSON does not have"),
        ('{"format": 1e999}', "too large"),
        ('{"format": ' + "9" * 5000 + "}", "cannot be read"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_with_traps_is_refused(text: str, found: str) -> None:
    with pytest.raises(BundleError, match=found):
        parse_manifest(text, "m")


def test_manifest_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BundleError, match="UTF-8"):
        parse_manifest(b'{"format": "\xff"}', "m")
