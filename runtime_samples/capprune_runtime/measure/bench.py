"""Benchmark bundles with `capprune_runtime bench`: interleaved rounds, each with every bundle.

Because rounds are interleaved, a machine that slows down affects every bundle alike, and rounds can be compared in
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from capprune_runtime import __version__, stopping
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.proof import prove_with
from capprune_runtime.errors import UsageError
from capprune_runtime.measure.bench_photos import bench_photos
from capprune_runtime.measure.cold import cold_loads as measure_cold
from capprune_runtime.measure.cooldown import Gate, wait_until_cool
from capprune_runtime.measure.results import BENCH, SCHEMA_VERSION, Golden, Measurement, SaidPhoto, Settings
from capprune_runtime.measure.session import Session, measured, timed_caption

ROUNDS = 30
WARM_UP = 3  # rounds

Progress = Callable[[int, int], None]  # rounds done, rounds in total


def bench_bundles(
    bundles: Sequence[Path | Bundle],
    *,
    rounds: int = ROUNDS,
    warm_up: int = WARM_UP,
    beam: int | None = None,
    runtime: str = "auto",
    threads: int | Sequence[int] = 1,
    cold_loads: int = 0,
    gate: Gate | None = None,
    progress: Progress | None = None,
) -> tuple[Measurement, ...]:
    """Time bundles on their golden photos; every round makes one caption with each bundle.

    Args:
        bundles: Folders or packed bundles, or verified ones.
        rounds: Number of timed captions of each bundle.
        warm_up: Number of untimed rounds before them.
        beam: Beam width; None for each bundle's own.
        runtime: See `interpreter.open_model`.
        threads: Number of threads of the interpreter, for all bundles or for each.
        cold_loads: Number of new processes of each bundle that are timed before the rounds; see `measure.cold`.
        gate: Temperature gate before the rounds; None for none.
        progress: Called after each timed round.

    Returns:
        A measurement for each bundle, whose `captions` has one entry a round.

    Raises:
        UsageError: There is nothing to time, or a bundle does not exist.
        BundleError: A bundle cannot be run.
    """
    if not bundles or rounds < 1 or warm_up < 0 or cold_loads < 0:
        raise UsageError("there is nothing to time", expected="a bundle and at least one round")
    each = [threads] * len(bundles) if isinstance(threads, int) else threads
    cold = measure_cold(bundles, cold_loads, beam=beam, runtime=runtime, threads=each)
    cooldown = None if gate is None else wait_until_cool(gate)
    sessions = [Session(bundle, runtime, count) for bundle, count in zip(bundles, each, strict=True)]
    golden = [_golden(session) for session in sessions]
    said = _rounds(sessions, rounds, warm_up, beam, progress)
    return tuple(
        measured(
            BENCH,
            session,
            kept,
            Settings(session.beam(beam), warm_up, 1),
            golden=proven,
            before=sessions[0].began,
            cold=loads,
            cooldown=cooldown,
        )
        for session, kept, proven, loads in zip(sessions, said, golden, cold, strict=True)
    )


def _rounds(
    sessions: Sequence[Session], rounds: int, warm_up: int, beam: int | None, progress: Progress | None
) -> list[list[SaidPhoto]]:
    """Return the captions of each session, one per round."""
    photos = [bench_photos(session.bundle) for session in sessions]
    said: list[list[SaidPhoto]] = [[] for _ in sessions]
    for number in range(-warm_up, rounds):
        for session, own, kept in zip(sessions, photos, said, strict=True):
            name, pixels = own[number % len(own)]
            caption = timed_caption(session.captioner, name, pixels, session.beam(beam))
            if number >= 0:
                kept.append(caption)
            stopping.raise_if_requested()
        if progress is not None and number >= 0:
            progress(number + 1, rounds)
    return said


def bench_document(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return the document of a benchmark, ready for `json.dumps`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": BENCH,
        "created_by": f"capprune {__version__}",
        "runs": [measurement.as_json() for measurement in measurements],
    }


def _golden(session: Session) -> Golden | None:
    """Return the result on the golden photos; None if the bundle has none."""
    proofs = prove_with(session.captioner)
    return Golden(len(proofs), sum(proof.same for proof in proofs)) if proofs else None
