"""Measure a bundle in one process: caption photos and time each caption."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capprune_runtime import __version__
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.errors import DataError, NotEnoughMemory
from capprune_runtime.measure.environment import Environment, Moment, environment, moment
from capprune_runtime.measure.results import (
    BundleFacts,
    ColdLoads,
    Cooldown,
    FailedPhoto,
    Golden,
    Measurement,
    Memory,
    SaidPhoto,
    Settings,
    bundle_facts,
    latency,
    said_photo,
)
from capprune_runtime.measure.trust import judge

WARM_UP = 1  # untimed captions: the first includes lazy allocation


@dataclass(frozen=True)
class Photo:
    """A photo that is read when it is needed: its name, and a function that returns its (S, S, 3) pixels."""

    name: str
    read: Callable[[], NDArray[np.uint8]]


class Session:
    """A process that measures a bundle; it records its start and the loading time.

    Args:
        bundle: A verified bundle, or the path of one, whose verification then counts as loading.
        runtime: See `interpreter.open_model`.
        threads: Number of threads of each interpreter.

    Raises:
        CapPruneError: The errors of `verify_bundle` and `Captioner`.
    """

    def __init__(self, bundle: Bundle | Path, runtime: str = "auto", threads: int = 1) -> None:
        self.began = moment()
        self._before_bytes = peak_rss_bytes()
        started = time.perf_counter_ns()
        self.bundle = bundle if isinstance(bundle, Bundle) else verify_bundle(bundle)
        self.captioner = Captioner(self.bundle, runtime, threads)
        self.load_us = (time.perf_counter_ns() - started) / 1000
        self.threads = threads

    @property
    def facts(self) -> BundleFacts:
        """The measured bundle."""
        return bundle_facts(self.bundle)

    def beam(self, asked: int | None) -> int:
        """Return the beam width: as requested, or the bundle's own."""
        return self.bundle.manifest.decoding.beam if asked is None else asked

    def memory(self) -> Memory:
        """Return the peak memory of the process."""
        return Memory(peak_rss_bytes(), self._before_bytes)

    def environment(self, before: Moment | None = None) -> Environment:
        """Return the machine's description; `before` defaults to the values at this session's start."""
        return environment(self.captioner.runtime, self.threads, before=before or self.began)

    def say(
        self, photos: Iterable[Photo], beam: int, *, warm_up: int = WARM_UP, strict: bool = False
    ) -> Iterator[SaidPhoto | FailedPhoto]:
        """Caption photos one by one; unreadable photos do not stop the others.

        Args:
            photos: The photos; each is read when it is needed.
            beam: Beam width.
            warm_up: Number of untimed captions of the first photo before the others.
            strict: Raise the error of an unreadable photo instead of recording it.

        Raises:
            DataError: A photo cannot be read, and `strict` is set.
            NotEnoughMemory: A photo does not fit into memory, and `strict` is set.
        """
        for photo in photos:
            started = time.perf_counter_ns()
            try:
                pixels = photo.read()
            except (DataError, NotEnoughMemory) as error:
                if strict:
                    raise
                yield FailedPhoto(photo.name, type(error).__name__, str(error))
                continue
            read_us = (time.perf_counter_ns() - started) / 1000
            while warm_up > 0:
                self.captioner.caption(pixels, beam)
                warm_up -= 1
            yield timed_caption(self.captioner, photo.name, pixels, beam, read_us)


def timed_caption(
    captioner: Captioner, name: str, pixels: NDArray[np.uint8], beam: int, read_us: float | None = None
) -> SaidPhoto:
    """Generate one caption and time it.

    Args:
        captioner: A loaded bundle.
        name: The photo's name.
        pixels: (S, S, 3) uint8 RGB.
        beam: Beam width.
        read_us: Time of reading the photo, if measured.
    """
    started = time.perf_counter_ns()
    caption = captioner.caption(pixels, beam)
    return said_photo(name, caption, (time.perf_counter_ns() - started) / 1000, read_us)


def measured(
    kind: str,
    session: Session,
    said: Sequence[SaidPhoto],
    settings: Settings,
    *,
    failures: Sequence[FailedPhoto] = (),
    golden: Golden | None = None,
    before: Moment | None = None,
    cold: ColdLoads | None = None,
    cooldown: Cooldown | None = None,
) -> Measurement:
    """Return the document of a finished session.

    Args:
        kind: `results.RUN` or `results.BENCH`.
        session: The session that made the captions, or the last of several.
        said: The captions; at least one.
        settings: The settings of the measurement.
        failures: Photos that could not be captioned.
        golden: Result on the golden photos, if they were captioned.
        before: Values at the start of the measurement, if another process started it.
        cold: Cold loads of the bundle, if they were measured.
        cooldown: Result of the temperature gate, if there was one.
    """
    where = session.environment(before)
    return Measurement(
        kind=kind,
        created_by=f"capprune {__version__}",
        bundle=session.facts,
        settings=settings,
        captions=tuple(said),
        failures=tuple(failures),
        latency=latency(said, session.load_us),
        memory=session.memory(),
        golden=golden,
        environment=where,
        verdict=judge(where, [one.encode_us for one in said]),
        cold=cold,
        cooldown=cooldown,
    )


def judged(measurement: Measurement) -> Measurement:
    """Return the measurement with latency and verdict recomputed from its captions and environment."""
    return dataclasses.replace(
        measurement,
        latency=latency(measurement.captions, measurement.latency.load_us),
        verdict=judge(measurement.environment, [one.encode_us for one in measurement.captions]),
    )


def peak_rss_bytes() -> int | None:
    """Return the peak memory of this process in bytes; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
