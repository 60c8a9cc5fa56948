"""Mutate a packed bundle, and compare what the runtimes make of every mutation that the verifier accepts.

    python tests/hostile/shipped_fuzz.py BUNDLE.capz --cases 1000 [--seed 1] [--first N]

Prints how many mutations were refused and accepted, and how many crashed a runtime or gave another result in one of them.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import fuzz

CHILD = Path(__file__).with_name("shipped_child.py")
RUNTIMES = ("ai-edge-litert", "tflite-runtime", "tensorflow")
TOLERANCE = 1e-3  # of the largest number of a summary: sums of tens of thousands of rounded products


def outcomes(place: Path, seed: int, first: int, count: int, runtime: str) -> dict[int, str]:
    """The outcome of every case; a crash is `signal N`."""
    found: dict[int, str] = {}

    def keep(number: int, subject: str, outcome: str) -> None:
        found[number] = outcome

    fuzz.run_cases(place, seed, first, count, runtime, CHILD, keep)
    return found


def compared(by_runtime: Mapping[str, str]) -> str:
    """How one case ended: refused, accepted, different, crashed."""
    kinds = set(by_runtime.values())
    if any(kind.startswith(("signal", "hang", "wrong")) for kind in kinds):
        return "crashed"
    if all(kind.startswith("refused") for kind in kinds):
        return "refused"
    if kinds == {"accepted around the models"}:
        return "accepted"
    numbers = [text.removeprefix("accepted: ") for text in by_runtime.values()]
    if len(set(numbers)) == 1:
        return "accepted"
    if not all(text.startswith("[") for text in numbers):
        return "different"
    return "accepted" if all(_close(numbers[0], other) for other in numbers[1:]) else "different"


def _close(one: str, other: str) -> bool:
    for left, right in zip(json.loads(one), json.loads(other), strict=True):
        pairs = [(float(a), float(b)) for a, b in zip(left, right, strict=True)]
        if not all(math.isfinite(a) for pair in pairs for a in pair):
            continue  # an overflow, which captions report as an error
        largest = max(abs(a) for pair in pairs for a in pair)
        if any(abs(a - b) > TOLERANCE * largest for a, b in pairs):
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    runs = {name: outcomes(options.bundle, options.seed, options.first, options.cases, name) for name in RUNTIMES}
    counts: collections.Counter[str] = collections.Counter()
    for number in range(options.first, options.first + options.cases):
        by_runtime = {name: run[number] for name, run in runs.items()}
        counts[how := compared(by_runtime)] += 1
        if how in ("different", "crashed"):
            print(f"seed {options.seed} case {number}: {by_runtime}")
    print(json.dumps(dict(sorted(counts.items()))))
    return int(counts["different"] + counts["crashed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
