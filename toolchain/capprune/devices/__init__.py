"""Where a bundle is measured: this machine, a Raspberry Pi over SSH, a phone over adb.

device.py    what every device can do, and how a user names one
job.py       what is to be captioned, and the journal of what was
local.py     this machine
ssh.py       a machine with Python, through the programs ssh and sftp
adb.py       a phone with the app, through the program adb
"""

from capprune.devices.device import Device, open_device
from capprune.devices.job import BenchJob, RunJob

__all__ = ["BenchJob", "Device", "RunJob", "open_device"]
