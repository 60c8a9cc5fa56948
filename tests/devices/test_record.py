"""What was measured stays with the bundle, and the bundle stays sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from device_parts import Tiny

from capprune.devices import open_device
from capprune_exporters.bundle import record_quality
from capprune_exporters.pack.capz import pack
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.errors import UsageError


@pytest.fixture
def bundle(tiny: Tiny, tmp_path: Path) -> Bundle:
    return verify_bundle(shutil.copytree(tiny.bundle.place, tmp_path / "bundle"))


def test_quality_is_listed_with_its_hash_and_replaced_by_the_next(bundle: Bundle) -> None:
    record_quality(bundle, {"quality": {"cider_d": 0.5}})
    recorded = verify_bundle(bundle.place)
    assert json.loads(recorded.files["quality.json"]) == {"quality": {"cider_d": 0.5}}
    assert recorded.decoder == bundle.decoder and set(recorded.files) - set(bundle.files) == {"quality.json"}
    record_quality(recorded, {"quality": {"cider_d": 0.7}})
    assert b"0.7" in verify_bundle(bundle.place).files["quality.json"]


def test_a_recorded_bundle_still_runs_on_a_device(bundle: Bundle, tiny: Tiny) -> None:
    before = open_device("local").run(tiny.job(bundle=bundle), lambda done, total: None)
    record_quality(bundle, before.as_json())
    after = open_device("local").run(tiny.job(bundle=verify_bundle(bundle.place)), lambda done, total: None)
    assert [one.tokens for one in after.captions] == [one.tokens for one in before.captions]
    assert after.bundle.manifest_sha256 != before.bundle.manifest_sha256


def test_a_packed_bundle_is_not_written_to(bundle: Bundle, tmp_path: Path) -> None:
    packed = tmp_path / "bundle.capz"
    pack(bundle.place, packed)
    with pytest.raises(UsageError, match="before it is packed"):
        record_quality(verify_bundle(packed), {})


def test_a_result_that_is_no_number_leaves_the_bundle_as_it_was(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="JSON"):
        record_quality(bundle, {"cider_d": float("nan")})
    assert "quality.json" not in verify_bundle(bundle.place).files


@pytest.mark.parametrize("broken", ["quality.json", "manifest.json"])
def test_a_record_that_is_cut_off_leaves_the_bundle_as_it_was(
    broken: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capprune_exporters import bundle as writer

    def cut(path: Path, data: bytes) -> None:
        if path.name == broken:
            raise KeyboardInterrupt
        path.write_bytes(data)

    monkeypatch.setattr(writer, "write_bytes", cut)
    with pytest.raises(KeyboardInterrupt):
        record_quality(bundle, {"quality": {"cider_d": 0.5}})
    assert verify_bundle(bundle.place).files == bundle.files
    assert [path.name for path in bundle.place.parent.iterdir()] == [bundle.place.name]
