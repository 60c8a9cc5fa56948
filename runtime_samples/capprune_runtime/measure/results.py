"""Results document of a device: captions, times, the machine, and whether the times can be trusted.

docs/results_schema.md describes the document for every device. The workstation reads it with the same classes, and adds
the scores.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capprune_runtime import strict_json, typed_json
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.manifest import MANIFEST
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.errors import BundleError, DeviceError
from capprune_runtime.measure.environment import Environment
from capprune_runtime.measure.plausible import first_fault
from capprune_runtime.measure.trust import Verdict
from capprune_runtime.typed_json import OPTIONAL, Fault, Problem

SCHEMA_VERSION = 2
RUN, BENCH = "run", "bench"
ADDED = ("cold", "cooldown")  # keys that earlier programs of this schema do not write; null then


@dataclass(frozen=True)
class BundleFacts:
    """The measured bundle.

    Attributes:
        name: Name of the bundle's folder.
        manifest_sha256: SHA-256 of manifest.json, which holds the hashes of all other files.
        files: Size of each file in bytes, the manifest included.
        total_bytes: Sum of the file sizes: the bundle's size on a device.
        kept_weights: Number of prunable weights that are not zero.
        prunable_weights: Number of prunable weights.
        sparsity: 1 - kept / prunable.
    """

    name: str
    manifest_sha256: str
    files: Mapping[str, int]
    total_bytes: int
    kept_weights: int
    prunable_weights: int
    sparsity: float


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        beam: Beam width of the search (1 for greedy).
        warm_up: Number of untimed captions before the measurement.
        sessions: Number of processes that made the captions; more than 1 after an interruption.
    """

    beam: int
    warm_up: int
    sessions: int


@dataclass(frozen=True)
class SaidPhoto:
    """One caption with its times in microseconds.

    Attributes:
        photo: The photo's name.
        caption: The caption as text.
        tokens: Token ids, without start and end.
        log_probability: Log-probability of the words, and of the end token if finished.
        finished: Whether the model generated the end token.
        read_us: Time of reading, decoding and resizing the photo; None if not timed.
        encode_us: Time of the encoder.
        step_us: Time of every call of the decoder, in order.
        caption_us: Time of encoder, search and all steps.
        confidence: See `Caption.confidence`.
    """

    photo: str
    caption: str
    tokens: tuple[int, ...]
    log_probability: float
    finished: bool
    read_us: float | None
    encode_us: float
    step_us: tuple[float, ...]
    caption_us: float
    confidence: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class FailedPhoto:
    """A photo that could not be captioned: its name, the kind of error and the message."""

    photo: str
    error: str
    message: str


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of repeated times, in microseconds; `spread` is (p75 - p25) / p50."""

    p50_us: float
    p90_us: float
    p99_us: float
    min_us: float
    max_us: float
    spread: float
    count: int


@dataclass(frozen=True)
class Latency:
    """Summary of the times of a measurement.

    Attributes:
        load_us: Time of verifying the bundle and loading both models; None if not timed.
        read: Reading, decoding and resizing a photo; None if not timed. The other times do not include it.
        encode: Encoding one photo.
        step: One call of the decoder (one row; a beam of 3 makes up to 3 calls per word).
        caption: Captioning one photo: encoder, search and all steps.
    """

    load_us: float | None
    read: Percentiles | None
    encode: Percentiles
    step: Percentiles
    caption: Percentiles


@dataclass(frozen=True)
class Memory:
    """Peak memory of the process, and its memory before the bundle was read; None where not measured."""

    peak_rss_bytes: int | None
    before_bytes: int | None


@dataclass(frozen=True)
class ColdLoads:
    """Medians over new processes that load a bundle and generate its first caption; None where not measured.

    Attributes:
        loads: Number of processes.
        packed: Whether the bundle was packed, so that loading expands it.
        process_us: Time from the start of the process to its end.
        load_us: Time of reading, verifying and expanding the bundle and loading both models.
        first_caption_us: Time of the first caption.
        peak_rss_bytes: Peak memory of the process.
        retained_rss_bytes: Memory that the process holds after the caption.
    """

    loads: int
    packed: bool
    process_us: float | None
    load_us: float | None
    first_caption_us: float | None
    peak_rss_bytes: int | None
    retained_rss_bytes: int | None


@dataclass(frozen=True)
class Cooldown:
    """Result of the temperature gate before a case.

    Attributes:
        max_temperature_c: Highest temperature at which the case may start.
        timeout_s: Longest time to wait for it.
        before_c: Temperature when the wait began; None if the device does not report it.
        after_c: Temperature when it ended.
        waited_s: Time waited.
        outcome: `cool`, `timed out`, or `no sensor`.
    """

    max_temperature_c: float
    timeout_s: float
    before_c: float | None
    after_c: float | None
    waited_s: float
    outcome: str


@dataclass(frozen=True)
class Golden:
    """Number of golden photos that were captioned, and of those with the trained model's tokens."""

    photos: int
    identical: int


