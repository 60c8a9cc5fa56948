"""What names a device, and that nothing else reaches a shell."""

from __future__ import annotations

import pytest

from capprune.devices import open_device
from capprune_runtime.errors import UsageError


@pytest.mark.parametrize(
    "spec",
    [
        "local",
        "ssh:pi@raspberrypi.local",
        "ssh:pi@192.168.1.7:2222",
        "ssh:my-pi",
        "ssh:pi@[fe80::1]:22",
        "adb",
        "adb:R58M123ABC",
        "adb:192.168.1.23:5555",
        "adb:adb-R58M-x1._adb-tls-connect._tcp",
    ],
)
def test_a_device_is_named_by_its_way_and_place(spec: str) -> None:
    assert open_device(spec).name == spec


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "pi@raspberrypi",
        "ssh:",
        "ssh:pi@",
        "ssh:-oProxyCommand=touch x@host",
        "ssh:pi@-oProxyCommand=x",
        "ssh:pi@host;reboot",
        "ssh:pi@$(reboot)",
        "ssh:`x`@host",
        "ssh:pi@host:0",
        "ssh:pi@host:70000",
        "ssh:pi@host:22 -v",
        "ssh:pi@host\n",
        "ssh:pi@höst",
        "adb:",
        "adb:-x",
        "adb:a b",
        "adb:a;b",
        "adb:a\nb",
        "usb:1",
    ],
)
def test_what_a_shell_or_a_program_could_take_for_more_is_refused(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_device(spec)
    assert caught.value.exit_code == 2 and "--device" in str(caught.value)


@pytest.mark.parametrize("python", ["python3", "/usr/bin/python3.13", "~/venv/bin/python", "./venv/bin/python"])
def test_a_python_is_named_by_its_path(python: str) -> None:
    open_device("ssh:pi@host", python=python)


@pytest.mark.parametrize("python", ["", "-c", "python3 -c x", "$(x)", "python3;x", "~root;x", "python3\n", "'x'"])
def test_a_python_that_is_no_path_is_refused(python: str) -> None:
    with pytest.raises(UsageError, match="--python"):
        open_device("ssh:pi@host", python=python)


@pytest.mark.parametrize("spec", ["local", "adb", "adb:emulator-5554"])
def test_a_python_without_a_host_to_run_it_on_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)--python.*--device ssh:USER@HOST"):
        open_device(spec, python="/usr/bin/python3")
