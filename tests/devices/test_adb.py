"""The way to a phone and back, with a stand-in for adb and the app. What a real phone does beyond that is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from device_parts import Phone, Tiny
from stand_in_adb import SERIAL, STAND_IN

from capprune.devices import BenchJob, adb, open_device
from capprune.devices.adb_program import Adb, chosen, listed
from capprune.metrics.speed import compare
from capprune_runtime.errors import DeviceError, LinkLost, MissingExtra, NewerFormat, PhotoError, UsageError
from capprune_runtime.measure.bench import bench_bundles, bench_document
from capprune_runtime.measure.cooldown import Gate
from capprune_runtime.measure.results import Measurement, parse_measurements


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(adb, "GONE_S", 6.0)


def run(tiny: Tiny, cache: Path, **changes: Any) -> Measurement:
    return open_device("adb", cache=cache).run(tiny.job(**changes), lambda done, total: None)


def test_a_phone_says_what_the_workstation_says_and_nothing_is_left_there(
    tiny: Tiny, phone: Phone, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = open_device(f"adb:{SERIAL}", cache=tmp_path).run(tiny.job(), lambda *done: told.append(done))
    here = open_device("local").run(tiny.job(), lambda done, total: None)
    assert [one.photo for one in found.captions] == list(tiny.photos)
    assert [one.tokens for one in found.captions] == [one.tokens for one in here.captions]
    assert found.bundle == here.bundle and found.settings == here.settings
    assert found.environment.stand_in == STAND_IN and not found.verdict.trusted
    assert found.verdict.reasons[0].code == "stand_in"
    assert told[-1] == (7, 7) and len(told) >= 7
    assert phone.left_behind() == [] and [*tmp_path.glob("devices/*")] == []
    assert "$(touch" not in phone.calls and "python" not in phone.calls


def test_a_link_that_comes_back_costs_nothing(tiny: Tiny, phone: Phone, tmp_path: Path) -> None:
    phone.break_by(gone={"after_lines": 3, "calls": 4})
    found = run(tiny, tmp_path)
    assert len(found.captions) == 7 and found.settings.sessions == 1
    assert phone.left_behind() == []


@pytest.mark.slow
def test_a_phone_that_stays_away_is_said_and_the_next_run_goes_on(tiny: Tiny, phone: Phone, tmp_path: Path) -> None:
    phone.break_by(app_dies_after=4)
    with pytest.raises(DeviceError, match="the app stopped") as caught:
        run(tiny, tmp_path)
    assert caught.value.exit_code == 7 and "logcat" in str(caught.value)
    assert phone.left_behind() == [] and len([*tmp_path.glob("devices/*.jsonl")]) == 1
    phone.break_by(gone={"after_lines": 2, "calls": 1000})
    with pytest.raises(LinkLost, match="link to the phone") as lost:
        run(tiny, tmp_path)
    assert "run the same command again" in str(lost.value) and "which are kept" in str(lost.value)
    phone.break_by()
    found = run(tiny, tmp_path)
    assert len(found.captions) == 7 and found.settings.sessions > 1
    assert phone.left_behind() == []


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ({"abi": "armeabi-v7a"}, DeviceError, "expected  arm64-v8a or x86_64"),
        ({"no_app": True}, DeviceError, "not installed"),
        ({"old_app": True}, DeviceError, "does not exist"),
        ({"full_disk": True}, DeviceError, "disk is full"),
        ({"free_kib": 2000}, DeviceError, "bytes free"),
        ({"devices": "List of devices attached\n\n"}, DeviceError, "there is no phone"),
        (
            {"app_fails": {"error": "NewerFormat", "what": "the bundle was written by a later capprune"}},
            NewerFormat,
            "later",
        ),
        ({"app_fails": {}}, DeviceError, "without a reason"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_left(
    fault: dict[str, Any], kind: type[Exception], says: str, tiny: Tiny, phone: Phone, tmp_path: Path
) -> None:
    phone.break_by(**fault)
    with pytest.raises(kind, match=says):
        run(tiny, tmp_path)
    assert phone.left_behind() == [] and [*tmp_path.glob("devices/*")] == []


def test_a_photo_that_cannot_be_read_is_named_before_anything_is_sent(tiny: Tiny, phone: Phone, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="touch"):
        run(tiny, tmp_path, read=lambda name: b"no photo")
    assert "push" not in phone.calls


def test_without_adb_its_package_is_named(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="apt install adb"):
        run(tiny, tmp_path)


def test_a_phone_times_bundles_on_their_golden_photos(tiny: Tiny, phone: Phone, tmp_path: Path) -> None:
    bundle, told = tiny.job().bundle, list[tuple[int, int]]()
    job = BenchJob([bundle, bundle], rounds=5, beam=1, cold_loads=3, gate=Gate(timeout_s=30))
    phone.break_by(battery=[385, 370, 290])
    found = open_device("adb", cache=tmp_path).bench(job, lambda *done: told.append(done))
    assert [one.kind for one in found] == ["bench", "bench"] and told == [(2, 5), (4, 5), (5, 5)]
    here = bench_bundles([bundle], rounds=5, beam=1)[0]
    for one in found:
        assert [said.tokens for said in one.captions] == [said.tokens for said in here.captions]
        assert [said.photo for said in one.captions] == [said.photo for said in here.captions]
        assert one.settings.beam == 1 and one.settings.sessions >= 3 and one.golden == here.golden
        assert one.cooldown is not None and (one.cooldown.before_c, one.cooldown.after_c) == (38.5, 37.0)
        assert (one.cooldown.max_temperature_c, one.cooldown.outcome) == (37, "cool") and one.cooldown.waited_s >= 1
        assert one.cold is not None and one.cold.loads == 3 and one.cold.load_us and one.cold.peak_rss_bytes
        assert (one.cold.process_us, one.cold.first_caption_us, one.cold.retained_rss_bytes) == (None, None, None)
        assert one.environment.stand_in == STAND_IN and not one.verdict.trusted
        assert one.latency.step.count == sum(len(said.step_us) for said in one.captions)
    text = json.dumps(bench_document(found))
    assert [one.captions for one in parse_measurements(text, "here")] == [one.captions for one in found]
    assert {row.reason for row in compare(found, ["a", "b"])} == {
        "the bundle itself",
        "speed on a stand-in is meaningless",
    }
    assert phone.left_behind() == [] and [*tmp_path.glob("devices/*")] == []


def test_a_phone_without_a_temperature_is_named(phone: Phone) -> None:
    for answer in (None, "9" * 5000, "warm"):
        (phone.state / "battery-calls").unlink(missing_ok=True)
        phone.break_by(battery=[answer])
        assert Adb(None).battery_c() is None
    phone.break_by(battery=[-35])
    assert Adb(None).battery_c() == -3.5


def test_a_bench_over_adb_takes_one_number_of_threads(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="one number of threads"):
        open_device("adb").bench(BenchJob([tiny.job().bundle] * 2, threads=[1, 2]), lambda done, total: None)


# What adb printed on real machines: version 28 to 36, on Linux.
DAEMON = "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"
TWO = """List of devices attached
emulator-5554          device product:sdk_gphone64_x86_64 model:sdk_gphone64_x86_64 device:emu64xa transport_id:1
192.168.1.23:5555      device product:oriole model:Pixel_6 device:oriole transport_id:4

