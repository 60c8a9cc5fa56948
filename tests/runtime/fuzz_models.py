"""Damage model files, and run in an interpreter each one that the verifier still accepts, in a process of its own.

    python fuzz_models.py RUNTIME SEED COUNT FOLDER

FOLDER holds sound files NAME.tflite, each of the signature `step`, and inputs.npz. Writes files that crash the
interpreter, or that it finds to be no flatbuffer, to FOLDER/crash-N.tflite and prints one JSON line.
"""

from __future__ import annotations

import collections
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from capprune_runtime import check_tflite
from capprune_runtime.errors import BadModelFile, CapPruneError
from capprune_runtime.interpreter import open_model

SMALL_BUFFER_BYTES = 16  # shape operands; the weights themselves are not worth damaging
TELLING = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65_536, 1_000_000)


def places_worth_damaging(data: bytes) -> Any:
    file = np.frombuffer(data, np.uint8)
    worth = np.ones(len(data), bool)
    for buffer in check_tflite(data, "f", "step").buffers:
        if len(buffer) > SMALL_BUFFER_BYTES:
            start = np.frombuffer(buffer, np.uint8).ctypes.data - file.ctypes.data
            worth[start : start + len(buffer)] = False
    return np.flatnonzero(worth)


def damaged(data: bytes, places: Any, generator: np.random.Generator) -> bytes:
    content = bytearray(data)
    for _ in range(int(generator.integers(1, 3))):
        place, kind = int(generator.choice(places)), generator.integers(3)
        if kind == 0:
            content[place] = int(generator.integers(256))
        elif kind == 1:
            content[place] = (content[place] + int(generator.choice([-4, -1, 1, 2, 4]))) % 256
        else:
            word = place - place % 4
            content[word : word + 4] = int(generator.choice(TELLING)).to_bytes(4, "little")
    return bytes(content)


def outcome(data: bytes, runtime: str, inputs: dict[str, Any]) -> str:
    """How a forked process ends that loads the file and runs it once."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            signal.alarm(20)
            open_model(data, "step", runtime=runtime).run(inputs)
            code = 0
        except CapPruneError as error:
            code = 2 if "valid Flatbuffer" in str(error) else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return {0: "ran", 1: "refused by the interpreter", 2: "no flatbuffer"}.get(os.WEXITSTATUS(status), "error")


def main(runtime: str, seed: str, count: str, folder: str) -> int:
    generator = np.random.default_rng(int(seed))
    inputs = dict(np.load(Path(folder) / "inputs.npz"))
    files = [path.read_bytes() for path in sorted(Path(folder).glob("*.tflite"))]
    places = [places_worth_damaging(file) for file in files]
    open_model(files[0], "step", runtime=runtime).run(inputs)  # the library is loaded once, before the forks
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(int(count)):
        which = int(generator.integers(len(files)))
        data = damaged(files[which], places[which], generator)
        try:
            check_tflite(data, "f", "step")
        except BadModelFile:
            outcomes["refused"] += 1
            continue
        ended = outcome(data, runtime, inputs)
        outcomes[ended] += 1
        if ended not in ("ran", "refused by the interpreter"):
            (Path(folder) / f"crash-{number}.tflite").write_bytes(data)
    print(json.dumps(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
