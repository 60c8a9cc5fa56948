"""Validation: run a bundle over photos with captions and measure what it says and how fast.

Nothing here needs torch. The captions of the model the bundle was made from are handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capprune.data.captions import CaptionedPhoto
from capprune.data.photos import PhotoStore
from capprune.evaluation.health import Health, caption_health
from capprune.evaluation.intervals import Change, Interval, bootstrap_change, bootstrap_mean
from capprune.evaluation.metrics import Scores, score
from capprune.evaluation.parity import Parity, ScoreGap, compare_tokens
from capprune.evaluation.results import (
    ConstantCaption,
    DataFacts,
    Latency,
    Quality,
    ReferenceFacts,
    Results,
    bundle_facts,
    environment,
    percentiles,
)
from capprune.evaluation.worker import captions_in_subprocess
from capprune_runtime.captioner import Caption, Captioner
from capprune_runtime.errors import DataError
from capprune_runtime.photo import decode_photo, resize
from capprune_runtime.verify import Bundle

Progress = Callable[[int, int], None]  # photos done, photos in all


@dataclass(frozen=True)
class Reference:
    """What the trained model says for one photo: token ids without start and end, and the caption."""

    tokens: tuple[int, ...]
    caption: str


@dataclass(frozen=True)
class Validation:
    """What a bundle said over a set of photos.

    Attributes:
        runtime: The interpreter that was used.
        threads: Its threads.
        beam: Beam width (1 for greedy).
        captions: For each photo its caption.
        tokens: For each photo its token ids, without start and end.
        unfinished: How many captions reached the longest length without an end.
        scores: Metrics over all photos.
        cider_d: CIDEr-D with its bootstrap interval.
        health: Signs of sick captions.
        latency: Times of encoder, step and caption.
        reference: What the trained model says of the same photos, when it was given.
        reference_scores: Metrics of the trained model, likewise.
        change: CIDEr-D from the trained model to the bundle, likewise.
        parity: Token by token against the trained model, likewise.
    """

    runtime: str
    threads: int
    beam: int
    captions: Mapping[str, str]
    tokens: Mapping[str, tuple[int, ...]]
    unfinished: int
    scores: Scores
    cider_d: Interval
    health: Health
    latency: Latency
    reference: Mapping[str, Reference] | None = None
    reference_scores: Scores | None = None
    change: Change | None = None
    parity: Parity | None = None


def validate_bundle(
    bundle: Bundle,
    photos: Sequence[CaptionedPhoto],
    store: PhotoStore,
    *,
    beam: int | None = None,
    runtime: str = "auto",
    threads: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
    reference: Mapping[str, Reference] | None = None,
    score_gap: ScoreGap | None = None,
    tokenizer: Literal["ptb", "plain", "auto"] = "auto",
    meteor: bool | None = None,
) -> Validation:
    """Captions photos with a bundle, scores the captions and times the parts.

    Args:
        bundle: A verified bundle.
        photos: Photos with their human captions.
        store: Where their pixels are.
        beam: Beam width; None for the bundle's own.
        runtime: Interpreter, see `capprune_runtime.interpreter`.
        threads: Threads of the interpreter.
        limit: Only the first so many photos.
        progress: Told after each photo.
        reference: For at least these photos what the trained model says.
        score_gap: See `parity.compare_tokens`; needed with `reference`.
        tokenizer: See `metrics.score`.
        meteor: See `metrics.score`.

    Returns:
        Captions, scores, times, and the comparison with the trained model.

    Raises:
        DataError: There are no photos, or the reference lacks some.
        PhotoError: A photo cannot be read.
        BundleError: The bundle cannot be run.
    """
    chosen = first_photos(photos, limit)
    captioner = Captioner(bundle, runtime=runtime, threads=threads)
    width = bundle.manifest.decoding.beam if beam is None else beam
    said, caption_us = _caption_photos(captioner, chosen, pixels(bundle, chosen, store), width, progress)
    captions = {name: caption.text for name, caption in said.items()}
    tokens = {name: tuple(caption.tokens) for name, caption in said.items()}
    human = {photo.name: photo.captions for photo in chosen}
    scores = score(human, captions, tokenizer=tokenizer, meteor=meteor)
    own, reference_scores, change, parity = None, None, None, None
    if reference is not None:
        own = _of_photos(reference, chosen)
        reference_scores = score(
            human,
            {name: trained.caption for name, trained in own.items()},
            tokenizer=tokenizer,
            meteor=meteor,
        )
        change = bootstrap_change(reference_scores.per_photo_cider, scores.per_photo_cider)
        if score_gap is not None:
            parity = compare_tokens(_token_map(own), tokens, score_gap)
    return Validation(
        runtime=captioner.runtime,
        threads=threads,
        beam=width,
        captions=captions,
        tokens=tokens,
        unfinished=sum(not caption.finished for caption in said.values()),
        scores=scores,
        cider_d=bootstrap_mean(scores.per_photo_cider),
        health=caption_health(captions.values()),
        latency=_latency(said.values(), caption_us),
        reference=own,
        reference_scores=reference_scores,
        change=change,
        parity=parity,
    )


def parity_in_runtime(
    bundle: Bundle,
    photos: Sequence[CaptionedPhoto],
    store: PhotoStore,
    reference: Mapping[str, Reference],
    score_gap: ScoreGap,
    *,
    runtime: str,
    beam: int,
    threads: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compares a bundle in another interpreter, in a process of its own, with the trained model.

    Args:
        bundle: A verified bundle.
        photos: Photos to caption.
        store: Where their pixels are.
        reference: For at least these photos what the trained model says at this beam width.
        score_gap: See `parity.compare_tokens`.
        runtime: Interpreter, by its own name.
        beam: Beam width (1 for greedy).
        threads: Threads of the interpreter.
        limit: Only the first so many photos.
        progress: Told after each photo is sent.

    Returns:
        The comparison, token by token.

    Raises:
        CapPruneError: Whatever went wrong in the other process.
    """
    chosen = first_photos(photos, limit)
    own = _of_photos(reference, chosen)
    sent = _told(pixels(bundle, chosen, store), len(chosen), progress)
    tokens = captions_in_subprocess(bundle.place, sent, runtime=runtime, beam=beam, threads=threads)
    said = {photo.name: photo_tokens for photo, photo_tokens in zip(chosen, tokens, strict=True)}
    return compare_tokens(_token_map(own), said, score_gap)


