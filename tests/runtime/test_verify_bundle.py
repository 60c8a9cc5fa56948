"""A bundle that is not what its manifest says is refused, by the error that says why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tflite_edit
import tiny_bundle

from capprune_runtime import verify_bundle
from capprune_runtime.bundle import verify as verify_module
from capprune_runtime.errors import (
    BadModelFile,
    BadVocabulary,
    BundleError,
    HashMismatch,
    MissingFile,
    NewerFormat,
    UsageError,
)


def resealed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> None:
    """Damage that its maker hid: hashes and sizes fit again."""
    manifest = tiny_bundle.manifest_json("lstm")
    change(manifest)
    tiny_bundle.seal(folder, manifest)


def test_a_sound_bundle_gives_its_manifest_vocabulary_and_models(
    bundle_folder: Path, lstm_models: tiny_bundle.TinyModels
) -> None:
    bundle = verify_bundle(bundle_folder)
    assert bundle.place == bundle_folder
    assert list(bundle.manifest.interface.state) == ["h", "c"]
    assert bundle.vocabulary.tokens == tiny_bundle.WORDS
    assert (bundle.encoder, bundle.decoder) == (lstm_models.encoder_tflite, lstm_models.step_tflite)


def test_a_gru_bundle_is_accepted(gru_models: tiny_bundle.TinyModels, tmp_path: Path) -> None:
    bundle = verify_bundle(tiny_bundle.write_bundle(tmp_path / "gru", gru_models))
    assert list(bundle.manifest.interface.state) == ["h"]


def test_the_least_bundle_holds_models_and_vocabulary_only(bundle_folder: Path) -> None:
    for name in ("golden/scene-0.png", "golden/golden.json", "MODEL_CARD.md"):
        (bundle_folder / name).unlink()
    (bundle_folder / "golden").rmdir()
    resealed(bundle_folder)
    assert len(verify_bundle(bundle_folder).manifest.files) == 3


def test_a_bundle_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        verify_bundle(tmp_path / "absent")


def test_a_file_that_is_no_packed_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="no packed bundle"):
        verify_bundle(tmp_path / "file")


LISTED = ["encoder.tflite", "decoder.tflite", "vocabulary.txt", "MODEL_CARD.md", "golden/golden.json",
          "golden/scene-0.png"]  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_a_changed_byte_in_any_file_is_found(name: str, bundle_folder: Path) -> None:
    content = bytearray((bundle_folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_folder / name).write_bytes(content)
    with pytest.raises(HashMismatch, match=name):
        verify_bundle(bundle_folder)


@pytest.mark.parametrize("name", LISTED)
def test_a_truncated_or_grown_file_is_found(name: str, bundle_folder: Path) -> None:
    content = (bundle_folder / name).read_bytes()
    for changed in (content[:-1], content + b"\0"):
        (bundle_folder / name).write_bytes(changed)
        with pytest.raises(HashMismatch, match="another size"):
            verify_bundle(bundle_folder)


@pytest.mark.parametrize("name", [*LISTED, "manifest.json"])
def test_a_missing_file_is_named(name: str, bundle_folder: Path) -> None:
    (bundle_folder / name).unlink()
    with pytest.raises(MissingFile, match=name):
        verify_bundle(bundle_folder)


@pytest.mark.parametrize("name", ["notes.txt", "golden/scene-1.png", ".hidden", "sub/encoder.tflite"])
def test_a_file_that_is_not_listed_is_named(name: str, bundle_folder: Path) -> None:
    (bundle_folder / name).parent.mkdir(exist_ok=True)
    (bundle_folder / name).write_bytes(b"x")
    with pytest.raises(MissingFile, match=name):
        verify_bundle(bundle_folder)


def test_too_many_files_are_refused_without_reading_them(bundle_folder: Path) -> None:
    for number in range(verify_module.MAX_FILES):
        (bundle_folder / "golden" / f"scene-{number}.png").touch()
    with pytest.raises(BundleError, match="too many files"):
        verify_bundle(bundle_folder)


@pytest.mark.parametrize("name", ["encoder.tflite", "golden", "manifest.json"])
def test_symbolic_links_are_refused(name: str, bundle_folder: Path, tmp_path: Path) -> None:
    (bundle_folder / name).rename(tmp_path / "elsewhere")
    (bundle_folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="symbolic link"):
        verify_bundle(bundle_folder)


def test_a_pipe_is_refused_and_does_not_hold_the_reader_up(bundle_folder: Path) -> None:
    (bundle_folder / "vocabulary.txt").unlink()
    os.mkfifo(bundle_folder / "vocabulary.txt")
    with pytest.raises(BundleError, match="pipe"):
        verify_bundle(bundle_folder)


def test_hard_links_are_plain_files(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").hardlink_to(bundle_folder / "encoder.tflite")
    verify_bundle(bundle_folder)


def test_a_file_over_its_cap_is_refused(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verify_module._MAX_BYTES, "decoder.tflite", 1000)
    with pytest.raises(BundleError, match="too large"):
        verify_bundle(bundle_folder)


def test_the_hash_is_checked_before_the_content_is_parsed(bundle_folder: Path) -> None:
    (bundle_folder / "vocabulary.txt").write_bytes(b"\xff" * (bundle_folder / "vocabulary.txt").stat().st_size)
    with pytest.raises(HashMismatch):
        verify_bundle(bundle_folder)


def test_a_later_format_is_refused_as_such(bundle_folder: Path) -> None:
    resealed(bundle_folder, lambda manifest: manifest.update(schema_version=3))
    with pytest.raises(NewerFormat, match="later capprune"):
        verify_bundle(bundle_folder)


def test_a_manifest_entry_outside_the_folder_is_refused(bundle_folder: Path) -> None:
    tree = json.loads((bundle_folder / "manifest.json").read_text())
    tree["files"]["../secret.txt"] = {"sha256": "0" * 64, "size_bytes": 1}
    (bundle_folder / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=r"\.\./secret\.txt"):
        verify_bundle(bundle_folder)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\xff\xfe", "UTF-8"),
        ("\n".join(tiny_bundle.WORDS[:-1]).encode() + b"\n", "does not fit the model"),
        ("\n".join((*tiny_bundle.WORDS, "more")).encode() + b"\n", "does not fit the model"),
        ("\n".join((*tiny_bundle.WORDS[:-1], "word4")).encode() + b"\n", "twice"),
    ],
)
def test_a_vocabulary_that_cannot_belong_to_the_model_is_refused(
    content: bytes, match: str, bundle_folder: Path
) -> None:
    (bundle_folder / "vocabulary.txt").write_bytes(content)
    resealed(bundle_folder)
    with pytest.raises(BadVocabulary, match=match):
        verify_bundle(bundle_folder)


def nested(section: str, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest[section].update(values)


REGION_FEATURES = {"input": "regions", "regions": 4, "channels": 16}


def shaped(kind: str, name: str, shape: list[int]) -> Callable[[dict[str, Any]], object]:
    """Another shape of a held or carried tensor, or one tensor more."""
    own = {"dtype": "float32"} if kind == "held" else {"first": "encode", "carry": "replace"}
    return lambda manifest: manifest["decoder"]["interface"][kind].update({name: {"shape": shape, **own}})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (shaped("state", "h", [17]), "h does not fit"),
        (shaped("held", "keys", [4, 17]), "keys does not fit"),
        (shaped("held", "values", [4, 17]), "values does not fit"),
        (shaped("held", "more", [4, 16]), "outputs are not those"),
        (shaped("state", "more", [16]), "outputs are not those"),
        (lambda manifest: manifest["decoder"]["interface"]["held"].pop("keys"), "outputs are not those"),
        (lambda manifest: manifest["decoder"]["interface"].update(regions=5), "attention does not fit"),
        (lambda manifest: manifest["decoder"]["interface"].update(regions=None), "outputs are not those"),
        (lambda manifest: manifest["decoder"]["interface"].update(position=True), "inputs are not those"),
        (
            lambda manifest: manifest["decoder"]["interface"]["state"]["c"].update(first="zeros"),
            "outputs are not those",
        ),
        (nested("preprocessing", size=17), "photo does not fit"),
        (lambda manifest: manifest.update(preprocessing=REGION_FEATURES), "inputs are not those"),
    ],
)
def test_models_of_other_shapes_than_the_manifest_says_are_refused(
    change: Callable[[dict[str, Any]], object], match: str, bundle_folder: Path
) -> None:
    resealed(bundle_folder, change)
    with pytest.raises(BadModelFile, match=match):
        verify_bundle(bundle_folder)


def test_a_vocabulary_size_that_the_scores_do_not_have_is_refused(bundle_folder: Path) -> None:
    (bundle_folder / "vocabulary.txt").write_text("\n".join((*tiny_bundle.WORDS, "more")) + "\n")
    more = len(tiny_bundle.WORDS) + 1
    resealed(bundle_folder, lambda manifest: manifest["decoder"]["interface"].update(vocabulary=more))
    with pytest.raises(BadModelFile, match="scores does not fit"):
        verify_bundle(bundle_folder)


def test_models_in_each_others_place_are_refused(bundle_folder: Path) -> None:
    (bundle_folder / "encoder.tflite").rename(bundle_folder / "x")
    (bundle_folder / "decoder.tflite").rename(bundle_folder / "encoder.tflite")
    (bundle_folder / "x").rename(bundle_folder / "decoder.tflite")
    resealed(bundle_folder)
    with pytest.raises(BadModelFile, match="signature"):
        verify_bundle(bundle_folder)


def test_a_model_of_another_cell_is_refused(bundle_folder: Path, gru_models: tiny_bundle.TinyModels) -> None:
    (bundle_folder / "encoder.tflite").write_bytes(gru_models.encoder_tflite)
    resealed(bundle_folder)
    with pytest.raises(BadModelFile, match="outputs are not those"):
        verify_bundle(bundle_folder)


def test_a_model_that_breaks_a_rule_is_refused_though_its_hash_fits(bundle_folder: Path) -> None:
    content = (bundle_folder / "decoder.tflite").read_bytes()
    (bundle_folder / "decoder.tflite").write_bytes(content[: len(content) // 2])
    resealed(bundle_folder)
    with pytest.raises(BadModelFile, match="byte"):
        verify_bundle(bundle_folder)


# one number for all channels, where they share a whole one
PREPROCESSING = {"size": tiny_bundle.SIZE, "resize": "squash-triangle-q15", "mean": 127, "scale": 128}


def test_models_may_say_what_the_bundle_says(bundle_folder: Path, lstm_models: tiny_bundle.TinyModels) -> None:
    manifest = tiny_bundle.manifest_json("lstm")
    described = json.dumps({"preprocessing": PREPROCESSING, "decoding": manifest["decoding"]}, indent=1).encode()
    words = (bundle_folder / "vocabulary.txt").read_bytes()
    for name in ("encoder.tflite", "decoder.tflite"):
        data = (bundle_folder / name).read_bytes()
        (bundle_folder / name).write_bytes(tflite_edit.with_metadata(data, words, described))
    resealed(bundle_folder)
    verify_bundle(bundle_folder)


def test_model_that_says_something_else_than_the_manifest_is_refused(bundle_folder: Path) -> None:
    manifest = tiny_bundle.manifest_json("lstm")
    described = {"preprocessing": PREPROCESSING, "decoding": {**manifest["decoding"], "beam": 4}}
    data = (bundle_folder / "decoder.tflite").read_bytes()
    words = (bundle_folder / "vocabulary.txt").read_bytes()
    edited = tflite_edit.with_metadata(data, words, json.dumps(described).encode())
    (bundle_folder / "decoder.tflite").write_bytes(edited)
    resealed(bundle_folder)
    with pytest.raises(BadModelFile, match="another preprocessing or decoding"):
        verify_bundle(bundle_folder)
