"""Mutate sound files, and hold every one that the verifier accepts against the reference.

    python tests/hostile/fuzz.py --cases 10000 [--seed 1] [--runtime ai-edge-litert] [--first N]
    python tests/hostile/fuzz.py --cases 1 --first N --keep FOLDER      write case N there and say what it is

All cases run in one child process, which is started again after a crash or a hang, at the case behind. A case is given
by the seed and its number alone. Manifests are sealed after the mutation: sizes and hashes fit.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("fuzz_child.py")
CASE_SECONDS = 60.0
START_SECONDS = 300.0


@dataclass(frozen=True)
class Failure:
    """A case that was not as it should be."""

    seed: int
    number: int
    subject: str
    outcome: str


@dataclass(frozen=True)
class Report:
    """How many cases ended how, and those that failed."""

    counts: dict[str, int]
    failures: tuple[Failure, ...]

    @property
    def cases(self) -> int:
        return sum(self.counts.values())

    @property
    def accepted(self) -> int:
        """How many the verifier let pass."""
        return sum(n for outcome, n in self.counts.items() if not outcome.startswith("refused: "))

    def share(self, start: str) -> float:
        """The share of the accepted cases that ended so."""
        return sum(n for outcome, n in self.counts.items() if outcome.startswith(start)) / max(1, self.accepted)


def run_cases(
    world: Path,
    seed: int,
    first: int,
    count: int,
    runtime: str = "ai-edge-litert",
    program: Path | None = None,
    keep: Callable[[int, str, str], None] | None = None,
) -> Report:
    """Run cases `first` to `first + count - 1` on the world of sound files that `world.write_world` wrote.

    Args:
        world: The folder of the sound files.
        seed: Of the cases.
        first: The first case.
        count: How many.
        runtime: See `open_model`.
        program: What makes and judges the cases; `CHILD` without it.
        keep: Is given the number, the subject and the outcome of each.
    """
    counts: collections.Counter[str] = collections.Counter()
    failures = []
    number, end = first, first + count
    while number < end:
        command = [sys.executable, str(program or CHILD), str(world), str(seed), str(number), str(end), runtime]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
            for number_, subject, outcome in _results(child):
                number = number_ + 1
                if keep is not None:
                    keep(number_, subject, outcome)
                failed = outcome.startswith("wrong")
                counts["wrong" if failed else outcome] += 1
                if failed:
                    failures.append(Failure(seed, number_, subject, outcome))
            if number < end:
                outcome = _ended(child)
                counts[outcome] += 1
                if keep is not None:
                    keep(number, "", outcome)
                failures.append(Failure(seed, number, "", outcome))
                number += 1
    return Report(dict(sorted(counts.items())), tuple(failures))


def _results(child: subprocess.Popen[bytes]) -> Iterator[tuple[int, str, str]]:
    """The child's lines as they come; ends with the child, or when it is silent for too long."""
    assert child.stdout is not None
    pending, patience = b"", START_SECONDS
    while select.select([child.stdout], [], [], patience)[0] and (chunk := os.read(child.stdout.fileno(), 1 << 16)):
        patience = CASE_SECONDS
        *lines, pending = (pending + chunk).split(b"\n")
        for line in filter(None, lines):
            number, subject, outcome = json.loads(line)
            yield number, subject, outcome


def _ended(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return f"hang: over {CASE_SECONDS:.0f} seconds"
    return f"signal {-code}" if code < 0 else f"wrong: the process ended with {code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--runtime", default="ai-edge-litert")
    parser.add_argument("--world", type=Path, help="a folder that an earlier run wrote with this option")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    from world import write_world

    with tempfile.TemporaryDirectory() as folder:
        world = options.world or Path(folder)
        if not (world / "world.json").exists():
            write_world(world)
        if options.keep is not None:
            import fuzz_child

            print(fuzz_child.keep(world, options.seed, options.first, options.keep))
        report = run_cases(world, options.seed, options.first, options.cases, options.runtime)
    for failure in report.failures:
        print(f"seed {failure.seed} case {failure.number}: {failure.subject}: {failure.outcome}")
    print(json.dumps(report.counts, indent=1))
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
