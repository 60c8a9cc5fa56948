"""Manifests of version 0.1 are lifted to what they mean today, and refused for what they were refused then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_manifest
import tiny_bundle

from capprune_runtime import Captioner, verify_bundle
from capprune_runtime.bundle.manifest import parse_manifest
from capprune_runtime.errors import BundleError


def sound(cell: str = "lstm") -> dict[str, Any]:
    return {**tiny_bundle.schema1_json(cell), "files": test_manifest.sound()["files"]}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_manifest_of_schema_1_says_what_one_of_schema_2_says(cell: str) -> None:
    lifted = parse_manifest(json.dumps(sound(cell)), "m")
    current = parse_manifest(json.dumps(test_manifest.sound(cell)), "m")
    assert lifted.interface == current.interface
    assert lifted.preprocessing == current.preprocessing
    assert lifted.model.sizes == {**current.model.sizes, "regions": tiny_bundle.REGIONS}
    assert parse_manifest(json.dumps(lifted.as_json()), "m") == lifted


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("surprise", 1, "'surprise'"),
        ("model/surprise", 1, "model.'surprise'"),
        ("model", [], "model"),
        ("model/hidden", "16", "model.hidden"),
        ("model/hidden", 16.0, "model.hidden"),
        ("model/hidden", True, "model.hidden"),
        ("model/hidden", 0, "model.hidden"),
        ("model/regions", -1, "model.regions"),
        ("model/regions", 65_537, "model.regions"),
        ("model/vocabulary", 4, "model.vocabulary"),
        ("model/family", "show_tell", "model.family"),
        ("model/cell", "rnn", "model.cell"),
        ("preprocessing/mean", 128, "preprocessing.mean"),
        ("preprocessing/mean", [127.0] * 3, "preprocessing.mean"),
        ("preprocessing/scale", 127, "preprocessing.scale"),
        ("preprocessing/size", 100_000, "preprocessing.size"),
        ("preprocessing/input", "photo", "preprocessing.'input'"),
        ("decoder/state", ["h"], "decoder.state"),
        ("decoder/state", ["c", "h"], "decoder.state"),
        ("decoder/interface", {}, "decoder.'interface'"),
        ("decoder/signature", "encode", "decoder.signature"),
    ],
)
def test_it_is_refused_and_the_key_named_as_ever(path: str, value: object, key: str) -> None:
    tree = sound()
    test_manifest.put(path, value)(tree)
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(tree), "m")
    assert str(caught.value.where).startswith(f"m, {key}")


@pytest.mark.parametrize(
    "path", ["model/cell", "model", "decoder", "decoder/state", "preprocessing", "preprocessing/mean"]
)
def test_a_missing_key_is_named(path: str) -> None:
    tree = sound()
    test_manifest.drop(path)(tree)
    with pytest.raises(BundleError, match="lacks a key") as caught:
        parse_manifest(json.dumps(tree), "m")
    assert str(caught.value.where) == f"m, {path.replace('/', '.')}"


def test_a_bundle_of_schema_1_gives_the_captions_of_its_twin(
    lstm_models: tiny_bundle.TinyModels, tmp_path: Path
) -> None:
    new = tiny_bundle.write_bundle(tmp_path / "new", lstm_models)
    old = tiny_bundle.write_bundle(tmp_path / "old", lstm_models)
    tiny_bundle.seal(old, tiny_bundle.schema1_json("lstm"))
    captioners = [Captioner(verify_bundle(place)) for place in (new, old)]
    for seed in range(4):
        first, second = (captioner.caption(tiny_bundle.photo_pixels(seed)) for captioner in captioners)
        assert first.tokens == second.tokens and first.log_probability == second.log_probability
