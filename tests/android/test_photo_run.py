"""The results document that the app writes is the one that the workstation reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from desktop_jvm import DesktopJvm
from PIL import Image

from capprune_runtime import Captioner, read_photo, verify_bundle
from capprune_runtime.measure.results import Measurement, parse_measurements
from capprune_runtime.measure.session import judged
from capprune_runtime.photo import ENDINGS

pytestmark = pytest.mark.slow

PHOTOS = 24


@pytest.fixture(scope="module")
def bundle(models: tiny_bundle.TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("bundle") / "bundle", models)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    for number in range(PHOTOS):
        pixels = random.integers(0, 256, (tiny_bundle.SIZE, tiny_bundle.SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.png")
    return folder


def measurement(results: Path) -> Measurement:
    (found,) = parse_measurements(results.read_bytes(), results)
    return found


def test_document_of_the_app_is_read_and_holds_the_captions_of_python(
    jvm: DesktopJvm, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    jvm.run_photos(bundle, photos, tmp_path / "results.json", beam=2)
    found = measurement(tmp_path / "results.json")
    captioner = Captioner(verify_bundle(bundle))
    for one in found.captions:
        said = captioner.caption(read_photo(photos / one.photo, tiny_bundle.SIZE), 2)
        assert (one.tokens, one.caption, one.finished) == (said.tokens, said.text, said.finished)
        assert one.log_probability == pytest.approx(said.log_probability, abs=1e-4)
    assert [one.photo for one in found.captions] == [f"{number:05}.png" for number in range(PHOTOS)]
    assert (found.settings.beam, found.settings.sessions, found.environment.runtime) == (2, 1, "tflite")
    assert not (tmp_path / "results.jsonl").exists()


def test_photos_of_every_ending_count_and_files_of_macos_do_not(
    jvm: DesktopJvm, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for ending in ENDINGS:
        (folder / f"photo{ending.upper()}").write_bytes((photos / "00000.png").read_bytes())
    (folder / "._photo.png").write_bytes(b"\0\5\x16\7")
    (folder / "notes.txt").write_text("notes")
    jvm.run_photos(bundle, folder, tmp_path / "results.json")
    found = measurement(tmp_path / "results.json")
    assert sorted(one.photo for one in found.captions) == sorted(f"photo{ending.upper()}" for ending in ENDINGS)


def test_latency_and_verdict_are_those_that_the_workstation_computes(
    jvm: DesktopJvm, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    jvm.run_photos(bundle, photos, tmp_path / "results.json")
    found = measurement(tmp_path / "results.json")
    again = judged(found)
    assert found.verdict.reasons == again.verdict.reasons and found.verdict.trusted is False  # a stand-in
    assert (found.verdict.thermal, found.verdict.stability) == (again.verdict.thermal, again.verdict.stability)
    for part in ("encode", "step", "caption"):
        ours, theirs = vars(getattr(found.latency, part)), vars(getattr(again.latency, part))
        assert ours == pytest.approx(theirs)


def test_a_run_that_was_stopped_goes_on_where_it_was(
    jvm: DesktopJvm, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    jvm.run_photos(bundle, photos, tmp_path / "results.json", stop_after=9)
    journal = (tmp_path / "results.jsonl").read_text()
    assert not (tmp_path / "results.json").exists() and journal.count('"said"') == 9
    (tmp_path / "results.jsonl").write_text(journal[:-20])  # the last line was cut off
    jvm.run_photos(bundle, photos, tmp_path / "results.json")
    found = measurement(tmp_path / "results.json")
    assert (len(found.captions), found.settings.sessions) == (PHOTOS, 2)
    kept = [json.loads(line)["said"]["encode_us"] for line in journal.splitlines()[1:9]]
    assert [one.encode_us for one in found.captions[:8]] == kept


def test_a_photo_that_cannot_be_read_fails_alone(jvm: DesktopJvm, bundle: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes((photos / "00000.png").read_bytes())
    (folder / "b.png").write_bytes((photos / "00001.png").read_bytes()[:60])
    jvm.run_photos(bundle, folder, tmp_path / "results.json")
    found = measurement(tmp_path / "results.json")
    assert [one.photo for one in found.captions] == ["a.png"]
    assert [(one.photo, one.error) for one in found.failures] == [("b.png", "PhotoError")]


def test_a_bundle_that_must_not_be_used_is_a_failure_in_the_document(
    jvm: DesktopJvm, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "bundle"
    broken.mkdir()
    jvm.run_photos(broken, photos, tmp_path / "results.json")
    failure = json.loads((tmp_path / "results.json").read_text())["failure"]
    assert (failure["error"], failure["exit_code"]) == ("MissingFile", 5)
