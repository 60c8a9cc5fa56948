"""A trained decoder in an export format: its file, the inputs of a step, and the captions that it generates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from capprune.exporting.calls import calls_of
from capprune.exporting.contents import decoding_section
from capprune.models.exportable import exportable
from capprune.training.run import LoadedRun
from capprune_exporters.targets.target import SIZE
from capprune_exporters.targets.tflite import TfliteTarget
from capprune_runtime.bundle.manifest import STEP_SIGNATURE
from capprune_runtime.caption.decoder import DecoderStep
from capprune_runtime.caption.interpreter import Model, open_model
from capprune_runtime.caption.search import search
from capprune_runtime.formats import runtimes_for
from capprune_runtime.measure.interleaved import time_interleaved

RUNTIME = runtimes_for("tflite")[0]
ROUNDS, STEPS = 20, 50  # a median of 1,000 steps: half a second for the largest decoder
PERCENTILES = (10, 50, 90)

Arrays = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Form:
    """A run in one export format.

    Attributes:
        weights: Name of the format.
        decoder: The decoder's file.
        encoder: The encoder's file, if requested.
        step: The loaded decoder.
    """

    weights: str
    decoder: bytes
    encoder: bytes | None
    step: Model


def make_forms(run: LoadedRun, formats: Sequence[str], beam: int, say: Say, *, encoder: bool) -> dict[str, Form]:
    """Export a run in each of the given formats, with the plan by size.

    Args:
        run: The trained run.
        formats: Names of formats.
        beam: K, the beam width.
        say: Receives progress messages.
        encoder: Whether to write the encoder's file as well.

    Raises:
        MissingExtra: If the converter or the interpreter is not installed.
        ExportError: If the graph cannot be converted.
    """
    target = TfliteTarget(calls_of(run, beam))
    target.convert(say, encoder=encoder)
    made = {}
    for weights in formats:
        decoder = target.decoder(target.plan(weights, SIZE)).data
        encoded = target.encoder(target.encoder_weights_beside(weights)) if encoder else None
        made[weights] = Form(weights, decoder, encoded, open_model(decoder, STEP_SIGNATURE, runtime=RUNTIME))
    return made


class Timed(NamedTuple):
    """A step that can be run repeatedly.

    Attributes:
        step: The decoder, with the inputs that are constant for a photo.
        arrays: The other inputs.
    """

    step: Model
    arrays: Arrays


def ready_to_time(run: LoadedRun, step: Model) -> Timed:
    """Return a run's decoder with random inputs, after a first step, which allocates memory."""
    _, plain = exportable(run.model)
    draw = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        name: value.numpy() if value.dtype == torch.int32 else draw.standard_normal(value.shape).astype(np.float32) / 2
        for name, value in plain.example().items()
    }
    interface = run.model.decoder.interface()
    kept = (*interface.held, *(name for name, spec in interface.state.items() if spec.carry == "append"))
    step.hold({name: arrays.pop(name) for name in kept})
    step.run(arrays)
    return Timed(step, arrays)


def time_steps(timed: Mapping[str, Timed]) -> dict[str, dict[str, float]]:
    """Return p10, p50 and p90 of each step in microseconds, timed interleaved."""
    calls = {name: partial(step.run, arrays) for name, (step, arrays) in timed.items()}
    times = time_interleaved(calls, rounds=ROUNDS, each=STEPS)
    return {
        name: {
            f"p{rank}": round(float(value), 2)
            for rank, value in zip(PERCENTILES, np.percentile(found, PERCENTILES), strict=True)
        }
        for name, found in times.items()
    }


def captions_of(run: LoadedRun, form: Form, encoded: Iterable[tuple[str, Arrays]], beam: int) -> dict[str, str]:
    """Return the captions of the decoder's file by photo; the photos are encoded in torch."""
    decoding, step = decoding_section(run, beam), DecoderStep(form.step, run.model.decoder.interface())
    return {
        name: run.vocabulary.caption(search(step, step.look_at(arrays), decoding, beam).tokens)
        for name, arrays in encoded
    }
