"""Results documents made up of given figures, for what the page says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from measured import measurement, rounds

from capprune.metrics.health import Health
from capprune.metrics.intervals import Interval
from capprune.reporting.sources import (
    ChangeRead,
    ParityRead,
    QualityRead,
    ReferenceRead,
    Scored,
    ScoresRead,
    Sources,
    Validated,
)
from capprune.validation.results import DataFacts

PHOTOS = 24


def validated(
    cider_d: float,
    *,
    sparsity: float = 0.975,
    identical: int = 100,
    holds: bool = True,
    reference: float | None = None,
    **environment: Any,
) -> Validated:
    said = rounds(np.full(PHOTOS, 50.0), seed=1)
    measured = measurement("sparse" if sparsity else "dense", said, "run", **environment)
    facts = dataclasses.replace(measured.bundle, sparsity=sparsity)
    change = None
    if reference is not None:
        relative = cider_d / reference - 1
        interval = Interval(relative, relative - 0.02, relative + 0.02)
        change = ReferenceRead("a-run", ChangeRead(reference, cider_d, -relative, interval))
    return Validated(
        Path("results.json"),
        dataclasses.replace(measured, bundle=facts),
        Scored(
            DataFacts("flickr8k", "test", 100),
            QualityRead(
                3,
                ScoresRead(cider_d, 0.2, 0.4, None, "plain"),
                Interval(cider_d, cider_d - 0.03, cider_d + 0.03),
                Health(100, 80, 321, 9.5, 0.0, 0.01, 0.005),
            ),
            {"ai-edge-litert": ParityRead(100, identical, holds)},
            change,
        ),
    )


def sources(*found: Validated, dense: Validated | None = None) -> Sources:
    return Sources(None, None, None, tuple(found), dense, None, ())
