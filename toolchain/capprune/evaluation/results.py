"""The results document of `capprune validate`: quality, parity, speed and where they were measured.

docs/results_schema.md describes it for readers of the JSON.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from capprune.evaluation.health import Health
from capprune.evaluation.intervals import Change, Interval
from capprune.evaluation.metrics import Scores
from capprune.evaluation.parity import Parity
from capprune_runtime.atomic import write_text
from capprune_runtime.verify import Bundle

SCHEMA_VERSION = 1

CPUINFO = Path("/proc/cpuinfo")
ARM_MACHINES = ("aarch64", "arm")
X86_MACHINES = ("x86_64", "amd64", "i386", "i686")

# The distributions that may hold each interpreter.
RUNTIME_DISTRIBUTIONS = {
    "ai-edge-litert": ("ai-edge-litert",),
    "tflite-runtime": ("tflite-runtime",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "onnxruntime": ("onnxruntime",),
}


@dataclass(frozen=True)
class BundleFacts:
    """What was measured.

    Attributes:
        name: Name of the bundle's folder.
        files: Size of each file in bytes, the manifest included.
        kept_weights: Prunable weights that are not zero.
        prunable_weights: Prunable weights in all.
    """

    name: str
    files: Mapping[str, int]
    kept_weights: int
    prunable_weights: int

    @property
    def total_bytes(self) -> int:
        """What the bundle takes on a device."""
        return sum(self.files.values())

    def as_json(self) -> dict[str, object]:
        """All attributes by name, the sum of the sizes and the sparsity."""
        return {
            "name": self.name,
            "files": dict(sorted(self.files.items())),
            "total_bytes": self.total_bytes,
            "kept_weights": self.kept_weights,
            "prunable_weights": self.prunable_weights,
            "sparsity": 1 - self.kept_weights / self.prunable_weights if self.prunable_weights else 0.0,
        }


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
class Percentiles:
    """Times of many runs of one thing, in microseconds."""

    p50_us: float
    p90_us: float
    p99_us: float
    count: int


@dataclass(frozen=True)
class Latency:
    """Times measured while the captions were made; reading and resizing the photo is not in them.

    Attributes:
        encode: One photo through the encoder.
        step: One call of the decoder (one row; a beam of 3 makes up to 3 calls a word).
        caption: One photo to one caption, encoder, search and all steps.
    """

    encode: Percentiles
    step: Percentiles
    caption: Percentiles


@dataclass(frozen=True)
class Environment:
    """Where it was measured.

    Attributes:
        platform: Operating system and version.
        machine: Instruction set, as `uname -m` names it.
        cpu_model: What the processor calls itself, or "unknown".
        cpu_count: Logical processors.
        python: Version of Python.
        runtime: The interpreter's name.
        runtime_version: Its version, or "unknown".
        threads: How many threads it was allowed.
        emulated: Whether the processor is an emulated one; its times then mean nothing.
    """

    platform: str
    machine: str
    cpu_model: str
    cpu_count: int
    python: str
    runtime: str
    runtime_version: str
    threads: int
    emulated: bool


@dataclass(frozen=True)
class ReferenceFacts:
    """The model the bundle was made from, on the same photos: its run's name, scores, and what changed."""

    name: str
    scores: Scores
    change: Change

    def as_json(self) -> dict[str, object]:
        """All attributes by name."""
        return {"name": self.name, "scores": self.scores.as_json(), "cider_d_change": self.change.as_json()}


@dataclass(frozen=True)
class Results:
    """One validation. Attributes are the sections of docs/results_schema.md."""

    bundle: BundleFacts
    data: DataFacts
    quality: Quality
    latency: Latency
    environment: Environment
    parity: Mapping[str, Parity] = field(default_factory=dict)
    reference: ReferenceFacts | None = None

    def as_json(self) -> dict[str, object]:
        """The document, ready for `json.dumps`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bundle": self.bundle.as_json(),
            "data": asdict(self.data),
            "quality": self.quality.as_json(),
            "parity": {runtime: parity.as_json() for runtime, parity in self.parity.items()},
            "latency": asdict(self.latency),
            "environment": asdict(self.environment),
            "reference": None if self.reference is None else self.reference.as_json(),
        }


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """The facts of a verified bundle."""
    manifest = bundle.manifest
    return BundleFacts(
        name=bundle.place.resolve().name,
        files={name: len(content) for name, content in bundle.files.items()},
        kept_weights=manifest.pruning.kept_weights,
        prunable_weights=manifest.pruning.prunable_weights,
    )


def percentiles(times_us: Sequence[float]) -> Percentiles:
    """Summarises times in microseconds; at least one of them."""
    p50, p90, p99 = np.quantile(np.asarray(times_us, dtype=np.float64), [0.5, 0.9, 0.99]).tolist()
    return Percentiles(p50, p90, p99, len(times_us))


def environment(runtime: str, threads: int) -> Environment:
    """Describes this machine.

    Args:
        runtime: Name of the interpreter in use.
        threads: How many threads it was allowed.
    """
    cpuinfo = CPUINFO.read_text(errors="replace") if CPUINFO.is_file() else ""
    machine = platform.machine()
    return Environment(
        platform=f"{platform.system()} {platform.release().partition('-')[0]}",  # not the kernel builder's own name
        machine=machine,
        cpu_model=cpu_model(cpuinfo) or platform.processor() or "unknown",
        cpu_count=os.cpu_count() or 1,
        python=platform.python_version(),
        runtime=runtime,
        runtime_version=runtime_version(runtime),
        threads=threads,
        emulated=is_emulated(machine, cpuinfo, os.environ),
    )


def runtime_version(runtime: str) -> str:
    """The installed version of an interpreter, without importing it; "unknown" when it has none."""
    for distribution in RUNTIME_DISTRIBUTIONS.get(runtime, ()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "unknown"


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's (x86) or the board's (ARM) own name in the text of /proc/cpuinfo."""
    fields = dict(reversed([_cpuinfo_field(line) for line in cpuinfo.splitlines() if ":" in line]))
    for key in ("model name", "Model", "Hardware"):
        if fields.get(key):
            return fields[key]
    return None


def is_emulated(machine: str, cpuinfo: str, variables: Mapping[str, str]) -> bool:
    """Whether QEMU plays the processor: it was told which one, or /proc/cpuinfo tells of another kind.

    Args:
        machine: Instruction set, as `uname -m` names it.
        cpuinfo: Text of /proc/cpuinfo.
        variables: The environment variables.
    """
    if variables.get("QEMU_CPU"):
        return True
    keys = {_cpuinfo_field(line)[0] for line in cpuinfo.splitlines() if ":" in line}
    if machine.lower().startswith(ARM_MACHINES):
        return "vendor_id" in keys
    return machine.lower() in X86_MACHINES and "CPU implementer" in keys


def _cpuinfo_field(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def write_results(results: Results, path: Path) -> None:
    """Writes the document, whole or not at all.

    Raises:
        CapPruneError: The disk is full.
        UsageError: The folder cannot be written to.
    """
    # allow_nan: NaN is not JSON, and a result that is no number is a defect to be seen here
    write_text(path, json.dumps(results.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
