"""The trained model as the reference: its captions of photos, and its score differences to other captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from capprune.data.inputs import Store
from capprune.models.exportable import exportable
from capprune.models.family import Tensors
from capprune.models.search import Walk, log_probabilities
from capprune.models.search import beam as beam_search
from capprune.training.run import LoadedRun
from capprune.validation.parity import first_difference
from capprune.validation.validate import Reference
from capprune_runtime.bundle.preprocessing import PHOTO, PRESENT, REGIONS
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.caption.captioner import encoder_inputs
from capprune_runtime.caption.inputs import decode_input
from capprune_runtime.measure.interleaved import time_interleaved

BATCH = 16  # photos captioned together


class TrainedCaptioner:
    """Generates captions of photos with a trained run, in float32."""

    def __init__(self, run: LoadedRun) -> None:
        self._run = run
        run.model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster

    @torch.inference_mode()
    def caption(self, photos: Sequence[npt.NDArray[Any]], beam: int) -> list[Reference]:
        """Caption photos with a given beam width.

        Args:
            photos: Each `(S, S, 3)` uint8; for a model of region features each `(N, F)` float32.
            beam: K, the beam width.
        """
        no_repeat = self._run.config.search.no_repeat_ngram
        encoded = self._encode(photos)
        found = beam_search(self._run.model.decoder, encoded, self._limit, beam, no_repeat_ngram=no_repeat)
        return [Reference(tokens, self._run.vocabulary.caption(tokens)) for tokens in found.tokens]

    def captions(self, names: Sequence[str], store: Store, beam: int) -> dict[str, Reference]:
        """Caption photos of a store, by name."""
        found: dict[str, Reference] = {}
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            photos = [self._read(store, name) for name in some]
            found |= dict(zip(some, self.caption(photos, beam), strict=True))
        return found

    def score_gap(self, store: Store, name: str, reference: Sequence[int], other: Sequence[int], beam: int) -> float:
        """Return how close the trained model was to choosing `other` instead of `reference` (log-probability).

        Greedy: the difference between its two best words at the first difference. Beam: the difference between its
        scores of the two whole captions, which the search compared.

        Args:
            store: Store of the photo.
            name: Name of the photo.
            reference: Token ids, without `<start>` and `<end>`.
            other: Token ids of another caption.
            beam: K, the beam width of the search.
        """
        photo = self._read(store, name)
        if beam > 1:
            return abs(self._caption_score(photo, reference) - self._caption_score(photo, other))
        shared = first_difference(reference, other)
        best, second = self._word_scores(photo, reference[:shared])[-1].topk(2).values.tolist()
        return float(best - second)

    def _caption_score(self, photo: npt.NDArray[Any], tokens: Sequence[int]) -> float:
        ended = (*tokens, END) if len(tokens) < self._limit else tuple(tokens)
        return float(sum(row[token] for row, token in zip(self._word_scores(photo, ended[:-1]), ended, strict=True)))

    @torch.inference_mode()
    def _word_scores(self, photo: npt.NDArray[Any], prefix: Sequence[int]) -> list[Tensor]:
        """Return the log-probabilities `(V,)` of the first word, and of the next word after each word of a prefix."""
        walk = Walk(self._run.model.decoder, self._encode([photo]))
        return [log_probabilities(walk.step(torch.tensor([token])))[0] for token in (START, *prefix)]

    @property
    def _limit(self) -> int:
        return self._run.config.data.steps

    def _read(self, store: Store, name: str) -> npt.NDArray[Any]:
        return decode_input(store.read(name), name, self._run.preprocessing)

    def _encode(self, photos: Sequence[npt.NDArray[Any]]) -> tuple[Tensors, Tensors]:
        preprocessing = self._run.preprocessing
        inputs = [encoder_inputs(preprocessing, photo) for photo in photos]
        stacked = {name: torch.from_numpy(np.concatenate([one[name] for one in inputs])) for name in inputs[0]}
        if PHOTO in stacked:
            return self._run.model.encode(stacked[PHOTO].permute(0, 3, 1, 2))
        return self._run.model.encode(stacked[REGIONS], stacked[PRESENT])


@torch.inference_mode()
def step_us(run: LoadedRun, calls: int = 200) -> float:
    """Return the median time of one decoder step in torch: one row, one thread, in microseconds."""
    _, step = exportable(run.model)
    inputs = step.example()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = time_interleaved({"step": partial(step, **inputs)}, rounds=1, each=calls)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times["step"]))
