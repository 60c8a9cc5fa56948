"""A bundle with ONNX models: written, verified and run like one with TFLite models, and saying the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_parts
import pytest
from onnx_parts import Parts

from capprune_exporters.bundle import BundleContents, write_bundle
from capprune_exporters.onnx.models import encoder_onnx
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.tflite.convert import convert
from capprune_runtime.bundle.manifest import (
    DataSection,
    DecodingSection,
    ModelSection,
    PruningSection,
    QuantisationSection,
)
from capprune_runtime.bundle.preprocessing import PreprocessingSection
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.interpreter import available_runtimes, open_model
from capprune_runtime.caption.proof import GoldenPhoto
from capprune_runtime.command import main
from capprune_runtime.errors import BadModelFile, BundleError, MissingExtra, MissingFile, UsageError
from capprune_runtime.formats import FORMATS, model_kind

WORDS = ("<pad>", "<start>", "<end>", "<unk>", *(f"word{n}" for n in range(4, onnx_parts.VOCABULARY)))
PHOTOS = [
    np.random.default_rng(seed).integers(0, 256, (onnx_parts.ENCODER.size,) * 2 + (3,), dtype=np.uint8)
    for seed in range(6)
]


def contents(parts: Parts, encoder: bytes, decoder: bytes) -> BundleContents:
    return BundleContents(
        created_by="capprune 0.1.0",
        encoder=encoder,
        decoder=decoder,
        vocabulary=Vocabulary(WORDS),
        model=ModelSection("soft_attention", parts.model.decoder.describe(), {"hidden": onnx_parts.WIDTH}),
        preprocessing=PreprocessingSection(size=onnx_parts.ENCODER.size),
        decoding=DecodingSection(start=1, end=2, suppress=(0, 1, 3), max_tokens=6, beam=3),
        interface=parts.model.decoder.interface(),
        pruning=PruningSection("supermask", 0.95, 50, 1000),
        quantisation=QuantisationSection("float32", "gap_float32"),
        data=DataSection("drawn scenes", "CC0-1.0"),
        config={},
        golden=[GoldenPhoto("golden/scene-0.png", PHOTOS[0], 1, (4, 5), "word4 word5")],
        model_card="# A model\n",
        plan={},
    )


@pytest.fixture
def written(parts: Parts, tmp_path: Path) -> Bundle:
    encoder = encoder_onnx(parts.encode.converted, "float32", names=parts.weights)
    decoder = make_gapped(parts.step.converted, names=parts.weights).data
    return write_bundle(tmp_path / "onnx", contents(parts, encoder, decoder))


@pytest.fixture
def lstm_bundle(lstm: Parts, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", contents(lstm, lstm.encode.converted, lstm.step.converted))
    return tmp_path / "bundle"


def test_bundle_is_verified_and_says_what_the_tflite_bundle_says(written: Bundle, parts: Parts, tmp_path: Path) -> None:
    assert verify_bundle(written.place) == written
    assert {"encoder.onnx", "decoder.onnx"} < written.manifest.files.keys()
    assert (written.manifest.encoder.file, written.manifest.decoder.file) == FORMATS["onnx"].files
    with_signature = [(parts.encode, "encode"), (parts.step, "step")]
    flat = [convert(part.module, signature, part.module.example()) for part, signature in with_signature]  # type: ignore[operator]
    other = Captioner(write_bundle(tmp_path / "tflite", contents(parts, *flat)))
    captioner = Captioner(written)
    assert (captioner.runtime, other.runtime) == ("onnxruntime", "ai-edge-litert")
    said = set()
    for photo in PHOTOS:
        for beam in (1, 3):
            caption = captioner.caption(photo, beam)
            assert caption.tokens == other.caption(photo, beam).tokens
            assert caption.attention is not None
            assert caption.attention.shape == (len(caption.tokens), onnx_parts.REGIONS)
            said.add(caption.tokens)
    assert len(said) > 1  # the photos matter


def test_command_captions_and_verifies_it(lstm_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(lstm_bundle)]) == 0
    arguments = ["caption", str(lstm_bundle), str(lstm_bundle / "golden" / "scene-0.png"), "--json"]
    capsys.readouterr()
    assert main([*arguments, "--runtime", "onnxruntime"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["runtime"] == named["runtime"] == "onnxruntime"
    assert main([*arguments, "--runtime", "ai-edge-litert"]) == 2


def test_runtime_is_chosen_by_the_kind_of_the_model(lstm: Parts) -> None:
    assert available_runtimes("onnx") == ("onnxruntime",)
    assert "onnxruntime" not in available_runtimes()
    with pytest.raises(UsageError, match=r"does not run \.onnx models"):
        open_model(lstm.step.converted, "step", runtime="ai-edge-litert")
    with pytest.raises(UsageError, match=r"does not run \.tflite models"):
        open_model(b"\x1c\0\0\0TFL3", "step", runtime="onnxruntime")


def test_missing_onnxruntime_names_the_command_that_installs_it(lstm: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"pip install 'onnxruntime<1\.29'"):
        open_model(lstm.step.converted, "step")


def test_file_that_onnxruntime_does_not_accept_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="does not accept"):
        open_model(b"\x08\x0a and nothing more", "step")


def resealed(folder: Path, change: dict[str, Any] | None = None) -> None:
    """Damage that its maker hid: hashes, sizes and names fit again."""
    import hashlib

    tree = json.loads((folder / "manifest.json").read_text())
    _merge(tree, change or {})
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    tree["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        for name in sorted(names)
        if name != "manifest.json" and (data := (folder / name).read_bytes()) is not None
    }
    (folder / "manifest.json").write_text(json.dumps(tree))


def _merge(tree: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def test_model_that_breaks_a_rule_is_refused_though_its_hash_fits(lstm_bundle: Path) -> None:
    content = (lstm_bundle / "decoder.onnx").read_bytes()
    (lstm_bundle / "decoder.onnx").write_bytes(content[:-1])
    resealed(lstm_bundle)
    with pytest.raises(BadModelFile, match="byte"):
        verify_bundle(lstm_bundle)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"decoder": {"interface": {"state": {"h": {"shape": [65]}}}}}, "does not fit the manifest"),
        ({"decoder": {"interface": {"held": {"keys": {"shape": [9, 64]}}}}}, "does not fit the manifest"),
        ({"decoder": {"interface": {"regions": 9}}}, "does not fit the manifest"),
        ({"decoder": {"interface": {"regions": None}}}, "not those of the manifest"),
        ({"decoder": {"interface": {"position": True}}}, "not those of the manifest"),
        ({"preprocessing": {"size": 97}}, "does not fit the manifest"),
    ],
)
def test_models_of_other_shapes_than_the_manifest_says_are_refused(
    change: dict[str, Any], match: str, lstm_bundle: Path
) -> None:
    resealed(lstm_bundle, change)
    with pytest.raises(BadModelFile, match=match):
        verify_bundle(lstm_bundle)


def test_models_of_another_cell_are_refused(lstm_bundle: Path) -> None:
    h = {"shape": [onnx_parts.WIDTH], "first": "encode", "carry": "replace"}
    tree = json.loads((lstm_bundle / "manifest.json").read_text())
    tree["decoder"]["interface"]["state"] = {"h": h}
    (lstm_bundle / "manifest.json").write_text(json.dumps(tree))
    resealed(lstm_bundle)
    with pytest.raises(BadModelFile, match="not those of the manifest"):
        verify_bundle(lstm_bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": {"file": "encoder.tflite"}},
        {"decoder": {"file": "decoder.tflite"}},
        {"encoder": {"file": "encoder.tflite"}, "decoder": {"file": "decoder.tflite"}},
        {"encoder": {"file": "decoder.onnx"}},
        {"encoder": {"file": "../encoder.onnx"}},
    ],
)
def test_manifest_that_names_other_models_is_refused(change: dict[str, Any], lstm_bundle: Path) -> None:
    resealed(lstm_bundle, change)
    with pytest.raises(BundleError, match=r"encoder\.file|decoder\.file|files"):
        verify_bundle(lstm_bundle)


def test_models_of_both_kinds_are_refused(lstm_bundle: Path) -> None:
    (lstm_bundle / "decoder.tflite").write_bytes(b"x")
    with pytest.raises(MissingFile, match=r"decoder\.tflite"):
        verify_bundle(lstm_bundle)
    resealed(lstm_bundle)
    with pytest.raises(BundleError, match=r"files\['decoder\.tflite'\]"):
        verify_bundle(lstm_bundle)


def test_tflite_model_under_an_onnx_name_is_refused(lstm_bundle: Path) -> None:
    (lstm_bundle / "decoder.onnx").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    resealed(lstm_bundle)
    with pytest.raises(BadModelFile, match="another kind"):
        verify_bundle(lstm_bundle)


def test_kinds_of_models_are_told_apart(lstm: Parts) -> None:
    assert model_kind(lstm.step.converted) == "onnx"
    assert model_kind(b"\x1c\0\0\0TFL3") == "tflite"


def test_runtime_needs_neither_the_onnx_package_nor_torch(lstm_bundle: Path) -> None:
    code = (
        "import sys; from capprune_runtime.command import main\n"
        "assert main(['caption', sys.argv[1], sys.argv[1] + '/golden/scene-0.png']) == 0\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('onnx', 'google', 'torch', 'ai_edge_litert')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(lstm_bundle)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""
