"""A process of `shipped_fuzz`: makes mutations and has them verified, or runs verified files in one runtime.

It reads a JSON document on each line of its input, and answers each with one.

    shipped_child.py make BUNDLE.capz SEED FOLDER      a case's number  →  [outcome, kind of case, accepted file or null, whether
                                                       its activations are int8]
    shipped_child.py RUNTIME                           [file, signature, seed]  →  the outcome in this runtime
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bundle_mutations import MemoryMembers, mutated_bundle
from fuzz_child import AROUND, MEMORY_BYTES
from model_mutations import mutated_model

from capprune_runtime import check_tflite
from capprune_runtime.bundle.capz import open_capz
from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BundleError, CapPruneError
from capprune_runtime.tflite.file import read_tflite

ENCODERS = 0.2  # of the mutated models: one costs as much time as ten decoders
MEMBERS = {"encode": "encoder.tflite", "step": "decoder.tflite"}
WORDS = 500  # tokens of the inputs are below: rows of the table that every shipped model has
DIGITS = 6


class Maker:
    """Makes the cases of a seed from the files of a bundle, and writes what the verifier accepts to a folder."""

    def __init__(self, place: Path, seed: int, folder: Path) -> None:
        members = open_capz(place)
        self._files = {name: members.read(name, 1 << 30) for name in members.names(256)}
        self._seed, self._folder = seed, folder

    def case(self, number: int) -> tuple[str, str, str | None, bool]:
        """Make and verify a case; the same for the same seed and number."""
        generator = np.random.default_rng([self._seed, number])
        if generator.random() < AROUND:
            return self._around(generator)
        key = "encode" if generator.random() < ENCODERS else "step"
        data = mutated_model(self._files[MEMBERS[key]], generator)
        try:
            check_tflite(data, "f", key)
            verify_members(MemoryMembers(self._with(MEMBERS[key], data)))
        except CapPruneError as error:
            return f"refused: {type(error).__name__}", key, None, False
        path = self._folder / f"{number % 4}.tflite"  # the next is made while this one runs
        path.write_bytes(data)
        rounds = any(operator.name == "QUANTIZE" for operator in read_tflite(data, "f").operators)
        return "verified", key, str(path), rounds

    def _around(self, generator: np.random.Generator) -> tuple[str, str, None, bool]:
        try:
            verify_members(MemoryMembers(mutated_bundle(self._files, generator)[0]))
        except CapPruneError as error:
            return f"refused: {type(error).__name__}", "around the models", None, False
        return "accepted", "around the models", None, False

    def _with(self, member: str, data: bytes) -> dict[str, bytes]:
        """The bundle with one file replaced; the hashes of the others fit already."""
        tree = json.loads(self._files["manifest.json"])
        tree["files"][member] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        return {**self._files, member: data, "manifest.json": json.dumps(tree).encode()}


def outcome_in(runtime: str, path: Path, key: str, seed: int) -> str:
    """Run a verified file on random inputs: `refused by the interpreter`, or numbers that tell its outputs."""
    data = path.read_bytes()
    model = read_tflite(data, "f")
    signature = model.signatures[key]
    inputs = {name: model.tensors[index] for name, index in signature.inputs.items()}
    generator = np.random.default_rng(seed)
    arrays = {
        name: generator.uniform(-1, 1, tensor.shape).astype(np.float32)
        if tensor.dtype == "float32"
        else generator.integers(0, WORDS, tensor.shape).astype(tensor.dtype)
        for name, tensor in sorted(inputs.items())
    }
    try:
        found = open_model(data, key, runtime=runtime).run(arrays)
    except BundleError:
        return "refused by the interpreter"
    return json.dumps([_summary(found[name]) for name in sorted(found)])


def _summary(array: Any) -> list[str]:
    """A few numbers that tell outputs apart; each is off by rounding alone."""
    numbers = array.astype(np.float64).ravel()
    weights = np.random.default_rng(0).normal(size=numbers.size)
    return [f"{value:.{DIGITS}e}" for value in (numbers @ weights, np.abs(numbers).sum(), numbers.max(), numbers.min())]


def serve(answer: Callable[[Any], object]) -> None:
    """Answer every line of the input; whatever is raised is the answer `wrong`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    lines = os.dup(1)  # for the answers alone: interpreters print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    gc.freeze()
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:
            found = f"wrong: {type(error).__name__}: {error}"[:300]
        os.write(lines, json.dumps(found).encode() + b"\n")


def main(kind: str, *arguments: str) -> None:
    if kind == "make":
        place, seed, folder = arguments
        serve(Maker(Path(place), int(seed), Path(folder)).case)
    else:
        open_first = kind  # imported by the first file, whose patience is longer
        serve(lambda asked: outcome_in(open_first, Path(asked[0]), asked[1], asked[2]))


if __name__ == "__main__":
    main(*sys.argv[1:])
