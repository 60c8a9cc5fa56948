"""The results document of `capprune validate`: what a device measured, and the quality and parity of what it said.

docs/results_schema.md describes it for readers of the JSON; what the device wrote is `capprune_runtime.measure.results`.
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
    """The photos it was measured on: the set's name, the split, and how many of its photos."""

    name: str
    split: str
    photos: int


@dataclass(frozen=True)
class ConstantCaption:
    """The yardstick of `health.best_constant_caption`: one caption said for every photo."""

    caption: str
    cider_d: float


@dataclass(frozen=True)
class Quality:
    """How good the captions are.

    Attributes:
        scores: Metrics over all photos.
        cider_d: CIDEr-D with its bootstrap interval.
        health: Signs of sick captions.
        beam: Beam width of the search (1 for greedy).
        unfinished: How many captions reached the longest length without an end.
        constant_caption: What a model must beat, when it was computed.
    """

    scores: Scores
    cider_d: Interval
    health: Health
    beam: int
    unfinished: int
    constant_caption: ConstantCaption | None = None

    def as_json(self) -> dict[str, object]:
        """All attributes by name."""
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
    """The model the bundle was made from, on the same photos: its run's name, scores, health, and what changed."""

    name: str
    scores: Scores
    health: Health
    change: Change

    def as_json(self) -> dict[str, object]:
        """All attributes by name."""
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
        """What was measured."""
        return self.measurement.bundle

    @property
    def latency(self) -> Latency:
        """How long it took."""
        return self.measurement.latency

    @property
    def environment(self) -> Environment:
        """Where."""
        return self.measurement.environment

    def as_json(self) -> dict[str, Any]:
        """The document, ready for `json.dumps`."""
        return self.measurement.as_json() | {
            "kind": VALIDATION,
            "data": asdict(self.data),
            "quality": self.quality.as_json(),
            "parity": {runtime: parity.as_json() for runtime, parity in self.parity.items()},
            "reference": None if self.reference is None else self.reference.as_json(),
        }


def write_results(results: Results, path: Path) -> None:
    """Writes the document, whole or not at all.

    Raises:
        CapPruneError: The disk is full.
        UsageError: The folder cannot be written to.
    """
    write_document(results.as_json(), path)
