"""Rules that a .tflite must follow before an interpreter loads it.

Stock interpreters trust their files: an invalid row pointer crashes the process, or silently gives wrong results.
`check_tflite` refuses such files first. All rules are in docs/bundle_format.md. The message of a `BadModelFile` starts
with the part concerned, and names the tensor or operator and its byte offset.
"""

from __future__ import annotations

import numpy as np

from capprune_runtime.errors import BadModelFile
from capprune_runtime.tflite.costs import over_limit
from capprune_runtime.tflite.file import Operator, Tensor, TfliteModel, read_tflite
from capprune_runtime.tflite.forms import form_fits, form_of
from capprune_runtime.tflite.operators import OPERATORS
from capprune_runtime.tflite.quantisation import Fault, operator_fault, tensor_fault
from capprune_runtime.tflite.shapes import DoesNotFit, infer_outputs
from capprune_runtime.tflite.sparsity import check_sparse_tensor, densified_fault, sparse_weight_fault

MAX_RANK = 4  # some kernels have arrays of four sizes and do not check bounds
MAX_DIMENSION = 1 << 24
MAX_TENSOR_BYTES = 256 << 20
_COSTS = {
    "work": "it computes too much for its size",
    "live_bytes": "it needs too much memory for its size",
    "expanded_bytes": "it expands stored numbers to too many for its size",
    "window_bytes": "the windows of a convolution need too much memory for its size",
}


def check_tflite(data: bytes, where: str, signature: str) -> TfliteModel:
    """Read a model file and check that every interpreter computes what the file specifies.

    Args:
        data: The whole .tflite file.
        where: Its name, for messages.
        signature: The required signature; no other is allowed.

    Returns:
        The content of the file.

    Raises:
        BadModelFile: A rule is broken.
    """
    model = read_tflite(data, where)
    check = _Check(model, where)
    check.sizes()
    for tensor in model.tensors:
        check.tensor(tensor)
    check.graph()
    check.costs()
    check.signature(signature)
    return model