"""
NO_PERMISSIONS = (
    "List of devices attached\nZY223K    no permissions (user in plugdev group; are your udev rules wrong?); "
    "see [http://developer.android.com/tools/device.html] usb:3-1 transport_id:2\n\n"
)


@pytest.mark.parametrize(
    ("output", "serial", "says"),
    [
        (f"{DAEMON}List of devices attached\n\n", None, "no phone"),
        (TWO, None, "several phones"),
        (TWO, "R58M", "no such phone"),
        ("List of devices attached\nR58M123  unauthorized usb:1-2 transport_id:1\n\n", None, "allow USB debugging"),
        ("List of devices attached\nR58M123\toffline\n\n", None, "adb reconnect"),
        (NO_PERMISSIONS, None, "may not talk to USB"),
        ("List of devices attached\nR58M123\trecovery\n\n", None, "recovery mode"),
        ("List of devices attached\nR58M123\thost\n\n", None, "cannot be used in its current state"),
    ],
)
def test_states_of_phones_are_told_in_words(output: str, serial: str | None, says: str) -> None:
    with pytest.raises(DeviceError, match=says):
        chosen(listed(output), serial)


def test_one_of_several_phones_is_taken_by_its_number() -> None:
    assert chosen(listed(DAEMON + TWO), "192.168.1.23:5555").model == "Pixel_6"
    assert [device.serial for device in listed(TWO)] == ["emulator-5554", "192.168.1.23:5555"]
