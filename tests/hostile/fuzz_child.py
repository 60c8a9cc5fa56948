"""The process that a fuzz run may lose: makes each case, has it verified, and judges what is accepted."""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bundle_mutations import Files, MemoryMembers, mutated_bundle, sealed
from judge import COMPARED, judged_model
from model_mutations import mutated_model
from subjects import Subject
from world import World, read_world

from capprune_runtime import check_tflite
from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.proof import read_golden
from capprune_runtime.errors import BadModelFile, BundleError, CapPruneError, PhotoError

MEMORY_BYTES = 8 << 30
# Which part of the cases mutates what stands around the models.
AROUND = 0.15
IN_BUNDLES = 0.7  # of the others: encoders and decoders; the rest are files of one operator
MOST_WORDS = 60  # of a caption that is worth searching
_FAMILY: dict[str, tuple[type[CapPruneError], ...]] = {
    "model": (BadModelFile,),
    "manifest.json": (BundleError,),
    "vocabulary.txt": (BundleError,),
    "golden/golden.json": (BundleError,),
    "photo": (PhotoError,),
    "files": (BundleError, PhotoError),
}


@dataclass(frozen=True)
class FuzzCase:
    """One mutated bundle, or one mutated model file that belongs to none."""

    subject: Subject
    part: str
    files: Files

    @property
    def data(self) -> bytes:
        """The mutated model file."""
        return self.files[self.subject.member or "model.tflite"]


def make_case(world: World, seed: int, number: int) -> FuzzCase:
    """The case of a seed and a number, always the same."""
    generator = np.random.default_rng([seed, number])
    if generator.random() < AROUND:
        cell = str(generator.choice(list(world.bundles)))
        files, part = mutated_bundle(world.bundles[cell], generator)
        return FuzzCase(Subject(f"{cell} bundle", b"", "", cell), part, files)
    in_bundles = generator.random() < IN_BUNDLES
    subjects = [subject for subject in world.subjects if bool(subject.member) is in_bundles]
    subject = subjects[int(generator.integers(len(subjects)))]
    data = mutated_model(subject.data, generator)
    if not subject.member:
        return FuzzCase(subject, "model", {"model.tflite": data})
    return FuzzCase(subject, "model", sealed({**world.bundles[subject.cell], subject.member: data}))


def outcome_of(case: FuzzCase, runtime: str) -> str:
    """See `judge`; whatever is raised that should not be is an outcome too."""
    try:
        if not case.subject.member and case.part == "model":
            model = check_tflite(case.data, "f", case.subject.signature)
            return judged_model(case.data, model, case.subject.signature, runtime)
        bundle = verify_members(MemoryMembers(case.files))
    except CapPruneError as error:
        right = isinstance(error, _FAMILY[case.part])
        return f"refused: {type(error).__name__}" if right else f"wrong: {case.part} refused by {error!r}"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}"[:300]
    try:
        if case.part == "model":
            model = check_tflite(case.data, "f", case.subject.signature)
            return judged_model(case.data, model, case.subject.signature, runtime)
        golden = read_golden(bundle)
        if bundle.manifest.decoding.max_tokens > MOST_WORDS:
            return "not compared: a long caption"
        captioner = Captioner(bundle, runtime=runtime)
        photo = golden[0].photo if golden else np.zeros((bundle.manifest.photo_size,) * 2 + (3,), np.uint8)
        said = captioner.caption(photo, beam=min(3, bundle.manifest.decoding.beam))
        decoding = bundle.manifest.decoding
        if len(said.tokens) > decoding.max_tokens or set(said.tokens) & set(decoding.suppress):
            return f"wrong: the caption {said.tokens}"
        return COMPARED
    except Exception as error:
        return f"wrong: {type(error).__name__} after it was verified: {error}"[:300]


def keep(folder: Path, seed: int, number: int, out: Path) -> str:
    """Write the files of a case to a folder."""
    case = make_case(read_world(folder), seed, number)
    for name, content in case.files.items():
        path = out / name.replace("..", "__").lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return f"{case.subject.name}: {case.part}"


def main(folder: str, seed: str, first: str, end: str, runtime: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    lines = os.dup(1)  # for the results alone: interpreters print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    world = read_world(Path(folder))
    for number in range(int(first), int(end)):
        case = make_case(world, int(seed), number)
        line = json.dumps([number, f"{case.subject.name}, {case.part}", outcome_of(case, runtime)])
        os.write(lines, line.encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
