"""Damage .onnx files; what the verifier still accepts must run in onnxruntime and give what onnx's reference gives.

    python fuzz_onnx.py SEED COUNT FOLDER

FOLDER holds sound files NAME.onnx of one `step`, inputs.npz (one row) and signature.json ([inputs, outputs]). Each accepted
file is run in a forked process. Files that crash it, or that come out otherwise than in the reference, go to
FOLDER/failure-N.onnx; prints one JSON line of counts.
"""

from __future__ import annotations

import collections
import json
import os
import resource
import signal
import sys
import warnings
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

import onnx
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BadModelFile, BundleError
from capprune_runtime.formats import NEXT
from capprune_runtime.onnx.check import check_onnx
from onnx import numpy_helper

SMALL_TENSOR_BYTES = 64  # shapes, limits and scales; the weights themselves are not worth a bit flip
TELLING = (0, 1, 2, -1, 127, 128, 255, 256, 65_536, 2**31 - 1, -(2**31), 2**40, 2**63 - 1)
DTYPES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8}  # item sizes by the schema's number for a type
# Two orders of summation in float32, and a rounding to int8 that falls to the other side.
CLOSE = {"float": 1e-4, "int8": 0.05}
ENDINGS = {0: "same", 1: "refused by the interpreter", 2: "not compared", 3: "another result", 9: "error"}


def damaged_bytes(data: bytes, generator: np.random.Generator) -> bytes:
    """Some bytes of the file, outside of large tensors."""
    content, worth = bytearray(data), np.ones(len(data), bool)
    for tensor in onnx.load_from_string(data).graph.initializer:
        if len(tensor.raw_data) > SMALL_TENSOR_BYTES:
            start = data.find(tensor.raw_data)
            worth[start : start + len(tensor.raw_data)] = False
    for place in generator.choice(np.flatnonzero(worth), int(generator.integers(1, 3))):
        kind = generator.integers(3)
        if kind == 0:
            content[place] = int(generator.integers(256))
        elif kind == 1:
            content[place] = (content[place] + int(generator.choice([-4, -1, 1, 2, 4]))) % 256
        else:
            content[place] ^= 1 << int(generator.integers(8))
    return bytes(content)


def damaged_parts(data: bytes, generator: np.random.Generator) -> bytes:
    """Operators, attributes, tensors and signature through the schema."""
    model = onnx.load_from_string(data)
    for _ in range(int(generator.integers(1, 3))):
        DAMAGES[int(generator.integers(len(DAMAGES)))](model, generator)
    content: bytes = model.SerializeToString()
    return content


def pick(sequence: Any, generator: np.random.Generator) -> Any:
    return sequence[int(generator.integers(len(sequence)))]


def every_name(model: Any) -> list[str]:
    graph = model.graph
    return (
        [v.name for v in graph.input] + [t.name for t in graph.initializer] + [n for o in graph.node for n in o.output]
    )


def rewire(model: Any, generator: np.random.Generator) -> None:
    one = pick(model.graph.node, generator)
    one.input[int(generator.integers(len(one.input)))] = pick(every_name(model), generator)


def swap_inputs(model: Any, generator: np.random.Generator) -> None:
    one = pick(model.graph.node, generator)
    names = list(one.input)
    generator.shuffle(names)
    del one.input[:]
    one.input.extend(names)


def rename_operator(model: Any, generator: np.random.Generator) -> None:
    pick(model.graph.node, generator).op_type = pick(model.graph.node, generator).op_type


def remove_operator(model: Any, generator: np.random.Generator) -> None:
    if len(model.graph.node) > 1:
        model.graph.node.remove(pick(model.graph.node, generator))


def move_operator(model: Any, generator: np.random.Generator) -> None:
    nodes = list(model.graph.node)
    nodes.insert(int(generator.integers(len(nodes))), nodes.pop(int(generator.integers(len(nodes)))))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def change_attribute(model: Any, generator: np.random.Generator) -> None:
    owners = [one for one in model.graph.node if one.attribute]
    if owners:
        attribute = pick(pick(owners, generator).attribute, generator)
        if attribute.ints:
            attribute.ints[int(generator.integers(len(attribute.ints)))] = int(pick(TELLING, generator))
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = int(pick((*TELLING, *range(-3, 12)), generator))
        else:
            attribute.f = float(generator.normal())


def drop_attribute(model: Any, generator: np.random.Generator) -> None:
    owners = [one for one in model.graph.node if one.attribute]
    if owners:
        one = pick(owners, generator)
        one.attribute.remove(pick(one.attribute, generator))


