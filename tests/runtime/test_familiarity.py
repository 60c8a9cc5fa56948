"""The familiarity of photos: its arithmetic, what the verifier refuses, and what a user gets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capprune_exporters.bundle import record_quality
from capprune_runtime.bundle.familiarity import Familiarity, channel_count, familiarity_of, pool
from capprune_runtime.bundle.interface import StateSpec, StepInterface, TensorSpec
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.confidence import UNFAMILIAR, mean_log_probability
from capprune_runtime.command import main
from capprune_runtime.errors import BundleError, DeviceError
from capprune_runtime.measure.caption_journal import CaptionJournal
from capprune_runtime.measure.results import parse_measurement

INTERFACE = StepInterface(24, {"keys": TensorSpec((4, 3))}, {"h": StateSpec((2,)), "z": StateSpec((9,), "zeros")})
SOUND: dict[str, Any] = {"weights": [0.5, -1, 0.25], "log_probability": 2.0, "offset": 0.125, "share": 0.05}


def with_familiarity(folder: Path, **changed: Any) -> Bundle:
    record_quality(verify_bundle(folder), {"familiarity": {**SOUND, **changed}})
    return verify_bundle(folder)


def test_channels_are_averaged_over_the_photo_and_then_in_runs() -> None:
    random = np.random.default_rng(1)
    keys, h = random.normal(size=(1, 4, 3)).astype(np.float32), random.normal(size=(1, 2)).astype(np.float32)
    for count in range(1, 6):
        channels = [float(value) for value in h[0]]
        channels += [math.fsum(float(keys[0, row, column]) for row in range(4)) / 4 for column in range(3)]
        runs: list[list[float]] = [[] for _ in range(count)]
        for place, value in enumerate(channels):
            runs[place * count // 5].append(value)
        expected = [math.fsum(run) / len(run) for run in runs]
        assert pool({"keys": keys, "h": h}, count).tolist() == pytest.approx(expected, abs=1e-12)
    assert channel_count(INTERFACE) == 5


def test_the_confidence_is_the_logistic_of_the_sum() -> None:
    chosen = Familiarity((2.0, -1.0), 3.0, 0.5)
    assert chosen.confidence(np.array([0.25, 1.0]), -0.5) == pytest.approx(1 / (1 + math.exp(1.5)))
    assert chosen.confidence(np.array([1e300, 0.0]), 0.0) == pytest.approx(1 - 1e-13, abs=1e-13)
    assert 0 < chosen.confidence(np.array([0.0, 1e300]), 0.0) < 1e-12
    with pytest.raises(BundleError, match="not finite"):
        chosen.confidence(np.array([np.nan, 0.0]), 0.0)


def test_a_quality_without_the_key_is_not_even_parsed() -> None:
    for content in (
        b"",
        b"[",
        b"{}",
        b'{"confidence": {"low_below": -1}}',
        b'{"familiarity": null}',
        b'["familiarity"]',
    ):
        assert familiarity_of({"quality.json": content}, INTERFACE, Path("bundle")) is None
    assert familiarity_of({}, INTERFACE, Path("bundle")) is None
    sound = json.dumps({"familiarity": SOUND}).encode()
    assert familiarity_of({"quality.json": sound}, INTERFACE, Path("bundle")) == Familiarity(
        (0.5, -1.0, 0.25), 2.0, 0.125
    )


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"weights": []}, "weights"),
        ({"weights": [0.0] * 6}, "weights"),  # more than the channels of the encoder
        ({"weights": "1"}, "weights"),
        ({"weights": [1, "2"]}, r"weights\[1\]"),
        ({"weights": [1, None]}, r"weights\[1\]"),
        ({"weights": [True]}, r"weights\[0\]"),
        ({"weights": [1.1e6]}, r"weights\[0\]"),
        ({"weights": [10**400]}, r"weights\[0\]"),
        ({"log_probability": -1e7}, "log_probability"),
        ({"log_probability": [1]}, "log_probability"),
        ({"offset": None}, "offset"),
        ({"offset": {}}, "offset"),
    ],
)
def test_values_of_another_type_or_size_are_refused(changed: dict[str, Any], where: str) -> None:
    content = json.dumps({"familiarity": {**SOUND, **changed}}).encode()
    with pytest.raises(BundleError, match=where):
        familiarity_of({"quality.json": content}, INTERFACE, Path("bundle"))


@pytest.mark.parametrize(
    "content", ["3", "[]", '"x"', '{"weights": [1]}', '{"weights": [NaN]}', '{"weights": [1e999]}']
)
def test_what_is_no_familiarity_is_refused(content: str) -> None:
    with pytest.raises(BundleError):
        familiarity_of({"quality.json": f'{{"familiarity": {content}}}'.encode()}, INTERFACE, Path("bundle"))


def test_the_verifier_refuses_a_bad_familiarity(bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match=r"familiarity\.offset"):
        with_familiarity(bundle_folder, offset="0")


def test_confidence_of_a_caption_is_that_of_its_photo_and_words(bundle_folder: Path) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    plain = Captioner(verify_bundle(bundle_folder)).caption(photo)
    assert (plain.confidence, plain.familiar) == (None, None)
    assert not {"confidence", "familiar"} & plain.as_json().keys()
    captioner = Captioner(with_familiarity(bundle_folder))
    said = captioner.caption(photo)
    expected = Familiarity((0.5, -1.0, 0.25), 2.0, 0.125).confidence(
        captioner.pooled(photo, 3), mean_log_probability(plain)
    )
    assert said.tokens == plain.tokens and said.confidence == pytest.approx(expected)
    other = captioner.caption(255 - photo)
    assert other.confidence != said.confidence
    assert said.as_json()["familiar"] is said.familiar is (expected >= 0.5)


def test_an_unfamiliar_photo_gets_a_statement_and_its_caption_stays_in_json(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.linear_gradient("L").save(tmp_path / "photo.png")
    command = ["caption", str(bundle_folder), str(tmp_path / "photo.png")]
    assert main(command) == 0
    caption = capsys.readouterr().out
    with_familiarity(bundle_folder, weights=[0], log_probability=0, offset=1)
    assert main(command) == 0
    assert capsys.readouterr().out == caption
    with_familiarity(bundle_folder, weights=[0], log_probability=0, offset=-1)
    assert main(command) == 0
    assert capsys.readouterr().out == f"{UNFAMILIAR}\n" != caption
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["captions"][0]
    assert said["caption"] == caption.strip() and said["familiar"] is False
    assert said["confidence"] == pytest.approx(1 / (1 + math.e))


def test_a_run_over_a_folder_marks_photos_alike_and_records_the_confidence(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_familiarity(bundle_folder, weights=[0], log_probability=0, offset=-1)
    (tmp_path / "photos").mkdir()
    Image.linear_gradient("L").save(tmp_path / "photos" / "photo.png")
    command = ["run", str(bundle_folder), str(tmp_path / "photos")]
    assert main(command) == 0
    assert capsys.readouterr().out == f"photo.png\t{UNFAMILIAR}\n"
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["captions"][0]["confidence"] == pytest.approx(1 / (1 + math.e))
    assert parse_measurement(document, "out.json").captions[0].confidence == document["captions"][0]["confidence"]
    del document["captions"][0]["confidence"]  # written by a runner that does not know it
    assert parse_measurement(document, "out.json").captions[0].confidence is None
    document["captions"][0]["confidence"] = "high"
    with pytest.raises(DeviceError, match=r"captions\[0\]\.confidence"):
        parse_measurement(document, "out.json")


def test_the_journal_keeps_the_confidence(bundle_folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").save(photo)
    said = replace(Captioner(with_familiarity(bundle_folder)).caption(np.zeros((16, 16, 3), np.uint8)), confidence=0.25)
    journal = CaptionJournal(tmp_path / "table.csv", {"beam": 1})
    journal.keep(photo, said)
    journal.close(finished=False)
    resumed = CaptionJournal(tmp_path / "table.csv", {"beam": 1})
    again = resumed.caption(photo)
    resumed.close(finished=True)
    assert again is not None and (again.confidence, again.familiar) == (0.25, False)
