"""The runner's way over adb to the app's own classes and back; a stand-in plays adb, and a desktop JVM the phone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from desktop_jvm import DesktopJvm

sys.path.append(str(Path(__file__).parents[1] / "devices"))
import stand_in_adb

from capprune.devices import RunJob, adb, open_device
from capprune_runtime.bundle.verify import verify_bundle

PHOTOS = 5


def test_the_runner_and_the_app_agree_on_intent_journal_and_document(
    jvm: DesktopJvm, models: tiny_bundle.TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = verify_bundle(tiny_bundle.write_bundle(tmp_path / "bundle", models))
    photos = {f"{number}.png": _photo(number) for number in range(PHOTOS)}
    job = RunJob(bundle, tuple(photos), photos.__getitem__, beam=2)
    stand_in_adb.install(tmp_path / "phone-state", monkeypatch)
    monkeypatch.setenv("STAND_IN_APP", jvm.runner_command())
    monkeypatch.setattr(adb, "LOOK_EVERY_S", 0.05)
    there = open_device("adb", cache=tmp_path / "cache").run(job, lambda done, total: None)
    here = open_device("local").run(job, lambda done, total: None)
    assert [(one.photo, one.tokens) for one in there.captions] == [(one.photo, one.tokens) for one in here.captions]
    assert (there.environment.runtime, there.environment.python) == ("tflite", None)
    assert there.environment.stand_in == "a desktop JVM" and there.verdict.reasons[0].code == "stand_in"
    assert there.bundle == here.bundle and there.settings == here.settings
    assert not [path for path in (tmp_path / "phone-state" / "phone").rglob("*") if path.is_file()]


def _photo(number: int) -> bytes:
    import io

    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 256, (24, 40, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
