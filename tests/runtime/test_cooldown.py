"""The temperature gate waits for a cool device, not forever, and records what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from capprune_runtime.errors import UsageError
from capprune_runtime.measure import cooldown, environment
from capprune_runtime.measure.bench import bench_bundles
from capprune_runtime.measure.cooldown import COOL, NO_SENSOR, TIMED_OUT, Gate, combined, wait_until_cool
from capprune_runtime.measure.results import Cooldown


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooldown, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel file of a thermal zone."""
    (tmp_path / "thermal_zone0").mkdir()
    monkeypatch.setattr(environment, "THERMAL_ZONES", tmp_path)
    return tmp_path / "thermal_zone0" / "temp"


def test_it_waits_until_the_device_is_cool() -> None:
    known = iter([71.0, 66.0, 60.0])
    found = wait_until_cool(Gate(60, 30), read=lambda: next(known))
    assert (found.before_c, found.after_c, found.outcome) == (71, 60, COOL)
    assert found.waited_s < 5 and (found.max_temperature_c, found.timeout_s) == (60, 30)


def test_it_gives_up_after_the_longest_time() -> None:
    found = wait_until_cool(Gate(60, 0.1), read=lambda: 71.5)
    assert (found.before_c, found.after_c, found.outcome) == (71.5, 71.5, TIMED_OUT) and 0.1 <= found.waited_s < 5


def test_without_a_timeout_it_records_the_temperature_only() -> None:
    found = wait_until_cool(Gate(timeout_s=0), read=lambda: 71.5)
    assert (found.after_c, found.outcome, found.waited_s) == (71.5, TIMED_OUT, 0)
    assert wait_until_cool(Gate(timeout_s=0), read=lambda: 40).outcome == COOL


def test_a_device_without_a_sensor_is_named_and_not_waited_for(zone: Path) -> None:
    found = wait_until_cool(Gate())
    assert (found.before_c, found.after_c, found.outcome, found.waited_s) == (None, None, NO_SENSOR, 0)


def test_a_case_begins_when_the_thermal_zone_is_cool(zone: Path, bundle_folder: Path) -> None:
    zone.write_text("45500\n")
    (run,) = bench_bundles([bundle_folder], rounds=1, warm_up=0, gate=Gate(45.5, 20))
    assert run.cooldown == Cooldown(45.5, 20, 45.5, 45.5, 0.0, COOL)
    (run,) = bench_bundles([bundle_folder], rounds=1, warm_up=0, gate=Gate(45.4, 0.05))
    assert run.cooldown is not None and run.cooldown.outcome == TIMED_OUT
    (run,) = bench_bundles([bundle_folder], rounds=1, warm_up=0)
    assert run.cooldown is None


def test_the_worst_of_several_waits_is_kept() -> None:
    waits = [Cooldown(37, 60, 41, 37, 12.5, COOL), Cooldown(37, 60, 40, 39.5, 60, TIMED_OUT)]
    assert combined(waits) == Cooldown(37, 60, 41, 39.5, 72.5, TIMED_OUT)


@pytest.mark.parametrize(("limit_c", "timeout_s"), [(0, 1), (150, 1), (float("nan"), 1), (60, -1), (60, float("inf"))])
def test_impossible_settings_are_refused(limit_c: float, timeout_s: float) -> None:
    with pytest.raises(UsageError, match=r"--max-temperature|--cooldown-timeout"):
        Gate(limit_c, timeout_s)