def results_of(
    bundle: Bundle,
    validation: Validation,
    data: DataFacts,
    *,
    reference_name: str | None = None,
    other_parity: Mapping[str, Parity] | None = None,
    constant_caption: ConstantCaption | None = None,
) -> Results:
    """The results document of a validation.

    Args:
        bundle: What was validated.
        validation: What came out.
        data: What it was validated on.
        reference_name: Name of the run whose captions were the reference.
        other_parity: Parity in further interpreters, by their names.
        constant_caption: The yardstick, where it was computed.

    Returns:
        The document, with this machine as its environment.
    """
    parity = {} if validation.parity is None else {validation.runtime: validation.parity}
    reference = None
    if validation.reference_scores is not None and validation.change is not None:
        name = "reference" if reference_name is None else reference_name
        reference = ReferenceFacts(name, validation.reference_scores, validation.change)
    return Results(
        bundle=bundle_facts(bundle),
        data=data,
        quality=Quality(
            validation.scores,
            validation.cider_d,
            validation.health,
            validation.beam,
            validation.unfinished,
            constant_caption,
        ),
        latency=validation.latency,
        environment=environment(validation.runtime, validation.threads),
        parity={**parity, **(other_parity or {})},
        reference=reference,
    )


def first_photos(photos: Sequence[CaptionedPhoto], limit: int | None) -> Sequence[CaptionedPhoto]:
    """The first `limit` photos, or all.

    Raises:
        DataError: There are none.
    """
    chosen = photos[:limit]
    if not chosen:
        raise DataError("there are no photos to validate on", expected="at least one photo with captions")
    return chosen


def pixels(bundle: Bundle, photos: Iterable[CaptionedPhoto], store: PhotoStore) -> Iterator[NDArray[np.uint8]]:
    """(S, S, 3) of each photo, decoded and resized as the bundle's manifest says.

    Raises:
        PhotoError: A photo is missing or cannot be decoded.
    """
    size = bundle.manifest.preprocessing.size
    for photo in photos:
        yield resize(decode_photo(store.read(photo.name), photo.name), size)


def _caption_photos(
    captioner: Captioner,
    photos: Sequence[CaptionedPhoto],
    pictures: Iterator[NDArray[np.uint8]],
    beam: int,
    progress: Progress | None,
) -> tuple[dict[str, Caption], list[float]]:
    """The caption of each photo, and the microseconds each took."""
    said: dict[str, Caption] = {}
    caption_us: list[float] = []
    for photo, picture in zip(photos, _told(pictures, len(photos), progress), strict=True):
        if not said:  # the first run pays for lazy allocation; it is made and not counted
            captioner.caption(picture, beam=beam)
        start = time.perf_counter_ns()
        said[photo.name] = captioner.caption(picture, beam=beam)
        caption_us.append((time.perf_counter_ns() - start) / 1000)
    return said, caption_us


def _told(pictures: Iterator[NDArray[np.uint8]], count: int, progress: Progress | None) -> Iterator[NDArray[np.uint8]]:
    """Passes pictures on and tells after each, when the next one is asked for, that it is done."""
    for done, picture in enumerate(pictures, start=1):
        yield picture
        if progress is not None:
            progress(done, count)


def _latency(said: Iterable[Caption], caption_us: Sequence[float]) -> Latency:
    captions = list(said)
    return Latency(
        encode=percentiles([caption.encode_us for caption in captions]),
        step=percentiles([us for caption in captions for us in caption.step_us]),
        caption=percentiles(caption_us),
    )


def _of_photos(reference: Mapping[str, Reference], photos: Sequence[CaptionedPhoto]) -> dict[str, Reference]:
    missing = [photo.name for photo in photos if photo.name not in reference]
    if missing:
        raise DataError(
            f"the reference has no caption for {len(missing)} of {len(photos)} photos",
            where=", ".join(missing[:3]),
        )
    return {photo.name: reference[photo.name] for photo in photos}


def _token_map(reference: Mapping[str, Reference]) -> dict[str, tuple[int, ...]]:
    return {name: trained.tokens for name, trained in reference.items()}