class _Check:
    """Checks of one file; holds the model and its name, which every rule needs."""

    def __init__(self, model: TfliteModel, where: str) -> None:
        self._model = model
        self._where = where
        self._finite: set[tuple[int, str]] = set()

    def sizes(self) -> None:
        """Check the size limits that apply before anything is computed."""
        model = self._model
        stored = sum(len(buffer) for buffer in model.buffers)
        if stored > model.size_bytes:
            raise self._bad("buffer: the buffers overlap", None, f"at most {model.size_bytes} bytes", stored)
        if not model.operators or not model.inputs or not model.outputs:
            raise self._bad("model: it computes nothing")
        if model.buffers and len(model.buffers[0]):
            raise self._bad("buffer: the first must be empty, as it stands for `computed`")

    def tensor(self, tensor: Tensor) -> None:
        """Check one tensor: its shape, size, quantisation and stored values."""
        if len(tensor.shape) > MAX_RANK:
            raise self._bad("tensor: too many dimensions", tensor, f"at most {MAX_RANK}", len(tensor.shape))
        if not all(1 <= size <= MAX_DIMENSION for size in tensor.shape):
            raise self._bad("tensor: impossible shape", tensor, f"dimensions 1 to {MAX_DIMENSION}", tensor.shape)
        size_bytes = tensor.elements * np.dtype(tensor.dtype).itemsize  # Python's integers do not overflow
        if size_bytes > MAX_TENSOR_BYTES:
            raise self._bad("tensor: too large", tensor, f"at most {MAX_TENSOR_BYTES} bytes", size_bytes)
        self._fault(tensor_fault(tensor))
        stored = len(self._model.buffers[tensor.buffer])
        if tensor.sparsity is not None:
            self._rule(check_sparse_tensor(tensor, stored), tensor)
        elif stored and stored != size_bytes:
            raise self._bad("tensor: the stored bytes do not fill the shape", tensor, size_bytes, stored)
        self._values(tensor)

    def graph(self) -> None:
        """Check that every operator reads existing tensors, and that no tensor is written twice."""
        ready = {tensor.index for tensor in self._model.tensors if self._model.is_constant(tensor)}
        for index in self._model.inputs:
            tensor = self._get(index, "model: there is no such input tensor")
            if index in ready:
                raise self._bad("model: an input is stored in the file or stands twice", tensor)
            if not tensor.shape:
                raise self._bad("model: an input without dimensions, whose shape runtimes do not agree on", tensor)
            ready.add(index)
        for operator in self._model.operators:
            self._operator(operator, ready)
            for index in operator.outputs:
                tensor = self._get(index, f"{_name(operator)}: there is no such output tensor")
                self._written(operator, tensor, ready)
                ready.add(index)
            self._shapes(operator)
            self._fault(operator_fault(self._model, operator))
            self._form(operator)
        self._fault(densified_fault(self._model))
        for index in self._model.outputs:
            tensor = self._get(index, "model: there is no such output tensor")
            if index not in ready or tensor.sparsity is not None:
                raise self._bad("model: an output is never computed", tensor)

    def costs(self) -> None:
        """Check that the cost of a run is within the limits for the size of the file."""
        if (over := over_limit(self._model)) is not None:
            kind, limit, cost, operator = over
            part = "model" if operator is None else _name(operator)
            raise self._bad(f"{part}: {_COSTS[kind]}", None, f"{kind} of at most {limit}", cost)

    def signature(self, key: str) -> None:
        """Check that the one signature names exactly the subgraph's inputs and outputs.

        A signature may not name a tensor inside the graph. Some quantisers write such files, and the interpreter then
        returns a tensor whose memory has been reused.
        """
        signatures = self._model.signatures
        if list(signatures) != [key]:
            found = ", ".join(ascii(name) for name in signatures) or "none"
            raise self._bad("signature: there must be exactly one", None, key, found)
        for kind, named, all_ in (
            ("input", signatures[key].inputs, self._model.inputs),
            ("output", signatures[key].outputs, self._model.outputs),
        ):
            if sorted(named.values()) != sorted(all_):
                raise self._bad(
                    f"signature: its {kind}s are not those of the subgraph", None, sorted(all_), dict(named)
                )

    def _operator(self, operator: Operator, ready: set[int]) -> None:
        rule, name = OPERATORS[operator.name], _name(operator)
        if not rule.least_inputs <= len(operator.inputs) <= rule.most_inputs:
            raise self._bad(
                f"{name}: wrong number of inputs",
                None,
                f"{rule.least_inputs} to {rule.most_inputs}",
                len(operator.inputs),
            )
        outputs = rule.outputs or int(operator.options["outputs"])
        if len(operator.outputs) != outputs:
            raise self._bad(f"{name}: wrong number of outputs", None, outputs, len(operator.outputs))
        for position, index in enumerate(operator.inputs):
            if index == -1 and position == rule.may_omit:
                continue
            tensor = self._get(index, f"{name}: there is no such input tensor")
            if index not in ready:
                raise self._bad(f"{name}: it reads what was never computed", tensor)
            if position in rule.constants and not self._model.is_constant(tensor):
                raise self._bad(f"{name}: input {position} decides a shape and must be stored", tensor)
            if tensor.sparsity is not None:
                self._sparse_use(operator, position, tensor)

    def _written(self, operator: Operator, tensor: Tensor, ready: set[int]) -> None:
        if tensor.index in ready or tensor.sparsity is not None:
            raise self._bad(f"{_name(operator)}: it writes what is there already", tensor)
        if not tensor.shape:
            raise self._bad("tensor: a computed one without dimensions, whose shape runtimes do not agree on", tensor)
        if tensor.quantisation is not None and tensor.quantisation.scales.size > 1:
            raise self._bad("quantisation: computed numbers must have one scale", tensor)

    def _form(self, operator: Operator) -> None:
        if not form_fits(self._model, operator):
            raise self._bad(
                f"{_name(operator)}: no exporter writes this form, which runtimes may compute differently",
                None,
                " | ".join(OPERATORS[operator.name].forms),
                form_of(self._model, operator),
            )

    def _shapes(self, operator: Operator) -> None:
        try:
            inferred = infer_outputs(self._model, operator)
        except DoesNotFit as error:
            raise self._bad(f"{_name(operator)}: its inputs do not fit", None, found=error) from None
        for index, (shape, dtype) in zip(operator.outputs, inferred, strict=True):
            tensor = self._model.tensors[index]
            if (tensor.shape, tensor.dtype) != (shape, dtype):
                raise self._bad(
                    f"{_name(operator)}: its output has another shape or type than declared",
                    tensor,
                    f"{shape} {dtype}",
                    f"{tensor.shape} {tensor.dtype}",
                )

    def _sparse_use(self, operator: Operator, position: int, tensor: Tensor) -> None:
        if (operator.name, position) == ("FULLY_CONNECTED", 1):
            self._fault(sparse_weight_fault(self._model, operator))
        elif operator.name != "DENSIFY":
            raise self._bad(
                f"{_name(operator)}: it cannot read a sparse tensor",
                tensor,
                "the weight of FULLY_CONNECTED, or DENSIFY",
            )
        elif tensor.sparsity is not None and tensor.sparsity.block_map:
            raise self._bad("sparsity: DENSIFY reads tensors without blocks only", tensor)

    def _values(self, tensor: Tensor) -> None:
        key = (tensor.buffer, tensor.dtype)
        if tensor.dtype not in ("float32", "float16") or key in self._finite:
            return
        self._finite.add(key)
        finite = np.isfinite(self._model.stored_values(tensor))
        if not finite.all():
            raise self._bad("tensor: a weight is not a finite number", tensor, found=f"at {int(finite.argmin())}")

    def _get(self, index: int, rule: str) -> Tensor:
        if not 0 <= index < len(self._model.tensors):
            raise self._bad(rule, None, f"0 to {len(self._model.tensors) - 1}", index)
        return self._model.tensors[index]

    def _rule(self, broken: tuple[str, object, object] | None, tensor: Tensor) -> None:
        if broken is not None:
            raise self._bad(broken[0], tensor, broken[1], broken[2])

    def _fault(self, fault: Fault | None) -> None:
        if fault is not None:
            raise self._bad(fault.rule, fault.tensor, fault.expected, fault.found)

    def _bad(
        self, rule: str, tensor: Tensor | None = None, expected: object = None, found: object = None
    ) -> BadModelFile:
        where = self._where
        if tensor is not None:
            where += f", tensor {tensor.index} {tensor.name[:80]!a}, byte {tensor.offset}"
        return BadModelFile(rule, where=where, expected=expected, found=found)


def _name(operator: Operator) -> str:
    return f"operator {operator.index} ({operator.name})"
