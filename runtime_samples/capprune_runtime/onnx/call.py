"""Check that an .onnx is one of the calls of a captioning model."""

from __future__ import annotations

from capprune_runtime.formats import NEXT, Call, Checked
from capprune_runtime.onnx.check import check_and_count


def check_call(data: bytes, where: str, call: Call) -> Checked:
    """Check a model file; see `Format.verify`.

    The metadata of an .onnx is not used. Inputs and outputs of an ONNX graph share one namespace, so an output with the
    name of an input has the prefix `next_`.
    """
    both = call.inputs.keys() & call.outputs.keys()
    outputs = {NEXT + name if name in both else name: tensor for name, tensor in call.outputs.items()}
    _, multiply_adds = check_and_count(data, where, call.inputs, outputs, rows=call.rows)
    return Checked({}, multiply_adds)
