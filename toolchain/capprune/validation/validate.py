"""Validation: run a bundle on photos with captions, and measure its captions and their speed.

Nothing here needs torch. The captions of the trained model are passed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from capprune.data.captions import CaptionedPhoto
from capprune.data.inputs import Store
from capprune.metrics.health import Health, caption_health
from capprune.metrics.intervals import Change, Interval, bootstrap_change, bootstrap_mean
from capprune.metrics.scores import Scores, score
from capprune.validation.parity import Parity, ScoreGap, compare_tokens
from capprune.validation.results import ConstantCaption, DataFacts, Quality, ReferenceFacts, Results
from capprune.validation.worker import captions_in_subprocess
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.inputs import decode_input
from capprune_runtime.errors import DataError
from capprune_runtime.measure.results import RUN, Latency, Measurement, SaidPhoto, Settings
from capprune_runtime.measure.session import WARM_UP, Photo, Session, measured

Progress = Callable[[int, int], None]  # photos done, photos in all


@dataclass(frozen=True)
class Reference:
    """The trained model's caption of one photo: token ids without start and end, and the text."""

    tokens: tuple[int, ...]
    caption: str


@dataclass(frozen=True)
class Validation:
    """Results of a bundle on a set of photos.

    Attributes:
        measurement: The device's captions and times.
        scores: Metrics over all photos.
        cider_d: CIDEr-D with its bootstrap interval.
        health: Signs of degenerate captions.
        reference: The trained model's captions of the same photos, if given.
        reference_scores: Metrics of the trained model, if given.
        change: Change of CIDEr-D from the trained model to the bundle, if the former is given.
        parity: Comparison with the trained model token by token, if given.
    """

    measurement: Measurement
    scores: Scores
    cider_d: Interval
    health: Health
    reference: Mapping[str, Reference] | None = None
    reference_scores: Scores | None = None
    change: Change | None = None
    parity: Parity | None = None

    @property
    def runtime(self) -> str:
        """The interpreter that was used."""
        return self.measurement.environment.runtime

    @property
    def beam(self) -> int:
        """Beam width (1 for greedy)."""
        return self.measurement.settings.beam

    @property
    def captions(self) -> dict[str, str]:
        """Caption of each photo."""
        return {one.photo: one.caption for one in self.measurement.captions}

    @property
    def tokens(self) -> dict[str, tuple[int, ...]]:
        """Token ids of each photo, without start and end."""
        return {one.photo: one.tokens for one in self.measurement.captions}

    @property
    def unfinished(self) -> int:
        """Number of captions that reached the maximum length without an end."""
        return sum(not one.finished for one in self.measurement.captions)

    @property
    def latency(self) -> Latency:
        """Times of encoder, step and caption."""
        return self.measurement.latency


