"""Answers of broken and hostile devices: each ends in an error of a device, of data or of a bundle, soon and in little memory."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import stand_in_ssh
from device_parts import Phone, Tiny

from capprune.devices import BenchJob, adb, adb_program, answers, far_end, open_device, ssh
from capprune.devices.job import RunJournal, device_error, document_of, photo_number
from capprune_runtime.errors import BundleError, CapPruneError, DataError, DeviceError, LinkLost
from capprune_runtime.measure.doctor import equipment
from capprune_runtime.measure.results import Measurement

SECONDS = 30.0  # for each answer, on a busy machine
MEMORY = 200 << 20
HUGE = "9" * 400
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def measured(tiny: Tiny) -> Measurement:
    return open_device("local").run(tiny.job(), lambda done, total: None)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ssh, "RETRIES_S", (0.1,))
    return stand_in_ssh.install(tmp_path / "host", monkeypatch)


def hostile_python(tmp_path: Path, **answers_of: str) -> str:
    """A program for the far side that answers `doctor`, `run` and `bench` with scripts; `doctor` well unless it has one."""
    well = json.dumps({"schema_version": 2, **dataclasses.asdict(equipment())})
    (tmp_path / "doctor.json").write_text(well)
    scripts = {"doctor": f"cat {tmp_path}/doctor.json", **answers_of}
    cases = "".join(f"*' {name} '*) {script};;\n" for name, script in scripts.items())
    program = tmp_path / "hostile"
    program.write_text(f'#!/bin/sh\ncase " $* " in\n{cases}esac\n')
    program.chmod(0o755)
    return str(program)


def refused(call: Callable[[], object]) -> CapPruneError:
    """What a call ends with, in good time and without much memory."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((DeviceError, DataError, BundleError)) as caught:
        call()
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY >> 10
    assert caught.value.exit_code in (4, 5, 7) and len(str(caught.value)) < 5000
    return caught.value


def run_there(tiny: Tiny, tmp_path: Path, python: str) -> Callable[[], object]:
    device = open_device("ssh:pi@stand-in", python=python, cache=tmp_path / "cache")
    return lambda: device.run(tiny.job(), lambda done, total: None)


def printed(text: str, tmp_path: Path) -> str:
    """A script that prints a text."""
    (tmp_path / "answer").write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"cat {tmp_path}/answer"


DOCTORS = {
    "a list": "[]",
    "a number": HUGE,
    "deep lists": DEEP,
    "deep objects": '{"machine": ' * 50_000,
    "a machine alone": '{"machine": "aarch64"}',
    "what is no list": '{"machine": "aarch64", "missing": 1}',
    "numbers for words": json.dumps({**dataclasses.asdict(equipment()), "missing": [1, {}]}),
    "a list for text": json.dumps({**dataclasses.asdict(equipment()), "python": [3, 11]}),
    "400 digits": json.dumps({**dataclasses.asdict(equipment()), "free_bytes": "HUGE"}).replace('"HUGE"', HUGE),
    "half a character": json.dumps({**dataclasses.asdict(equipment()), "machine": "\ud800"}),
    "no text": "\udcff" * 10,
    "nothing": "",
}  # fmt: skip


@pytest.mark.parametrize("name", DOCTORS)
def test_what_a_doctor_answers_wrongly_is_no_equipment(name: str) -> None:
    tree = answers.object_of(DOCTORS[name].encode("utf-8", "surrogatepass"))
    if "machine" in tree:
        with pytest.raises(DeviceError, match="answer is not as expected: a device, doctor"):
            answers.equipment_of(tree, "a device")


@pytest.mark.parametrize("name", ["a list", "deep objects", "400 digits", "numbers for words"])
def test_a_host_whose_doctor_answers_wrongly_is_refused(name: str, tiny: Tiny, host: Path, tmp_path: Path) -> None:
    python = hostile_python(tmp_path, doctor=printed(DOCTORS[name], tmp_path))
    assert isinstance(refused(run_there(tiny, tmp_path, python)), DeviceError)
    assert not list(host.glob(".capprune-*"))


