"""Caption photos with a verified bundle: encode a photo once, then search word by word."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.familiarity import KNOWN, familiarity_of, pool
from capprune_runtime.bundle.manifest import MAX_BEAM
from capprune_runtime.bundle.preprocessing import PHOTO, PRESENT, REGIONS, PreprocessingSection, RegionsSection
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.confidence import mean_log_probability
from capprune_runtime.caption.decoder import Arrays, DecoderState, DecoderStep
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.caption.search import StepResult, Watch, search
from capprune_runtime.errors import UsageError
from capprune_runtime.photo import normalise


@dataclass(frozen=True)
class Caption:
    """A generated caption and its timings.

    Args:
        text: The caption as text.
        tokens: Token ids, without `<start>` and `<end>`.
        log_probability: Log-probability of the words, and of `<end>` if finished.
        attention: (T, R) float32, the attention over the photo's regions for each word; None if the model has no
            attention.
        finished: Whether the model generated `<end>` within `max_tokens`.
        encode_us: Time of the encoder, in µs.
        step_us: Time of every call of the decoder in call order, in µs; a beam makes several calls per word.
        shown: One text for each token.
        confidence: Confidence that the photo is of the known kind and the caption likely, 0 to 1; None if the bundle has
            no familiarity.
    """

    text: str
    tokens: tuple[int, ...]
    log_probability: float
    attention: NDArray[np.float32] | None
    finished: bool
    encode_us: float
    step_us: tuple[float, ...]
    shown: tuple[str, ...] = ()
    confidence: float | None = None

    @property
    def familiar(self) -> bool | None:
        """Whether the photo looks like those that the bundle knows; None if the bundle has no familiarity."""
        return None if self.confidence is None else self.confidence >= KNOWN

    def as_json(self) -> dict[str, Any]:
        """Return the caption for a JSON document, without the attention."""
        known = {} if self.confidence is None else {"confidence": self.confidence, "familiar": self.familiar}
        return {
            "caption": self.text,
            "tokens": list(self.tokens),
            "log_probability": self.log_probability,
            "finished": self.finished,
            "encode_us": self.encode_us,
            "step_us": list(self.step_us),
            **known,
        }


class Captioner:
    """A bundle with its two models loaded. Not thread-safe: create one for each thread.

    Args:
        bundle: What `verify_bundle` returned.
        runtime: See `interpreter.open_model`.
        threads: Number of threads of each interpreter.

    Raises:
        MissingExtra: The runtime is not installed.
        BundleError: The interpreter rejects a model.
    """

    def __init__(self, bundle: Bundle, runtime: str = "auto", threads: int = 1) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self._encoder = open_model(bundle.encoder, manifest.encoder.signature, runtime=runtime, threads=threads)
        decoder = open_model(bundle.decoder, manifest.decoder.signature, runtime=runtime, threads=threads)
        self.step = DecoderStep(decoder, manifest.interface)
        self._familiarity = familiarity_of(bundle.files, manifest.interface, bundle.place)

    @property
    def runtime(self) -> str:
        """The runtime in use."""
        return self.step.model.runtime

    def caption(self, photo: NDArray[Any], beam: int | None = None, watch: Watch | None = None) -> Caption:
        """Generate a caption.

        Args:
            photo: (S, S, 3) uint8 RGB, as `read_photo` returns it; for a model of region features (N, F) float32.
            beam: Beam width K. [default: the bundle's own]
            watch: Called with the tokens of the best hypothesis after every word; an exception from it ends the search.

        Raises:
            UsageError: The photo has another size, or K is not from 1 to 100.
            BundleError: The interpreter failed, or the scores are not finite.
        """
        decoding = self.bundle.manifest.decoding
        width = decoding.beam if beam is None else beam
        if not 1 <= width <= MAX_BEAM:
            raise UsageError("the beam is out of range", where="--beam", expected=f"1 to {MAX_BEAM}", found=width)
        started = time.perf_counter_ns()
        encoded = self._encoded(photo)
        start_state = self.step.look_at(encoded)
        encode_us = (time.perf_counter_ns() - started) / 1000
        pooled = None if self._familiarity is None else pool(encoded, len(self._familiarity.weights))
        step_us: list[float] = []

        def timed_step(token: int, state: DecoderState, position: int) -> StepResult[DecoderState]:
            started = time.perf_counter_ns()
            result = self.step(token, state, position)
            step_us.append((time.perf_counter_ns() - started) / 1000)
            return result

        found = search(timed_step, start_state, decoding, width, watch)
        regions = self.bundle.manifest.interface.regions
        caption = Caption(
            text=self.bundle.vocabulary.caption(found.tokens),
            tokens=found.tokens,
            log_probability=found.log_probability,
            attention=None if regions is None else np.array(found.attention, np.float32).reshape(-1, regions),
            finished=found.finished,
            encode_us=encode_us,
            step_us=tuple(step_us),
            shown=self.bundle.vocabulary.shown(found.tokens),
        )
        if self._familiarity is None or pooled is None:
            return caption
        return replace(caption, confidence=self._familiarity.confidence(pooled, mean_log_probability(caption)))

    def encode(self, photo: NDArray[Any]) -> DecoderState:
        """Run the encoder, and set its results for the following steps.

        Args:
            photo: See `caption`.

        Returns:
            The state before the first word.
        """
        return self.step.look_at(self._encoded(photo))

    def pooled(self, photo: NDArray[Any], count: int) -> NDArray[np.float64]:
        """Return the pooled channels of a photo, from which a familiarity is chosen; see `bundle.familiarity.pool`."""
        return pool(self._encoded(photo), count)

    def _encoded(self, photo: NDArray[Any]) -> Arrays:
        return self._encoder.run(encoder_inputs(self.bundle.manifest.preprocessing, photo))


def encoder_inputs(
    preprocessing: PreprocessingSection | RegionsSection, photo: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    """Return the inputs of `encode`.

    Args:
        preprocessing: The bundle's preprocessing.
        photo: (S, S, 3) uint8 RGB; for a model of region features (N, F) float32.

    Raises:
        UsageError: The photo has another size or type.
    """
    if isinstance(preprocessing, RegionsSection):
        most, channels = preprocessing.regions, preprocessing.channels
        if photo.dtype != np.float32 or photo.ndim != 2 or photo.shape[1] != channels:
            raise _unfit(photo, f"(1 to {most}, {channels}) float32")
        if not 1 <= len(photo) <= most:
            raise _unfit(photo, f"1 to {most} regions")
        padding = most - len(photo)
        regions = np.pad(photo, ((0, padding), (0, 0)))[np.newaxis]
        present = np.pad(np.ones(len(photo), np.float32), (0, padding))[np.newaxis]
        return {REGIONS: regions, PRESENT: present}
    size = preprocessing.size
    if photo.shape != (size, size, 3) or photo.dtype != np.uint8:
        raise _unfit(photo, f"({size}, {size}, 3) uint8")
    return {PHOTO: normalise(photo, preprocessing.mean, preprocessing.scale)}


def _unfit(photo: NDArray[Any], expected: str) -> UsageError:
    found = f"{photo.shape} {photo.dtype}"
    return UsageError("a photo does not fit the encoder", expected=expected, found=found)
