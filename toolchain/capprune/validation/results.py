"""The results document of `capprune validate`: a device's measurements, and the quality and parity of its captions.

docs/results_schema.md describes the JSON. The part that the device writes is in `capprune_runtime.measure.results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from capprune.metrics.health import Health
from capprune.metrics.intervals import Change, Interval
from capprune.metrics.scores import Scores
from capprune.validation.parity import Parity
from capprune_runtime.measure.environment import Environment
from capprune_runtime.measure.results import BundleFacts, Latency, Measurement, write_document

VALIDATION = "validation"  # the document's `kind`


@dataclass(frozen=True)
class DataFacts:
    """The photos of a measurement: name of the data set, split, and number of photos."""

    name: str
    split: str
    photos: int


@dataclass(frozen=True)
class ConstantCaption:
    """The baseline of `health.best_constant_caption`: the same caption for every photo."""

    caption: str
    cider_d: float


@dataclass(frozen=True)
class Quality:
    """Quality of the captions.

    Attributes:
        scores: Metrics over all photos.
        cider_d: CIDEr-D with its bootstrap interval.
        health: Signs of degenerate captions.
        beam: Beam width of the search (1 for greedy).
        unfinished: Number of captions that reached the maximum length without an end.
        constant_caption: The baseline that a model must beat, if it was computed.
    """

    scores: Scores
    cider_d: Interval
    health: Health
    beam: int
    unfinished: int
    constant_caption: ConstantCaption | None = None

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return {
            "beam": self.beam,
            "unfinished": self.unfinished,
            "scores": self.scores.as_json(),
            "cider_d_interval": self.cider_d.as_json(),
            "health": self.health.as_json(),
            "constant_caption": None if self.constant_caption is None else asdict(self.constant_caption),
        }


@dataclass(frozen=True)
class ReferenceFacts:
    """The model that the bundle was made from, on the same photos: name of its run, scores, health, and change."""

    name: str
    scores: Scores
    health: Health
    change: Change

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return {
            "name": self.name,
            "scores": self.scores.as_json(),
            "health": self.health.as_json(),
            "cider_d_change": self.change.as_json(),
        }


@dataclass(frozen=True)
class Results:
    """One validation. Attributes are the sections of docs/results_schema.md; the measurement holds several of them."""

    measurement: Measurement
    data: DataFacts
    quality: Quality
    parity: Mapping[str, Parity] = field(default_factory=dict)
    reference: ReferenceFacts | None = None

    @property
    def bundle(self) -> BundleFacts:
        """The measured bundle."""
        return self.measurement.bundle

    @property
    def latency(self) -> Latency:
        """Times of the measurement."""
        return self.measurement.latency

    @property
    def environment(self) -> Environment:
        """Environment of the measurement."""
        return self.measurement.environment

    def as_json(self) -> dict[str, Any]:
        """Return the document, ready for `json.dumps`."""
        return self.measurement.as_json() | {
            "kind": VALIDATION,
            "data": asdict(self.data),
            "quality": self.quality.as_json(),
            "parity": {runtime: parity.as_json() for runtime, parity in self.parity.items()},
            "reference": None if self.reference is None else self.reference.as_json(),
        }


def write_results(results: Results, path: Path) -> None:
    """Write the document atomically.

    Raises:
        CapPruneError: The disk is full.
        UsageError: The folder cannot be written to.
    """
    write_document(results.as_json(), path)
