"""ONNX, for onnxruntime, which computes everything dense: a plan affects only the size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from capprune_exporters.baselines import Baseline, onnx_baselines
from capprune_exporters.cost_table import CostTable
from capprune_exporters.onnx.convert import convert_onnx
from capprune_exporters.onnx.models import encoder_onnx
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.plan import Plan
from capprune_exporters.stored import SparseModel
from capprune_exporters.targets.target import Target


class OnnxTarget(Target):
    """Target for interchange and for onnxruntime."""

    kind: ClassVar[str] = "onnx"
    extra: ClassVar[str | None] = "onnx"
    summary: ClassVar[str] = (
        "onnx: the size shrinks and the speed does not, because onnxruntime expands sparse weights when it loads them"
    )

    def convert_encode(self) -> bytes:
        """See `Target.convert_encode`."""
        return convert_onnx(self.calls.encode, self.calls.encode_inputs)

    def convert_step(self) -> bytes:
        """See `Target.convert_step`."""
        rows = not self.calls.interface.position  # the rows of one call may be at different words
        return convert_onnx(self.calls.step, self.calls.step_inputs, rows=rows)

    def plan(self, weights: str, wanted: str | Mapping[str, str] | None = None, costs: CostTable | None = None) -> Plan:
        """See `Target.plan`; the only plan is the smallest form."""
        plan = super().plan(weights, wanted, costs)
        lines = (replace(line, weights=weights, reason="the fewest bytes; computed dense") for line in plan.lines)
        return replace(plan, lines=tuple(lines))

    def write_encoder(self, converted: bytes, weights: str, calibration: Iterable[Mapping[str, Any]]) -> bytes:
        """See `Target.write_encoder`."""
        return encoder_onnx(converted, weights, calibration, self.calls.projections)

    def write_decoder(self, converted: bytes, plan: Plan) -> SparseModel:
        """See `Target.write_decoder`."""
        return make_gapped(converted, weights=plan.quantised, names=self.calls.matrices, dynamic=True)

    def baselines(self) -> tuple[Baseline, ...]:
        """See `Target.baselines`."""
        return onnx_baselines(self.step, self.calls.matrices)