@pytest.mark.parametrize(
    ("command", "script", "says"),
    [
        ("doctor", "exec sleep 60", "does not answer"),
        pytest.param("doctor", "exec >&-; exec sleep 60", "does not answer", marks=pytest.mark.slow),
        pytest.param("doctor", "exec yes", "sends too much", marks=pytest.mark.slow),
        ("doctor", "exec cat /dev/zero", "sends too much"),
        pytest.param("doctor", "exec yes >&2", "does not answer", marks=pytest.mark.slow),
        ("doctor", "exit 3", "cannot run capprune"),
        ("run", "exec sleep 60", "does not answer"),
        ("run", "exec yes", "sends too much"),
        pytest.param("run", "exec cat /dev/zero", "sends too much", marks=pytest.mark.slow),
        ("run", "exec yes >&2", "does not answer"),
        pytest.param("run", "exit 0", "without a result", marks=pytest.mark.slow),
        ("run", "exit 2", "without a result"),
        pytest.param("run", "exit 130", "without a result", marks=pytest.mark.slow),
        pytest.param("run", "kill -9 $$", "was killed|without a result", marks=pytest.mark.slow),
    ],
)
def test_a_host_that_hangs_or_never_ends_is_left(
    command: str, script: str, says: str, tiny: Tiny, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "DOCTOR_S", 1.5)
    monkeypatch.setattr(far_end, "SILENCE_S", 1.5)
    error = refused(run_there(tiny, tmp_path, hostile_python(tmp_path, **{command: script})))
    with pytest.raises(DeviceError, match=says):
        raise error


def test_an_exit_code_that_ssh_itself_has_is_a_lost_link(tiny: Tiny, host: Path, tmp_path: Path) -> None:
    assert isinstance(refused(run_there(tiny, tmp_path, hostile_python(tmp_path, run="exit 255"))), LinkLost)


@pytest.mark.parametrize(("script", "says"), [("exec sleep 60", "no login in"), ("exec yes", "sends too much")])
def test_a_login_that_never_ends_is_left(
    script: str, says: str, tiny: Tiny, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_end, "LOGIN_S", 1.5)
    monkeypatch.setattr(far_end, "TYPED_LOGIN_S", 1.5)
    (host / "login").write_text(script)
    with pytest.raises(DeviceError, match=says):
        raise refused(run_there(tiny, tmp_path, sys.executable))


def said(measured: Measurement, **changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(measured.captions[0]), "photo": photo_number(0, ".PNG"), **changes}


def huge(tree: Any) -> str:
    """JSON with a number of 400 digits where the tree has the text HUGE."""
    return json.dumps(tree).replace('"HUGE"', HUGE)


LINES: dict[str, Callable[[Measurement], str]] = {
    "a time of 400 digits": lambda m: huge({"said": said(m, encode_us="HUGE")}),
    "a time that is infinite": lambda m: json.dumps({"said": said(m, encode_us=1e308)}),
    "a time that is not a number": lambda m: json.dumps({"said": said(m, caption_us=float("nan"))}),
    "a time below 0": lambda m: json.dumps({"said": said(m, step_us=[-1.0])}),
    "a time of 0": lambda m: json.dumps({"said": said(m, encode_us=0.0)}),
    "no steps": lambda m: json.dumps({"said": said(m, step_us=[])}),
    "tokens of 400 digits": lambda m: huge({"said": said(m, tokens=["HUGE"])}),
    "tokens that are a text": lambda m: json.dumps({"said": said(m, tokens="1 2")}),
    "half a character": lambda m: json.dumps({"said": said(m, caption="\ud800")}),
    "a caption of a megabyte": lambda m: json.dumps({"said": said(m, caption="x" * 200_000)}),
    "a photo of 5000 digits": lambda m: json.dumps({"said": said(m, photo="9" * 5000 + ".PNG")}),
    "a photo that is a list": lambda m: json.dumps({"said": said(m, photo=[0])}),
    "a list": lambda m: '{"said": []}',
    "missing keys": lambda m: '{"said": {"photo": "00000.PNG"}}',
    "a session that is a list": lambda m: '{"session": []}',
    "a session of words for numbers": lambda m: json.dumps({"session": {}, "before": {"temperature_c": "hot"}}),
    "a session of deep lists": lambda m: json.dumps({"session": {"a": json.loads("[" * 50 + "]" * 50)}, "before": None}),
    "a failure without a message": lambda m: '{"failed": {"photo": "00000.PNG"}}',
    "a failed photo": lambda m: json.dumps({"failed": {"photo": "00000.PNG", "error": "x", "message": "\x1b[31m"}}),
    "a failure that is a list": lambda m: '{"failure": []}',
    "a failure of numbers": lambda m: '{"failure": {"what": 5}}',
    "a failure of a megabyte": lambda m: json.dumps({"failure": {"what": "x" * 1_000_000, "where": "y" * 1_000_000}}),
    "a document that is a list": lambda m: '{"document": []}',
    "a document that is a text": lambda m: '{"document": "x"}',
    "a document that is nothing": lambda m: '{"document": null}',
    "an empty document": lambda m: '{"document": {}}',
    "a document without captions": lambda m: json.dumps({"document": m.as_json()}),
    "400 digits in a document": lambda m: huge({"document": {**m.as_json(), "memory": {"peak_rss_bytes": "HUGE"}}}),
    "deep lists": lambda m: DEEP,
    "a number": lambda m: HUGE,
    "keys that stand twice": lambda m: '{"document": {}, "document": {}}',
}  # fmt: skip


