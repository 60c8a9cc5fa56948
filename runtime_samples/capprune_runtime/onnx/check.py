"""Rules that an .onnx must follow before an interpreter loads it.

onnxruntime checks more of a file than TFLite interpreters do. But it reads external files that a model names, trusts
scales, allocates any size that a model asks for, and adds int8 products in 16 bits, which may overflow. `check_onnx`
refuses such files first. All rules are in docs/bundle_format.md. The message of a `BadModelFile` starts with the part
concerned, and names the tensor or operator and its byte offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BadModelFile
from capprune_runtime.formats import Signature
from capprune_runtime.onnx.costs import LIMITS, costs, run_work
from capprune_runtime.onnx.file import MAX_RANK, Initializer, Node, OnnxModel, Value, read_onnx
from capprune_runtime.onnx.operators import OPERATORS, AttributeRule, Exactly, Int, Ints, OneOf, Real, ZeroTensor
from capprune_runtime.onnx.shapes import Call, DoesNotFit, Known, infer
from capprune_runtime.onnx.weights import BadWeights, check_weights

MANY_ROWS = 65_521  # a prime, so that no other size in a model equals it by chance


def check_onnx(data: bytes, where: str, inputs: Signature, outputs: Signature, *, rows: bool) -> OnnxModel:
    """Read a model file and check that an interpreter computes what the file specifies.

    Args:
        data: The whole .onnx file.
        where: Its name, for messages.
        inputs: Required inputs.
        outputs: Required outputs.
        rows: Whether the first dimension of all inputs and outputs may be free.

    Returns:
        The content of the file.

    Raises:
        BadModelFile: A rule is broken.
    """
    return check_and_count(data, where, inputs, outputs, rows=rows)[0]


def check_and_count(
    data: bytes, where: str, inputs: Signature, outputs: Signature, *, rows: bool
) -> tuple[OnnxModel, int]:
    """Check as `check_onnx` does; return the model, and the multiply-adds of a run for one row."""
    model = read_onnx(data, where)
    check = _Check(model, where, len(data))
    check.names()
    check.values()
    free = check.signature("input", model.inputs, inputs, rows=rows)
    if check.signature("output", model.outputs, outputs, rows=rows) != free:
        raise BadModelFile("signature: inputs and outputs differ in their free dimension", where=where)
    for size in (1, MANY_ROWS) if free else (1,):
        check.graph(size, outputs)
    check.weights()
    return model, check.multiply_adds


class _Check:
    """Checks of one file; holds the model and its name, which every rule needs."""

    def __init__(self, model: OnnxModel, where: str, size_bytes: int) -> None:
        self._model = model
        self._where = where
        self._size_bytes = size_bytes
        self.multiply_adds = 0

    def names(self) -> None:
        """Check that names are unique."""
        given: set[str] = set()
        for name, place in self._given():
            if not name or name in given:
                raise self._bad("graph: a name is empty or given twice", place, found=ascii(name))
            given.add(name)

    def values(self) -> None:
        """Check that stored float32 numbers are finite."""
        for tensor in self._model.initializers.values():
            if tensor.dtype == "float32" and not np.isfinite(tensor.values).all():
                place = int(np.isfinite(tensor.values).ravel().argmin())
                raise self._bad("tensor: a weight is not a finite number", tensor, found=f"at {place}")

    def signature(self, kind: str, found: tuple[Value, ...], expected: Signature, *, rows: bool) -> str:
        """Check that inputs or outputs match the bundle; return the name of the free dimension, or "" without one."""
        if sorted(value.name for value in found) != sorted(expected):
            names = ", ".join(ascii(value.name) for value in found)
            raise self._bad(f"signature: the {kind}s are not those of the manifest", None, ", ".join(expected), names)
        firsts = {value.shape[0] for value in found if value.shape}
        free = next((size for size in firsts if isinstance(size, str)), "") if rows and len(firsts) == 1 else ""
        for value in found:
            shape, dtype = expected[value.name]
            wanted = (free, *shape[1:]) if free else shape
            if (value.shape, value.dtype) != (wanted, dtype):
                raise self._bad(
                    f"signature: the {kind} does not fit the manifest",
                    value,
                    f"{wanted} {dtype}",
                    f"{value.shape} {value.dtype}",
                )
        return free

    def graph(self, rows: int, outputs: Signature) -> None:
        """Check that every operator reads existing values, and that the outputs have their declared shapes and types.

        Args:
            rows: The size of the first dimension if it is free.
            outputs: Shape for one row and type, by name.
        """
        known = {tensor.name: _stored(tensor) for tensor in self._model.initializers.values()}
        for value in self._model.inputs:
            known[value.name] = Known(_sized(value.shape, rows), value.dtype)
        for node in self._model.nodes:
            for name, made in zip(node.outputs, self._infer(node, known), strict=True):
                known[name] = made
                if len(made.shape) > MAX_RANK:
                    raise self._bad("graph: too many dimensions", node, f"at most {MAX_RANK}", len(made.shape))
        if rows == 1:
            self._costs(known)
        for value in self._model.outputs:
            if value.name not in known or value.name in {one.name for one in self._model.inputs}:
                raise self._bad("graph: an output is never computed", value)
            found = known[value.name].shape, known[value.name].dtype
            if found != (_sized(value.shape, rows), outputs[value.name][1]):
                expected = f"{_sized(value.shape, rows)} {outputs[value.name][1]}"
                raise self._bad("graph: an output has another shape or type than declared", value, expected, found)

    def _costs(self, known: Mapping[str, Known]) -> None:
        """Check that the cost of a run is within the limits for the size of the file."""
        found = costs(self._model.nodes, known, [value.name for value in self._model.outputs])
        self.multiply_adds = run_work(self._model.nodes, known)
        for kind, cost in found.items():
            base, per_byte = LIMITS[kind]
            if cost > (limit := base + per_byte * self._size_bytes):
                what = "computes" if kind == "work" else "needs"
                part = "much" if kind == "work" else "much memory"
                raise self._bad(f"graph: it {what} too {part} for its size", None, f"{kind} of at most {limit}", cost)

    def weights(self) -> None:
        """Check the stored numbers that are not float32, and that every stored tensor is used."""
        try:
            check_weights(self._model)
        except BadWeights as error:
            raise self._bad(error.rule, error.node, error.expected, error.found) from None
        read = {name for node in self._model.nodes for name in node.inputs} | {v.name for v in self._model.outputs}
        for tensor in self._model.initializers.values():
            if tensor.name not in read:
                raise self._bad("tensor: nothing reads it", tensor)

    def _infer(self, node: Node, known: Mapping[str, Known]) -> tuple[Known, ...]:
        rule = OPERATORS.get(node.operator)
        if rule is None:
            raise self._bad("operator: this one is not allowed", node, ", ".join(OPERATORS), ascii(node.operator))
        least, most = rule.inputs
        if not least <= len(node.inputs) <= most:
            raise self._bad("operator: wrong number of inputs", node, f"{least} to {most}", len(node.inputs))
        attributes = self._attributes(node, rule.attributes)
        outputs = rule.outputs or attributes["num_outputs"]
        if len(node.outputs) != outputs:
            raise self._bad("operator: wrong number of outputs", node, outputs, len(node.outputs))
        for name in node.inputs:
            if name not in known:
                raise self._bad("operator: it reads what was never computed", node, found=ascii(name))
        for position in rule.stored:
            if position < len(node.inputs) and known[node.inputs[position]].stored is None:
                raise self._bad("operator: this input must be stored", node, found=f"input {position}")
        try:
            return infer(Call(node, tuple(known[name] for name in node.inputs), attributes))
        except DoesNotFit as error:
            raise self._bad("operator: its inputs do not fit", node, found=error) from None

    def _attributes(self, node: Node, rules: Mapping[str, AttributeRule]) -> dict[str, Any]:
        if unknown := sorted(node.attributes.keys() - rules.keys()):
            raise self._bad("attribute: this one is not known", node, ", ".join(rules), ascii(unknown[0]))
        for name, value in node.attributes.items():
            if not _holds(rules[name], value):
                raise self._bad("attribute: its value is not allowed", node, f"{name}: {rules[name]}", ascii(value))
        defaults = {name: rule.default for name, rule in rules.items() if isinstance(rule, Int)}
        attributes = {**defaults, **node.attributes}
        for name, rule in rules.items():
            if attributes.get(name) is None and (isinstance(rule, Int) or name == "perm"):
                raise self._bad("attribute: it is missing", node, name)
        return attributes

    def _given(self) -> Iterator[tuple[str, Value | Initializer | Node]]:
        yield from ((value.name, value) for value in self._model.inputs)
        yield from ((tensor.name, tensor) for tensor in self._model.initializers.values())
        for node in self._model.nodes:
            yield from ((name, node) for name in node.outputs)

    def _bad(
        self,
        rule: str,
        place: Value | Initializer | Node | None = None,
        expected: object = None,
        found: object = None,
    ) -> BadModelFile:
        where = self._where
        if isinstance(place, Node):
            where += f", operator {place.index} ({place.operator[:40]!a}), byte {place.offset}"
        elif place is not None:
            where += f", tensor {place.name[:80]!a}, byte {place.offset}"
        return BadModelFile(rule, where=where, expected=expected, found=found)


def _stored(tensor: Initializer) -> Known:
    return Known(tensor.shape, tensor.dtype, tensor.values)


def _sized(shape: tuple[int | str, ...], rows: int) -> tuple[int, ...]:
    return tuple(rows if isinstance(size, str) else size for size in shape)


def _holds(rule: AttributeRule, value: NDArray[Any] | object) -> bool:
    if isinstance(rule, Exactly):
        return type(value) is type(rule.value) and value == rule.value
    if isinstance(rule, OneOf):
        return value in rule.values
    if isinstance(rule, Real):
        return type(value) is float and rule.low <= value <= rule.high
    if isinstance(rule, Int):
        return type(value) is int and rule.low <= value <= rule.high
    if isinstance(rule, Ints):
        return (
            isinstance(value, tuple)
            and rule.least <= len(value) <= rule.most
            and all(rule.low <= number <= rule.high for number in value)
        )
    assert isinstance(rule, ZeroTensor)
    return (
        isinstance(value, Initializer) and value.dtype == "float32" and value.shape == (1,) and not value.values.any()
    )
