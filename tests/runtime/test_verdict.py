"""Times are trusted when nothing speaks against them, and each thing that does is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from capprune_runtime.measure.environment import Environment, Moment
from capprune_runtime.measure.trust import judge

COOL = Moment(48.0, (1_800_000,), 0, None, None, 0.2)
PI = Environment(
    platform="Linux 6.12",
    os="Debian GNU/Linux 13 (trixie)",
    model="Raspberry Pi 4 Model B Rev 1.5",
    machine="aarch64",
    cpu_model="Raspberry Pi 4 Model B Rev 1.5",
    cpu_part="0x41/0xd08",
    cpu_count=4,
    memory_bytes=4 << 30,
    governor="ondemand",
    frequency_khz=(600_000, 1_800_000),
    python="3.13.5",
    runtime="ai-edge-litert",
    runtime_version="2.3.0",
    threads=1,
    emulated=False,
    stand_in=None,
    before=COOL,
    after=COOL,
)
STEADY_US = [100.0 + number % 3 for number in range(40)]


def codes(environment: Environment, times: list[float]) -> list[str]:
    verdict = judge(environment, times)
    assert verdict.trusted is not bool(verdict.reasons)
    return [reason.code for reason in verdict.reasons]


def test_a_cool_idle_pi_with_steady_times_is_trusted() -> None:
    verdict = judge(PI, STEADY_US)
    assert verdict.trusted and verdict.reasons == ()
    assert (verdict.thermal, verdict.stability) == ("steady", "steady")
    assert verdict.drift is not None and abs(verdict.drift) < 0.02


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        (replace(PI, emulated=True), "emulated"),
        (replace(PI, stand_in="recorded adb"), "stand_in"),
        (replace(PI, before=replace(COOL, load_average=3.5)), "busy"),
        (replace(PI, threads=4), "busy"),
        (replace(PI, after=replace(COOL, throttled_flags=0x4)), "throttled"),
        (replace(PI, after=replace(COOL, throttled_flags=0x40000)), "throttled"),
        (replace(PI, before=replace(COOL, throttle_count=1), after=replace(COOL, throttle_count=2)), "throttled"),
        (replace(PI, after=replace(COOL, thermal_status=2)), "throttled"),
        (replace(PI, after=replace(COOL, temperature_c=83.0)), "hot"),
    ],
)
def test_what_speaks_against_a_place_is_said(environment: Environment, code: str) -> None:
    assert codes(environment, STEADY_US) == [code]


def test_throttling_before_the_measurement_is_no_reason() -> None:
    earlier = replace(COOL, throttled_flags=0x50000)
    assert codes(replace(PI, before=earlier, after=earlier), STEADY_US) == []


def test_a_device_without_sensors_has_an_unknown_thermal_state_and_is_trusted() -> None:
    silent = Moment(None, None, None, None, None, None)
    verdict = judge(replace(PI, before=silent, after=silent), STEADY_US)
    assert verdict.thermal == "unknown" and verdict.trusted


def test_times_that_drift_or_spread_are_not_trusted() -> None:
    assert codes(PI, [100.0 + 0.5 * number for number in range(40)]) == ["drift"]
    assert codes(PI, [60.0, 100.0, 140.0] * 12) == ["spread"]
    assert judge(PI, [60.0, 100.0, 140.0] * 12).stability == "unsteady"


def test_few_times_tell_nothing() -> None:
    verdict = judge(PI, STEADY_US[:19])
    assert [reason.code for reason in verdict.reasons] == ["few"]
    assert verdict.stability == "unknown" and verdict.drift is None