@pytest.fixture
def journal(tiny: Tiny, tmp_path: Path) -> Iterator[RunJournal]:
    found = RunJournal(tiny.job(), "ssh:stand-in", tmp_path, lambda done, total: None)
    yield found
    found.close()


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_a_run_prints_wrongly_is_an_error(name: str, journal: RunJournal, measured: Measurement) -> None:
    def take(tree: Mapping[str, Any]) -> None:
        if (line := answers.journal_line(tree, "a device")) is not None:
            journal.take(line)

    refused(lambda: journal.finish(document_of([LINES[name](measured).encode()], take, "a device")))


@pytest.mark.parametrize(
    "name", ["a time of 400 digits", "a failure of numbers", "a document that is a list", "deep lists"]
)
def test_a_host_whose_run_answers_wrongly_is_refused(
    name: str, tiny: Tiny, host: Path, measured: Measurement, tmp_path: Path
) -> None:
    script = printed(LINES[name](measured) + "\n", tmp_path)
    refused(run_there(tiny, tmp_path, hostile_python(tmp_path, run=script)))
    assert not list(host.glob(".capprune-*"))


@pytest.mark.parametrize(
    "change", [{"latency": []}, {"environment": {"cpu_count": 10**400}}, {"settings": {"beam": -1}}, {"golden": 1e300}]
)
def test_a_document_of_absurd_values_is_refused(
    change: dict[str, Any], journal: RunJournal, measured: Measurement
) -> None:
    for index, one in enumerate(measured.captions):
        line = {"said": {**dataclasses.asdict(one), "photo": photo_number(index, ".PNG")}}
        found = answers.journal_line(answers.object_of(json.dumps(line)), "stand-in")
        assert found is not None
        journal.take(found)
    document = json.loads(json.dumps(measured.as_json()))
    with pytest.raises(DeviceError, match="results are not as expected"):
        journal.finish({**document, **change})
    assert len(journal.finish(document).captions) == 7


@pytest.mark.slow
def test_a_device_that_sends_one_photo_again_and_again_is_left(
    tiny: Tiny, host: Path, measured: Measurement, tmp_path: Path
) -> None:
    line = json.dumps({"said": said(measured, step_us=[1.0])})
    script = printed(line + "\n", tmp_path) + f'; exec yes "$(cat {tmp_path}/answer)"'
    error = refused(run_there(tiny, tmp_path, hostile_python(tmp_path, run=script)))
    assert "sends too much" in str(error)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.jsonl")) < answers.RUN_BYTES


