"""What every device can do, and opening the one that a user names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from capprune.devices.job import BenchJob, Progress, RunJob
from capprune.devices.schemes import DeviceOptions, find_scheme, python_forms, read_spec
from capprune_runtime.errors import UsageError
from capprune_runtime.measure.results import Measurement

# What may stand in a command on the far side: nothing that a shell would read as more than a name.
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
    """Return the device that a user named; it is not reached before something is asked of it.

    Args:
        spec: As one of the forms of `schemes.SCHEMES`.
        python: The Python to use there, for a scheme that takes one; found there when it is not given.
        cache: Where journals of unfinished runs are kept.

    Raises:
        UsageError: The spec names no device, holds characters that no name has, or has no use for a Python.
    """
    scheme = find_scheme(spec)
    if python is not None and not scheme.takes_python:
        raise UsageError(
            "this option names the Python of a device that takes one",
            where="--python",
            expected=f"--device {python_forms()}",
            found=f"--device {spec}",
        )
    if python is not None and not _PYTHON.fullmatch(python):
        raise UsageError("this cannot be the path of a Python", where="--python", found=ascii(python))
    scheme, found = read_spec(spec)
    device: Device = scheme.opener()(found, DeviceOptions(python, cache))
    return device
