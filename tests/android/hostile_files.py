"""Write hostile files and mutated ones for the JUnit tests, with what Python's verifier makes of each.

python tests/android/hostile_files.py --out FOLDER [--cases N]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "hostile"))

from bundle_mutations import MemoryMembers
from fuzz_child import FuzzCase, make_case
from world import World, read_world, write_world
from write_attacks import write_attacks

from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.errors import CapPruneError
from capprune_runtime.tflite.check import check_tflite

SEED = 17


def write_mutated(world: World, cases: int, out: Path) -> None:
    """All cases in one file, and an index of where their parts lie."""
    index = []
    with (out / "cases.bin").open("wb") as content:
        for number in range(cases):
            case = make_case(world, SEED, number)
            entry = {"number": number, "part": case.part, "subject": case.subject.name, "verdict": verdict(case)}
            if not case.subject.member and case.part == "model":
                entry["signature"] = case.subject.signature
            places = []
            for name, data in case.files.items():
                places.append({"name": name, "offset": content.tell(), "length": len(data)})
                content.write(data)
            index.append({**entry, "files": places})
    (out / "index.json").write_text(json.dumps(index))


def verdict(case: FuzzCase) -> str:
    """`accepted`, or the name of the error."""
    try:
        if not case.subject.member and case.part == "model":
            check_tflite(case.data, "f", case.subject.signature)
        else:
            verify_members(MemoryMembers(case.files))
    except CapPruneError as error:
        return type(error).__name__
    return "accepted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=1500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder), every_format=True)
        world = read_world(Path(folder))
        for name in ("attacks", "mutated"):
            (options.out / name).mkdir(parents=True)
        write_attacks(world, options.out / "attacks")
        write_mutated(world, options.cases, options.out / "mutated")


if __name__ == "__main__":
    main()
