"""A host over SSH: the real ssh, sftp and sshd, this machine's own Python on the far side. What goes wrong, and what is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import loopback
import pytest
from device_parts import Tiny, write_data
from loopback import Host, serving

from capprune.devices import BenchJob, far_end, open_device, ssh
from capprune.devices.far_end import connection_error
from capprune_runtime.bundle.manifest import SCHEMA_VERSION
from capprune_runtime.errors import DeviceError, LinkLost, NewerFormat, PhotoError, UsageError
from capprune_runtime.measure.cooldown import Gate
from capprune_runtime.measure.results import Measurement

Serve = Callable[..., AbstractContextManager[Host]]

SLOW = """
import builtins, time
own = builtins.print
def slow(*values, **options):
    own(*values, **options)
    time.sleep(0.15)
builtins.print = slow
"""


@pytest.fixture
def serve(private_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Starts sshd in a folder of its own and puts its ssh on PATH."""
    folder = Path(tempfile.mkdtemp(dir=private_folder))
    monkeypatch.setattr(ssh, "RETRIES_S", (0.2, 0.5, 1.0))
    monkeypatch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
    return lambda **options: serving(folder, **options)


@pytest.fixture
def slow(tmp_path: Path) -> str:
    """A Python for the far side that takes its time after every line."""
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    return _program(tmp_path / "slow-python", f'export PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"')


def _program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def run(tiny: Tiny, host: Host, cache: Path, python: str = sys.executable, **job: Any) -> Measurement:
    return open_device(host.spec, python=python, cache=cache).run(tiny.job(**job), lambda done, total: None)


