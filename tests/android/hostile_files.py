"""Write hostile files and mutated ones for the JUnit tests, with what Python's verifier makes of each.

python tests/android/hostile_files.py --out FOLDER [--world FOLDER] [--cases N]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("hostile", "runtime"))

from bundle_mutations import MemoryMembers
from fuzz_child import FuzzCase, make_case
from one_operator import CASES, MISFITS, WRONG_TYPES, one_operator_file
from subjects import Subject
from tflite_edit import edited
from world import World, read_world, write_world
from write_attacks import write_attacks

from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.errors import CapPruneError
from capprune_runtime.tflite.check import check_tflite
from capprune_runtime.tflite.operators import OPERATORS

SEED = 17


def operator_cases() -> Iterator[FuzzCase]:
    """Files of one operator, sound ones and those that break a rule of operators: all must meet the same verdict."""
    for case in (*CASES, *MISFITS, *WRONG_TYPES):
        larger = tuple((*shape[:-1], shape[-1] + 1) for shape in case.outputs)
        data = one_operator_file(case)
        for changed in (
            data,
            one_operator_file(case, outputs=larger),
            one_operator_file(case, dtype="int64"),
            edited(data, set_version(0)),
            edited(data, set_version(OPERATORS[case.operator].versions[1])),
            edited(data, set_version(OPERATORS[case.operator].versions[1] + 1)),
        ):
            subject = Subject(f"{case.operator} {case.outputs}", changed, "run")
            yield FuzzCase(subject, "model", {"model.tflite": changed})


def set_version(version: int) -> Callable[[Any], None]:
    return lambda model: setattr(model.operatorCodes[0], "version", version)


def write_mutated(world: World, cases: int, out: Path) -> None:
    """All cases in one file, and an index of where their parts lie."""
    index = []
    mutated = (make_case(world, SEED, number) for number in range(cases))
    with (out / "cases.bin").open("wb") as content:
        for number, case in enumerate((*mutated, *operator_cases())):
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
    parser.add_argument("--world", type=Path, help="sound files that tests/hostile/world.py wrote [default: new ones]")
    parser.add_argument("--cases", type=int, default=1500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.world is None:
            write_world(Path(folder), every_format=True)
        world = read_world(options.world or Path(folder))
    for name in ("attacks", "mutated"):
        (options.out / name).mkdir(parents=True)
    write_attacks(world, options.out / "attacks")
    write_mutated(world, options.cases, options.out / "mutated")


if __name__ == "__main__":
    main()
