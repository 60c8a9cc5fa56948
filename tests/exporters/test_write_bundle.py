"""The bundle writer: verified before it appears, nothing left after a failure."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import real_parts
from PIL import Image
from real_parts import Part

from capprune_exporters import bundle as bundle_module
from capprune_exporters.bundle import BundleContents, write_bundle
from capprune_runtime.bundle.interface import StateSpec, StepInterface, TensorSpec
from capprune_runtime.bundle.manifest import (
    DataSection,
    DecodingSection,
    ModelSection,
    PruningSection,
    QuantisationSection,
    parse_manifest,
)
from capprune_runtime.bundle.preprocessing import PreprocessingSection
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.proof import GoldenPhoto
from capprune_runtime.errors import BadModelFile, BadVocabulary, BundleError, CapPruneError, UsageError
from capprune_runtime.photo import read_photo

WORDS = ("<pad>", "<start>", "<end>", "<unk>", *(f"word{n}" for n in range(4, real_parts.VOCABULARY)))
PHOTO = np.random.default_rng(3).integers(0, 256, (real_parts.ENCODER.size,) * 2 + (3,), dtype=np.uint8)


@pytest.fixture(scope="session")
def contents(lstm_step: Part, encode: Part) -> BundleContents:
    width = real_parts.WIDTH
    return BundleContents(
        created_by="capprune 0.1.0",
        encoder=encode.sparse.data,
        decoder=lstm_step.sparse.data,
        vocabulary=Vocabulary(WORDS),
        model=ModelSection("soft_attention", "LSTM with soft attention", {"hidden": width}),
        preprocessing=PreprocessingSection(size=real_parts.ENCODER.size),
        decoding=DecodingSection(start=1, end=2, suppress=(0, 1, 3), max_tokens=6, beam=3),
        interface=StepInterface(
            real_parts.VOCABULARY,
            held={"keys": TensorSpec((4, width)), "values": TensorSpec((4, width))},
            state={"h": StateSpec((width,)), "c": StateSpec((width,))},
            regions=4,
        ),
        pruning=PruningSection("supermask", 0.975, 25, 1000),
        quantisation=QuantisationSection("float32", "csr_float32"),
        data=DataSection("drawn scenes", "CC0-1.0"),
        config={"training": {"epochs": 3, "learning_rate": 1e-3}},
        golden=[
            GoldenPhoto("golden/scene-0.png", PHOTO, 1, (4, 5), "word4 word5"),
            GoldenPhoto("golden/scene-1.png", PHOTO[::-1].copy(), 3, (), ""),
        ],
        model_card="# A model\n\nCaptions can be wrong – é.\n",
        plan={"schema_version": 1, "lines": []},
    )


def test_bundle_is_verified_and_captions(tmp_path: Path, contents: BundleContents) -> None:
    bundle = write_bundle(tmp_path / "some" / "bundle", contents)
    assert bundle == verify_bundle(tmp_path / "some" / "bundle")
    assert bundle.place == tmp_path / "some" / "bundle"
    assert (bundle.encoder, bundle.decoder) == (contents.encoder, contents.decoder)
    caption = Captioner(bundle).caption(PHOTO)
    assert caption.text == bundle.vocabulary.caption(caption.tokens)
    assert caption.attention is not None
    assert caption.attention.shape == (len(caption.tokens), 4)


def test_manifest_lists_every_file_with_its_hash_and_size(tmp_path: Path, contents: BundleContents) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, contents)
    manifest = parse_manifest((folder / "manifest.json").read_bytes(), folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert manifest.files.keys() == names - {"manifest.json"}
    assert names == {
        "manifest.json",
        "encoder.tflite",
        "decoder.tflite",
        "vocabulary.txt",
        "MODEL_CARD.md",
        "plan.json",
        "golden/golden.json",
        "golden/scene-0.png",
        "golden/scene-1.png",
    }
    for name, entry in manifest.files.items():
        data = (folder / name).read_bytes()
        assert (entry.sha256, entry.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_manifest_holds_what_was_said_of_the_model(tmp_path: Path, contents: BundleContents) -> None:
    manifest = write_bundle(tmp_path / "bundle", contents).manifest
    for part in ("created_by", "model", "preprocessing", "decoding", "pruning", "quantisation", "data", "config"):
        assert getattr(manifest, part) == getattr(contents, part)
    assert manifest.interface == contents.interface


def test_golden_files_hold_the_photos_and_what_torch_said_of_them(tmp_path: Path, contents: BundleContents) -> None:
    write_bundle(tmp_path / "bundle", contents)
    golden = json.loads((tmp_path / "bundle" / "golden" / "golden.json").read_text(encoding="utf-8"))
    assert golden == [
        {"photo": "golden/scene-0.png", "beam": 1, "tokens": [4, 5], "caption": "word4 word5"},
        {"photo": "golden/scene-1.png", "beam": 3, "tokens": [], "caption": ""},
    ]
    for entry, given in zip(golden, contents.golden, strict=True):
        png = (tmp_path / "bundle" / entry["photo"]).read_bytes()
        assert Image.open(io.BytesIO(png)).format == "PNG"
        assert np.array_equal(read_photo(png, real_parts.ENCODER.size), given.photo)  # its own size: no resampling


def test_same_contents_give_the_same_files(tmp_path: Path, contents: BundleContents) -> None:
    first, second = (write_bundle(tmp_path / name, contents) for name in ("first", "second"))
    assert first.manifest == second.manifest
    assert (tmp_path / "first" / "manifest.json").read_bytes() == (tmp_path / "second" / "manifest.json").read_bytes()


def test_bundle_appears_only_after_it_was_verified(
    tmp_path: Path, contents: BundleContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []

    def watching(folder: Path) -> Bundle:
        verified.append((tmp_path / "bundle").exists())
        return verify_bundle(folder)

    monkeypatch.setattr(bundle_module, "verify_bundle", watching)
    write_bundle(tmp_path / "bundle", contents)
    assert verified == [False]
    assert (tmp_path / "bundle" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda good: {"vocabulary": Vocabulary(WORDS[:-1])}, BadVocabulary),
        (lambda good: {"decoder": good.decoder[:-100]}, BadModelFile),
        (lambda good: {"encoder": good.decoder, "decoder": good.encoder}, BadModelFile),
        (lambda good: {"interface": replace(good.interface, regions=49)}, BadModelFile),
        (lambda good: {"interface": replace(good.interface, state={"h": good.interface.state["h"]})}, BadModelFile),
        (lambda good: {"golden": [replace(good.golden[0], name="../scene")]}, BundleError),
        (lambda good: {"pruning": replace(good.pruning, kept_weights=500)}, BundleError),
    ],
)
def test_nothing_is_left_of_a_bundle_that_breaks_a_rule(
    damage: Callable[[BundleContents], dict[str, object]],
    error: type[CapPruneError],
    tmp_path: Path,
    contents: BundleContents,
) -> None:
    with pytest.raises(error):
        write_bundle(tmp_path / "bundle", replace(contents, **damage(contents)))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path: Path, contents: BundleContents) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError):
        write_bundle(tmp_path / "bundle", contents)
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "mine.txt"]


def test_empty_folder_is_filled(tmp_path: Path, contents: BundleContents) -> None:
    (tmp_path / "bundle").mkdir()
    assert write_bundle(tmp_path / "bundle", contents).place == tmp_path / "bundle"
