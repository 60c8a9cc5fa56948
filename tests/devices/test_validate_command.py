"""`capprune validate --device`, as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from device_parts import Phone, Tiny, write_data
from stand_in_adb import STAND_IN

from capprune_runtime.bundle.verify import verify_bundle
from cli.conftest import capprune


def test_a_phone_is_validated_and_recorded_in_the_bundle(tiny: Tiny, phone: Phone, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny.bundle.place, tmp_path / "bundle")
    data = write_data(tmp_path / "data", tiny.photos)
    cache = {"CAPPRUNE_CACHE": str(tmp_path / "cache")}
    done = capprune("validate", bundle, "--data", data, "--device", "adb", "--record", "--json", **cache)
    assert done.code == 0, done.err
    document = done.document
    assert document["kind"] == "validation" and len(document["captions"]) == 7 and document["gate"]["passed"]
    assert document["environment"]["stand_in"] == STAND_IN and document["verdict"]["reasons"][0]["code"] == "stand_in"
    assert "captions: 7 of 7" in done.err and phone.left_behind() == []
    recorded = verify_bundle(bundle).files["quality.json"]
    assert b"stand_in" in recorded and b'"captions"' in recorded and b"log_probability" not in recorded


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh")
def test_a_host_that_does_not_answer_ends_in_7_with_what_to_do(tiny: Tiny, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", tiny.photos)
    done = capprune("validate", tiny.bundle.place, "--data", data, "--device", "ssh:pi@127.0.0.1:9", "--json")
    assert done.code == 7 and done.document["error"] == "DeviceError"
    assert "raspi-config" in done.document["try"] and "127.0.0.1" in done.document["where"]
