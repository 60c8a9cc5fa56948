"""From a verified bundle to captions: encode a photo once, then search word by word."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.manifest import MAX_BEAM
from capprune_runtime.bundle.preprocessing import PHOTO, PRESENT, REGIONS, PreprocessingSection, RegionsSection
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.decoder import DecoderState, DecoderStep
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.caption.search import StepResult, Watch, search
from capprune_runtime.errors import UsageError
from capprune_runtime.photo import normalise


@dataclass(frozen=True)
class Caption:
    """What a model says about a photo, and what it cost.

    Args:
        text: The words with spaces between.
        tokens: Their ids, without `<start>` and `<end>`.
        log_probability: Of the words, and of `<end>` when finished.
        attention: (T, R) float32, for each word where in the photo the model looked; None where the model has no attention.
        finished: Whether the model ended the caption itself, before `max_tokens`.
        encode_us: Time of the encoder, in µs.
        step_us: Time of every call of the decoder in the order made, in µs; a beam makes several a word.
    """

    text: str
    tokens: tuple[int, ...]
    log_probability: float
    attention: NDArray[np.float32] | None
    finished: bool
    encode_us: float
    step_us: tuple[float, ...]
    shown: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The caption for a JSON document, without the attention."""
        return {
            "caption": self.text,
            "tokens": list(self.tokens),
            "log_probability": self.log_probability,
            "finished": self.finished,
            "encode_us": self.encode_us,
            "step_us": list(self.step_us),
        }


class Captioner:
    """A bundle with its two models loaded. Not safe to share between threads: make one for each.

    Args:
        bundle: What `verify_bundle` returned.
        runtime: See `interpreter.open_model`.
        threads: Threads each interpreter may use.

    Raises:
        MissingExtra: The runtime is not there.
        BundleError: The interpreter does not accept a model.
    """

    def __init__(self, bundle: Bundle, runtime: str = "auto", threads: int = 1) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self._encoder = open_model(bundle.encoder, manifest.encoder.signature, runtime=runtime, threads=threads)
        decoder = open_model(bundle.decoder, manifest.decoder.signature, runtime=runtime, threads=threads)
        self.step = DecoderStep(decoder, manifest.interface)

    @property
    def runtime(self) -> str:
        """The runtime that was chosen."""
        return self.step.model.runtime

    def caption(self, photo: NDArray[Any], beam: int | None = None, watch: Watch | None = None) -> Caption:
        """Say a caption.

        Args:
            photo: (S, S, 3) uint8 RGB, as `read_photo` gives it; for a model of region features (N, F) float32.
            beam: K; without it, the bundle's own.
            watch: Called with the tokens of the best hypothesis after every word; what it raises ends the search.

        Raises:
            UsageError: The photo has another size, or K is not from 1 to 100.
            BundleError: The interpreter failed, or the scores are not finite.
        """
        decoding = self.bundle.manifest.decoding
        width = decoding.beam if beam is None else beam
        if not 1 <= width <= MAX_BEAM:
            raise UsageError("the beam is out of range", where="--beam", expected=f"1 to {MAX_BEAM}", found=width)
        started = time.perf_counter_ns()
        start_state = self.encode(photo)
        encode_us = (time.perf_counter_ns() - started) / 1000
        step_us: list[float] = []

        def timed_step(token: int, state: DecoderState, position: int) -> StepResult[DecoderState]:
            started = time.perf_counter_ns()
            result = self.step(token, state, position)
            step_us.append((time.perf_counter_ns() - started) / 1000)
            return result

        found = search(timed_step, start_state, decoding, width, watch)
        regions = self.bundle.manifest.interface.regions
        return Caption(
            text=self.bundle.vocabulary.caption(found.tokens),
            tokens=found.tokens,
            log_probability=found.log_probability,
            attention=None if regions is None else np.array(found.attention, np.float32).reshape(-1, regions),
            finished=found.finished,
            encode_us=encode_us,
            step_us=tuple(step_us),
            shown=self.bundle.vocabulary.shown(found.tokens),
        )

    def encode(self, photo: NDArray[Any]) -> DecoderState:
        """Run the encoder; the steps that follow look at this photo.

        Args:
            photo: See `caption`.

        Returns:
            The state before the first word.
        """
        return self.step.look_at(self._encoder.run(encoder_inputs(self.bundle.manifest.preprocessing, photo)))


def encoder_inputs(
    preprocessing: PreprocessingSection | RegionsSection, photo: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    """Return what `encode` takes.

    Args:
        preprocessing: Of the bundle.
        photo: (S, S, 3) uint8 RGB; for a model of region features (N, F) float32.

    Raises:
        UsageError: It has another size or type.
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
