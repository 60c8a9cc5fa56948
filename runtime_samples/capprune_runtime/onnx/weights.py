"""Checks of stored weights that are not plain float32: gaps, codes, scales. Each has one accepted form and range.

gaps            uint8 ─▶ Cast ─▶ CumSum ─▶ the indices of a ScatterElements into zeros of a ConstantOfShape
codes           int8 ─▶ Cast ─▶ Mul by stored scales
table           uint8 ─▶ Cast ─▶ the indices of a Gather
int8 product    DynamicQuantizeLinear ─▶ MatMulInteger ─▶ Cast
int8 numbers    (QuantizeLinear ─▶) DequantizeLinear
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from capprune_runtime.onnx.file import Initializer, Node, OnnxModel

# For kernels that add products in pairs of 16 bits, such as onnxruntime's on x86 without VNNI: 2 · 255 · 64 fits, more
# saturates.
LARGEST_CODE = 64
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


class BadWeights(Exception):
    """A broken rule of this module, and the operator that breaks it."""

    def __init__(self, rule: str, node: Node, expected: object = None, found: object = None) -> None:
        super().__init__(rule)
        self.rule, self.node, self.expected, self.found = rule, node, expected, found


def check_weights(model: OnnxModel) -> None:
    """Check every operator that reads numbers in a form other than float32.

    Args:
        model: A model whose operators are known to fit their inputs.

    Raises:
        BadWeights: A rule is broken.
    """
    checked = _Weights(model)
    for node in model.nodes:
        if node.operator in _RULES:
            _RULES[node.operator](checked, node)


class _Weights:
    """A model, with the producer and the readers of every value."""

    def __init__(self, model: OnnxModel) -> None:
        self._stored = model.initializers
        self._makers = {name: node for node in model.nodes for name in node.outputs}
        self._readers: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        self._seen: dict[tuple[str, str], int] = {}
        self._inputs = {value.name for value in model.inputs}
        self._outputs = {value.name for value in model.outputs}

    def cast(self, node: Node) -> None:
        """Check a Cast, in its three uses."""
        stored = self._stored.get(node.inputs[0])
        if stored is None:
            if self._maker(node.inputs[0]) != "MatMulInteger":
                raise BadWeights("weights: only stored numbers and the sums of int8 products are cast", node)
            return
        if stored.dtype == "int8":
            self._only(node, ("Mul",))
            if self._once("smallest", stored, lambda: int(stored.values.min())) == -128:
                raise BadWeights("weights: int8 codes must not hold -128", node, "-127 to 127")
        elif stored.dtype == "uint8":
            self._only(node, ("CumSum", "Gather"))
        else:
            raise BadWeights("weights: only stored int8 and uint8 numbers are cast", node, found=stored.dtype)

    def scaled(self, node: Node) -> None:
        """Check a Mul: codes times one scale, or one scale per index of the first axis."""
        for codes, scale in (node.inputs, node.inputs[::-1]):
            numbers = self._cast_of(codes, "int8")
            if numbers is None:
                continue
            scales = self._stored.get(scale)
            fitting = ((), (numbers.shape[0], *(1 for _ in numbers.shape[1:]))) if numbers.shape else ((),)
            if scales is None or scales.shape not in fitting:
                raise BadWeights("weights: codes need one stored scale, or one for each index of the first axis", node)
            self._sane(node, scales)

    def gathered(self, node: Node) -> None:
        """Check a Gather: its indices are an input of the model, or stored and in range."""
        codes = self._cast_of(node.inputs[1], "uint8")
        if codes is None:
            if node.inputs[1] not in self._inputs:
                raise BadWeights("weights: only tokens and stored codes are looked up", node)
            return
        table = self._stored.get(node.inputs[0])
        if table is None:
            raise BadWeights("weights: codes need a stored table", node)
        most = self._once("largest", codes, lambda: int(codes.values.max()))
        if most >= len(table.values):
            raise BadWeights("weights: a code lies outside its table", node, len(table.values), most)

    def summed(self, node: Node) -> None:
        """Check a CumSum: it sums stored gaps, for a ScatterElements."""
        if self._cast_of(node.inputs[0], "uint8") is None:
            raise BadWeights("gaps: they must be stored uint8 numbers", node)
        self._only(node, ("ScatterElements",))

    def zeros(self, node: Node) -> None:
        """Check a ConstantOfShape: it makes the zeros for a ScatterElements."""
        self._only(node, ("ScatterElements",))

    def scattered(self, node: Node) -> None:
        """Check a ScatterElements: it writes into zeros, at unique indices in range that gaps encode."""
        zeros, sums, values = node.inputs
        if self._maker(zeros) != "ConstantOfShape" or self._maker(sums) != "CumSum":
            raise BadWeights("gaps: they must lead into zeros", node)
        maker = self._makers.get(values)
        rebuilt = maker is not None and maker.operator in ("Mul", "Gather") and any(map(self._is_cast, maker.inputs))
        if values not in self._stored and not rebuilt:
            raise BadWeights("gaps: what they lead to must be stored", node)
        gaps = self._cast_of(self._makers[sums].inputs[0], "uint8")
        size = self._stored[self._makers[zeros].inputs[0]]
        assert gaps is not None  # `summed` and the order of the nodes ensure it
        if not self._once("gaps", gaps, lambda: bool(gaps.values[1:].all())):
            raise BadWeights("gaps: two lead to one place", node, found=f"a gap of 0 at {gaps.values[1:].argmin() + 1}")
        last, places = self._once("sum", gaps, lambda: int(gaps.values.sum(dtype=np.int64))), int(size.values[0])
        if last >= places:
            raise BadWeights("gaps: they lead out of the tensor", node, f"below {places}", last)
        self._only(node, ("Reshape",))

    def multiplied(self, node: Node) -> None:
        """Check a MatMulInteger: rows quantised at run time, weights that cannot saturate."""
        rows, zero = self._makers.get(node.inputs[0]), self._makers.get(node.inputs[2])
        if rows is None or rows is not zero or rows.operator != "DynamicQuantizeLinear":
            raise BadWeights("int8: the rows of a product must come from a DynamicQuantizeLinear", node)
        if node.inputs[::2] != rows.outputs[::2]:
            raise BadWeights("int8: the numbers and the zero point of a product are mixed up", node)
        self._small(node, self._stored[node.inputs[1]])
        self._only(node, ("Cast",))

    def quantised(self, node: Node) -> None:
        """Check QuantizeLinear and DequantizeLinear: valid scales and zero points, weights that cannot saturate."""
        self._sane(node, self._stored[node.inputs[1]])
        zero, stored = self._stored[node.inputs[2]], self._stored.get(node.inputs[0])
        if zero.dtype == "uint8":
            if node.operator == "DequantizeLinear" and self._maker(node.inputs[0]) != "QuantizeLinear":
                raise BadWeights("int8: only what was quantised before is dequantised", node)
            return
        if zero.values.any():
            raise BadWeights("int8: the zero points of weights must be 0", node)
        if stored is None:
            raise BadWeights("int8: int8 and int32 numbers must be stored", node)
        if stored.dtype == "int8":
            self._small(node, stored)

    def _sane(self, node: Node, scales: Initializer) -> None:
        # every stored float32 is known to be finite
        if not (scales.values >= _SMALLEST_NORMAL).all():
            raise BadWeights("scale: it is not a positive number", node, f"at least {_SMALLEST_NORMAL}")

    def _small(self, node: Node, weights: Initializer) -> None:
        largest = self._once("size", weights, lambda: max(int(weights.values.max()), -int(weights.values.min())))
        if largest > LARGEST_CODE:
            raise BadWeights(
                "int8: weights of products must have 7 bits, as onnxruntime saturates sums of more on some processors",
                node,
                f"-{LARGEST_CODE} to {LARGEST_CODE}",
            )

    def _once(self, what: str, tensor: Initializer, find: Callable[[], int]) -> int:
        """Return the cached result for a stored tensor, which thousands of operators may read."""
        key = (what, tensor.name)
        if key not in self._seen:
            self._seen[key] = find()
        return self._seen[key]

    def _maker(self, name: str) -> str:
        return self._makers[name].operator if name in self._makers else ""

    def _cast_of(self, name: str, dtype: str) -> Initializer | None:
        """Return the stored numbers of a type that a value is cast from."""
        if self._maker(name) != "Cast":
            return None
        stored = self._stored.get(self._makers[name].inputs[0])
        return stored if stored is not None and stored.dtype == dtype else None

    def _is_cast(self, name: str) -> bool:
        return any(self._cast_of(name, dtype) is not None for dtype in ("int8", "uint8"))

    def _only(self, node: Node, readers: tuple[str, ...]) -> None:
        """Check that a node's output is used, and only by these operators."""
        name = node.outputs[0]
        found = {reader.operator for reader in self._readers.get(name, [])}
        if name in self._outputs or not found or not found <= set(readers):
            raise BadWeights(
                "weights: what is rebuilt from codes or gaps is read by the wrong operator",
                node,
                " or ".join(readers),
                ", ".join(sorted(found)) or "none",
            )


_RULES: Mapping[str, Callable[[_Weights, Node], None]] = {
    "Cast": _Weights.cast,
    "ConstantOfShape": _Weights.zeros,
    "CumSum": _Weights.summed,
    "DequantizeLinear": _Weights.quantised,
    "Gather": _Weights.gathered,
    "MatMulInteger": _Weights.multiplied,
    "Mul": _Weights.scaled,
    "QuantizeLinear": _Weights.quantised,
    "ScatterElements": _Weights.scattered,
}
