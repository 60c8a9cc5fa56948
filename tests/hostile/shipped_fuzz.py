"""Mutate a packed bundle, and compare what the runtimes make of every mutation that the verifier accepts.

    python tests/hostile/shipped_fuzz.py BUNDLE.capz --cases 1000 [--seed 1] [--first N]

Prints how many mutations were refused and accepted, and how many crashed a runtime or gave another result in one of them.
One process makes the cases and verifies each once; one process for each runtime runs those that were accepted, meanwhile.
A process that crashes or hangs is started again, and the case counts as crashed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("shipped_child.py")
RUNTIMES = ("ai-edge-litert", "tflite-runtime", "tensorflow")
TOLERANCE = 1e-3  # of the largest number of a summary: sums of tens of thousands of rounded products
INT8_TOLERANCE = 0.05  # where activations are int8: kernels round differently; see the README beside this file
CASE_SECONDS, START_SECONDS = 60.0, 300.0
PROGRESS_CASES = 250


class Worker:
    """A child process that answers one line at a time; a crash or a hang is the answer, and the next line starts another."""

    def __init__(self, *arguments: str) -> None:
        self._command = [sys.executable, str(CHILD), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._patience = 0.0

    def ask(self, question: object) -> None:
        """Send a line, to be answered later."""
        self._patience = CASE_SECONDS
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            self._patience = START_SECONDS
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it crashed: its answer says so
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to the last line."""
        assert self._process is not None and self._process.stdout is not None
        text, stream = b"", self._process.stdout.fileno()
        while not text.endswith(b"\n"):
            if not select.select([stream], [], [], self._patience)[0]:
                self.close()
                return "hang"
            if not (chunk := os.read(stream, 1 << 16)):
                code = self._process.wait()
                self.close()
                return f"signal {-code}" if code < 0 else f"wrong: the process ended with {code}"
            text += chunk
        return json.loads(text)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


@dataclass
class Report:
    """How many cases ended how, by `compared`; and the outcomes of those that failed."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    by_kind: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: dict[int, object] = field(default_factory=dict)

    def keep(self, number: int, how: str, kind: str, outcome: object) -> None:
        self.counts[how] += 1
        self.by_kind[f"{kind}: {how}"] += 1
        if how in ("different", "crashed"):
            self.failures[number] = outcome
            print(f"case {number}: {outcome}", flush=True)


def run_cases(place: Path, seed: int, first: int, count: int, runtimes: Sequence[str] = RUNTIMES) -> Report:
    """Make `count` cases, and run those that the verifier accepts in every runtime."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        maker = Worker("make", str(place), str(seed), folder)
        workers = {name: Worker(name) for name in runtimes}
        try:
            maker.ask(first)
            for number in range(first, first + count):
                made = maker.answer()
                if number + 1 < first + count:
                    maker.ask(number + 1)
                _judge(report, number, made, workers)
                if sum(report.counts.values()) % PROGRESS_CASES == 0:
                    print(number + 1, json.dumps(report.counts), file=sys.stderr, flush=True)
        finally:
            for worker in (maker, *workers.values()):
                worker.close()
    return report


def _judge(report: Report, number: int, made: Any, workers: Mapping[str, Worker]) -> None:
    if isinstance(made, str):  # the maker crashed, hung, or raised what is no error of ours
        report.keep(number, "crashed", "verifier", made)
        return
    outcome, kind, path, rounds = made
    if path is None:
        report.keep(number, outcome.partition(":")[0], kind, outcome)
        return
    for worker in workers.values():
        worker.ask([path, kind, number])
    outcomes = {name: worker.answer() for name, worker in workers.items()}
    report.keep(number, compared(outcomes, INT8_TOLERANCE if rounds else TOLERANCE), kind, outcomes)


def compared(by_runtime: Mapping[str, str], tolerance: float = TOLERANCE) -> str:
    """How a case that was accepted ended: accepted, different, crashed."""
    outcomes = list(by_runtime.values())
    if any(outcome.startswith(("signal", "hang", "wrong")) for outcome in outcomes):
        return "crashed"
    if len(set(outcomes)) == 1:
        return "accepted"
    if not all(outcome.startswith("[") for outcome in outcomes):
        return "different"
    return "accepted" if all(_close(outcomes[0], other, tolerance) for other in outcomes[1:]) else "different"


def _close(one: str, other: str, tolerance: float) -> bool:
    for left, right in zip(json.loads(one), json.loads(other), strict=True):
        pairs = [(float(a), float(b)) for a, b in zip(left, right, strict=True)]
        if not all(math.isfinite(a) for pair in pairs for a in pair):
            continue  # an overflow, which captions report as an error
        largest = max(abs(a) for pair in pairs for a in pair)
        if any(abs(a - b) > tolerance * largest for a, b in pairs):
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    report = run_cases(options.bundle, options.seed, options.first, options.cases)
    where = {"bundle": options.bundle.name, "seed": options.seed, "first": options.first, "cases": options.cases}
    print(json.dumps({**where, **dict(sorted(report.counts.items())), "by kind": dict(sorted(report.by_kind.items()))}))
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
