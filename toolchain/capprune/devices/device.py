"""What every device can do, and how a user names one: `local`, `ssh:USER@HOST[:PORT]`, `adb[:SERIAL]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from capprune.devices.job import BenchJob, Progress, RunJob
from capprune_runtime.errors import UsageError
from capprune_runtime.measure.results import Measurement

LOCAL = "local"
FORMS = "local, ssh:USER@HOST[:PORT] or adb[:SERIAL]"

# What may stand in a command on the far side: nothing that a shell would read as more than a name.
_SSH = re.compile(
    r"ssh:(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>\d+))?",
    re.ASCII,
)
_ADB = re.compile(r"adb(?::(?P<serial>[A-Za-z0-9][\w.:-]*))?", re.ASCII)
_PYTHON = re.compile(r"(~/|/)?[A-Za-z0-9_.][\w./-]*", re.ASCII)


class Device(Protocol):
    """Something that captions photos with a bundle and says how long it took."""

    name: str

    def run(self, job: RunJob, progress: Progress) -> Measurement:
        """Caption every photo of a job once.

        Raises:
            DeviceError: The device cannot be reached, lacks something, or lost the link.
            BundleError: The device cannot run the bundle.
            PhotoError: A photo cannot be read.
        """

    def bench(self, job: BenchJob, progress: Progress) -> tuple[Measurement, ...]:
        """Time bundles side by side; errors as of `run`."""


def open_device(spec: str, *, python: str | None = None, cache: Path | None = None) -> Device:
    """The device that a user named; it is not reached before something is asked of it.

    Args:
        spec: `local`, `ssh:USER@HOST[:PORT]` or `adb[:SERIAL]`.
        python: The Python to use on the far side of `ssh:`; found there when it is not given.
        cache: Where journals of unfinished runs are kept.

    Raises:
        UsageError: That names no device, holds characters that no name has, or has no use for a Python.
    """
    if python is not None and not spec.startswith("ssh:"):
        raise UsageError(
            "this option names the Python of a device reached by ssh",
            where="--python",
            expected="--device ssh:USER@HOST",
            found=f"--device {spec}",
        )
    if spec == LOCAL:
        from capprune.devices.local import LocalDevice

        return LocalDevice()
    if python is not None and not _PYTHON.fullmatch(python):
        raise UsageError("this cannot be the path of a Python", where="--python", found=ascii(python))
    if found := _SSH.fullmatch(spec):
        from capprune.devices.ssh import SshDevice

        port = None if found["port"] is None else int(found["port"])
        if port is not None and not 1 <= port <= 65_535:
            raise UsageError("there is no such port", where="--device", expected="1 to 65535", found=port)
        return SshDevice(found["user"], found["host"], port, python=python, cache=cache)
    if found := _ADB.fullmatch(spec):
        from capprune.devices.adb import AdbDevice

        return AdbDevice(found["serial"], cache=cache)
    raise UsageError("this names no device", where="--device", expected=FORMS, found=ascii(spec))
