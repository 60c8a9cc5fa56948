"""The process that a run of random operators may lose: makes each graph, has it verified, and runs what is accepted."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from fuzz_child import MEMORY_BYTES
from judge import judged_model
from numpy.typing import NDArray
from operator_graphs import graph_file, random_graph

from capprune_runtime import check_tflite
from capprune_runtime.errors import CapPruneError

EDGES = (0.0, -0.0, 1.0, -1.0, 1e-30, 6.0, 100.0, -100.0)


def random_inputs(shapes: Mapping[str, tuple[tuple[int, ...], str]], seed: int) -> dict[str, NDArray[Any]]:
    """Inputs of every type, numbers at the edges among them; whole numbers are places in a small table."""
    g = np.random.default_rng(seed)
    inputs = {}
    for name, (shape, dtype) in sorted(shapes.items()):
        if dtype == "int8":
            array = g.integers(-128, 128, shape)
        elif dtype.startswith("int"):
            array = g.integers(0, 2, shape) if g.random() < 0.9 else g.integers(-(1 << 31), 1 << 31, shape)
        else:
            array = g.normal(size=shape) * g.choice([0.1, 1, 1, 10])
            array = np.where(g.random(shape) < 0.05, g.choice(EDGES, shape), array)
        inputs[name] = np.asarray(array).astype(dtype)
    return inputs


def outcome_of(seed: int, number: int, runtime: str) -> tuple[str, str]:
    """(the operator, how it went), as of `judge`."""
    graph = random_graph(seed, number)
    data = graph_file(graph)
    try:
        model = check_tflite(data, "f", "run")
    except CapPruneError as error:
        return graph.operator, f"refused: {type(error).__name__}"
    try:
        return graph.operator, judged_model(data, model, "run", runtime, lambda shapes: random_inputs(shapes, number))
    except Exception as error:
        return graph.operator, f"wrong: {type(error).__name__}: {error}"[:300]


def main(folder: str, seed: str, first: str, end: str, runtime: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    lines = os.dup(1)  # for the results alone: interpreters print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for number in range(int(first), int(end)):
        operator, outcome = outcome_of(int(seed), number, runtime)
        os.write(lines, json.dumps([number, operator, outcome]).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
