"""The ways to a device, by the name that its spec begins with: `local`, `ssh:USER@HOST[:PORT]`, `adb[:SERIAL]`.

The one table of them: the commands' help, the messages and `open_device` read it. Other packages add ways through the entry
point `capprune.devices`; docs/extending.md shows one.
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
    """What a user gives beside the spec of a device.

    Attributes:
        python: The Python to use there, for a scheme that `takes_python`.
        cache: Where journals of unfinished runs are kept; None for the user's own folder.
    """

    python: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Scheme:
    """A way to a device.

    Attributes:
        form: How a spec is written, for help and messages.
        pattern: What the whole spec must match. What it lets through may reach a command on the far side, so that it should
            allow nothing that a shell reads as more than a name.
        open: A function as "module:function". It takes the match and `DeviceOptions` and returns a `Device`.
        takes_python: Whether `--python` is for it.
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
    """Return the way to the device that a spec names.

    Raises:
        UsageError: There is no such way, or it cannot be loaded.
    """
    name = spec.partition(":")[0]
    if name not in SCHEMES.names():
        raise _no_device(spec, forms())
    return SCHEMES.load(name, "--device")


def read_spec(spec: str) -> tuple[Scheme, re.Match[str]]:
    """Return the way to a device, and what its pattern found in the spec.

    Raises:
        UsageError: The spec names no device.
    """
    scheme = find_scheme(spec)
    if (found := scheme.pattern.fullmatch(spec)) is None:
        raise _no_device(spec, scheme.form)
    return scheme, found


def forms(*, benches: bool = False) -> str:
    """Return how devices are named; of the schemes of other packages, which are not loaded for it, only the names.

    Args:
        benches: Leave out those of ours that cannot bench.
    """
    own = [SCHEMES.load(name, "--device") for name in SCHEMES.own]
    found = [one.form for one in own if one.benches or not benches]
    *most, last = (*found, *(f"{name}[:...]" for name in SCHEMES.added()))
    return f"{', '.join(most)} or {last}"


def python_forms() -> str:
    """Return how those devices of ours are named that `--python` is for."""
    own = (SCHEMES.load(name, "--device") for name in SCHEMES.own)
    return " or ".join(one.form for one in own if one.takes_python)


def _no_device(spec: str, expected: str) -> UsageError:
    return UsageError("this names no device", where="--device", expected=expected, found=ascii(spec))
