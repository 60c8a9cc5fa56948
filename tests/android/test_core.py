"""The app's core, in Java: equal to Python's runtime, and as strict."""

from __future__ import annotations

import json
import re
from pathlib import Path

import compile_java
import dex
import numpy as np
import pytest
import tiny_bundle
from desktop_jvm import DesktopJvm

from capprune_runtime import Captioner, resize, verify_bundle
from capprune_runtime.bundle.familiarity import channel_count
from capprune_runtime.caption.confidence import confidence_of, is_unsure, mean_log_probability

PHOTOS = 12


def test_junit_tests_hold_on_the_files_that_python_made(classes: tuple[Path, Path], junit_files: Path) -> None:
    assert passed_tests(compile_java.run_junit(*classes, junit_files)) >= 20


@pytest.mark.slow
def test_lowered_classes_of_the_apk_pass_the_same_tests(jvm: DesktopJvm, junit_files: Path, tmp_path: Path) -> None:
    java_8 = dex.write_java_8(tmp_path / "java8.jar")
    lowered = dex.lower((jvm.core,), java_8, tmp_path, "jvm")
    # The classes of Java 7 have no frames and call static methods of interfaces, which a verifier of today refuses.
    said = compile_java.run_junit(
        lowered, jvm.tests, junit_files, "-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"
    )
    assert passed_tests(said) >= 20


def passed_tests(said: str) -> int:
    found = re.search(r"^OK \((\d+) tests\)$", said, re.MULTILINE)
    assert found, said
    return int(found[1])


@pytest.mark.parametrize("threads", [1, 2])
def test_tiny_models_say_on_a_desktop_jvm_what_they_say_in_python(
    jvm: DesktopJvm, models: tiny_bundle.TinyModels, threads: int, tmp_path: Path
) -> None:
    place = tiny_bundle.write_bundle(tmp_path / "bundle", models)
    captioner = Captioner(verify_bundle(place))
    random = np.random.default_rng(5)
    photos = [
        (str(n), random.integers(0, 256, (int(random.integers(9, 90)), 40, 3), np.uint8), n % 4 + 1)
        for n in range(PHOTOS)
    ]
    (tmp_path / "photos").mkdir()
    said = jvm.captions(place, photos, tmp_path / "photos", threads)
    size = captioner.bundle.manifest.photo_size
    expected = [captioner.caption(resize(rgb, size), beam) for _, rgb, beam in photos]
    assert [row["tokens"] for row in said] == [list(caption.tokens) for caption in expected]
    assert [row["caption"] for row in said] == [caption.text for caption in expected]


def test_confidences_are_those_of_python(jvm: DesktopJvm, models: tiny_bundle.TinyModels, tmp_path: Path) -> None:
    place = tiny_bundle.write_bundle(tmp_path / "bundle", models)
    random = np.random.default_rng(8)
    photos = [(str(n), random.integers(0, 256, (40, 40, 3), np.uint8), n % 3 + 1) for n in range(PHOTOS)]
    size, found = verify_bundle(place).manifest.photo_size, []
    for count in (1, 7, channel_count(verify_bundle(place).manifest.interface)):
        weights = np.round(random.normal(0, 3, count), 3).tolist()
        recorded = {"weights": weights, "log_probability": 2, "offset": 2.5}
        (place / "quality.json").write_text(json.dumps({"familiarity": recorded}))
        tiny_bundle.seal(place, tiny_bundle.manifest_json(models.cell))
        captioner = Captioner(verify_bundle(place))
        expected = [captioner.caption(resize(rgb, size), beam) for _, rgb, beam in photos]
        (tmp_path / f"photos-{count}").mkdir()
        said = jvm.captions(place, photos, tmp_path / f"photos-{count}", 1)
        confidences = [one.confidence for one in expected]
        assert [row["confidence"] for row in said] == pytest.approx(confidences, abs=1e-4)
        assert [row["familiar"] for row in said] == [one.familiar for one in expected]
        assert [row["low_confidence"] for row in said] == [is_unsure(one, None) for one in expected]
        found += confidences
    assert min(found) < 0.4 and max(found) > 0.6


def test_unsure_captions_are_those_of_python(jvm: DesktopJvm, models: tiny_bundle.TinyModels, tmp_path: Path) -> None:
    place = tiny_bundle.write_bundle(tmp_path / "bundle", models)
    random = np.random.default_rng(6)
    photos = [(str(n), random.integers(0, 256, (40, 40, 3), np.uint8), 1) for n in range(PHOTOS)]
    captioner = Captioner(verify_bundle(place))
    size = captioner.bundle.manifest.photo_size
    means = [mean_log_probability(captioner.caption(resize(rgb, size), beam)) for _, rgb, beam in photos]
    limit = float(np.median(means))
    for recorded, expected in (({"low_below": limit}, [mean < limit for mean in means]), (None, [None] * PHOTOS)):
        (place / "quality.json").write_text(json.dumps({"confidence": recorded}))
        tiny_bundle.seal(place, tiny_bundle.manifest_json(models.cell))
        assert confidence_of(verify_bundle(place)) == (None if recorded is None else limit)
        (tmp_path / f"photos-{recorded is None}").mkdir()
        said = jvm.captions(place, photos, tmp_path / f"photos-{recorded is None}", 1)
        assert [row["mean_log_probability"] for row in said] == pytest.approx(means, abs=1e-4)
        assert [row["low_confidence"] for row in said] == expected
