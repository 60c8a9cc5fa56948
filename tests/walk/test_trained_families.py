"""Every decoder family, trained and pruned on drawn scenes, generates in each format and in Java the captions of torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capprune.config.decoder import DECODERS
from capprune_runtime import Captioner, verify_bundle
from capprune_runtime.photo import decode_photo, resize

sys.path.append(str(Path(__file__).parents[1] / "android"))
from desktop_jvm import DesktopJvm

pytestmark = pytest.mark.slow

SCENES = {"train": 500, "val": 20, "test": 100}
IN_JAVA = 20
SPARSITY = 0.9
LEARNS = 1.0  # CIDEr-D of a model whose captions depend on the scene; one caption for all has about 0.4
INT8_DROP = "5%"  # of so short a training, on 100 scenes; the interval reaches as far
COMMON = (
    *("encoder.size=128", "data.minimum_count=1", "data.maximum_tokens=20"),
    *("training.epochs=8", "training.photos_per_batch=8", "training.validation_photos=20"),
    *("pruning.method=supermask", f"pruning.sparsity={SPARSITY}", "pruning.tolerance=0.02"),
)
LSTM = ("decoder.embedding=64", "decoder.hidden=128", "training.learning_rate=4e-3")
ATTENTION = ("decoder.width=64", "decoder.feed_forward=128", "decoder.heads=4")
RATE = ("training.learning_rate=2e-3", "training.warmup=0.1")
SIZES: dict[str, tuple[str, ...]] = {
    "soft_attention": (*LSTM, "decoder.attention=64", "decoder.context=128"),
    "show_tell": LSTM,
    "up_down": (*LSTM, "decoder.attention=64"),
    "relation_transformer": (*ATTENTION, *RATE, "decoder.encoder_layers=1", "decoder.decoder_layers=2"),
    "retention": (*ATTENTION, *RATE, "decoder.layers=2"),
}


def capprune(*arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON document of a command."""
    command = [sys.executable, "-m", "capprune", *map(str, arguments), "--json"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    sizes = [part for name, count in SCENES.items() for part in (f"--{name}", count)]
    capprune("data", "scenes", "--size", 128, *sizes, "--out", folder)
    return folder


def trained(scenes: Path, out: Path, *overrides: str, learns: float = LEARNS) -> Path:
    config = out / "config.yaml"
    config.write_text(f"name: {out.name}\ndata: {{folder: {scenes}}}\n")
    cache = ("--cache", scenes.parent / "cache")  # the families share the encoder's features
    document = capprune("train", config, *COMMON, *overrides, "--out", out / "run", *cache)
    assert document["cider_d_val"] > learns, document
    return out / "run"


@pytest.fixture(scope="module", params=DECODERS.names())
def run(request: pytest.FixtureRequest, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and pruned run of one family."""
    family = request.param
    return trained(scenes, tmp_path_factory.mktemp(family), f"decoder.family={family}", *SIZES[family])


def bundle_of(run: Path, target: str, weights: str) -> Path:
    place = run.parent / f"{target}-{weights}"
    if not place.exists():
        capprune("export", run, "--target", target, "--weights", weights, "--out", place)
    return place


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_exported_captions_are_those_of_torch_greedy_and_with_a_beam(run: Path, scenes: Path, target: str) -> None:
    place = bundle_of(run, target, "float32")
    for beam in (1, 3):
        validated = capprune("validate", place, "--data", scenes, "--reference", run, "--beam", beam)
        (parity,) = validated["parity"].values()
        assert parity["photos"] == SCENES["test"]
        excused = sum(difference["excused"] for difference in parity["differences"])
        assert excused <= 1 and parity["identical"] + excused == SCENES["test"], parity


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_int8_loses_little(run: Path, scenes: Path, target: str) -> None:
    capprune("validate", bundle_of(run, target, "int8"), "--data", scenes, "--reference", run, "--max-drop", INT8_DROP)


@pytest.fixture(scope="module")
def jvm(jdk: None, android_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> DesktopJvm:
    return DesktopJvm.build(android_parts, tmp_path_factory.mktemp("jvm"))


def test_java_generates_the_same_tokens(run: Path, scenes: Path, jvm: DesktopJvm, tmp_path: Path) -> None:
    same_in_java(bundle_of(run, "tflite", "float32"), scenes, jvm, tmp_path)


@pytest.mark.parametrize("family", DECODERS.names())
def test_blocks_run_in_python_and_java(family: str, scenes: Path, jvm: DesktopJvm, tmp_path: Path) -> None:
    blocks = ("pruning.block=1x16", "pruning.sparsity=0.7", "training.epochs=4")
    (tmp_path / family).mkdir()
    run = trained(scenes, tmp_path / family, f"decoder.family={family}", *SIZES[family], *blocks, learns=0.3)
    place = bundle_of(run, "tflite", "int8")
    plan = json.loads((place / "plan.json").read_text())
    assert "block_1x16_int8" in {line["form"] for line in plan["lines"]}, plan
    (tmp_path / "photos").mkdir()
    same_in_java(place, scenes, jvm, tmp_path / "photos", least_different=2)


@pytest.mark.parametrize(("encoder", "size"), [("efficientnet_lite1", 240), ("efficientnet_lite2", 260)])
def test_larger_encoders_are_exported_to_the_end(encoder: str, size: int, jvm: DesktopJvm, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    capprune("data", "scenes", "--size", size, "--train", 60, "--val", 10, "--test", 20, "--out", scenes)
    (tmp_path / encoder).mkdir()
    here = (f"encoder.name={encoder}", f"encoder.size={size}", "training.epochs=3", "pruning.method=none")
    run = trained(scenes, tmp_path / encoder, *SIZES["show_tell"], "decoder.family=show_tell", *here, learns=0.1)
    for target in ("tflite", "onnx"):
        place = bundle_of(run, target, "float32")
        validated = capprune("validate", place, "--data", scenes, "--reference", run)
        (parity,) = validated["parity"].values()
        assert parity["holds"] and parity["identical"] == 20, parity
    (tmp_path / "photos").mkdir()
    same_in_java(bundle_of(run, "tflite", "float32"), scenes, jvm, tmp_path / "photos", least_different=1)


def same_in_java(place: Path, scenes: Path, jvm: DesktopJvm, folder: Path, *, least_different: int = 5) -> None:
    """Captions of 20 scenes, greedy and with a beam, in Python and in the app's core."""
    captioner = Captioner(verify_bundle(place))
    every = sorted((scenes / "photos").iterdir())
    names = every[:: len(every) // IN_JAVA][:IN_JAVA]
    photos = [
        (photo.name, np.asarray(decode_photo(photo.read_bytes(), photo)), 1 + 2 * (n % 2))
        for n, photo in enumerate(names)
    ]
    found = jvm.captions(place, photos, folder)
    size = captioner.bundle.manifest.photo_size
    expected = [list(captioner.caption(resize(rgb, size), beam).tokens) for _, rgb, beam in photos]
    assert len(expected) == IN_JAVA and len({tuple(tokens) for tokens in expected}) >= least_different
    assert [row["tokens"] for row in found] == expected