def readable(model: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    """A stored tensor, of those that have not been lied about yet, and its values."""
    sound = [
        t
        for t in model.graph.initializer
        if t.data_type in DTYPES and len(t.raw_data) == prod(t.dims) * DTYPES[t.data_type]
    ]
    tensor = pick(sound, generator)
    return tensor, np.array(numpy_helper.to_array(tensor))


def change_number(model: Any, generator: np.random.Generator) -> None:
    tensor, array = readable(model, generator)
    new = pick((*TELLING, 64, 65, -64, 1e-40, 1e38, float("nan"), float("inf"), generator.normal()), generator)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array.ravel()[int(generator.integers(array.size))] = np.array(new).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def reshape_tensor(model: Any, generator: np.random.Generator) -> None:
    tensor, array = readable(model, generator)
    shapes = [
        array.T,
        array.ravel(),
        array[np.newaxis],
        array.ravel()[:1],
        np.resize(array, array.size + 1),
        array.squeeze(),
    ]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(pick(shapes, generator)), tensor.name))


def lie_about_a_tensor(model: Any, generator: np.random.Generator) -> None:
    tensor = pick(model.graph.initializer, generator)
    if tensor.dims and generator.integers(2):
        tensor.dims[int(generator.integers(len(tensor.dims)))] = int(pick(TELLING, generator))
    else:
        tensor.data_type = int(generator.integers(0, 24))


def change_signature(model: Any, generator: np.random.Generator) -> None:
    value = pick([*model.graph.input, *model.graph.output], generator)
    dimension = pick(value.type.tensor_type.shape.dim, generator)
    if generator.integers(2):
        dimension.dim_value = int(pick((*TELLING, 3, 64), generator))
    else:
        dimension.dim_param = str(pick(("batch", "rows", ""), generator))


DAMAGES = (
    rewire,
    swap_inputs,
    rename_operator,
    remove_operator,
    move_operator,
    change_attribute,
    drop_attribute,
    change_number,
    change_number,
    change_number,
    reshape_tensor,
    lie_about_a_tensor,
    change_signature,
)


def same(found: dict[str, Any], expected: dict[str, Any], close: float) -> bool:
    """Whether results agree, as far as numbers that are finite in both go."""
    for name, value in expected.items():
        other = found[name.removeprefix(NEXT)]
        if other.shape != value.shape or other.dtype != value.dtype:
            return False
        finite = np.isfinite(value) & np.isfinite(other)
        scale = max(1.0, float(np.abs(value[finite]).max(initial=0)))
        if not (np.abs(value[finite] - other[finite]) <= close * scale).all():
            return False
    return True


def outcome(data: bytes, inputs: dict[str, Any], close: float) -> str:
    """How a forked process ends that loads the file, runs it once and compares."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            signal.alarm(20)
            warnings.simplefilter("ignore")
            found = open_model(data, "step").run(inputs)
            code = 2
            reference = ReferenceEvaluator(onnx.load_from_string(data))
            results = reference.run(None, inputs)
            code = 0 if same(found, dict(zip(reference.output_names, results, strict=True)), close) else 3
        except BundleError:
            code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return ENDINGS.get(os.WEXITSTATUS(status), "error")


def main(seed: str, count: str, folder: str) -> int:
    generator = np.random.default_rng(int(seed))
    inputs = dict(np.load(Path(folder) / "inputs.npz"))
    signature = [
        {name: (tuple(shape), dtype) for name, (shape, dtype) in side.items()}
        for side in json.loads((Path(folder) / "signature.json").read_text())
    ]
    paths = sorted(Path(folder).glob("*.onnx"))
    files = [path.read_bytes() for path in paths]
    open_model(files[0], "step").run(inputs)  # the library is loaded once, before the forks
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(int(count)):
        which = int(generator.integers(len(files)))
        damage = damaged_bytes if generator.integers(3) == 0 else damaged_parts
        data = damage(files[which], generator)
        try:
            check_onnx(data, "f", signature[0], signature[1], rows=True)
        except BadModelFile:
            outcomes["refused"] += 1
            continue
        ended = outcome(data, inputs, CLOSE["int8" if "int8" in paths[which].stem else "float"])
        outcomes[ended] += 1
        if ended not in ("same", "refused by the interpreter", "not compared"):
            (Path(folder) / f"failure-{number}.onnx").write_bytes(data)
    print(json.dumps(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
