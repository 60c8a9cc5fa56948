"""A stand-in for the program `adb` and the phone behind it: folders instead of a phone, our Python runtime instead of the app.

It is put on PATH as `adb`. Its state is the folder STAND_IN_ADB: `phone/` holds what the phone's paths hold, `faults.json`
what is to go wrong (under `instead`, scripts by a part of the calls that they replace), `calls.log` what was asked. With
STAND_IN_APP, a command, the app's own classes run on a desktop JVM instead of the Python runtime. What a real phone does
beyond that is not shown by any test that uses it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STATE = Path(os.environ.get("STAND_IN_ADB", "."))
PHONE = STATE / "phone"
SERIAL = "R58M123ABC"
PACKAGE = "org.capprune.demo"
STAND_IN = "a stand-in for adb and the app"
LISTED = f"List of devices attached\n{SERIAL}             device usb:1-2 product:x model:Stand_in device:x transport_id:1\n\n"


def install(state: Path, monkeypatch: Any) -> None:
    """Put this file on PATH as `adb`, with its state in a folder to be made."""
    programs = state / "bin"
    programs.mkdir(parents=True)
    (state / "phone").mkdir()
    (programs / "adb").write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_ADB", str(state))


def faults() -> dict[str, Any]:
    path = STATE / "faults.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def here(path: str) -> Path:
    """Where a path of the phone lies."""
    assert path.startswith("/") and ".." not in path, path
    return PHONE / path.lstrip("/")


def main(arguments: list[str]) -> int:
    with (STATE / "calls.log").open("a") as log:
        log.write(shlex.join(arguments) + "\n")
    for part, script in faults().get("instead", {}).items():
        if part in shlex.join(arguments):
            os.execvp("sh", ["sh", "-c", script])
    if arguments[:1] == ["devices"]:
        sys.stdout.write(faults().get("devices", LISTED))
        return 0
    assert arguments[:2] == ["-s", SERIAL], arguments
    if gone():
        sys.stderr.write(f"error: device '{SERIAL}' not found\n")
        return 1
    command, *rest = arguments[2:]
    return {"get-state": get_state, "push": push, "shell": shell, "exec-out": shell}[command](rest)


def gone() -> bool:
    """Whether the link is down: from so many lines of the journal on, for so many calls."""
    fault, count = faults().get("gone"), STATE / "gone-for"
    if fault is None or (len(journal_lines()) < fault["after_lines"] and not count.is_file()):
        return False
    calls = int(count.read_text()) + 1 if count.is_file() else 1
    count.write_text(str(calls))
    return calls <= fault["calls"]


def journal_lines() -> list[str]:
    journals = list(PHONE.rglob("results.jsonl"))
    return journals[0].read_text().splitlines() if journals else []


def get_state(_: list[str]) -> int:
    print("device")
    return 0


def push(arguments: list[str]) -> int:
    *sources, place = arguments
    if faults().get("full_disk"):
        sys.stderr.write(f"adb: error: failed to copy '{sources[0]}' to '{place}': remote No space left on device\n")
        return 1
    for source in map(Path, sources):
        shutil.copytree(source, here(place) / source.name)
    return 0


def shell(arguments: list[str]) -> int:
    (script,) = arguments  # one word: adb joins several with spaces, and then the phone's shell takes them apart
    if match := re.fullmatch(r"\[ -f (\S+) \] && tail -c \+(\d+) (\S+) 2>/dev/null", script):
        return tail(match[3], int(match[2]))
    command, *words = shlex.split(script)
    if command not in COMMANDS:
        sys.stderr.write(f"/system/bin/sh: {command}: inaccessible or not found\n")
        return 127
    return COMMANDS[command](words)


def tail(path: str, start: int) -> int:
    if not here(path).is_file():
        return 1
    sys.stdout.buffer.write(here(path).read_bytes()[start - 1 :])
    return 0


def getprop(words: list[str]) -> int:
    print({"ro.product.cpu.abi": faults().get("abi", "arm64-v8a")}.get(words[0], ""))
    return 0


def pm(words: list[str]) -> int:
    if faults().get("no_app"):
        return 1
    print(f"package:/data/app/~~x==/{words[1]}-y==/base.apk")
    return 0


def df(words: list[str]) -> int:
    free = faults().get("free_kib", 50_000_000)
    print("Filesystem      1K-blocks     Used Available Use% Mounted on")
    print(f"/dev/block/dm-9 113000000 63000000  {free}  56% /data/user/0")
    return 0


def dumpsys(words: list[str]) -> int:
    assert words == ["battery"], words
    readings = faults().get("battery", [285])  # in 0.1 °C, one for each call; the last one stays
    count = STATE / "battery-calls"
    calls = int(count.read_text()) if count.is_file() else 0
    count.write_text(str(calls + 1))
    temperature = readings[min(calls, len(readings) - 1)]
    line = "" if temperature is None else f"  temperature: {temperature}\n"
    print(f"Current Battery Service state:\n  AC powered: false\n  level: 79\n  scale: 100\n{line}  technology: Li-ion")
    return 0


def mkdir(words: list[str]) -> int:
    here(words[-1]).mkdir(parents=True, exist_ok=True)
    return 0


def chmod(words: list[str]) -> int:
    return 0


def rm(words: list[str]) -> int:
    for path in words[1:]:
        assert "capprune-" in path, path
        shutil.rmtree(here(path), ignore_errors=True)
    return 0


def pidof(words: list[str]) -> int:
    pid = STATE / "app.pid"
    if not pid.is_file() or not running(int(pid.read_text())):
        return 1
    print(pid.read_text())
    return 0


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def am(words: list[str]) -> int:
    if words[0] == "force-stop":
        pid = STATE / "app.pid"
        if pid.is_file() and running(int(pid.read_text())):
            os.kill(int(pid.read_text()), signal.SIGKILL)
        pid.unlink(missing_ok=True)
        return 0
    if faults().get("old_app"):
        print(f"Starting: Intent {{ act={PACKAGE}.RUN cmp={PACKAGE}/.RunActivity (has extras) }}\nError type 3\n"
              f"Error: Activity class {{{PACKAGE}/{PACKAGE}.RunActivity}} does not exist.")  # fmt: skip
        return 0
    command = [sys.executable, __file__, "app", *words]
    if (jvm := os.environ.get("STAND_IN_APP")) is not None:
        command = [*shlex.split(jvm), *jvm_arguments(words)]
    with (STATE / "app.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
    (STATE / "app.pid").write_text(str(process.pid))
    print(f"Status: ok\nLaunchState: COLD\nActivity: {PACKAGE}/.RunActivity\nTotalTime: 412\nComplete")
    return 0


COMMANDS = {
    "dumpsys": dumpsys,
    "getprop": getprop,
    "pm": pm,
    "df": df,
    "mkdir": mkdir,
    "chmod": chmod,
    "rm": rm,
    "pidof": pidof,
    "am": am,
}


def extras_of(words: list[str]) -> dict[str, str]:
    """The extras of an intent, by name."""
    return {words[n + 1]: words[n + 2] for n in range(len(words) - 2) if words[n] in ("--es", "--ei")}


def jvm_arguments(words: list[str]) -> list[str]:
    """The intent as the desktop JVM takes it: bundle, photos, results, beam, and after how many photos to stop."""
    extras = extras_of(words)
    places = [here(extras[name]) for name in ("bundle", "photos", "results")]
    places[2].parent.mkdir(parents=True, exist_ok=True)
    return [*map(str, places), extras["beam"], str(1 << 30)]


def app(words: list[str]) -> None:
    """What the app does when it is started by the intent, with the Python runtime in its place."""
    from capprune_runtime.errors import CapPruneError
    from capprune_runtime.measure.results import write_document
    from capprune_runtime.measure.run import run_photos

    extras = extras_of(words)
    results = here(extras["results"])
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = 0

    def tell(line: object) -> None:
        nonlocal lines
        lines += 1
        time.sleep(0.2 if "gone" in faults() else 0)  # so that the link is down while it works
        if lines == faults().get("app_dies_after"):
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        failure = faults().get("app_fails")
        if failure is not None:
            results.write_text(json.dumps({"failure": failure}))
            return
        raw = results.with_name("raw") / "results.json"
        results.with_suffix(".jsonl").symlink_to(raw.with_suffix(".jsonl"))
        measurement = run_photos(here(extras["bundle"]), here(extras["photos"]), beam=int(extras["beam"]) or None,
                                 out=raw, threads=int(extras["threads"]), tell=tell)  # fmt: skip
    except CapPruneError as error:
        results.write_text(json.dumps({"failure": error.as_json()}))
        return
    where = dataclasses.replace(measurement.environment, stand_in=STAND_IN, python=None, runtime="tflite")
    write_document(dataclasses.replace(measurement, environment=where).as_json(), results)


if __name__ == "__main__":
    sys.exit(app(sys.argv[2:]) if sys.argv[1] == "app" else main(sys.argv[1:]))
