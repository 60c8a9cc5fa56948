"""Devices that measure a bundle: this machine, a Raspberry Pi over SSH, a phone over adb.

schemes.py   the table of device types and the form of their names
device.py    the interface of a device, and opening one by its name
job.py       the photos to caption, and the journal of finished ones
local.py     this machine
ssh.py       a machine with Python, through the programs ssh and sftp
adb.py       a phone with the app, through the program adb

Names are imported on first use, so that a command's help loads only the table.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capprune.devices.device import Device, open_device
    from capprune.devices.job import BenchJob, RunJob

__all__ = ["BenchJob", "Device", "RunJob", "open_device"]

_HOME = {"BenchJob": "job", "Device": "device", "RunJob": "job", "open_device": "device"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
