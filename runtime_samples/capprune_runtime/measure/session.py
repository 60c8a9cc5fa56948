"""Captions of photos with what each cost, and one process that makes them from start to end."""

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
from capprune_runtime.errors import NotEnoughMemory, PhotoError
from capprune_runtime.measure.environment import Environment, Moment, environment, moment
from capprune_runtime.measure.results import (
    BundleFacts,
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

WARM_UP = 1  # captions that are made and not counted: the first pays for lazy allocation


@dataclass(frozen=True)
class Photo:
    """A photo that is read when its turn comes: its name, and what gives its (S, S, 3) pixels."""

    name: str
    read: Callable[[], NDArray[np.uint8]]


class Session:
    """A process that measures a bundle: it notes when it began and what loading cost.

    Args:
        bundle: A verified bundle, or the place of one to verify; the verifying then counts as loading.
        runtime: See `interpreter.open_model`.
        threads: Threads each interpreter may use.

    Raises:
        CapPruneError: As of `verify_bundle` and `Captioner`.
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
        """What is measured."""
        return bundle_facts(self.bundle)

    def beam(self, asked: int | None) -> int:
        """The beam width: as asked, or the bundle's own."""
        return self.bundle.manifest.decoding.beam if asked is None else asked

    def memory(self) -> Memory:
        """The process as large as it has been."""
        return Memory(peak_rss_bytes(), self._before_bytes)

    def environment(self, before: Moment | None = None) -> Environment:
        """Where it runs; `before` is when the measuring began, this session's begin when it is not given."""
        return environment(self.captioner.runtime, self.threads, before=before or self.began)

    def say(
        self, photos: Iterable[Photo], beam: int, *, warm_up: int = WARM_UP, strict: bool = False
    ) -> Iterator[SaidPhoto | FailedPhoto]:
        """Caption photos one by one; one that cannot be read does not stop the others.

        Args:
            photos: The photos; each is read when its turn comes.
            beam: Beam width.
            warm_up: Captions of the first photo that are made before and not counted.
            strict: Let the error of a photo that cannot be read through instead.

        Raises:
            PhotoError: A photo cannot be read, where `strict`.
            NotEnoughMemory: This machine cannot hold a photo, where `strict`.
        """
        for photo in photos:
            started = time.perf_counter_ns()
            try:
                pixels = photo.read()
            except (PhotoError, NotEnoughMemory) as error:
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
    """One caption with what it cost.

    Args:
        captioner: A loaded bundle.
        name: The photo's name.
        pixels: (S, S, 3) uint8 RGB.
        beam: Beam width.
        read_us: What reading the photo took, where it was timed.
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
) -> Measurement:
    """The document of a session that has ended.

    Args:
        kind: `results.RUN` or `results.BENCH`.
        session: What made the captions, or the last process that did.
        said: The captions; at least one.
        settings: How they were made.
        failures: Photos that could not be captioned.
        golden: How the golden photos came out, where they were captioned.
        before: When the measuring began, where another process began it.
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
    )


def judged(measurement: Measurement) -> Measurement:
    """The same measurement with latency and verdict computed anew from its captions and environment."""
    return dataclasses.replace(
        measurement,
        latency=latency(measurement.captions, measurement.latency.load_us),
        verdict=judge(measurement.environment, [one.encode_us for one in measurement.captions]),
    )


def peak_rss_bytes() -> int | None:
    """The most memory that this process has held at once; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
