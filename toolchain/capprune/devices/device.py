"""The interface of a device, and opening one by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from capprune.devices.job import BenchJob, Progress, RunJob
from capprune.devices.schemes import DeviceOptions, find_scheme, python_forms, read_spec
from capprune_runtime.errors import UsageError
from capprune_runtime.measure.results import Measurement

# Allowed text in a command on the device: nothing that a shell would interpret.
_PYTHON = re.compile(r"(~/|/)?[A-Za-z0-9_.][\w./-]*", re.ASCII)


class Device(Protocol):
    """A device that captions photos with a bundle and measures the time."""

    name: str

    def run(self, job: RunJob, progress: Progress) -> Measurement:
        """Caption every photo of a job once.

        Raises:
            DeviceError: The device cannot be reached, lacks something, or lost the link.
            BundleError: The device cannot run the bundle.
            PhotoError: A photo cannot be read.
        """

    def bench(self, job: BenchJob, progress: Progress) -> tuple[Measurement, ...]:
        """Time bundles in interleaved rounds; raises the same errors as `run`."""


def open_device(spec: str, *, python: str | None = None, cache: Path | None = None) -> Device:
    """Return the device with a given name; no connection is made before its first use.

    Args:
        spec: One of the forms in `schemes.SCHEMES`.
        python: The Python on the device, for a scheme that takes one; searched for if not given.
        cache: Folder of the journals of unfinished runs.

    Raises:
        UsageError: The spec does not name a device, contains characters that no name has, or does not take a Python.
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