def connections(host: Host) -> list[str]:
    """The ssh processes that still hold a connection to the host."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = process.read_bytes().split(b"\0")
            if b"ControlMaster=yes" in words and str(host.port).encode() in words:
                found.append(process.parent.name)
    return found


def journals(cache: Path) -> list[Path]:
    return list(cache.glob("devices/*"))


def test_a_host_says_what_this_machine_says_and_nothing_is_left_there(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with serve() as host:
        found = open_device(host.spec, python=sys.executable, cache=tmp_path).run(
            tiny.job(), lambda *done: told.append(done)
        )
        assert host.left_behind() == [] and journals(tmp_path) == []
    here = open_device("local").run(tiny.job(), lambda done, total: None)
    assert [(one.photo, one.tokens) for one in found.captions] == [(one.photo, one.tokens) for one in here.captions]
    assert found.bundle == here.bundle and found.settings == here.settings
    assert found.environment.cpu_model == here.environment.cpu_model and found.memory.peak_rss_bytes
    assert found.latency.read is not None and found.latency.load_us is not None
    assert told == [(number, 7) for number in range(1, 8)]
    assert not connections(host)


def test_bundles_are_timed_side_by_side(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with serve() as host:
        device = open_device(host.spec, python=sys.executable, cache=tmp_path)
        found = device.bench(
            BenchJob([tiny.bundle, tiny.bundle], rounds=3, warm_up=0, cold_loads=1, gate=Gate(149, 1)),
            lambda *done: told.append(done),
        )
        assert host.left_behind() == []
    assert [len(one.captions) for one in found] == [3, 3] and told == [(1, 3), (2, 3), (3, 3)]
    assert {one.bundle.name for one in found} == {tiny.bundle.place.name}
    assert all(one.cooldown is not None and one.cooldown.max_temperature_c == 149 for one in found)
    assert all(one.cold is not None and one.cold.loads == 1 and one.cold.load_us for one in found)


def test_the_bench_command_times_a_bundle_there(tiny: Tiny, serve: Serve) -> None:
    with serve() as host:
        command = [sys.executable, "-m", "capprune", "bench", str(tiny.bundle.place), "--rounds", "2", "--cold-loads", "0",
                   "--device", host.spec, "--python", sys.executable, "--json"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert host.left_behind() == []
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [len(one["captions"]) for one in document["runs"]] == [2]
    assert document["names"] and document["runs"][0]["bundle"]["name"] == tiny.bundle.place.name


def test_a_cut_link_is_taken_up_again_and_no_photo_is_done_twice(
    tiny: Tiny, serve: Serve, slow: str, tmp_path: Path
) -> None:
    told: list[int] = []
    with serve() as host:

        def cut_at_three(done: int, total: int) -> None:
            told.append(done)
            if done == 3:
                host.cut()

        found = open_device(host.spec, python=slow, cache=tmp_path).run(tiny.job(), cut_at_three)
        assert host.left_behind() == []
    assert told == sorted({*told}) and told[-1] == 7
    assert found.settings.sessions == 2 and len(found.captions) == 7 and journals(tmp_path) == []


@pytest.mark.slow
def test_a_host_that_stays_away_is_said_and_the_next_run_goes_on(
    tiny: Tiny, serve: Serve, slow: str, tmp_path: Path
) -> None:
    with serve() as host:

        def pull_the_plug(done: int, total: int) -> None:
            if done == 2:
                os.kill(host.process, signal.SIGKILL)  # the whole namespace, as when a Pi loses its power

        with pytest.raises(LinkLost, match="run the same command again") as caught:
            open_device(host.spec, python=slow, cache=tmp_path).run(tiny.job(), pull_the_plug)
    assert caught.value.exit_code == 7 and "which are kept" in str(caught.value)
    assert len(journals(tmp_path)) == 1 and len(host.left_behind()) == 1  # nobody was there to remove it
    told: list[int] = []
    with serve(port=host.port) as again:
        device = open_device(again.spec, python=sys.executable, cache=tmp_path)
        found = device.run(tiny.job(), lambda done, total: told.append(done))
        assert again.left_behind() == []
    assert told == list(range(told[0], 8)) and told[0] >= 3
    assert found.settings.sessions == 2 and len(found.captions) == 7


def test_a_run_that_is_killed_there_says_so_and_the_next_goes_on(
    tiny: Tiny, serve: Serve, slow: str, tmp_path: Path
) -> None:
    with serve() as host:

        def kill(done: int, total: int) -> None:
            if done == 2:
                assert host.kill_run()

        with pytest.raises(DeviceError, match="killed on the device") as caught:
            open_device(host.spec, python=slow, cache=tmp_path).run(tiny.job(), kill)
        assert "memory" in str(caught.value) and host.left_behind() == [] and len(journals(tmp_path)) == 1
        assert run(tiny, host, tmp_path).settings.sessions == 2
        assert host.left_behind() == [] and journals(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow_but_for("2-130")
def test_a_workstation_that_is_stopped_leaves_nothing_there_and_goes_on(
    number: int, code: int, tiny: Tiny, serve: Serve, slow: str, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data", tiny.photos)
    with serve() as host:
        command = [sys.executable, "-m", "capprune", "validate", str(tiny.bundle.place), "--data", str(data), "--json",
                   "--device", host.spec, "--python", slow]  # fmt: skip
        environment = {**os.environ, "CAPPRUNE_CACHE": str(tmp_path / "cache")}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stderr is not None
            assert "captions: 1 of 7" in process.stderr.readline()
            process.send_signal(number)
            says = process.stderr.read()
        assert process.returncode == code and "Traceback" not in says, says
        assert host.left_behind() == [] and len(journals(tmp_path / "cache")) == 1
        if number == signal.SIGINT:
            return  # going on is the same
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["settings"]["sessions"] == 2 and len(document["captions"]) == 7
        assert document["quality"]["scores"]["photos"] == 7 and host.left_behind() == []


def test_a_full_disk_is_said_before_anything_is_copied(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    with serve(setup='mount -t tmpfs -o size=300k tmpfs "$(dirname $0)/home"') as host:
        with pytest.raises(DeviceError, match="disk is full") as caught:
            run(tiny, host, tmp_path)
        assert caught.value.exit_code == 7 and "--limit" in str(caught.value)
        assert inside(host, "ls -A") == ""


def test_a_disk_that_fills_up_meanwhile_is_said(
    tiny: Tiny, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "SPARE_BYTES", -1 << 30)  # as if it had been free when it was looked at
    with serve(setup='mount -t tmpfs -o size=160k tmpfs "$(dirname $0)/home"') as host:
        with pytest.raises(DeviceError, match="disk is full"):
            run(tiny, host, tmp_path)
        assert inside(host, "ls -A") == ""


def inside(host: Host, script: str) -> str:
    """What a script says on the far side, where its home is a mount that this side does not see."""
    command = [str(host.programs / "ssh"), "-p", str(host.port), f"{loopback.USER}@127.0.0.1", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_what_a_python_lacks_is_named_with_the_command_that_installs_it(
    tiny: Tiny, serve: Serve, tmp_path: Path
) -> None:
    bare = _program(tmp_path / "bare", f'exec {sys.executable} -S "$@"')
    with serve() as host:
        with pytest.raises(DeviceError, match="lacks numpy, Pillow, an interpreter") as caught:
            run(tiny, host, tmp_path, python=bare)
        assert "pip install numpy Pillow ai-edge-litert" in str(caught.value)
        assert host.left_behind() == []


def test_a_machine_that_no_interpreter_exists_for_is_said(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    narrow = _program(tmp_path / "narrow", f'exec setarch i686 {sys.executable} -S "$@"')
    with serve() as host, pytest.raises(DeviceError, match="no interpreter of") as caught:
        run(tiny, host, tmp_path, python=narrow)
    assert "i686" in str(caught.value) and "aarch64" in str(caught.value)


@pytest.mark.parametrize(("python", "says"), [("/nowhere/python3", "no Python"), ("/bin/false", "cannot run capprune")])
def test_a_python_that_is_none_is_said(python: str, says: str, tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    with serve() as host:
        with pytest.raises(DeviceError, match=says):
            run(tiny, host, tmp_path, python=python)
        assert host.left_behind() == []


@pytest.mark.parametrize(
    ("command", "script", "says"),
    [
        ("doctor", "exec sleep 30", "does not answer"),
        ("doctor", "exec yes", "sends too much"),
        ("run", "exec sleep 30", "does not answer"),
        ("run", "exec cat /dev/zero", "sends too much"),
        ("run", "exec yes '{}'", "sends too much"),
        ("run", "exit 3", "without a result"),
    ],
)
def test_a_python_that_hangs_or_never_ends_is_left(
    command: str, script: str, says: str, tiny: Tiny, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "DOCTOR_S", 20.0 if command == "run" else 3.0)
    monkeypatch.setattr(far_end, "SILENCE_S", 3.0)
    own = f'exec {sys.executable} "$@"'
    hostile = _program(tmp_path / "hostile", f'case " $* " in *" {command} "*) {script};; *) {own};; esac')
    with serve() as host:
        started = time.monotonic()
        with pytest.raises(DeviceError, match=says) as caught:
            run(tiny, host, tmp_path, python=hostile)
        assert caught.value.exit_code == 7 and time.monotonic() - started < 30
        assert host.left_behind() == []


def test_an_emulated_processor_of_no_particular_kind_is_refused(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("CPU implementer : 0x41\nCPU part : 0xd08\n")
    mount = f"mount --bind {tmp_path}/cpuinfo /proc/cpuinfo"
    with serve(setup=mount) as host, pytest.raises(DeviceError, match="QEMU_CPU"):
        run(tiny, host, tmp_path)
    with serve(setup=mount, variables="QEMU_CPU=cortex-a72") as host:
        found = run(tiny, host, tmp_path)
    assert found.environment.emulated and found.verdict.reasons[0].code == "emulated"


def test_a_photo_that_the_host_cannot_read_is_named(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    bad = list(tiny.photos)[2]
    with serve() as host:
        with pytest.raises(PhotoError, match="touch") as caught:
            run(tiny, host, tmp_path, read=lambda name: b"no photo" if name == bad else tiny.photos[name])
        assert bad in str(caught.value) and caught.value.exit_code == 4
        assert host.left_behind() == []


def test_a_runtime_that_does_not_fit_the_bundle_is_said_by_the_host(tiny: Tiny, serve: Serve, tmp_path: Path) -> None:
    with serve() as host, pytest.raises(UsageError) as caught:
        run(tiny, host, tmp_path, runtime="onnxruntime")
    assert ".tflite" in str(caught.value) and "ssh:pi@" in str(caught.value)


def test_a_bundle_that_is_newer_than_the_runtime_there_is_refused_as_here(
    tiny: Tiny, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_archive = ssh.archive_bytes  # a runtime of before the bundle's version: the real one with another number
    line = f"\nSCHEMA_VERSION = {SCHEMA_VERSION}\n".encode()
    module = "capprune_runtime/bundle/manifest.py"

    def of_before() -> bytes:
        import io
        import zipfile

        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(own_archive())) as own, zipfile.ZipFile(out, "w") as made:
            for name in own.namelist():
                content = own.read(name)
                if name == module:
                    assert content.count(line) == 1
                    content = content.replace(line, b"\nSCHEMA_VERSION = 1\n")
                made.writestr(name, content)
        return out.getvalue()

    monkeypatch.setattr(ssh, "archive_bytes", of_before)
    with serve() as host, pytest.raises(NewerFormat, match="later capprune") as caught:
        run(tiny, host, tmp_path)
    assert caught.value.exit_code == 5 and "ssh:pi@" in str(caught.value)


def test_two_runs_at_once_do_not_remove_each_others_files(tiny: Tiny, serve: Serve, slow: str, tmp_path: Path) -> None:
    with serve() as host:
        found: list[Measurement] = []
        other = threading.Thread(target=lambda: found.append(run(tiny, host, tmp_path / "a", slow, beam=3)))
        other.start()
        time.sleep(1)
        run(tiny, host, tmp_path / "b", slow, beam=1)
        other.join()
        assert len(found) == 1 and len(found[0].captions) == 7 and host.left_behind() == []


# What OpenSSH 8.4 to 10 says.
@pytest.mark.parametrize(
    ("says", "what"),
    [
        ("ssh: Could not resolve hostname pi.lan: Name or service not known\r\n", "no such host"),
        ("ssh: connect to host 10.0.0.9 port 22: Connection refused\r\n", "does not answer SSH"),
        ("ssh: connect to host 10.0.0.9 port 22: Connection timed out\r\n", "does not answer"),
        ("ssh: connect to host 10.0.0.9 port 22: No route to host\r\n", "does not answer"),
        ("pi@10.0.0.9: Permission denied (publickey,password).\r\n", "does not let this user in"),
        ("No ED25519 host key is known for 10.0.0.9 and you have requested strict checking.\r\n"
         "Host key verification failed.\r\n", "key is not known"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key for 10.0.0.9 has changed\n"
         "Host key verification failed.\n", "another key|not the one"),
        ("kex_exchange_identification: Connection closed by remote host\r\n", "cannot be reached"),
        ("", "cannot be reached"),
    ],
)  # fmt: skip
def test_what_ssh_says_is_told_in_words(says: str, what: str) -> None:
    error = connection_error("pi@10.0.0.9", says)
    assert isinstance(error, DeviceError) and error.exit_code == 7
    with pytest.raises(DeviceError, match=what):
        raise error
