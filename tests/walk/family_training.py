"""Training of every decoder family on drawn scenes, and the comparison of its exports with torch and of Java with Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from capprune_runtime import Captioner, verify_bundle
from capprune_runtime.photo import decode_photo, resize

sys.path.append(str(Path(__file__).parents[1] / "android"))
from desktop_jvm import DesktopJvm

LSTMS = ("soft_attention", "show_tell", "up_down")
TRANSFORMERS = ("relation_transformer", "retention")

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
    "up_down": (*LSTM, "decoder.attention=64", "training.epochs=16"),  # two LSTMs learn later
    "relation_transformer": (*ATTENTION, *RATE, "decoder.encoder_layers=1", "decoder.decoder_layers=2"),
    "retention": (*ATTENTION, *RATE, "decoder.layers=2"),
}


def capprune(*arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON document of a command."""
    command = [sys.executable, "-m", "capprune", *map(str, arguments), "--json"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def trained(scenes: Path, out: Path, *overrides: str, learns: float = LEARNS) -> Path:
    config = out / "config.yaml"
    config.write_text(f"name: {out.name}\ndata: {{folder: {scenes}}}\n")
    cache = ("--cache", scenes.parent / "cache")  # the families share the encoder's features
    settings = dict(one.split("=", 1) for one in (*COMMON, *overrides))  # the command refuses a key that is given twice
    if settings["pruning.method"] == "none":  # and keys that have no effect
        settings = {key: value for key, value in settings.items() if not key.startswith("pruning.")}
    document = capprune(
        "train", config, *(f"{key}={value}" for key, value in settings.items()), "--out", out / "run", *cache
    )
    assert document["cider_d_val"] > learns, document
    return out / "run"


def bundle_of(run: Path, target: str, weights: str) -> Path:
    place = run.parent / f"{target}-{weights}"
    if not place.exists():
        capprune("export", run, "--target", target, "--weights", weights, "--out", place)
    return place


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


def same_as_torch(run: Path, scenes: Path, target: str) -> None:
    """Exported captions of 100 scenes are those of torch, with a beam, and greedy for TFLite."""
    place = bundle_of(run, target, "float32")
    for beam in (1, 3) if target == "tflite" else (3,):  # both targets run the same search
        validated = capprune("validate", place, "--data", scenes, "--reference", run, "--beam", beam)
        (parity,) = validated["parity"].values()
        assert parity["photos"] == SCENES["test"]
        excused = sum(difference["excused"] for difference in parity["differences"])
        assert excused <= 1 and parity["identical"] + excused == SCENES["test"], parity


def int8_loses_little(run: Path, scenes: Path, target: str) -> None:
    """The int8 bundle keeps the score of the trained model."""
    capprune("validate", bundle_of(run, target, "int8"), "--data", scenes, "--reference", run, "--max-drop", INT8_DROP)
