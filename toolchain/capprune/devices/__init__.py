"""Where a bundle is measured: this machine, a Raspberry Pi over SSH, a phone over adb.

schemes.py   the table of ways to a device
device.py    what every device can do, and opening the one that a user names
job.py       what is to be captioned, and the journal of what was
local.py     this machine
ssh.py       a machine with Python, through the programs ssh and sftp
adb.py       a phone with the app, through the program adb

Names are imported when they are first used, so that a command's help loads the table alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capprune.devices.device import Device, open_device
    from capprune.devices.job import BenchJob, RunJob

__all__ = ["BenchJob", "Device", "RunJob", "open_device"]

_HOME = {"BenchJob": "job", "Device": "device", "RunJob": "job", "open_device": "device"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
