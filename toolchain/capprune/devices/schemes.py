"""Types of devices, by the first part of their name: `local`, `ssh:USER@HOST[:PORT]`, `adb[:SERIAL]`.

This table is used for the commands' help, for messages and by `open_device`. Other packages add types through the entry
point `capprune.devices`; docs/extending.md has an example.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from capprune_runtime.errors import UsageError
from capprune_runtime.registry import Registry, imported

LOCAL: Final = "local"


@dataclass(frozen=True)
class DeviceOptions:
    """Options of a device besides its spec.

    Attributes:
        python: The Python on the device, for a scheme that `takes_python`.
        cache: Folder of the journals of unfinished runs; None for the user's own folder.
    """

    python: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Scheme:
    """A type of device.

    Attributes:
        form: Form of a spec, for help and messages.
        pattern: Regular expression for the whole spec. The matched text may be used in a command on the device, so it
            should allow nothing that a shell would interpret.
        open: A function as "module:function". It takes the match and `DeviceOptions` and returns a `Device`.
        takes_python: Whether it takes `--python`.
        benches: Whether it times bundles in a bench.
    """

    form: str
    pattern: re.Pattern[str]
    open: str
    takes_python: bool = False
    benches: bool = True

    def opener(self) -> Callable[[re.Match[str], DeviceOptions], Any]:
        """Return the function that `open` names."""
        return cast(Callable[[re.Match[str], DeviceOptions], Any], imported(self.open))


SCHEMES: Final = Registry[Scheme](
    "capprune.devices",
    {
        LOCAL: Scheme("local", re.compile("local", re.ASCII), "capprune.devices.local:open_local"),
        "ssh": Scheme(
            "ssh:USER@HOST[:PORT]",
            re.compile(
                r"ssh:(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?"
                r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
                r"(?::(?P<port>\d+))?",
                re.ASCII,
            ),
            "capprune.devices.ssh:open_ssh",
            takes_python=True,
        ),
        "adb": Scheme(
            "adb[:SERIAL]",
            re.compile(r"adb(?::(?P<serial>[A-Za-z0-9][\w.:-]*))?", re.ASCII),
            "capprune.devices.adb:open_adb",
        ),
    },
    "device",
    kind=Scheme,
    error=UsageError,
)


def find_scheme(spec: str) -> Scheme:
    """Return the scheme of a spec.

    Raises:
        UsageError: There is no such scheme, or it cannot be loaded.
    """
    name = spec.partition(":")[0]
    if name not in SCHEMES.names():
        raise _no_device(spec, forms())
    return SCHEMES.load(name, "--device")


def read_spec(spec: str) -> tuple[Scheme, re.Match[str]]:
    """Return the scheme of a spec, and the match of its pattern.

    Raises:
        UsageError: The spec does not name a device.
    """
    scheme = find_scheme(spec)
    if (found := scheme.pattern.fullmatch(spec)) is None:
        raise _no_device(spec, scheme.form)
    return scheme, found


def forms(*, benches: bool = False) -> str:
    """Return the forms of device names. For schemes of other packages, which are not loaded, return only the names.

    Args:
        benches: Leave out our schemes that cannot bench.
    """
    own = [SCHEMES.load(name, "--device") for name in SCHEMES.own]
    found = [one.form for one in own if one.benches or not benches]
    *most, last = (*found, *(f"{name}[:...]" for name in SCHEMES.added()))
    return f"{', '.join(most)} or {last}"


def python_forms() -> str:
    """Return the forms of our devices that take `--python`."""
    own = (SCHEMES.load(name, "--device") for name in SCHEMES.own)
    return " or ".join(one.form for one in own if one.takes_python)


def _no_device(spec: str, expected: str) -> UsageError:
    return UsageError("this names no device", where="--device", expected=expected, found=ascii(spec))
