"""Mutate the model files of a packed bundle, and run what the verifier accepts in one runtime; see `shipped_fuzz`."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from bundle_mutations import MemoryMembers, mutated_bundle, sealed
from fuzz_child import AROUND, MEMORY_BYTES
from model_mutations import mutated_model
from subjects import inputs_for

from capprune_runtime import check_tflite
from capprune_runtime.bundle.capz import open_capz
from capprune_runtime.bundle.manifest import MANIFEST
from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BundleError, CapPruneError

DIGITS = 6


def unpacked(place: Path) -> dict[str, bytes]:
    members = open_capz(place)
    return {name: members.read(name, 1 << 30) for name in members.names(256)}


def outcome_of(files: dict[str, bytes], seed: int, number: int, runtime: str) -> str:
    """`refused: ERROR`, `accepted around the models`, or `accepted: NUMBERS`, which every runtime must give alike."""
    g = np.random.default_rng([seed, number])
    try:
        if g.random() < AROUND:
            verify_members(MemoryMembers(mutated_bundle(files, g)[0]))
            return "accepted around the models"
        member, key = (("decoder.tflite", "step"), ("encoder.tflite", "encode"))[int(g.random() < 0.3)]
        data = mutated_model(files[member], g)
        model = check_tflite(data, "f", key)
        verify_members(MemoryMembers(sealed({**files, member: data})))
    except CapPruneError as error:
        return f"refused: {type(error).__name__}"
    signature = model.signatures[key]
    shapes = {name: (model.tensors[n].shape, model.tensors[n].dtype) for name, n in signature.inputs.items()}
    try:
        found = open_model(data, key, runtime=runtime).run(inputs_for(shapes))
    except BundleError:
        return "accepted: refused by the interpreter"
    return "accepted: " + json.dumps([_summary(found[name]) for name in sorted(found)])


def _summary(array: Any) -> list[str]:
    """A few numbers that tell outputs apart; each is off by rounding alone."""
    numbers = array.astype(np.float64).ravel()
    weights = np.random.default_rng(0).normal(size=numbers.size)
    return [f"{value:.{DIGITS}e}" for value in (numbers @ weights, np.abs(numbers).sum(), numbers.max(), numbers.min())]


def main(place: str, seed: str, first: str, end: str, runtime: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    lines = os.dup(1)  # for the results alone: interpreters print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    files = unpacked(Path(place))
    assert MANIFEST in files
    for number in range(int(first), int(end)):
        try:
            outcome = outcome_of(files, int(seed), number, runtime)
        except Exception as error:
            outcome = f"wrong: {type(error).__name__}: {error}"[:300]
        os.write(lines, json.dumps([number, "", outcome]).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
