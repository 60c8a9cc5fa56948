"""manifest.json: what it says is read back, and everything it must not say is refused with the key's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tiny_bundle

from capprune_runtime.bundle.manifest import allowed, parse_manifest
from capprune_runtime.errors import BundleError, NewerFormat, UsageError

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
    assert list(manifest.interface.state) == ["h", "c"][: 2 if cell == "lstm" else 1]
    assert manifest.decoding.suppress == (0, 1, 3)
    assert manifest.config["train"]["names"] == ["a", None, True]
    assert manifest.files["encoder.tflite"].size_bytes == 1


CARRIED = {"shape": [16], "first": "encode", "carry": "replace"}
CACHE = {"shape": [8, 2, 16], "first": "zeros", "carry": "append"}
HELD = {"shape": [4, 16], "dtype": "float32"}
# (key under decoder.interface, value, the key that is named)
INTERFACES: list[tuple[str, object, str]] = [
    ("vocabulary", 4, "vocabulary"),
    ("vocabulary", "24", "vocabulary"),
    ("regions", 0, "regions"),
    ("regions", True, "regions"),
    ("position", 1, "position"),
    ("position", None, "position"),
    ("surprise", 1, "'surprise'"),
    ("held", [], "held"),
    ("held/keys", {"shape": [4, 16]}, "held['keys'].dtype"),
    ("held/keys/dtype", "float64", "held['keys'].dtype"),
    ("held/keys/dtype", "object", "held['keys'].dtype"),
    ("held/keys/shape", [], "held['keys'].shape"),
    ("held/keys/shape", [4, 0], "held['keys'].shape"),
    ("held/keys/shape", [1, 2, 3, 4], "held['keys'].shape"),
    ("held/keys/shape", [4, 1 << 20], "held['keys'].shape"),
    ("held/keys/shape", [4, 16.0], "held['keys'].shape[1]"),
    (
        "held",
        {"a": {"shape": [4096, 4096], "dtype": "float32"}, "b": {"shape": [1024, 4096], "dtype": "float32"}},
        "held",
    ),
    ("held/token", HELD, "held['token']"),
    ("held/scores", HELD, "held['scores']"),
    ("held/next_h", HELD, "held['next_h']"),
    ("held/Keys", HELD, "held['Keys']"),
    ("held/h", HELD, "state['h']"),
    ("state", {f"s{n}": CARRIED for n in range(65)}, "state"),
    ("state/attention", CARRIED, "state['attention']"),
    ("state/h/first", "random", "state['h'].first"),
    ("state/h/carry", "forget", "state['h'].carry"),
    ("state/h/surprise", 1, "state['h'].'surprise'"),
    ("state", {"s": {**CARRIED, "shape": [4096, 4097]}}, "state"),
    ("state", {"s": {**CARRIED, "shape": [65_536, 65_536, 65_536]}}, "state"),
    ("state", {"cache": CACHE}, "position"),
    ("state", {"cache": {**CACHE, "first": "encode"}}, "position"),
]


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
        (put("model/sizes/hidden", "16"), "model.sizes['hidden']"),
        (put("model/sizes/hidden", 16.0), "model.sizes['hidden']"),
        (put("model/sizes/hidden", True), "model.sizes['hidden']"),
        (put("model/sizes/hidden", -1), "model.sizes['hidden']"),
        (put("model/sizes/Hidden", 1), "model.sizes['Hidden']"),
        (put("model/sizes", {f"n{n}": 1 for n in range(65)}), "model.sizes"),
        (put("model/family", "Soft Attention"), "model.family"),
        (put("model/description", "a\x1b[31mb"), "model.description"),
        (put("preprocessing/size", 100_000), "preprocessing.size"),
        (put("preprocessing/resize", "crop"), "preprocessing.resize"),
        (put("preprocessing/mean", 127), "preprocessing.mean"),
        (put("preprocessing/mean", [127.0, 127.0]), "preprocessing.mean"),
        (put("preprocessing/mean", [127.0, 127.0, "0"]), "preprocessing.mean[2]"),
        (put("preprocessing/mean", [127.0, 127.0, 256.0]), "preprocessing.mean"),
        (put("preprocessing/scale", [128.0, 128.0, 0.0]), "preprocessing.scale"),
        (put("preprocessing/scale", [128.0, 128.0, -1.0]), "preprocessing.scale"),
        (put("preprocessing/input", "video"), "preprocessing.input"),
        (put("preprocessing/input", ["photo"]), "preprocessing.input"),
        (put("preprocessing/input", "regions"), "preprocessing.'mean'"),
        (drop("preprocessing/input"), "preprocessing.input"),
        (put("preprocessing", {"input": "regions", "regions": 0, "channels": 8}), "preprocessing.regions"),
        (put("preprocessing", {"input": "regions", "regions": 2000, "channels": 8}), "preprocessing.regions"),
        (put("preprocessing", {"input": "regions", "regions": 2, "channels": 0}), "preprocessing.channels"),
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
        (put("decoding/no_repeat_ngram", 0), "decoding.no_repeat_ngram"),
        (put("decoding/no_repeat_ngram", 9), "decoding.no_repeat_ngram"),
        (put("decoding/no_repeat_ngram", "2"), "decoding.no_repeat_ngram"),
        (put("encoder/file", "../encoder.tflite"), "encoder.file"),
        (put("encoder/signature", "serving_default"), "encoder.signature"),
        (put("decoder/file", "encoder.tflite"), "decoder.file"),
        (put("decoder/signature", "encode"), "decoder.signature"),
        *((put(f"decoder/interface/{path}", value), f"decoder.interface.{key}") for path, value, key in INTERFACES),
        (put("pruning/method", "Super Mask"), "pruning.method"),
        (put("pruning/sparsity", 1.5), "pruning.sparsity"),
        (put("pruning/sparsity", 0.5), "pruning.sparsity"),
        (put("pruning/sparsity", "most"), "pruning.sparsity"),
        (put("pruning/kept_weights", 1001), "pruning.kept_weights"),
        (put("pruning/kept_weights", 10**400), "pruning.kept_weights"),
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
    tree = {**sound(), "schema_version": 3, "later": {}}
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


def cached(**changed: object) -> dict[str, Any]:
    tree = sound()
    state = {"cache": {**CACHE, **changed}}
    tree["decoder"]["interface"] |= {"held": {}, "state": state, "regions": None, "position": True}
    return tree


def test_a_state_that_grows_by_a_slice_a_word_is_read() -> None:
    interface = parse_manifest(json.dumps(cached()), "m").interface
    assert interface.step_inputs() == {
        "token": ((1,), "int32"),
        "position": ((1,), "int32"),
        "cache": ((1, 8, 2, 16), "float32"),
    }
    assert interface.step_outputs() == {"scores": ((1, 24), "float32"), "cache": ((1, 2, 16), "float32")}
    assert interface.encode_outputs() == {}
    assert interface.state_bytes == 4 * 8 * 2 * 16


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"shape": [7, 2, 16]}, "decoder.interface.state['cache'].shape"),  # captions have up to 8 tokens
        ({"shape": [8]}, "decoder.interface.state['cache'].shape"),
        ({"first": "encode"}, "decoder.interface.state['cache'].first"),
    ],
)
def test_a_state_that_grows_needs_room_for_every_word_and_starts_empty(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(cached(**changed)), "m")
    assert str(caught.value.where) == f"m, {key}"


def test_features_of_regions_may_take_the_place_of_a_photo() -> None:
    tree = sound()
    tree["preprocessing"] = {"input": "regions", "regions": 36, "channels": 2048}
    manifest = parse_manifest(json.dumps(tree), "m")
    assert manifest.encode_inputs() == {
        "regions": ((1, 36, 2048), "float32"),
        "present": ((1, 36), "float32"),
    }
    assert parse_manifest(json.dumps(manifest.as_json()), "m") == manifest
    with pytest.raises(UsageError, match="regions, not photos"):
        _ = manifest.photo_size
