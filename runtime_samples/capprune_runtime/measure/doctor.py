"""Report what a device has and lacks to run bundles, and the command that installs it.

Needs only the standard library.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime import __version__
from capprune_runtime.formats import RUNTIMES, runtimes_for
from capprune_runtime.measure.environment import is_emulated, runtime_version

VENV = "~/capprune"  # the folder that runtime_samples/raspberry_pi/README.md uses
OLDEST_PYTHON = (3, 11)  # oldest version that this package is tested with
_MODULES = {"numpy": "numpy", "Pillow": "PIL"}
_WIDE = ("x86_64", "amd64", "aarch64", "arm64")  # machines with wheels of ai-edge-litert and onnxruntime
_NARROW = ("armv7l", "armv8l")  # 32-bit ARM, which has only tflite-runtime 2.14


@dataclass(frozen=True)
class Equipment:
    """Equipment of a device for running bundles.

    Attributes:
        capprune: Version of this package.
        machine: Instruction set, as `uname -m` names it.
        python: Version of Python.
        executable: Path of the Python executable.
        numpy: Version of NumPy; None if it is not installed or does not load.
        pillow: Version of Pillow; None if it is not installed or does not load.
        runtimes: Versions of the installed interpreters, by name.
        free_bytes: Free space on the disk of the current folder.
        emulated: Whether the processor is emulated.
        emulated_cpu: The processor that QEMU was set to emulate; None if not set.
        missing: Parts that the device lacks to run a bundle of the requested kind.
        install: The command that installs it; None if nothing is missing or nothing can be installed.
    """

    capprune: str
    machine: str
    python: str
    executable: str
    numpy: str | None
    pillow: str | None
    runtimes: Mapping[str, str]
    free_bytes: int
    emulated: bool
    emulated_cpu: str | None
    missing: tuple[str, ...]
    install: str | None


def equipment(kind: str = "tflite") -> Equipment:
    """Return the equipment of this device.

    Args:
        kind: The kind of model file to run, "tflite" or "onnx".
    """
    numpy, pillow = (_version(module) for module in _MODULES.values())
    unusable = {} if numpy is None else _obstacles(kind)
    runtimes = {
        name: runtime_version(name)
        for name, runtime in RUNTIMES.items()
        if importlib.util.find_spec(runtime.package) is not None
    }
    able = runtimes.keys() & set(runtimes_for(kind)) - unusable.keys()
    missing = tuple(name for name, version in (("numpy", numpy), ("Pillow", pillow)) if version is None)
    if not able:
        reasons = "".join(f" ({name}: {obstacle})" for name, obstacle in unusable.items())
        missing = (*missing, f"an interpreter for .{kind} models{reasons}")
    machine = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    return Equipment(
        capprune=__version__,
        machine=machine,
        python=platform.python_version(),
        executable=sys.executable,
        numpy=numpy,
        pillow=pillow,
        runtimes=runtimes,
        free_bytes=shutil.disk_usage(".").free,
        emulated=is_emulated(machine, cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else "", os.environ),
        emulated_cpu=os.environ.get("QEMU_CPU"),
        missing=missing,
        install=_install(machine, kind, missing, unusable),
    )


def _obstacles(kind: str) -> dict[str, str]:
    from capprune_runtime.caption.interpreter import obstacles  # imported here because it needs NumPy

    return obstacles(kind)


def _install(machine: str, kind: str, missing: tuple[str, ...], unusable: Mapping[str, str]) -> str | None:
    if not missing:
        return None
    command = install_command(machine, sys.version_info[:2], kind, sys.executable, in_venv())
    if command is None and "tflite-runtime" in unusable:
        return f"{sys.executable} -m pip install 'numpy<2'"
    return command


def install_command(machine: str, python: tuple[int, int], kind: str, executable: str, venv: bool) -> str | None:
    """Return the command that lets a machine run bundles; None if there is no interpreter for it.

    Args:
        machine: As `uname -m` names it.
        python: Major and minor version.
        kind: "tflite" or "onnx".
        executable: Path of the Python executable.
        venv: Whether it is in a virtual environment; the system's own Python refuses pip.
    """
    if machine.lower() in _WIDE and python >= OLDEST_PYTHON:
        packages = "numpy Pillow " + RUNTIMES[runtimes_for(kind)[0]].install.removeprefix("pip install ")
    elif machine.lower() in _NARROW and python == (3, 11) and kind == "tflite":
        packages = "'numpy<2' Pillow tflite-runtime"
    else:
        return None
    if venv:
        return f"{executable} -m pip install {packages}"
    return f"python3 -m venv {VENV} && {VENV}/bin/pip install {packages}"


def in_venv() -> bool:
    """Return whether pip may install into this Python."""
    return sys.prefix != sys.base_prefix


def _version(module: str) -> str | None:
    """Return the version of a module that loads; None for a missing or broken installation."""
    try:
        return str(importlib.import_module(module).__version__)
    except Exception:  # numpy reports missing libraries by errors of several kinds
        return None
