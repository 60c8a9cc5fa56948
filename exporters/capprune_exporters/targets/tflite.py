"""TFLite: small files, with sparse matrices that run in the stock runtime's sparse kernels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from capprune_exporters.baselines import Baseline, tflite_baselines
from capprune_exporters.plan import Plan
from capprune_exporters.stored import SparseModel
from capprune_exporters.targets.target import AUTO, BALANCED, GIVEN, SIZE, Target
from capprune_exporters.tflite.converted import convert_cached
from capprune_exporters.tflite.quantise import static_int8, weight_only_int8
from capprune_exporters.tflite.sparse import add_metadata, make_sparse, read_sparse, stored_names
from capprune_exporters.weight_forms import EncoderWeights, Weights
from capprune_runtime.bundle.manifest import ENCODE_SIGNATURE, STEP_SIGNATURE, described
from capprune_runtime.errors import BadModelFile


class TfliteTarget(Target):
    """Target for TFLite runtimes."""

    kind: ClassVar[str] = "tflite"
    extra: ClassVar[str | None] = "tflite"
    summary: ClassVar[str] = (
        "tflite: sparse matrices run in the stock runtime's sparse kernels, which pays from about 93 % sparsity"
    )
    plans: ClassVar[tuple[str, ...]] = (BALANCED, SIZE, AUTO, GIVEN)
    static_by_default: ClassVar[bool] = True

    def convert_encode(self) -> bytes:
        """See `Target.convert_encode`."""
        return convert_cached(self.calls.encode, ENCODE_SIGNATURE, self.calls.encode_inputs)

    def convert_step(self) -> bytes:
        """See `Target.convert_step`."""
        return convert_cached(self.calls.step, STEP_SIGNATURE, self.calls.step_inputs)

    def write_encoder(self, converted: bytes, weights: str, calibration: Iterable[Mapping[str, Any]]) -> bytes:
        """See `Target.write_encoder`."""
        # int8 filters stay dense in the file: 1 byte per weight is about the size of kept float32 ones, and packs better
        as_trained = weights == EncoderWeights.FLOAT32
        names = {**self.calls.projections, **self.calls.filters()}
        values = Weights.FLOAT32 if as_trained else Weights.INT8  # of sparse projections
        sparse = make_sparse(converted, one_row=False, weights=values, names=names, filters=as_trained).data
        if weights == EncoderWeights.STATIC_INT8:
            return read_sparse(static_int8(sparse, calibration))
        return read_sparse(sparse if as_trained else weight_only_int8(sparse))

    def write_decoder(self, converted: bytes, plan: Plan) -> SparseModel:
        """See `Target.write_decoder`."""
        matrices = self.calls.matrices
        stored = stored_names(converted, matrices)
        forms = {name: form for name, form in plan.forms.items() if name in stored}
        made = make_sparse(converted, one_row=True, plan=forms, weights=plan.quantised, names=matrices)
        return SparseModel(self._with_metadata(made.data), made.tensors)

    def baselines(self) -> tuple[Baseline, ...]:
        """See `Target.baselines`."""
        matrices = self.calls.matrices
        plan = dict.fromkeys(stored_names(self.step, matrices), "dense_float32")
        return tflite_baselines(make_sparse(self.step, one_row=True, plan=plan, names=matrices).data)

    def operator_of(self, error: BadModelFile) -> str | None:
        """See `Target.operator_of`; the verifier has only the operator's number."""
        number = str(error.found).rpartition("builtin code ")[2]
        if not number.isdecimal():
            return None
        # installed with the converter, which has just run
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        return next((name for name, code in vars(BuiltinOperator).items() if code == int(number)), None)

    def _with_metadata(self, data: bytes) -> bytes:
        """Add the vocabulary and the preprocessing to the file, for users who get it without its bundle."""
        calls = self.calls
        text = described(calls.preprocessing, calls.decoding, calls.vocabulary.coding)
        return add_metadata(data, calls.vocabulary.as_text().encode(), json.dumps(text).encode())
