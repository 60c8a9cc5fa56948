"""Native code that crashes, hangs or takes all memory ends its own process, not the one that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capprune.ready import ready_bundle
from capprune_runtime import verify_bundle
from capprune_runtime.caption.isolated import prove_isolated
from capprune_runtime.caption.proof import prove_golden
from capprune_runtime.errors import BundleError, PhotoError, UsageError
from capprune_runtime.isolation import ERROR_CODE, memory_for, run_isolated

FAILING = {
    "a crash": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the runtime crashed.*\n.*SIGSEGV"),
    "an exit code of its own": ("import os; os._exit(3)", "the runtime crashed.*\n.*exit code 3"),
    "a hang": ("import time; time.sleep(60)", "took too long"),
    "all memory": (
        "from capprune_runtime.isolation import limit_this_process\n"
        "limit_this_process(200 << 20)\n"
        "data = bytearray(1 << 30)",
        "the runtime crashed",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_ends_a_child_is_an_error_with_a_code(name: str) -> None:
    code, rule = FAILING[name]
    with pytest.raises(BundleError, match=rule) as refused:
        run_isolated(code, [], b"", "a bundle", seconds=5)
    assert refused.value.exit_code == 5


def test_error_of_a_child_is_raised_again() -> None:
    code = f"""
import os, json
from capprune_runtime.errors import PhotoError
print(json.dumps(PhotoError("a photo cannot be read", where="x.png").as_json()), flush=True)
os._exit({ERROR_CODE})
"""
    with pytest.raises(PhotoError, match=r"a photo cannot be read: x\.png"):
        run_isolated(code, [], b"", "a bundle", seconds=60)


def test_signal_stops_native_code_at_once() -> None:
    code = (
        "from capprune_runtime import stopping; stopping.listen()\n"
        "from capprune_runtime.isolation import run_isolated\n"
        "print('ready', flush=True)\n"
        "run_isolated('import time; time.sleep(60)', [], b'', 'x', 60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert time.monotonic() - start < 10


def test_golden_photos_give_the_same_captions_in_a_child() -> None:
    bundle = verify_bundle(ready_bundle())
    apart, here = prove_isolated(bundle), prove_golden(bundle)
    assert len(apart) == 4
    assert [(one.golden.name, one.said.tokens, one.said.text) for one in apart] == [
        (one.golden.name, one.said.tokens, one.said.text) for one in here
    ]


def test_error_of_the_interpreter_is_reported() -> None:
    with pytest.raises(UsageError):
        prove_isolated(verify_bundle(ready_bundle()), runtime="onnxruntime")


def test_isolated_captions_are_those_of_the_command() -> None:
    photo = Path(__file__).parents[1] / "cases" / "handed_over" / "f18-256MiB-read" / "chelsea.jpg"
    outputs = []
    for more in ([], ["--isolated"]):
        command = [sys.executable, "-m", "capprune", "caption", str(photo), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] != ""
    assert memory_for(10) > memory_for(0)
