"""Check that a .tflite is one of the calls of a captioning model: the file's own rules, then its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from capprune_runtime.errors import BadModelFile
from capprune_runtime.formats import Call, Checked, Signature
from capprune_runtime.tflite.check import check_tflite
from capprune_runtime.tflite.costs import work
from capprune_runtime.tflite.file import TfliteModel


def check_call(data: bytes, where: str, call: Call) -> Checked:
    """Check a model file; see `Format.verify`."""
    model = check_tflite(data, where, call.name)
    signature = model.signatures[call.name]
    _check_tensors(model, where, "input", signature.inputs, call.inputs)
    _check_tensors(model, where, "output", signature.outputs, call.outputs)
    return Checked({name: bytes(value) for name, value in model.metadata.items()}, work(model))


def _check_tensors(model: TfliteModel, where: str, kind: str, found: Mapping[str, int], expected: Signature) -> None:
    if found.keys() != expected.keys():
        raise BadModelFile(
            f"the model's {kind}s are not those of the manifest",
            where=where,
            expected=", ".join(sorted(expected)),
            found=", ".join(ascii(name) for name in sorted(found)),
        )
    for name, (shape, dtype) in expected.items():
        tensor = model.tensors[found[name]]
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise BadModelFile(
                f"the model's {kind} {name} does not fit the manifest",
                where=where,
                expected=f"{shape} {dtype}",
                found=f"{tensor.shape} {tensor.dtype}",
            )
