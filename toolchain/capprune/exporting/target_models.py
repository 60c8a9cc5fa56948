"""The two model files of a bundle, in every form that a target can hold; each graph is converted once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from capprune.exporting.contents import decoding_section
from capprune.models.caption_model import GridEncoder
from capprune.models.exportable import exportable
from capprune.models.family import IN_STEP, Role
from capprune.training.run import LoadedRun
from capprune_exporters.onnx.convert import convert_onnx
from capprune_exporters.onnx.models import encoder_onnx
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.plan import Matrix, Plan, plan_as_given, plan_by_measurement, plan_by_size
from capprune_exporters.rivals import Rival, onnx_rivals, tflite_rivals
from capprune_exporters.stored import SparseModel
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.quantise import static_int8, weight_only_int8
from capprune_exporters.tflite.sparse import add_metadata, make_sparse, stored_names
from capprune_runtime.bundle.manifest import ENCODE_SIGNATURE, STEP_SIGNATURE, described
from capprune_runtime.errors import BadModelFile, ExportError, UsageError
from capprune_runtime.onnx.check import check_onnx
from capprune_runtime.tflite.check import check_tflite

Calibration = Callable[[], Iterable[Mapping[str, Any]]]


class TargetModels(ABC):
    """Encoder and decoder of one run, for one target.

    Args:
        run: What is exported.
        beam: K that the bundle uses when nobody says otherwise.
        say: Is told what is being done.

    Attributes:
        matrices: The masked weight matrices of `step`, (N, K) float32, by parameter name.
    """

    def __init__(self, run: LoadedRun, beam: int, say: Callable[[str], None]) -> None:
        self._run, self._beam = run, beam
        decoder = run.model.decoder
        self._projections = {name: one.numpy() for name, one in decoder.matrices(Role.PER_PHOTO).items()}
        self.matrices: dict[str, Matrix] = {name: one.numpy() for name, one in decoder.matrices(*IN_STEP).items()}
        self._looked_up = tuple(decoder.matrices(Role.LOOKED_UP))
        self._encoders: dict[str, bytes] = {}
        self._convert(say)

    def encoder(self, form: str, calibration: Calibration | None = None) -> bytes:
        """The encoder's file with its weights in one of the target's forms.

        Raises:
            UsageError: The form needs photos to calibrate on, and there are none.
        """
        if form not in self._encoders:
            if form == "static_int8" and calibration is None:
                hint = "add --data FOLDER"
                raise UsageError("static int8 needs photos to calibrate on", where="--encoder-weights", hint=hint)
            self._encoders[form] = self._make_encoder(form, calibration() if calibration else ())
        return self._encoders[form]

    @abstractmethod
    def plan(self, weights: str, wanted: str | Mapping[str, str]) -> Plan:
        """The plan that is asked for: `size`, `auto`, or forms by tensor name.

        Raises:
            UsageError: A plan, a tensor or a form is unknown.
        """

    @abstractmethod
    def decoder(self, plan: Plan) -> SparseModel:
        """The decoder's file as a plan describes it."""

    @abstractmethod
    def rivals(self) -> tuple[Rival, ...]:
        """The decoder in every form that the target has, for a comparison; none goes into a bundle for use."""

    @abstractmethod
    def _convert(self, say: Callable[[str], None]) -> None: ...

    @abstractmethod
    def _make_encoder(self, form: str, calibration: Iterable[Mapping[str, Any]]) -> bytes: ...