@dataclass(frozen=True)
class Measurement:
    """One bundle measured on one device; the attributes are the sections of docs/results_schema.md.

    `kind` is "run" (every photo once) or "bench" (golden photos in rounds, with one entry of `captions` a round).
    """

    kind: str
    created_by: str
    bundle: BundleFacts
    settings: Settings
    captions: tuple[SaidPhoto, ...]
    failures: tuple[FailedPhoto, ...]
    latency: Latency
    memory: Memory
    golden: Golden | None
    environment: Environment
    verdict: Verdict
    cold: ColdLoads | None = None
    cooldown: Cooldown | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the document, ready for `json.dumps`."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """Return the facts of a verified bundle."""
    pruning = bundle.manifest.pruning
    files = {name: len(content) for name, content in sorted(bundle.files.items())}
    return BundleFacts(
        name=bundle.place.resolve().name,
        manifest_sha256=hashlib.sha256(bundle.files[MANIFEST]).hexdigest(),
        files=files,
        total_bytes=sum(files.values()),
        kept_weights=pruning.kept_weights,
        prunable_weights=pruning.prunable_weights,
        sparsity=1 - pruning.kept_weights / pruning.prunable_weights if pruning.prunable_weights else 0.0,
    )


def said_photo(photo: str, caption: Caption, caption_us: float, read_us: float | None = None) -> SaidPhoto:
    """Return one caption for the document, with times rounded to a tenth of a microsecond."""
    return SaidPhoto(
        photo=photo,
        caption=caption.text,
        tokens=tuple(int(token) for token in caption.tokens),
        log_probability=float(caption.log_probability),
        finished=bool(caption.finished),
        read_us=None if read_us is None else round(read_us, 1),
        encode_us=round(caption.encode_us, 1),
        step_us=tuple(round(us, 1) for us in caption.step_us),
        caption_us=round(caption_us, 1),
        confidence=caption.confidence,
    )


def latency(captions: Sequence[SaidPhoto], load_us: float | None = None) -> Latency:
    """Return the summarised times of at least one caption."""
    read_us = [one.read_us for one in captions if one.read_us is not None]
    return Latency(
        load_us=None if load_us is None else round(load_us, 1),
        read=percentiles(read_us) if read_us else None,
        encode=percentiles([one.encode_us for one in captions]),
        step=percentiles([us for one in captions for us in one.step_us]),
        caption=percentiles([one.caption_us for one in captions]),
    )


def percentiles(times_us: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one time in microseconds."""
    times = np.asarray(times_us, dtype=np.float64)
    p25, p50, p75, p90, p99 = np.quantile(times, [0.25, 0.5, 0.75, 0.9, 0.99]).tolist()
    spread = (p75 - p25) / p50 if p50 > 0 else 0.0
    return Percentiles(p50, p90, p99, float(times.min()), float(times.max()), spread, len(times))


def write_document(document: Mapping[str, Any], path: Path) -> None:
    """Write a results document atomically.

    Raises:
        CapPruneError: The disk is full.
        UsageError: The folder cannot be written.
    """
    # allow_nan: NaN is not JSON, and would be a defect of the measurement
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def parse_measurements(text: str | bytes, where: object) -> tuple[Measurement, ...]:
    """Parse the document of a device: one run, or the measurements of a benchmark.

    Args:
        text: The document; bytes must be UTF-8.
        where: The file's or the device's name, for messages.

    Raises:
        DeviceError: It is not a document of this schema, or has a later version.
    """
    try:
        tree = strict_json.parse(text)
    except BundleError as error:
        raise DeviceError("the results cannot be read", where=where, found=error.found or error.what) from None
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != SCHEMA_VERSION:
        raise DeviceError("the results are of another version", where=where, expected=SCHEMA_VERSION,
                          found=version, hint="bring capprune and the device's app to the same version")  # fmt: skip
    runs = tree.get("runs") if tree.get("kind") == BENCH and "runs" in tree else [tree]
    found = tuple(parse_measurement(run, where) for run in (runs if isinstance(runs, list) else [runs]))
    for measurement in found:
        require_times(measurement, where)
    return found


def require_times(measurement: Measurement, where: object) -> None:
    """Check that a measurement has captions, and that every caption has a step.

    Raises:
        DeviceError: One is missing.
    """
    if not measurement.captions or not all(one.step_us for one in measurement.captions):
        raise DeviceError("the results are not as expected", where=f"{where}, captions",
                          expected="at least one, each with the times of its steps", found="none")  # fmt: skip


def parse_measurement(tree: Any, where: object) -> Measurement:
    """Build one measurement from the result of `strict_json.parse`.

    Raises:
        DeviceError: A key is missing or of another type, or has a value that no measurement has.
    """

    def refuse(problem: Problem) -> Exception:
        return DeviceError("the results are not as expected", where=f"{where}, {problem.where or 'the document'}",
                           expected=problem.expected or "a value", found=problem.found or "nothing")  # fmt: skip

    if (fault := first_fault(tree)) is not None:
        raise refuse(fault)
    if isinstance(tree, dict):
        tree = {**dict.fromkeys(ADDED), **tree}
    measurement = typed_json.read(Measurement, tree, refuse)
    if measurement.kind not in (RUN, BENCH):
        raise refuse(Problem(Fault.VALUE, "kind", f"{RUN} or {BENCH}", measurement.kind[:40]))
    return measurement
