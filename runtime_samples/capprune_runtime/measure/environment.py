"""Description of the machine of a measurement: board, processor, clock and throttling, interpreter.

This module needs only the standard library, so that a device without NumPy can be described too.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime.formats import RUNTIMES

CPUINFO = Path("/proc/cpuinfo")
CPUS = Path("/sys/devices/system/cpu")
THERMAL_ZONES = Path("/sys/class/thermal")
BOARD = Path("/proc/device-tree/model")
OS_RELEASE = Path("/etc/os-release")
ARM_MACHINES = ("aarch64", "arm")
X86_MACHINES = ("x86_64", "amd64", "i386", "i686")


@dataclass(frozen=True)
class Moment:
    """Values that change during a measurement; None where the device does not report them.

    Attributes:
        temperature_c: Temperature of the hottest thermal zone.
        frequency_khz: Clock of each processor that reports it.
        throttled_flags: The Pi firmware's `get_throttled`: bits 0 to 3 now, 16 to 19 since it was switched on.
        throttle_count: Number of times the processor (x86) has throttled since it was switched on.
        thermal_status: Android's thermal status, 0 (none) to 6 (shutdown).
        load_average: Average number of running or waiting processes over the last minute.
    """

    temperature_c: float | None
    frequency_khz: tuple[int, ...] | None
    throttled_flags: int | None
    throttle_count: int | None
    thermal_status: int | None
    load_average: float | None


@dataclass(frozen=True)
class Environment:
    """Machine and software of a measurement; None where the device does not report them.

    Attributes:
        platform: Operating system and kernel version.
        os: Name of the distribution.
        model: Name of the board or phone.
        machine: Instruction set, as `uname -m` names it.
        cpu_model: Name of the processor, or "unknown".
        cpu_part: ARM's implementer and part numbers of every kind of core, as "0x41/0xd08".
        cpu_count: Number of logical processors.
        memory_bytes: Total memory of the machine.
        governor: Clock governor of the first processor.
        frequency_khz: Lowest and highest clock of the first processor.
        python: Version of Python; None without Python.
        runtime: Name of the interpreter.
        runtime_version: Version of the interpreter, or "unknown".
        threads: Number of threads of the interpreter.
        emulated: Whether the processor is emulated, which makes times meaningless.
        stand_in: Substitute for the device in a test; None for a real device.
        before: Values at the start of the measurement.
        after: Values at its end.
    """

    platform: str
    os: str | None
    model: str | None
    machine: str
    cpu_model: str
    cpu_part: str | None
    cpu_count: int
    memory_bytes: int | None
    governor: str | None
    frequency_khz: tuple[int, ...] | None
    python: str | None
    runtime: str
    runtime_version: str
    threads: int
    emulated: bool
    stand_in: str | None
    before: Moment
    after: Moment


def environment(runtime: str, threads: int, *, before: Moment | None = None) -> Environment:
    """Describe this machine.

    Args:
        runtime: Name of the interpreter in use.
        threads: Number of threads of the interpreter.
        before: Values at the start of the measurement. [default: now]
    """
    cpuinfo = _text(CPUINFO) or ""
    machine = platform.machine()
    after = moment()
    return Environment(
        platform=f"{platform.system()} {platform.release().partition('-')[0]}",  # without the kernel builder's suffix
        os=os_name(_text(OS_RELEASE) or ""),
        model=board_model(cpuinfo),
        machine=machine,
        cpu_model=cpu_model(cpuinfo) or platform.processor() or "unknown",
        cpu_part=cpu_part(cpuinfo),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        governor=_text(CPUS / "cpu0" / "cpufreq" / "scaling_governor"),
        frequency_khz=_limits_khz(),
        python=platform.python_version(),
        runtime=runtime,
        runtime_version=runtime_version(runtime),
        threads=threads,
        emulated=is_emulated(machine, cpuinfo, os.environ),
        stand_in=None,
        before=after if before is None else before,
        after=after,
    )


def moment() -> Moment:
    """Return the current values of this machine's sensors."""
    return Moment(
        temperature_c=temperature_c(),
        frequency_khz=_frequencies_khz(),
        throttled_flags=_throttled_flags(),
        throttle_count=_number(CPUS / "cpu0" / "thermal_throttle" / "core_throttle_count"),
        thermal_status=None,
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def runtime_version(runtime: str) -> str:
    """Return the installed version of an interpreter, without importing it; "unknown" if it has none."""
    for distribution in RUNTIMES[runtime].distributions if runtime in RUNTIMES else ():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "unknown"


def cpu_model(cpuinfo: str) -> str | None:
    """Return the name of the processor (x86) or the board (ARM) from the text of /proc/cpuinfo."""
    fields = dict(reversed(_cpuinfo_fields(cpuinfo)))
    for key in ("model name", "Model", "Hardware"):
        if fields.get(key):
            return fields[key]
    return None


def cpu_part(cpuinfo: str) -> str | None:
    """Return ARM's implementer/part of every kind of core in the text of /proc/cpuinfo; None on other machines."""
    fields = _cpuinfo_fields(cpuinfo)
    implementers = [value for key, value in fields if key == "CPU implementer"]
    parts = [value for key, value in fields if key == "CPU part"]
    kinds = dict.fromkeys(f"{who}/{part}" for who, part in zip(implementers, parts, strict=False))
    return ", ".join(kinds) or None


def board_model(cpuinfo: str) -> str | None:
    """Return the board's name from the device tree, or from the line `Model` in the text of /proc/cpuinfo."""
    return _text(BOARD) or dict(_cpuinfo_fields(cpuinfo)).get("Model") or None


def os_name(os_release: str) -> str | None:
    """Return PRETTY_NAME from the text of /etc/os-release."""
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip("\"'") or None
    return None


def is_emulated(machine: str, cpuinfo: str, variables: Mapping[str, str]) -> bool:
    """Return whether QEMU emulates the processor, by its settings or by a foreign processor in /proc/cpuinfo.

    Args:
        machine: Instruction set, as `uname -m` names it.
        cpuinfo: Text of /proc/cpuinfo.
        variables: The environment variables.
    """
    if variables.get("QEMU_CPU"):
        return True
    keys = {key for key, _ in _cpuinfo_fields(cpuinfo)}
    if machine.lower().startswith(ARM_MACHINES):
        return "vendor_id" in keys
    return machine.lower() in X86_MACHINES and "CPU implementer" in keys


def _cpuinfo_fields(cpuinfo: str) -> list[tuple[str, str]]:
    pairs = [line.partition(":") for line in cpuinfo.splitlines() if ":" in line]
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def _text(path: Path) -> str | None:
    """Return the stripped text of a small kernel file; None if there is none."""
    try:
        return path.read_text(errors="replace").strip("\0\n\t ") or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _limits_khz() -> tuple[int, ...] | None:
    limits = [_number(CPUS / "cpu0" / "cpufreq" / f"cpuinfo_{end}_freq") for end in ("min", "max")]
    return tuple(limit for limit in limits if limit is not None) if None not in limits else None


def _frequencies_khz() -> tuple[int, ...] | None:
    clocks = [_number(path) for path in sorted(CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    return tuple(clock for clock in clocks if clock is not None) or None


def temperature_c() -> float | None:
    """Return the temperature of the hottest thermal zone in °C; None if the system does not report it."""
    zones = [_number(path) for path in THERMAL_ZONES.glob("thermal_zone*/temp")]
    found = [zone / 1000 for zone in zones if zone is not None and zone > 0]
    return max(found, default=None)


def _throttled_flags() -> int | None:
    """Return the throttling flags of the Pi's firmware, if its command is installed."""
    if (command := shutil.which("vcgencmd")) is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=5, check=True)
        return int(done.stdout.strip().removeprefix("throttled="), 16)
    return None