class TfliteModels(TargetModels):
    """For the runtimes of TFLite files."""

    def plan(self, weights: str, wanted: str | Mapping[str, str]) -> Plan:
        """See `TargetModels.plan`."""
        if wanted == "size":
            return plan_by_size(self.matrices, self._looked_up, weights)
        if wanted == "auto":
            return plan_by_measurement(self.matrices, self._looked_up, weights)
        if isinstance(wanted, str):
            raise UsageError("there is no such plan", where="--plan", expected="size, auto or a file", found=wanted)
        return plan_as_given(self.matrices, self._looked_up, weights, wanted)

    def decoder(self, plan: Plan) -> SparseModel:
        """See `TargetModels.decoder`."""
        stored = stored_names(self._step, self.matrices)
        forms = {name: form for name, form in plan.forms.items() if name in stored}
        made = make_sparse(self._step, one_row=True, plan=forms, weights=plan.quantised, names=self.matrices)
        return SparseModel(self._with_metadata(made.data), made.tensors)

    def rivals(self) -> tuple[Rival, ...]:
        """See `TargetModels.rivals`."""
        plan = dict.fromkeys(stored_names(self._step, self.matrices), "dense_float32")
        return tflite_rivals(make_sparse(self._step, one_row=True, plan=plan, names=self.matrices).data)

    def _convert(self, say: Callable[[str], None]) -> None:
        encode, step = exportable(self._run.model)
        say("converting the encoder")
        self._encode = convert(encode, ENCODE_SIGNATURE, encode.example())
        with _refusals(self._run, "TFLite"):
            check_tflite(self._encode, "encoder.tflite", ENCODE_SIGNATURE)
        say("converting the decoder")
        self._step = convert(step, STEP_SIGNATURE, step.example())

    def _make_encoder(self, form: str, calibration: Iterable[Mapping[str, Any]]) -> bytes:
        # int8 filters stay dense in the file: 1 byte a weight is about what kept float32 ones take, and packs better
        encoder = self._run.model.encoder
        filters = encoder.network.folded_filters() if isinstance(encoder, GridEncoder) else {}
        names = {**self._projections, **filters}
        sparse = make_sparse(self._encode, one_row=False, names=names, filters=form == "float32").data
        if form == "static_int8":
            return static_int8(sparse, calibration)
        return sparse if form == "float32" else weight_only_int8(sparse)

    def _with_metadata(self, data: bytes) -> bytes:
        """For whoever gets the file without its bundle: the words, and how to feed the model."""
        vocabulary = self._run.vocabulary
        text = described(self._run.preprocessing, decoding_section(self._run, self._beam), vocabulary.coding)
        return add_metadata(data, vocabulary.as_text().encode(), json.dumps(text).encode())


class OnnxModels(TargetModels):
    """For onnxruntime, which computes everything dense: a plan is only about bytes."""

    def plan(self, weights: str, wanted: str | Mapping[str, str]) -> Plan:
        """See `TargetModels.plan`."""
        if wanted != "size":
            raise UsageError(
                "an ONNX export has one plan, the smallest", where="--plan", expected="size", found="another"
            )
        plan = plan_by_size(self.matrices, self._looked_up, weights)
        lines = (replace(line, weights=weights, reason="the fewest bytes; computed dense") for line in plan.lines)
        return replace(plan, lines=tuple(lines))

    def decoder(self, plan: Plan) -> SparseModel:
        """See `TargetModels.decoder`."""
        return make_gapped(self._step, weights=plan.quantised, names=self.matrices, dynamic=True)

    def rivals(self) -> tuple[Rival, ...]:
        """See `TargetModels.rivals`."""
        return onnx_rivals(self._step, self.matrices)

    def _convert(self, say: Callable[[str], None]) -> None:
        encode, step = exportable(self._run.model)
        say("converting the encoder")
        self._encode = convert_onnx(encode, encode.example())
        with _refusals(self._run, "ONNX"):
            inputs = {name: (tuple(value.shape), "float32") for name, value in encode.example().items()}
            outputs = step.decoder.interface().encode_outputs()
            check_onnx(self._encode, "encoder.onnx", inputs, outputs, rows=False)
        say("converting the decoder")
        rows = not step.decoder.interface().position  # rows of one call may stand at different words
        self._step = convert_onnx(step, step.example(), rows=rows)

    def _make_encoder(self, form: str, calibration: Iterable[Mapping[str, Any]]) -> bytes:
        return encoder_onnx(self._encode, form, calibration, self._projections)


@contextmanager
def _refusals(run: LoadedRun, target: str) -> Iterator[None]:
    """Refuse an encoder that no bundle may hold before the minutes of work that follow its conversion."""
    try:
        yield
    except BadModelFile as error:
        raise ExportError(
            f"the encoder {run.config.encoder.name} cannot be exported to {target}: {error.what}",
            where=f"encoder.source {run.config.encoder.source}" if run.config.encoder.source else error.where,
            expected=error.expected,
            found=_operator(error) or error.found,
            hint="docs/encoders.md lists the encoders that export",
        ) from error


def _operator(error: BadModelFile) -> str | None:
    """The name of an operator of TFLite that is not allowed; the verifier has only its number."""
    number = str(error.found).rpartition("builtin code ")[2]
    if not number.isdecimal():
        return None
    from ai_edge_litert.schema_py_generated import BuiltinOperator  # with the converter, which has just run

    return next((name for name, code in vars(BuiltinOperator).items() if code == int(number)), None)


MODELS: dict[str, type[TargetModels]] = {"tflite": TfliteModels, "onnx": OnnxModels}
