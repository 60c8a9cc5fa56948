"""Captions from an interpreter in a separate process.

tflite_runtime and tensorflow register the same symbols and must never share a process. An interpreter that crashes also
ends its process. This module is both ends of the pipe: `captions_in_subprocess` starts
`python -m capprune.validation.worker`, and sends each photo as a line of JSON with its shape and its raw numbers. It
reads one line of JSON per photo.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime import errors
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner


def captions_in_subprocess(
    bundle_folder: Path,
    photos: Iterable[NDArray[Any]],
    *,
    runtime: str,
    beam: int,
    threads: int = 1,
) -> list[tuple[int, ...]]:
    """Caption photos with a bundle in an interpreter in a separate process.

    Args:
        bundle_folder: The bundle.
        photos: Inputs of `Captioner.caption`; may be a generator, of which one photo is held at a time.
        runtime: Name of the interpreter.
        beam: Beam width (1 for greedy).
        threads: Threads of the interpreter.

    Returns:
        The token ids of each photo, without start and end.

    Raises:
        CapPruneError: An error in the worker, of the same kind.
        BundleError: The interpreter died.
    """
    command = [
        *(sys.executable, "-m", "capprune.validation.worker", str(bundle_folder)),
        *("--runtime", runtime, "--beam", str(beam), "--threads", str(threads)),
    ]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints)
        try:
            tokens = []
            for photo in photos:
                answer = _ask(process, _framed(photo))
                if answer is None:
                    complaints.seek(0)
                    raise _died(runtime, process.wait(), complaints.read().decode(errors="replace"))
                if "error" in answer:
                    raise errors.error_from_json(answer)
                tokens.append(tuple(answer["tokens"]))
            return tokens
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # remaining bytes that nobody reads
                    if pipe is not None:
                        pipe.close()


def _framed(photo: NDArray[Any]) -> bytes:
    """Return an array in the worker's format: its type and shape as one JSON line, then its numbers."""
    head = json.dumps({"dtype": photo.dtype.str, "shape": photo.shape})
    return head.encode() + b"\n" + np.ascontiguousarray(photo).tobytes()


def _read_frame(stream: IO[bytes]) -> NDArray[Any] | None:
    """Return the next array; None at the end of the stream."""
    head = stream.readline()
    if not head.endswith(b"\n"):
        return None
    facts = json.loads(head)
    dtype, shape = np.dtype(facts["dtype"]), tuple(facts["shape"])
    size = dtype.itemsize * math.prod(shape)
    data = stream.read(size)
    return np.frombuffer(data, dtype).reshape(shape) if len(data) == size else None


def _ask(process: subprocess.Popen[bytes], photo: bytes) -> dict[str, Any] | None:
    """Return the worker's answer, or None if it has ended."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # the worker may have written its reason before it ended
        process.stdin.write(photo)
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


def _died(runtime: str, returncode: int, said: str) -> errors.CapPruneError:
    last_lines = "\n            ".join(said.strip().splitlines()[-3:])
    return errors.BundleError(
        f"the interpreter {runtime} died on this bundle",
        expected="a caption",
        found=f"exit code {returncode}: {last_lines}",
    )


def main() -> None:
    """Run the worker: read photos from stdin until it ends, and write one line of JSON per photo to stdout."""
    parser = argparse.ArgumentParser(prog="python -m capprune.validation.worker", description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--beam", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # Interpreters may log to stdout, so answers get their own copy of it.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            _answer_photos(options, sys.stdin.buffer, answers)
        except errors.CapPruneError as error:
            answers.write(json.dumps(error.as_json()) + "\n")


def _answer_photos(options: argparse.Namespace, photos: IO[bytes], answers: IO[str]) -> None:
    bundle = verify_bundle(options.bundle)
    captioner = Captioner(bundle, runtime=options.runtime, threads=options.threads)
    while (photo := _read_frame(photos)) is not None:
        caption = captioner.caption(photo, beam=options.beam)
        answers.write(json.dumps({"tokens": [int(token) for token in caption.tokens]}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
