"""Store the weights of a finished .onnx: sparse ones as gaps, rebuilt by standard operators.

    form            in the file                                          computed as
    dense_float32   every weight                                         dense float32
    gap_float32     a gap (1 byte) and a float32 for each kept weight    dense float32
    gap_int8        a gap and an int8 code, one scale                    dense float32
    gap_codebook4   a gap and a code (1 byte) into a table               dense float32
    dense_int8      an int8 code for every weight, one scale             dense float32
    dense_codebook4 a code (1 byte) for every weight, into a table       dense float32
    dynamic_int8    a 7-bit code for every weight, a scale per row       int8, activations scaled at run time

The gaps of a matrix are the distances between its kept weights, row by row, the first from 0. A distance above 255 is
split by stored zeros. Gaps are converted back to the matrix by

    Cast ─▶ CumSum ─────────┐
    Cast ─▶ Mul, or Gather ─┼─▶ ScatterElements ─▶ Reshape
    ConstantOfShape ────────┘

onnxruntime computes these operators once, when it loads the file. So the file is smaller, but the speed is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune_exporters.onnx import graph
from capprune_exporters.quantise import codebook, int8_per_tensor
from capprune_exporters.stored import SparseModel, StoredTensor
from capprune_exporters.weight_forms import Weights
from capprune_runtime.errors import ExportError

SMALLEST = 1024  # weights; for smaller matrices eight more operators cost more than the zeros
LONGEST_GAP = 255
LARGEST_REDUCED_CODE = (
    64  # 7 bits: onnxruntime adds products in pairs of 16 bits on x86 without VNNI, and more bits saturate
)

Matrix = npt.NDArray[np.float32]


def make_gapped(
    data: bytes,
    *,
    weights: str | Mapping[str, str] = "float32",
    names: Mapping[str, Matrix] | None = None,
    dynamic: bool = False,
    sparse: bool = True,
) -> SparseModel:
    """Store every float32 weight matrix in its smallest form.

    Args:
        data: A file from `convert_onnx`, possibly quantised.
        weights: Quantisation of the values: `float32`, `int8` or `codebook4`, for all tensors, or by name with float32
            for the rest.
        names: Parameters by name. A stored matrix with equal or transposed values gets that name.
        dynamic: Whether dense int8 matrices that are only multiplied are also computed in int8.
        sparse: Whether zeros are omitted. If not, every weight is stored, as in a model without pruning.

    Raises:
        ExportError: There is no such quantisation.
    """
    model = graph.load(data)
    _name_parameters(model, names or {})
    tensors = []
    for tensor in list(model.graph.initializer):
        values = graph.values_of(tensor)
        operators = graph.users(model, tensor.name)
        if values.dtype != np.float32 or values.ndim != 2 or not operators:
            continue
        wanted = weights if isinstance(weights, str) else weights.get(tensor.name, "float32")
        if wanted not in tuple(Weights):
            raise ExportError("there is no such form", where="weights", expected=", ".join(Weights), found=wanted)
        pattern = int8_per_tensor(values)[0] if wanted == "int8" else values  # small weights may round to zero
        form = _form(
            pattern, wanted, dynamic=dynamic and all(_multiplies(one, tensor.name) for one in operators), sparse=sparse
        )
        used = "+".join(sorted({one.op_type for one in operators}))
        size = _store(model, tensor.name, values, form)
        kept = int(np.count_nonzero(values if form.endswith("float32") else pattern))
        tensors.append(StoredTensor(used, values.shape, kept, form, size, tensor.name))
    graph.drop_unused(model)
    return SparseModel(graph.save(model), tuple(tensors))


def gaps_of(matrix: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the gaps of a matrix, and the flat positions they encode, some of which may hold a zero.

    At least one position is kept, because some runtimes fail on empty tensors.
    """
    places = np.flatnonzero(matrix)
    distances = np.diff(places, prepend=0)
    # number of gaps for each distance; the last one ends at a kept weight
    steps = np.maximum(-(-distances // LONGEST_GAP), 1)
    gaps = np.full(int(steps.sum()), LONGEST_GAP, np.uint8)
    gaps[np.cumsum(steps) - 1] = distances - (steps - 1) * LONGEST_GAP
    if not places.size:
        gaps = np.zeros(1, np.uint8)
    return gaps, np.cumsum(gaps, dtype=np.int64)


def _name_parameters(model: Any, names: Mapping[str, Matrix]) -> None:
    for tensor in model.graph.initializer:
        values = graph.values_of(tensor)
        for name, parameter in names.items():
            if parameter.ndim == 2 and any(np.array_equal(values, same) for same in (parameter, parameter.T)):
                graph.rename(model, tensor.name, name)
                break


def _multiplies(operator: Any, weight: str) -> bool:
    """Return whether an operator multiplies rows by a weight, and adds nothing but a bias."""
    attributes = {attribute.name: attribute for attribute in operator.attribute}
    if operator.op_type != "Gemm" or operator.input[1] != weight or operator.input[0] == weight:
        return False
    scaled = any(attributes[name].f != 1.0 for name in ("alpha", "beta") if name in attributes)
    turned = [bool(attributes[name].i) if name in attributes else False for name in ("transA", "transB")]
    return not scaled and turned == [False, True]


def _form(matrix: npt.NDArray[Any], weights: str, *, dynamic: bool, sparse: bool) -> str:
    """Return the smallest form of a matrix, with zeros omitted, or with zeros stored like other weights."""
    if matrix.size < SMALLEST:
        return "dense_float32"
    entries = len(gaps_of(matrix)[0])
    if weights == "float32":
        return "gap_float32" if sparse and 5 * entries < 4 * matrix.size else "dense_float32"
    if sparse and 2 * entries < matrix.size:
        return f"gap_{weights}"
    return "dynamic_int8" if dynamic and weights == "int8" else f"dense_{weights}"


def _store(model: Any, name: str, matrix: Matrix, form: str) -> int:
    """Replace a stored matrix by the given form; return the bytes of its values and gaps."""
    if form == "dense_float32":
        return matrix.nbytes
    before = {tensor.name for tensor in model.graph.initializer}
    if form == "dynamic_int8":
        for operator in graph.users(model, name):
            _multiply_in_int8(model, operator, matrix)
    elif form == "dense_int8":
        codes, scale = int8_per_tensor(matrix)
        _rebuild(model, name, _scaled(model, name, codes, scale, name))
    elif form == "dense_codebook4":
        _rebuild(model, name, _looked_up(model, name, matrix, slice(None), name, matrix.shape))
    else:
        _rebuild(model, name, _scattered(model, name, matrix, form))
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer if tensor.name not in before)


def _rebuild(model: Any, name: str, nodes: list[Any]) -> None:
    """Compute a stored tensor by operators, under the same name."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            model.graph.initializer.remove(tensor)
            break
    for place, one in enumerate(nodes):
        model.graph.node.insert(place, one)


def _scattered(model: Any, name: str, matrix: Matrix, form: str) -> list[Any]:
    if form == "gap_int8":
        codes, scale = int8_per_tensor(matrix)
        gaps, places = gaps_of(codes)
        nodes = _scaled(model, name, codes.ravel()[places], scale, f"{name}.values")
    else:
        gaps, places = gaps_of(matrix)
        if form == "gap_codebook4":
            nodes = _looked_up(model, name, matrix, places, f"{name}.values")
        else:
            nodes = []
            _add(model, f"{name}.values", matrix.ravel()[places])
    return [
        *nodes,
        graph.node("Cast", [_add(model, f"{name}.gaps", gaps)], f"{name}.steps", to=graph.element_type("int32")),
        graph.node("CumSum", [f"{name}.steps", _add(model, "first_axis", np.array(0))], f"{name}.places"),
        graph.node("ConstantOfShape", [_add(model, f"{name}.size", np.array([matrix.size]))], f"{name}.zeros"),
        graph.node("ScatterElements", [f"{name}.{part}" for part in ("zeros", "places", "values")], f"{name}.flat"),
        graph.node("Reshape", [f"{name}.flat", _add(model, f"{name}.shape", np.array(matrix.shape))], name),
    ]


def _scaled(model: Any, name: str, codes: npt.NDArray[np.int8], scale: np.float32, output: str) -> list[Any]:
    # Cast and Mul rather than DequantizeLinear, which onnxruntime does not compute at load.
    stored = _add(model, f"{name}.codes", codes), _add(model, f"{name}.scale", np.array(scale, np.float32))
    return [
        graph.node("Cast", [stored[0]], f"{name}.numbers", to=graph.element_type("float32")),
        graph.node("Mul", [f"{name}.numbers", stored[1]], output),
    ]


def _looked_up(
    model: Any, name: str, matrix: Matrix, places: Any, output: str, shape: tuple[int, ...] = (-1,)
) -> list[Any]:
    """Look up the values of a matrix at flat positions in a table of at most 16 values, plus zero if needed."""
    table = codebook(matrix)
    codes, flat, values = table[0].ravel()[places], matrix.ravel()[places], table[1]
    if (flat == 0).any():  # a codebook never contains zero
        codes, values = np.where(flat == 0, 0, codes + 1).astype(np.uint8), np.append(np.float32(0), values)
    stored = _add(model, f"{name}.codebook", values), _add(model, f"{name}.codes", codes.reshape(shape))
    return [
        graph.node("Cast", [stored[1]], f"{name}.numbers", to=graph.element_type("int32")),
        graph.node("Gather", [stored[0], f"{name}.numbers"], output),
    ]


def _multiply_in_int8(model: Any, gemm: Any, matrix: Matrix) -> None:
    """Replace a Gemm by its int8 product: one scale per row of weights, one scale for all activations."""
    source, name, output = gemm.input[0], gemm.input[1], gemm.output[0]
    scales = np.maximum(np.abs(matrix).max(1) / np.float32(LARGEST_REDUCED_CODE), np.finfo(np.float32).tiny)
    codes = np.rint(matrix / scales[:, np.newaxis]).astype(np.int8)
    parts = [f"{output}.{part}" for part in ("codes", "scale", "zero_point", "sums", "numbers", "scales", "product")]
    taken, scale, zero, sums, numbers, both, product = parts
    quantise = graph.node("DynamicQuantizeLinear", [source], taken)
    quantise.output.extend([scale, zero])
    nodes = [
        quantise,
        graph.node("MatMulInteger", [taken, _add(model, f"{name}.codes", codes.T), zero], sums),
        graph.node("Cast", [sums], numbers, to=graph.element_type("float32")),
        graph.node("Mul", [scale, _add(model, f"{name}.scales", scales)], both),
        graph.node("Mul", [numbers, both], product if len(gemm.input) > 2 else output),
    ]
    if len(gemm.input) > 2:
        nodes.append(graph.node("Add", [product, gemm.input[2]], output))
    place = list(model.graph.node).index(gemm)
    model.graph.node.remove(gemm)
    for offset, one in enumerate(nodes):
        model.graph.node.insert(place + offset, one)


def _add(model: Any, name: str, values: npt.NDArray[Any]) -> str:
    """Store a tensor unless its name exists already; return the name."""
    if name not in {tensor.name for tensor in model.graph.initializer}:
        model.graph.initializer.append(graph.stored(name, values))
    return name
