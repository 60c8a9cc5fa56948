"""What a device says of itself, and how an emulated one is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from capprune_runtime.caption import interpreter
from capprune_runtime.measure import environment as module
from capprune_runtime.measure.environment import (
    board_model,
    cpu_model,
    cpu_part,
    environment,
    is_emulated,
    moment,
    os_name,
    runtime_version,
)

EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2\n"
PI_4 = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "variables", "emulated"),
    [
        ("x86_64", EPYC, {}, False),
        ("aarch64", PI_4, {}, False),
        ("aarch64", PI_4, {"QEMU_CPU": "cortex-a72"}, True),
        ("aarch64", EPYC, {}, True),
        ("armv7l", EPYC, {}, True),
        ("x86_64", PI_4, {}, True),
        ("arm64", "", {}, False),
        ("AMD64", "", {}, False),
    ],
)
def test_emulated_processors_are_found_out(
    machine: str, cpuinfo: str, variables: dict[str, str], emulated: bool
) -> None:
    assert is_emulated(machine, cpuinfo, variables) is emulated


def test_processor_is_named_as_it_names_itself() -> None:
    assert cpu_model(EPYC) == "AMD EPYC"
    assert cpu_model(PI_4) == "Raspberry Pi 4 Model B Rev 1.5"
    assert cpu_model("") is None


def test_environment_describes_this_machine() -> None:
    here = environment("ai-edge-litert", 2)
    assert re.fullmatch(r"\d+\.\d+.*", here.runtime_version)
    assert here.threads == 2 and here.cpu_count >= 1 and here.cpu_model and here.machine
    assert runtime_version("none-such") == "unknown"


def test_every_runtime_that_is_there_has_a_version() -> None:
    assert "unknown" not in map(runtime_version, interpreter.available_runtimes())


def test_a_board_is_named_by_the_device_tree_and_else_by_cpuinfo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BOARD", tmp_path / "model")
    assert board_model(PI_4) == "Raspberry Pi 4 Model B Rev 1.5"
    assert board_model(EPYC) is None
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert board_model(PI_4) == "Raspberry Pi 5 Model B Rev 1.0"


def test_every_kind_of_core_is_named_once() -> None:
    big_little = "".join(f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd05", "0xd05", "0xd0b"))
    assert cpu_part(big_little) == "0x41/0xd05, 0x41/0xd0b"
    assert cpu_part(PI_4) == "0x41/0xd08" and cpu_part(EPYC) is None


def test_an_operating_system_is_named_as_it_names_itself() -> None:
    assert os_name('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n') == "Debian GNU/Linux 12 (bookworm)"
    assert os_name("") is None


def test_sensors_are_read_where_the_kernel_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPUS", tmp_path / "cpu")
    monkeypatch.setattr(module, "THERMAL_ZONES", tmp_path / "thermal")
    for place, text in {
        "cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
        "cpu/cpu1/cpufreq/scaling_cur_freq": "600000",
        "cpu/cpu0/cpufreq/scaling_governor": "ondemand",
        "cpu/cpu0/cpufreq/cpuinfo_min_freq": "600000",
        "cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000",
        "cpu/cpu0/thermal_throttle/core_throttle_count": "7",
        "thermal/thermal_zone0/temp": "48312",
        "thermal/thermal_zone1/temp": "51000",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text + "\n")
    now = moment()
    assert (now.temperature_c, now.frequency_khz, now.throttle_count) == (51.0, (1_500_000, 600_000), 7)
    here = environment("ai-edge-litert", 1, before=now)
    assert here.governor == "ondemand" and here.frequency_khz == (600_000, 1_800_000)
    assert here.before is now and here.after.temperature_c == 51.0


def test_sensors_that_are_not_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPUS", tmp_path)
    monkeypatch.setattr(module, "THERMAL_ZONES", tmp_path)
    now = moment()
    assert (now.temperature_c, now.frequency_khz, now.throttle_count) == (None, None, None)


def test_the_flags_of_a_pi_come_from_its_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "vcgencmd"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for says, flags in (
        ("echo throttled=0x50005", 0x50005),
        ("echo VCHI initialization failed", None),
        ("exit 1", None),
    ):
        command.write_text(f"#!/bin/sh\n{says}\n")
        command.chmod(0o755)
        assert moment().throttled_flags == flags
