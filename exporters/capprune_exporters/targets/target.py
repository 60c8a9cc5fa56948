"""Base class of the export targets, which write the two model files of a bundle in one verified format.

A target is one module with a subclass of `Target`, named in `capprune_exporters.targets.registry.TARGETS` or declared
by another package under the entry point `capprune.targets`. `capprune export` uses only this interface.
docs/extending.md has an example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from capprune_exporters.balanced import plan_balanced
from capprune_exporters.baselines import Baseline
from capprune_exporters.cost_table import DEFAULT_COSTS, CostTable, read_cost_table
from capprune_exporters.plan import Matrix, Plan, plan_as_given, plan_by_measurement, plan_by_size
from capprune_exporters.stored import SparseModel
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.weight_forms import EncoderWeights, Weights
from capprune_runtime.bundle.interface import StepInterface
from capprune_runtime.bundle.manifest import ENCODE_SIGNATURE, DecodingSection
from capprune_runtime.bundle.preprocessing import PreprocessingSection, RegionsSection
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import BadModelFile, ExportError, UsageError
from capprune_runtime.formats import FORMATS, Call, Format

if TYPE_CHECKING:
    from torch import Tensor, nn

Calibration = Callable[[], Iterable[Mapping[str, Any]]]
Say = Callable[[str], None]

BALANCED, SIZE, AUTO, GIVEN = "balanced", "size", "auto", "given"  # the last: by hand


@dataclass(frozen=True)
class Calls:
    """The two calls of a trained model, and the facts that a target may need.

    Attributes:
        encode: Takes keyword tensors of one photo and returns a dictionary of tensors: the held tensors and the first
            state.
        encode_inputs: Example inputs of `encode`.
        step: Takes keyword tensors and returns a dictionary: scores, the new state and, if the model has it, the
            attention.
        step_inputs: Example inputs of `step`.
        interface: Inputs and outputs of `step`.
        matrices: The masked weight matrices of `step`, (N, K) float32, by parameter name.
        looked_up: Names of the matrices that are looked up by row instead of multiplied.
        projections: The masked weight matrices of the decoder's part of `encode`.
        filters: Returns the filters of the encoder by name, after folding.
        vocabulary: The decoder's vocabulary.
        preprocessing: Preprocessing of a photo for `encode`.
        decoding: Settings of the search.
        encoder: The encoder's name, for messages.
        source: Source of the encoder, if known.
    """

    encode: nn.Module
    encode_inputs: Mapping[str, Tensor]
    step: nn.Module
    step_inputs: Mapping[str, Tensor]
    interface: StepInterface
    matrices: Mapping[str, Matrix]
    looked_up: tuple[str, ...]
    projections: Mapping[str, Matrix]
    filters: Callable[[], Mapping[str, Matrix]]
    vocabulary: Vocabulary
    preprocessing: PreprocessingSection | RegionsSection
    decoding: DecodingSection
    encoder: str
    source: str | None = None


class Target(ABC):
    """Exporter of one run's two model files for one target; each call is converted once.

    Args:
        calls: The two calls of the run.

    Attributes:
        kind: The format that it writes, a key of `capprune_runtime.formats.FORMATS`.
        extra: The extra of capprune that it needs, if any.
        summary: One sentence for users, printed after an export.
        weights: Supported quantisations of the decoder's weights.
        encoder_weights: Supported quantisations of the encoder's weights.
        plans: Supported plans for the decoder's matrices, the default first: some of `balanced`, `size`, `auto` and
            `given`.
        static_by_default: Whether static int8 is the default of the encoder's weights, if it costs little.
    """

    kind: ClassVar[str]
    extra: ClassVar[str | None] = None
    summary: ClassVar[str] = ""
    weights: ClassVar[tuple[str, ...]] = tuple(Weights)
    encoder_weights: ClassVar[tuple[str, ...]] = tuple(EncoderWeights)
    plans: ClassVar[tuple[str, ...]] = (SIZE,)
    static_by_default: ClassVar[bool] = False

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._encode, self._step = b"", b""
        self._encoders: dict[str, bytes] = {}

    @abstractmethod
    def convert_encode(self) -> bytes:
        """Return `encode` as a model file with float32 weights.

        Raises:
            MissingExtra: A converter is not installed.
            ExportError: The graph cannot be converted.
        """

    @abstractmethod
    def convert_step(self) -> bytes:
        """Return `step` as a model file with float32 weights; raises the errors of `convert_encode`."""

    @abstractmethod
    def write_encoder(self, converted: bytes, weights: str, calibration: Iterable[Mapping[str, Any]]) -> bytes:
        """Return the encoder's file with quantised weights.

        Args:
            converted: The result of `convert_encode`.
            weights: One of `encoder_weights`.
            calibration: Inputs of `encode` by name; empty unless `weights` is `static_int8`.
        """

    @abstractmethod
    def write_decoder(self, converted: bytes, plan: Plan) -> SparseModel:
        """Return the decoder's file as a plan describes it.

        Args:
            converted: The result of `convert_step`.
            plan: The result of `plan`.
        """

    def baselines(self) -> tuple[Baseline, ...]:
        """Return the decoder in every form of the target, for comparisons only."""
        return ()

    @classmethod
    def default_weights(cls) -> str:
        """Return the default quantisation of the decoder's weights: int8 if the target supports it."""
        return Weights.INT8 if Weights.INT8 in cls.weights else cls.weights[0]

    @classmethod
    def encoder_weights_beside(cls, weights: str, *, calibrated: bool = False) -> str:
        """Return the default quantisation of the encoder for the decoder's `weights`.

        Args:
            weights: One of `weights`.
            calibrated: Whether there are photos to calibrate on.
        """
        wanted = [EncoderWeights.STATIC_INT8] if calibrated and cls.static_by_default else []
        wanted += [EncoderWeights.WEIGHT_ONLY_INT8]
        able = [one for one in wanted if weights != Weights.FLOAT32 and one in cls.encoder_weights]
        return able[0] if able else EncoderWeights.FLOAT32

    @property
    def format(self) -> Format:
        """The format that the target writes."""
        return FORMATS[self.kind]

    @property
    def step(self) -> bytes:
        """The converted file of `step`."""
        return self._step

    def plan(self, weights: str, wanted: str | Mapping[str, str] | None = None, costs: CostTable | None = None) -> Plan:
        """Return the storage of each matrix of `step`; this needs no conversion.

        Args:
            weights: One of `weights`.
            wanted: `balanced`, `size`, `auto`, or forms by tensor name; by default the first of `plans`.
            costs: Cost table of a balanced plan; the default one if None.

        Raises:
            UsageError: The target has no such plan, or a tensor or its form is unknown.
            ConfigError: The cost table lacks a form.
        """
        wanted = self.plans[0] if wanted is None else wanted
        name = wanted if isinstance(wanted, str) else GIVEN
        if name not in self.plans:
            raise UsageError(
                "the export target has no such plan",
                where="--plan",
                expected=", ".join("a file" if one == GIVEN else one for one in self.plans),
                found=wanted if isinstance(wanted, str) else "a file",
            )
        matrices, looked_up = self.calls.matrices, self.calls.looked_up
        if not isinstance(wanted, str):
            return plan_as_given(matrices, looked_up, weights, wanted)
        if wanted == BALANCED:
            table = costs or read_cost_table(DEFAULT_COSTS, "--costs")
            return plan_balanced(matrices, looked_up, weights, table)
        make = plan_by_size if wanted == SIZE else plan_by_measurement
        return make(matrices, looked_up, weights)

    def convert(self, say: Say = lambda line: None, *, encoder: bool = True) -> None:
        """Convert both calls.

        Args:
            say: Called with progress messages.
            encoder: Whether to convert `encode`, which takes longer and is not needed in a sweep of decoders.

        Raises:
            MissingExtra: A converter is not installed.
            ExportError: A graph cannot be converted, or the verifier refuses the encoder.
        """
        if encoder:
            say("converting the encoder")
            self._encode = self.convert_encode()
            self._verify_encoder()
        say("converting the decoder")
        self._step = self.convert_step()

    def encoder(self, weights: str, calibration: Calibration | None = None) -> bytes:
        """Return the encoder's file, created once for each quantisation.

        Args:
            weights: One of `encoder_weights`.
            calibration: Returns the inputs of `encode` that `static_int8` needs.

        Raises:
            UsageError: There is nothing to calibrate on.
        """
        check_calibration(weights, calibration)
        if weights not in self._encoders:
            examples = calibration() if calibration and weights == EncoderWeights.STATIC_INT8 else ()
            self._encoders[weights] = self.write_encoder(self._encode, weights, examples)
        return self._encoders[weights]

    def decoder(self, plan: Plan) -> SparseModel:
        """Return the decoder's file as a plan describes it."""
        return self.write_decoder(self._step, plan)

    def verify_encoder(self, data: bytes) -> None:
        """Check that a bundle may hold an encoder's file.

        Raises:
            BadModelFile: The verifier refuses it.
        """
        inputs = {name: (tuple(value.shape), "float32") for name, value in self.calls.encode_inputs.items()}
        call = Call(ENCODE_SIGNATURE, inputs, self.calls.interface.encode_outputs())
        self.format.verify(data, self.format.encoder, call)

    def _verify_encoder(self) -> None:
        """Check early that a bundle may hold the encoder, because the work after its conversion takes minutes."""
        calls = self.calls
        try:
            self.verify_encoder(self._encode)
        except BadModelFile as error:
            raise ExportError(
                f"the encoder {calls.encoder} cannot be exported to {self.kind}: {error.what}",
                where=f"encoder.source {calls.source}" if calls.source else error.where,
                expected=error.expected,
                found=self.operator_of(error) or error.found,
                hint="docs/encoders.md lists the encoders that export",
            ) from error

    def operator_of(self, error: BadModelFile) -> str | None:
        """Return the name of the operator that the verifier refused, if its message lacks it."""
        return None


def find_target(name: str) -> type[Target]:
    """Return the export target of that name.

    Raises:
        UsageError: There is no such target, it cannot be loaded, or no verifier supports its format.
    """
    found = TARGETS.load(name, "--target")
    if not (isinstance(found, type) and issubclass(found, Target)):
        raise UsageError(
            "this is not an export target", where=name, expected=f"a subclass of {Target.__module__}.Target"
        )
    if (kind := getattr(found, "kind", None)) not in FORMATS:
        raise UsageError(
            "nothing unverified runs, and no verifier reads the files of this export target",
            where=f"--target {name}",
            expected=" or ".join(FORMATS),
            found=kind,
        )
    return found


def check_calibration(weights: str | None, calibration: object) -> None:
    """Check that static int8 has photos to calibrate on.

    Raises:
        UsageError: There is nothing to calibrate on.
    """
    if weights == EncoderWeights.STATIC_INT8 and calibration is None:
        hint = "add --data FOLDER"
        raise UsageError("static int8 needs photos to calibrate on", where="--encoder-weights", hint=hint)
