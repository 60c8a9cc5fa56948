"""The loss of CIDEr-D by quantisation; if it is too large, tensors are kept in float32, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune.data.captions import load_caption_set
from capprune.data.inputs import read_all
from capprune.metrics.intervals import Change, bootstrap_change
from capprune.metrics.scores import score
from capprune_exporters.plan import Matrix, Plan
from capprune_exporters.quantise import requantised
from capprune_runtime.bundle.interface import StepInterface
from capprune_runtime.bundle.manifest import ENCODE_SIGNATURE, STEP_SIGNATURE, DecodingSection
from capprune_runtime.bundle.preprocessing import PreprocessingSection, RegionsSection
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.caption.captioner import encoder_inputs
from capprune_runtime.caption.decoder import DecoderStep
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.caption.search import search
from capprune_runtime.errors import DataError

LARGEST_LOSS = 0.005  # of CIDEr-D, relative; the loss is too large if its whole interval exceeds this

Encoded = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]


class ValidationPhotos:
    """Photos with captions, for scoring pairs of model files; each encoder processes the photos once.

    Every photo is captioned as it is and as its mirror image, and has the mean of both scores: whether a rounding changes a
    caption is mostly chance, and the mirror image is a second draw.

    Args:
        folder: A data folder.
        split: Split of the photos.
        limit: Maximum number of photos.
        preprocessing: How a photo becomes the encoder's input.
        decoding: Token ids, limits and beam.
        vocabulary: Vocabulary of the decoder.
        interface: Interface of the decoder's step.

    Raises:
        DataError: The folder cannot be read, or the split is empty.
        PhotoError: A photo cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        limit: int,
        *,
        preprocessing: PreprocessingSection | RegionsSection,
        decoding: DecodingSection,
        vocabulary: Vocabulary,
        interface: StepInterface,
    ) -> None:
        chosen = load_caption_set(folder).split(split)[:limit]
        if not chosen:
            raise DataError("there are no photos to measure on", where=folder, expected=f"a split {split}")
        self.captions = {photo.name: photo.captions for photo in chosen}
        photos = list(first_inputs(folder, split, limit, preprocessing))
        can_be_mirrored = isinstance(preprocessing, PreprocessingSection)
        self._views = (photos, [photo[:, ::-1] for photo in photos]) if can_be_mirrored else (photos,)
        self._preprocessing, self._interface = preprocessing, interface
        self._decoding, self._vocabulary = decoding, vocabulary
        self._encoded: dict[bytes, list[list[Encoded]]] = {}

    def __len__(self) -> int:
        return len(self.captions)

    def cider_d(self, encoder: bytes, decoder: bytes) -> Sequence[float]:
        """Return CIDEr-D of every photo, with plain tokens, in the order of the photos; the mean of its views."""
        step = DecoderStep(open_model(decoder, STEP_SIGNATURE), self._interface)
        scores = []
        for view in self._encode(encoder):
            said = {name: self._caption(step, encoded) for name, encoded in zip(self.captions, view, strict=True)}
            scores.append(score(self.captions, said, tokenizer="plain", meteor=False).per_photo_cider)
        means: list[float] = np.mean(scores, axis=0).tolist()
        return means

    def _encode(self, encoder: bytes) -> list[list[Encoded]]:
        if encoder not in self._encoded:
            model = open_model(encoder, ENCODE_SIGNATURE)
            self._encoded[encoder] = [
                [model.run(encoder_inputs(self._preprocessing, photo)) for photo in view] for view in self._views
            ]
        return self._encoded[encoder]

    def _caption(self, step: DecoderStep, encoded: Encoded) -> str:
        found = search(step, step.look_at(encoded), self._decoding, self._decoding.beam)
        return self._vocabulary.caption(found.tokens)


def first_inputs(
    folder: Path, split: str, limit: int, preprocessing: PreprocessingSection | RegionsSection
) -> Iterator[NDArray[Any]]:
    """Yield the captioner's input for the first photos of a split."""
    names = [photo.name for photo in load_caption_set(folder).split(split)[:limit]]
    yield from read_all(folder, names, preprocessing)


def costs_too_much(change: Change) -> bool:
    """Return whether the whole interval of the relative change is beyond the largest allowed loss."""
    return change.relative is not None and change.relative.high < -LARGEST_LOSS


def settle_plan(
    plan: Plan,
    matrices: Mapping[str, Matrix],
    photos: ValidationPhotos,
    before: Sequence[float],
    encoder: bytes,
    decoder_of: Callable[[Plan], bytes],
    say: Say,
) -> tuple[Plan, Change]:
    """Keep tensors in float32, largest quantisation error first, until the loss is small enough.

    Args:
        plan: The requested plan.
        matrices: The masked weights of `step`, by name.
        photos: Photos to measure on.
        before: CIDEr-D of each photo with the decoder in float32.
        encoder: The encoder's model file.
        decoder_of: Writes the decoder that a plan describes.
        say: Receives progress messages.

    Returns:
        The final plan, and its change of CIDEr-D.
    """
    remaining = _worst_first(plan, matrices)
    while True:
        change = bootstrap_change(before, photos.cider_d(encoder, decoder_of(plan)))
        say(f"{plan.weights}: loss on {len(photos)} photos of val: {told(change)}")
        if not remaining or not costs_too_much(change):
            return plan, change
        worst = remaining.pop(0)
        say(f"keeping {worst} in float32")
        plan = plan.with_float(worst, f"{plan.weights} cost more than {LARGEST_LOSS:.1%} of CIDEr-D")


def told(change: Change) -> str:
    """Return a change of CIDEr-D as text."""
    if change.relative is None:
        return f"CIDEr-D {change.difference.estimate:+.4f}"
    relative = change.relative
    return f"CIDEr-D {relative.estimate:+.2%} [{relative.low:+.2%}, {relative.high:+.2%}]"


def _worst_first(plan: Plan, matrices: Mapping[str, Matrix]) -> list[str]:
    errors = {}
    for line in plan.lines:
        if line.weights != "float32":
            matrix = matrices[line.tensor]
            lost = requantised(matrix, line.weights) - matrix
            errors[line.tensor] = float(np.square(lost).sum() / max(np.square(matrix).sum(), 1e-30))
    return sorted(errors, key=lambda name: -errors[name])
