"""The device of docs/extending.md, installed as a package of its own; and devices that cannot be loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_parts import Tiny
from toy_package import EXAMPLES, environment, install

from capprune.devices import BenchJob, open_device
from capprune.devices.schemes import SCHEMES, forms
from capprune_runtime.errors import BundleError, DeviceError, UsageError
from capprune_runtime.measure.cooldown import Gate

PLACES = {"python": "other_python:SCHEME", "ghost": "other_python:NOTHING", "odd": "other_python:OtherPython"}
HERE = f"python:{sys.executable}"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = install(tmp_path / "site", "capprune.devices", PLACES, EXAMPLES / "other_python.py")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("other_python", None)


@pytest.mark.usefixtures("installed")
def test_a_device_of_another_package_captions_as_this_machine_does(tiny: Tiny, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    there = open_device(HERE, cache=tmp_path).run(tiny.job(), lambda done, of: told.append((done, of)))
    here = open_device("local").run(tiny.job(), lambda done, of: None)
    assert [one.tokens for one in there.captions] == [one.tokens for one in here.captions]
    assert [one.photo for one in there.captions] == list(tiny.photos)
    assert told[-1] == (7, 7) and not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.usefixtures("installed")
def test_a_device_of_another_package_times_bundles(tiny: Tiny) -> None:
    job = BenchJob([tiny.bundle, tiny.bundle], rounds=3, warm_up=0, cold_loads=1, gate=Gate(149, 1))
    found = open_device(HERE).bench(job, lambda done, of: None)
    assert len(found) == 2 and all(len(one.captions) >= 3 and one.cold is not None for one in found)
    assert all(one.cooldown is not None and one.cooldown.max_temperature_c == 149 for one in found)


@pytest.mark.usefixtures("installed")
def test_what_such_a_device_meets_is_told_as_of_any_other(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="ran no bundle"):
        open_device("python:/nothing/here", cache=tmp_path).run(tiny.job(), lambda done, of: None)
    with pytest.raises((BundleError, UsageError)) as caught:
        open_device(HERE, cache=tmp_path).run(tiny.job(runtime="onnxruntime"), lambda done, of: None)
    assert HERE in str(caught.value.where)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("ghost:x", "the device ghost cannot be loaded"),
        ("odd:x", "odd is no device"),
        ("python:a b", "this names no device"),
        ("python", "this names no device"),
        ("pithon:x", "this names no device"),
    ],
)
def test_what_names_no_device_is_refused(spec: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_device(spec)
    assert caught.value.what == what


@pytest.mark.usefixtures("installed")
def test_a_python_is_only_for_devices_that_take_one() -> None:
    with pytest.raises(UsageError, match="--python"):
        open_device(HERE, python="python3")


def test_messages_and_help_name_every_device(installed: Path) -> None:
    assert forms() == "local, ssh:USER@HOST[:PORT], adb[:SERIAL], ghost[:...], odd[:...] or python[:...]"
    assert "adb" in forms(benches=True)
    with pytest.raises(UsageError) as caught:
        open_device("usb:1")
    assert caught.value.expected == forms()
    command = [sys.executable, "-m", "capprune", "validate", "--help"]
    done = subprocess.run(command, env=environment(installed), capture_output=True, text=True, check=True)
    shown = " ".join(done.stdout.split())
    assert all(SCHEMES.load(name, "--device").form in shown for name in SCHEMES.own) and "python[:...]" in shown