@pytest.mark.parametrize("text", ["[]", '{"runs": 5}', '{"runs": [{}]}', '{"runs": [[]]}', DEEP, HUGE])
def test_what_a_bench_answers_wrongly_is_a_device_error(text: str, tiny: Tiny, host: Path, tmp_path: Path) -> None:
    rounds = '{"round": ' + HUGE + ', "rounds": 5}\n{"round": -1, "rounds": {}}\n{"round": [], "rounds": 1e9}\n'
    script = printed(rounds + '{"document": ' + text + "}\n", tmp_path)
    device = open_device("ssh:pi@stand-in", python=hostile_python(tmp_path, bench=script), cache=tmp_path)
    told: list[tuple[int, int]] = []
    refused(lambda: device.bench(BenchJob([tiny.bundle], rounds=5), lambda *done: told.append(done)))
    assert told == []


@pytest.mark.parametrize(
    "name", ["GateFailed", "UsageError", "ConfigError", "MissingExtra", "CapPruneError", "SystemExit"]
)
def test_a_device_does_not_choose_the_exit_code(name: str) -> None:
    error = device_error({"error": name, "exit_code": 0, "what": "x", "where": ["y"], "try": {}}, "a device")
    assert type(error) is DeviceError and error.exit_code == 7 and "x: a device" in str(error)


@pytest.mark.parametrize("digits", ["1" * 5000, "-5", "١٢", "x", ""])
def test_a_disk_of_absurd_size_is_unknown(digits: str) -> None:
    found = answers.free_space(f"/dev/root 1 1 {digits} 5% /")
    assert found is None or found == 12 * 1024


@pytest.mark.parametrize(
    ("part", "script", "says"),
    [
        ("devices", "exec sleep 60", "does not answer"),
        ("devices", "exec yes", "sends too much"),
        pytest.param("devices", "exec yes >&2", "does not answer", marks=pytest.mark.slow),
        pytest.param("getprop", "exec sleep 60", "does not answer", marks=pytest.mark.slow),
        pytest.param("getprop", "exec yes", "sends too much", marks=pytest.mark.slow),
        pytest.param("am start", "exec sleep 60", "does not answer", marks=pytest.mark.slow),
        ("exec-out", "exec sleep 60", "does not answer"),
        ("exec-out", "exec cat /dev/zero", "sends too much"),
        pytest.param("pidof", "exec sleep 60", "does not answer", marks=pytest.mark.slow),
        ("push", "echo 'adb: error: device offline' >&2; exit 255", "link to the phone was lost"),
        pytest.param("results.json ", f"echo '{HUGE}'", "cannot be read", marks=pytest.mark.slow),
        pytest.param("results.json ", "echo []", "cannot be read", marks=pytest.mark.slow),
        ("results.json ", "printf '[%.0s' $(seq 20000)", "cannot be read"),
        ("results.json ", 'echo \'{"captions": 5, "failures": {"a": 1}}\'', "not as expected"),
        pytest.param(
            "results.json ", "echo '{\"captions\": [[], 5, null]}'", "not as expected", marks=pytest.mark.slow
        ),
        ("results.json ", 'echo \'{"failure": {"error": "GateFailed", "what": "x"}}\'', "^x"),
        ("results.jsonl", 'echo \'{"said": {"photo": "00000.png"}}\'', "not as expected"),
        pytest.param("results.jsonl", "echo '{\"session\": 1}'", "not as expected", marks=pytest.mark.slow),
    ],
)
def test_what_a_phone_answers_wrongly_is_a_device_error(
    part: str, script: str, says: str, tiny: Tiny, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_program, "PATIENCE_S", 1.0)
    monkeypatch.setattr(adb, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(adb, "MOST_BREAKS", 2)
    phone.break_by(instead={part: script})
    device = open_device("adb", cache=tmp_path)
    error = refused(lambda: device.run(tiny.job(), lambda done, total: None))
    with pytest.raises(DeviceError, match=says):
        raise error


def test_a_phone_that_sleeps_and_wakes_is_waited_for(
    tiny: Tiny, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_program, "PATIENCE_S", 2.0)
    monkeypatch.setattr(adb, "LOOK_EVERY_S", 0.05)
    slept = tmp_path / "slept"
    phone.break_by(instead={"results.json ": f"test -e {slept} && exit 1; touch {slept}; exec sleep 60"})
    monkeypatch.setattr(adb, "SILENCE_S", 4.0)
    refused(lambda: open_device("adb", cache=tmp_path).run(tiny.job(), lambda done, total: None))
    assert slept.exists()