def measure_here(
    bundle: Bundle,
    names: Sequence[str],
    read: Callable[[str], bytes],
    *,
    beam: int | None = None,
    runtime: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> Measurement:
    """Caption photos with a bundle in this process and measure times.

    Args:
        bundle: A verified bundle.
        names: Photos to caption; at least one.
        read: Returns the bytes of a photo's file.
        beam: Beam width; None for the bundle's own.
        runtime: Interpreter, see `capprune_runtime.caption.interpreter`.
        threads: Threads of the interpreter.
        progress: Called after each photo.

    Raises:
        PhotoError: A photo cannot be read.
        BundleError: The bundle cannot be run.
    """
    session = Session(bundle, runtime, threads)
    width = session.beam(beam)
    said: list[SaidPhoto] = []
    for one in session.say((_photo(bundle, name, read) for name in names), width, strict=True):
        if isinstance(one, SaidPhoto):
            said.append(one)
        if progress is not None:
            progress(len(said), len(names))
    return measured(RUN, session, said, Settings(width, WARM_UP, 1))


def score_measurement(
    measurement: Measurement,
    photos: Sequence[CaptionedPhoto],
    *,
    reference: Mapping[str, Reference] | None = None,
    score_gap: ScoreGap | None = None,
    tokenizer: Literal["ptb", "plain", "auto"] = "auto",
    meteor: bool | None = None,
) -> Validation:
    """Score a bundle's captions from this or another device.

    Args:
        measurement: The captions of all photos.
        photos: The photos with their human captions.
        reference: The trained model's captions of at least these photos.
        score_gap: See `parity.compare_tokens`; needed with `reference`.
        tokenizer: See `metrics.score`.
        meteor: See `metrics.score`.

    Raises:
        DataError: The measurement or the reference lacks some of the photos.
    """
    captions = {one.photo: one.caption for one in measurement.captions}
    if missing := [photo.name for photo in photos if photo.name not in captions]:
        raise DataError(
            f"the device has no caption for {len(missing)} of {len(photos)} photos", where=", ".join(missing[:3])
        )
    human = {photo.name: photo.captions for photo in photos}
    scores = score(human, captions, tokenizer=tokenizer, meteor=meteor)
    found = Validation(measurement, scores, bootstrap_mean(scores.per_photo_cider), caption_health(captions.values()))
    if reference is None:
        return found
    own = _of_photos(reference, photos)
    said = {name: trained.caption for name, trained in own.items()}
    reference_scores = score(human, said, tokenizer=tokenizer, meteor=meteor)
    return dataclasses.replace(
        found,
        reference=own,
        reference_scores=reference_scores,
        change=bootstrap_change(reference_scores.per_photo_cider, scores.per_photo_cider),
        parity=None if score_gap is None else compare_tokens(_token_map(own), found.tokens, score_gap),
    )


def validate_bundle(
    bundle: Bundle,
    photos: Sequence[CaptionedPhoto],
    store: Store,
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
    """Run `measure_here`, then `score_measurement`, on the first `limit` photos or on all.

    Raises:
        DataError: There are no photos, or the reference lacks some.
        PhotoError: A photo cannot be read.
        BundleError: The bundle cannot be run.
    """
    chosen = first_photos(photos, limit)
    names = [photo.name for photo in chosen]
    measurement = measure_here(
        bundle, names, store.read, beam=beam, runtime=runtime, threads=threads, progress=progress
    )
    return score_measurement(
        measurement, chosen, reference=reference, score_gap=score_gap, tokenizer=tokenizer, meteor=meteor
    )


def parity_in_runtime(
    bundle: Bundle,
    photos: Sequence[CaptionedPhoto],
    store: Store,
    reference: Mapping[str, Reference],
    score_gap: ScoreGap,
    *,
    runtime: str,
    beam: int,
    threads: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compare a bundle in another interpreter, in a separate process, with the trained model.

    Args:
        bundle: A verified bundle.
        photos: Photos to caption.
        store: Store of their pixels.
        reference: The trained model's captions of at least these photos at this beam width.
        score_gap: See `parity.compare_tokens`.
        runtime: Name of the interpreter.
        beam: Beam width (1 for greedy).
        threads: Threads of the interpreter.
        limit: Use only the first `limit` photos.
        progress: Called after each photo is sent.

    Returns:
        The comparison, token by token.

    Raises:
        CapPruneError: An error in the other process.
    """
    chosen = first_photos(photos, limit)
    own = _of_photos(reference, chosen)
    sent = _reported(inputs(bundle, chosen, store), len(chosen), progress)
    tokens = captions_in_subprocess(bundle.place, sent, runtime=runtime, beam=beam, threads=threads)
    said = {photo.name: photo_tokens for photo, photo_tokens in zip(chosen, tokens, strict=True)}
    return compare_tokens(_token_map(own), said, score_gap)


def results_of(
    validation: Validation,
    data: DataFacts,
    *,
    reference_name: str | None = None,
    other_parity: Mapping[str, Parity] | None = None,
    constant_caption: ConstantCaption | None = None,
) -> Results:
    """Return the results document of a validation.

    Args:
        validation: The results.
        data: The photos of the validation.
        reference_name: Name of the run whose captions were the reference.
        other_parity: Parity in further interpreters, by their names.
        constant_caption: The baseline, if it was computed.
    """
    parity = {} if validation.parity is None else {validation.runtime: validation.parity}
    reference = None
    if validation.reference_scores is not None and validation.change is not None:
        name = "reference" if reference_name is None else reference_name
        said = caption_health(one.caption for one in (validation.reference or {}).values())
        reference = ReferenceFacts(name, validation.reference_scores, said, validation.change)
    return Results(
        measurement=validation.measurement,
        data=data,
        quality=Quality(
            validation.scores,
            validation.cider_d,
            validation.health,
            validation.beam,
            validation.unfinished,
            constant_caption,
        ),
        parity={**parity, **(other_parity or {})},
        reference=reference,
    )


def first_photos(photos: Sequence[CaptionedPhoto], limit: int | None) -> Sequence[CaptionedPhoto]:
    """Return the first `limit` photos, or all.

    Raises:
        DataError: There are none.
    """
    chosen = photos[:limit]
    if not chosen:
        raise DataError("there are no photos to validate on", expected="at least one photo with captions")
    return chosen


def inputs(bundle: Bundle, photos: Iterable[CaptionedPhoto], store: Store) -> Iterator[NDArray[Any]]:
    """Yield the captioner's input for each photo.

    Raises:
        DataError: A photo is missing or cannot be decoded.
    """
    for photo in photos:
        yield _photo(bundle, photo.name, store.read).read()


def _photo(bundle: Bundle, name: str, read: Callable[[str], bytes]) -> Photo:
    return Photo(name, lambda: decode_input(read(name), name, bundle.manifest.preprocessing))


def _reported(pictures: Iterator[NDArray[Any]], count: int, progress: Progress | None) -> Iterator[NDArray[Any]]:
    """Yield the pictures unchanged and report each as finished when the next one is requested."""
    for done, picture in enumerate(pictures, start=1):
        yield picture
        if progress is not None:
            progress(done, count)


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
