"""What a file may cost: small ones that ask for minutes or gigabytes are refused, and the costliest accepted ones are bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_mutations import Files, MemoryMembers, sealed
from operator_graphs import Graph, Operand, graph_file, numbers, schema
from subjects import edit
from world import World

from capprune_runtime import check_tflite
from capprune_runtime.bundle.costs import check_expansion
from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.errors import BadModelFile, BundleError, CapPruneError, PhotoError

SAME = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
MEASURE = """
import json, re, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from operator_child import random_inputs
from capprune_runtime import check_tflite
from capprune_runtime.caption.interpreter import open_model
data = Path(sys.argv[1]).read_bytes()
start = time.process_time()
model = check_tflite(data, "f", "run")
shapes = {name: (model.tensors[n].shape, model.tensors[n].dtype) for name, n in model.signatures["run"].inputs.items()}
open_model(data, "run").run(random_inputs(shapes, 0))
seconds = time.process_time() - start
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())  # getrusage counts the parent before exec
print(json.dumps([seconds, int(peak[1]) * 1024]))
"""
BASE_SECONDS, BASE_BYTES = 5.0, 300e6


def ones(*shape: int) -> Operand:
    return Operand(shape, "float32", np.full(shape, 0.01, np.float32))


def sparse_rows(rows: int, columns: int) -> Operand:
    dense = np.zeros((rows, columns), np.float32)
    dense[:, 0] = 1
    return Operand(dense.shape, "float32", dense, block=1)


def convolution(side: int, channels: int, kernel: int) -> Graph:
    weight = ones(channels, kernel, kernel, channels)
    return Graph("CONV_2D", (Operand((1, side, side, channels)), weight, ones(channels)), SAME)


def pooled(side: int, window: int) -> Graph:
    options = {"padding": 0, "strideH": 1, "strideW": 1, "filterHeight": window, "filterWidth": window}
    return Graph("MAX_POOL_2D", (Operand((1, side, side, 1)),), options)


def widened(side: int) -> Graph:
    return Graph("BROADCAST_TO", (Operand((1,)), numbers(16, side, side)), version=2)


REFUSED = {
    "windows of gigabytes": (convolution(512, 1, 64), "windows of a convolution need too much memory"),
    "windows of hours": (pooled(4096, 4096), "computes too much"),
    "products of hours": (
        Graph("BATCH_MATMUL", (Operand((64, 512, 512)), Operand((64, 512, 512)))), "too much",
    ),
    "a tensor of many megabytes from one number": (widened(1024), "too much"),
    "a list that decides a shape, of megabytes": (
        Graph("MEAN", (Operand((2, 3)), numbers(*[0] * 100_000))), "at most 8 numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_small_file_that_costs_much_is_refused(name: str) -> None:
    graph, rule = REFUSED[name]
    with pytest.raises(BadModelFile, match=rule) as refused:
        check_tflite(graph_file(graph), "f", "run")
    assert len(str(refused.value)) < 2_000


COSTLY = {
    "a convolution with wide windows": convolution(224, 32, 3),
    "a pool with large windows": pooled(160, 150),
    "a product of matrices": Graph("BATCH_MATMUL", (Operand((8, 512, 512)), Operand((8, 512, 512)))),
    "numbers that are written often": widened(340),
    "a convolution of a depth": Graph(
        "DEPTHWISE_CONV_2D", (Operand((1, 96, 96, 32)), ones(1, 31, 31, 32), ones(32)), {**SAME, "depthMultiplier": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_costliest_accepted_files_are_bounded(name: str, tmp_path: Path) -> None:
    data = graph_file(COSTLY[name])
    (tmp_path / "file").write_bytes(data)
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "runtime")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "file"), *folders],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    seconds, most_bytes = json.loads(done.stdout.splitlines()[-1])
    assert seconds < BASE_SECONDS + len(data) / 1e6
    assert most_bytes < BASE_BYTES + 4 * len(data)


def test_sparse_weight_expands_in_proportion_to_the_file() -> None:
    def model(rows: int) -> bytes:
        weight = sparse_rows(rows, 4096)
        return graph_file(Graph("FULLY_CONNECTED", (Operand((1, 4096)), weight, None), {}, 8))

    def densified(model: Any) -> None:
        operator, graph = model.subgraphs[0].operators[0], model.subgraphs[0]
        edit.set_version(model, operator, 5)
        dense = edit.computed_like(model, graph.tensors[operator.inputs[1]], b"dense")
        made = edit.new_operator(model, 124, [operator.inputs[1]], [dense], 99, schema.DensifyOptionsT())
        operator.inputs = [operator.inputs[0], dense, -1]
        graph.operators = [made, operator]

    check_tflite(edit.edited(model(64), densified), "f", "run")
    with pytest.raises(BadModelFile, match="expands stored numbers to too many"):
        check_tflite(edit.edited(model(16_000), densified), "f", "run")


def test_many_tables_and_names_are_refused(world: World) -> None:
    def many_codes(model: Any) -> None:
        model.operatorCodes = model.operatorCodes * 5_000

    def many_names(model: Any) -> None:
        model.signatureDefs[0].outputs = model.signatureDefs[0].outputs * 50

    data = next(subject.data for subject in world.subjects if subject.name == "lstm step, dense")
    with pytest.raises(BadModelFile, match="too many tables"):
        check_tflite(edit.edited(data, many_codes), "f", "step")
    with pytest.raises(BadModelFile, match="names too many tensors"):
        check_tflite(edit.edited(data, many_names), "f", "step")


def test_packed_bundle_may_expand_in_proportion_to_its_size() -> None:
    check_expansion(100_000, 60 << 20)
    check_expansion(10_000_000, 200_000_000)
    with pytest.raises(BundleError, match="expand to too much for its size"):
        check_expansion(132_000, 1_000_000_000)


def decoding(**fields: int) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        manifest = json.loads(files["manifest.json"])
        manifest["decoding"] |= fields
        return sealed({**files, "manifest.json": json.dumps(manifest).encode()})

    return change


def many_golden(count: int, beam: int) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        (entry,) = json.loads(files["golden/golden.json"])
        return sealed({**files, "golden/golden.json": json.dumps([{**entry, "beam": beam}] * count).encode()})

    return change


COSTLY_BUNDLES: dict[str, tuple[Callable[[Files], Files], type[CapPruneError], str]] = {
    "a long search": (decoding(beam=100, max_tokens=1000), BundleError, "beam of the manifest would cost too much"),
    "many golden photos": (many_golden(1024, 100), BundleError, "golden photos would cost too much"),
}


@pytest.mark.parametrize("name", COSTLY_BUNDLES)
def test_bundle_that_costs_much_is_refused(name: str, world: World) -> None:
    change, error, rule = COSTLY_BUNDLES[name]
    with pytest.raises(error, match=rule):
        verify_members(MemoryMembers(change(world.bundles["lstm"])))


def test_golden_photo_has_the_size_that_the_model_reads(world: World) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (500, 500)).save(buffer, "PNG")
    files = sealed({**world.bundles["lstm"], "golden/scene-0.png": buffer.getvalue()})
    with pytest.raises(PhotoError, match="another size than the model reads"):
        verify_members(MemoryMembers(files))


def test_parts_of_a_message_are_cut() -> None:
    error = BundleError("x", found="y" * 9_000_000, expected="z" * 5_000)
    assert error.found is not None and error.expected is not None
    assert len(error.found) == len(error.expected) == 400
