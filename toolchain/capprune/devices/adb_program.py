"""Access to one phone through the program `adb`: selection, commands, files and error messages."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capprune.devices.answers import ANSWER_BYTES, ask, ask_text
from capprune_runtime.errors import DeviceError, LinkLost, MissingExtra

PATIENCE_S = 30  # for a command; copying files has ten times as long
_BATTERY = re.compile(r"^\s*temperature: (-?\d{1,6})\s*$", re.ASCII | re.MULTILINE)  # of `dumpsys battery`, in 0.1 °C
_FOUND = re.compile(r"(?P<serial>\S+)\s+(?P<state>no permissions|\S+)(?P<rest>.*)")

# State of a device in `adb devices`, and the hint for it.
_STATES = {
    "unauthorized": ("the phone does not trust this computer", "unlock the phone and allow USB debugging for this computer"),
    "authorizing": ("the phone does not trust this computer yet", "unlock the phone and allow USB debugging"),
    "offline": ("the phone does not answer", "unplug it and plug it in again, or: adb reconnect"),
    "no permissions": ("this user may not talk to USB devices", "sudo apt install android-sdk-platform-tools-common, "
                       "then plug the phone in again"),
    "recovery": ("the phone is in recovery mode", "start it normally"),
    "sideload": ("the phone is in recovery mode", "start it normally"),
    "bootloader": ("the phone is in its bootloader", "start it normally: fastboot reboot"),
}  # fmt: skip
_GONE = ("not found", "device offline", "no devices/emulators found", "closed", "protocol fault", "unauthorized")


@dataclass(frozen=True)
class Listed:
    """A line of `adb devices -l`: serial number, state, and description of the model."""

    serial: str
    state: str
    model: str


def listed(output: str) -> list[Listed]:
    """Return the devices in the output of `adb devices -l`, ignoring messages of its daemon."""
    _, _, lines = output.partition("List of devices attached")
    found = []
    for line in lines.splitlines():
        if match := _FOUND.fullmatch(line.strip()):
            model = re.search(r"\bmodel:(\S+)", match["rest"])
            found.append(Listed(match["serial"], match["state"], model[1] if model else ""))
    return found


def chosen(devices: Sequence[Listed], serial: str | None) -> Listed:
    """Return the device with a serial number, or the only one.

    Raises:
        DeviceError: It does not exist or cannot be used in its state, or there are several.
    """
    if serial is not None:
        devices = [device for device in devices if device.serial == serial]
    if not devices:
        raise DeviceError(
            "there is no such phone" if serial else "there is no phone",
            where="adb devices",
            expected=serial,
            hint="plug it in, with USB debugging switched on in its developer options",
        )
    if len(devices) > 1:
        names = ", ".join(f"{device.serial} {device.model}".strip() for device in devices)
        raise DeviceError("there are several phones", where="adb devices", expected="one", found=names,
                          hint=f"name one: --device adb:{devices[0].serial}")  # fmt: skip
    (device,) = devices
    if device.state != "device":
        what, hint = _STATES.get(device.state, ("the phone cannot be used in its current state", "adb devices"))
        raise DeviceError(what, where=device.serial, found=device.state, hint=hint)
    return device


class Adb:
    """The program adb for one phone.

    Args:
        serial: The phone's serial number; None for the only connected phone.

    Raises:
        MissingExtra: adb is not installed.
        DeviceError: There is no such phone, or it cannot be used.
    """

    def __init__(self, serial: str | None) -> None:
        if shutil.which("adb") is None:
            raise MissingExtra("the program adb is not installed", hint="sudo apt install adb")
        done = ask_text(["adb", "devices", "-l"], "adb devices", seconds=PATIENCE_S, hint="adb kill-server")
        if done.returncode:
            found = done.stderr.strip() or done.stdout.strip()
            raise DeviceError("adb does not work", where="adb devices", found=found)
        self.serial = chosen(listed(done.stdout), serial).serial

    def shell(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the phone; the caller checks its exit code.

        Args:
            words: The command; each word is quoted for the phone's shell.

        Raises:
            LinkLost: The phone is disconnected.
        """
        return self._adb("shell", shlex.join(words))

    def script(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the phone's shell; the caller is responsible for quoting."""
        return self._adb("shell", script)

    def read(self, path: str, most_bytes: int, offset: int = 0) -> bytes:
        """Return a file's bytes from an offset on; empty if the file does not exist.

        Raises:
            LinkLost: The phone is disconnected, or does not answer.
            DeviceError: There are more than `most_bytes`.
        """
        quoted = shlex.quote(path)
        # exec-out: unlike shell, it does not change line ends in older adb; stderr would be mixed into the output
        script = f"[ -f {quoted} ] && tail -c +{offset + 1} {quoted} 2>/dev/null"
        done = self._ask("exec-out", script, most_bytes=most_bytes)
        if done.returncode and done.stderr:
            self._check_gone(done.stderr.decode(errors="replace"))
        return done.stdout

    def push(self, sources: Sequence[Path], place: str) -> None:
        """Copy files or folders into a folder of the phone.

        Raises:
            LinkLost: The phone is disconnected.
            DeviceError: They cannot be written there.
        """
        done = self._adb("push", *map(str, sources), place, patience_s=10 * PATIENCE_S)
        if done.returncode:
            says = (done.stderr + done.stdout).strip()
            if "No space left" in says:
                raise DeviceError("the phone's disk is full", where=f"adb:{self.serial}, {place}",
                                  found=says.splitlines()[-1], hint="free some space there")  # fmt: skip
            raise DeviceError("files cannot be copied to the phone", where=f"adb:{self.serial}, {place}",
                              found=says.splitlines()[-1] if says else None)  # fmt: skip

    def battery_c(self) -> float | None:
        """Return the temperature of the battery in °C; None if the phone does not report it.

        Raises:
            LinkLost: The phone is disconnected.
        """
        found = _BATTERY.search(self.shell("dumpsys", "battery").stdout)
        return None if found is None else int(found[1]) / 10

    def is_there(self) -> bool:
        """Return whether the phone can be used now."""
        try:
            done = self._ask("get-state")
        except DeviceError:
            return False
        return done.returncode == 0 and done.stdout.strip() == b"device"

    def _adb(self, *arguments: str, patience_s: float | None = None) -> subprocess.CompletedProcess[str]:
        raw = self._ask(*arguments, patience_s=patience_s)
        done = subprocess.CompletedProcess(
            raw.args, raw.returncode, raw.stdout.decode(errors="replace"), raw.stderr.decode(errors="replace")
        )
        if done.returncode:
            self._check_gone(done.stderr)
        return done

    def _ask(
        self, *arguments: str, patience_s: float | None = None, most_bytes: int = ANSWER_BYTES
    ) -> subprocess.CompletedProcess[bytes]:
        return ask(
            ["adb", "-s", self.serial, *arguments],
            f"adb:{self.serial}",
            seconds=PATIENCE_S if patience_s is None else patience_s,
            most_bytes=most_bytes,
            silent=LinkLost,
            hint="unlock it, or: adb reconnect",
        )

    def _check_gone(self, says: str) -> None:
        last = (says.strip().splitlines() or [""])[-1]
        if last.startswith(("error:", "adb:")) and any(sign in last for sign in _GONE):
            raise LinkLost("the link to the phone was lost", where=f"adb:{self.serial}", found=last)
