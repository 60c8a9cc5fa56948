"""An export target in one file: ONNX with every weight written out, for tools that do not read capprune's gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from capprune_exporters.onnx.convert import convert_onnx
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.plan import Plan
from capprune_exporters.stored import SparseModel
from capprune_exporters.targets.target import Target


class PlainOnnx(Target):
    """Float32 only; what it writes is an ordinary bundle."""

    kind: ClassVar[str] = "onnx"
    summary: ClassVar[str] = "plain_onnx: as large as a model without pruning; read by any tool that reads ONNX"
    weights: ClassVar[tuple[str, ...]] = ("float32",)
    encoder_weights: ClassVar[tuple[str, ...]] = ("float32",)

    def convert_encode(self) -> bytes:
        """Once per photo."""
        return convert_onnx(self.calls.encode, self.calls.encode_inputs)

    def convert_step(self) -> bytes:
        """Once per word."""
        return convert_onnx(self.calls.step, self.calls.step_inputs)

    def write_encoder(self, converted: bytes, weights: str, calibration: Iterable[Mapping[str, Any]]) -> bytes:
        """The file as it was converted."""
        return converted

    def write_decoder(self, converted: bytes, plan: Plan) -> SparseModel:
        """Every weight, zeros too, under the parameter's name."""
        return make_gapped(converted, names=self.calls.matrices, sparse=False)
