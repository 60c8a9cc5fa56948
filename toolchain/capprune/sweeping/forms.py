"""A trained decoder in an export format: its file, what a step takes, and what that file says of photos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune.exporting.contents import decoding_section
from capprune.exporting.quality import search_with
from capprune.exporting.target_models import TfliteModels
from capprune.models.exportable import exportable
from capprune.training.run import LoadedRun
from capprune_exporters.tflite.convert import convert
from capprune_runtime.interpreter import Model, open_model
from capprune_runtime.manifest import STEP_SIGNATURE

RUNTIME = "ai-edge-litert"
ROUNDS, STEPS = 20, 50  # a median of 1,000 steps: half a second for the largest decoder
PERCENTILES = (10, 50, 90)

Arrays = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]


class DecoderOnly(TfliteModels):
    """The decoder's file alone: converting the encoder takes longer, and it is the same for every run."""

    def _convert(self, say: Say) -> None:
        _, step = exportable(self._run.model)
        say("converting the decoder")
        self._step = convert(step, STEP_SIGNATURE, step.example())


@dataclass(frozen=True)
class Form:
    """One format of a run.

    Attributes:
        weights: Its name.
        decoder: The file.
        encoder: The encoder's file, where that is asked for.
        step: The decoder, loaded.
    """

    weights: str
    decoder: bytes
    encoder: bytes | None
    step: Model


def make_forms(run: LoadedRun, formats: Sequence[str], beam: int, say: Say, *, encoder: bool) -> dict[str, Form]:
    """A run in every format that is asked for, by the plan that goes by size.

    Args:
        run: Trained.
        formats: Names of formats.
        beam: K of the search.
        say: Is told what is being done.
        encoder: Whether the encoder's file is wanted as well.

    Raises:
        MissingExtra: If the converter or the interpreter is not installed.
        ExportError: If the graph cannot be converted.
    """
    models = (TfliteModels if encoder else DecoderOnly)(run, beam, say)
    made = {}
    for weights in formats:
        decoder = models.decoder(models.plan(weights, "size")).data
        encoded = models.encoder("float32" if weights == "float32" else "int8") if encoder else None
        made[weights] = Form(weights, decoder, encoded, open_model(decoder, STEP_SIGNATURE, runtime=RUNTIME))
    return made


def time_steps(run: LoadedRun, forms: Mapping[str, Form]) -> dict[str, dict[str, float]]:
    """p10, p50 and p90 of a step in microseconds, the formats taking turns; inputs are random."""
    _, step = exportable(run.model)
    draw = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        name: value.numpy() if name == "token" else draw.standard_normal(value.shape).astype(np.float32) / 2
        for name, value in step.example().items()
    }
    held = {name: arrays.pop(name) for name in ("keys", "values")}
    times: dict[str, list[int]] = {weights: [] for weights in forms}
    for form in forms.values():
        form.step.hold(held)
        form.step.run(arrays)  # the first pays for lazy allocation
    for _ in range(ROUNDS):
        for weights, form in forms.items():
            for _ in range(STEPS):
                began = time.perf_counter_ns()
                form.step.run(arrays)
                times[weights].append(time.perf_counter_ns() - began)
    return {
        weights: {
            f"p{rank}": round(float(value) / 1000, 2)
            for rank, value in zip(PERCENTILES, np.percentile(found, PERCENTILES), strict=True)
        }
        for weights, found in times.items()
    }


def captions_of(run: LoadedRun, form: Form, encoded: Iterable[tuple[str, Arrays]], beam: int) -> dict[str, str]:
    """What the decoder's file says of photos, encoded in torch, by name."""
    decoding = decoding_section(run, beam)
    return {name: run.vocabulary.caption(search_with(form.step, arrays, decoding)) for name, arrays in encoded}
