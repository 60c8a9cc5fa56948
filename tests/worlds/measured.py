"""Measurements made up of given times, for what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.measure.environment import Environment, Moment
from capprune_runtime.measure.results import BENCH, BundleFacts, Measurement, Memory, SaidPhoto, Settings, latency
from capprune_runtime.measure.trust import judge

STEPS = 12  # of a caption
ENCODE_US = 20_000.0
QUIET = Moment(45.0, (1_800_000,), None, 0, None, 0.1)


def environment(**changed: Any) -> Environment:
    facts: dict[str, Any] = {
        "platform": "Linux 6.1.0",
        "os": "Debian GNU/Linux 12",
        "model": None,
        "machine": "x86_64",
        "cpu_model": "a processor",
        "cpu_part": None,
        "cpu_count": 2,
        "memory_bytes": 4 << 30,
        "governor": "performance",
        "frequency_khz": (600_000, 1_800_000),
        "python": "3.11.2",
        "runtime": "ai-edge-litert",
        "runtime_version": "2.3.0",
        "threads": 1,
        "emulated": False,
        "stand_in": None,
        "before": QUIET,
        "after": QUIET,
    }
    return Environment(**{**facts, **changed})


def rounds(typical_us: NDArray[np.float64], seed: int) -> list[SaidPhoto]:
    """A caption a round, whose steps take about as long as the round's entry says."""
    draw = np.random.default_rng(seed)
    said = []
    for number, us in enumerate(typical_us):
        step_us = tuple((us * draw.lognormal(0, 0.02, STEPS)).round(3).tolist())
        said.append(
            SaidPhoto(
                photo=f"golden/scene-{number % 4}.png",
                caption="a red disk",
                tokens=(4, 5, 6),
                log_probability=-1.0,
                finished=True,
                read_us=None,
                encode_us=ENCODE_US,
                step_us=step_us,
                caption_us=ENCODE_US + sum(step_us),
            )
        )
    return said


def measurement(name: str, said: Sequence[SaidPhoto], kind: str = BENCH, **changed: Any) -> Measurement:
    """A measurement of a bundle with made-up sizes; `changed` are facts of the environment."""
    where = environment(**changed)
    files = {"manifest.json": 1000, "encoder.tflite": 13_000_000, "decoder.tflite": 300_000, "golden/a.png": 5000}
    return Measurement(
        kind=kind,
        created_by="capprune 0.1.0",
        bundle=BundleFacts(name, "0" * 64, files, sum(files.values()), 25, 1000, 0.975),
        settings=Settings(beam=1, warm_up=3, sessions=1),
        captions=tuple(said),
        failures=(),
        latency=latency(said),
        memory=Memory(None, None),
        golden=None,
        environment=where,
        verdict=judge(where, [one.encode_us for one in said]),
    )
