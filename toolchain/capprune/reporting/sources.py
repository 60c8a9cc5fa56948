"""Sources of a report: runs, bundles and results documents, recognised by their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.metrics.health import Health
from capprune.metrics.intervals import Interval
from capprune.training.run import CONFIG, LoadedRun, load_run
from capprune.validation.results import VALIDATION, DataFacts
from capprune_runtime import strict_json, typed_json
from capprune_runtime.bundle.capz import CAPZ_SUFFIX
from capprune_runtime.bundle.manifest import MANIFEST, QUALITY
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.errors import BundleError, DataError, DeviceError, UsageError
from capprune_runtime.measure.results import (
    BENCH,
    RUN,
    SCHEMA_VERSION,
    Measurement,
    parse_measurement,
    parse_measurements,
)
from capprune_runtime.typed_json import Problem, Refuse


@dataclass(frozen=True)
class ScoresRead:
    """The scores of a results document that the page shows."""

    cider_d: float
    bleu_4: float
    rouge_l: float
    meteor: float | None
    tokenizer: str


@dataclass(frozen=True)
class QualityRead:
    """The section `quality` of a results document."""

    beam: int
    scores: ScoresRead
    cider_d_interval: Interval
    health: Health


@dataclass(frozen=True)
class ParityRead:
    """Number of captions that equal the trained model's, and whether parity holds."""

    photos: int
    identical: int
    holds: bool


@dataclass(frozen=True)
class ChangeRead:
    """Change of CIDEr-D from the reference to the bundle."""

    before: float
    after: float
    drop: float
    relative: Interval | None


@dataclass(frozen=True)
class ReferenceRead:
    """The trained model on the same photos."""

    name: str
    cider_d_change: ChangeRead


@dataclass(frozen=True)
class Scored:
    """Quality of a measurement's captions; sections of docs/results_schema.md."""

    data: DataFacts
    quality: QualityRead
    parity: Mapping[str, ParityRead]
    reference: ReferenceRead | None


@dataclass(frozen=True)
class Validated:
    """A results document of `capprune validate`."""

    path: Path
    measurement: Measurement
    scored: Scored

    @property
    def sparse(self) -> bool:
        """Whether the bundle has pruned weights."""
        return self.measurement.bundle.sparsity > 0


@dataclass(frozen=True)
class Bench:
    """A results document of `capprune bench`: the bundle first, then its baselines."""

    path: Path
    measurements: tuple[Measurement, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """All sources by kind.

    Attributes:
        run: The run of the page: the first pruned one, or else the first one.
        dense: A dense run to compare with.
        bundle: The bundle of the page.
        validated: Results of `validate` for that bundle; the first is used for the headline.
        dense_validated: Results of `validate` for a dense bundle.
        bench: Results of `bench`.
        places: Paths of the sources, as given.
    """

    run: LoadedRun | None
    dense: LoadedRun | None
    bundle: Bundle | None
    validated: tuple[Validated, ...]
    dense_validated: Validated | None
    bench: Bench | None
    places: tuple[Path, ...]


def read_sources(places: Sequence[Path]) -> Sources:
    """Read runs, bundles and results documents, in any order.

    Raises:
        UsageError: A path does not exist or is of another kind, or there is nothing to report.
        DataError: A results document cannot be read.
        BundleError: A run or a bundle cannot be used.
    """
    runs: list[LoadedRun] = []
    bundles: list[Bundle] = []
    validated: list[Validated] = []
    bench: Bench | None = None
    for place in places:
        found = _read(place)
        if isinstance(found, LoadedRun):
            runs.append(found)
        elif isinstance(found, Bundle):
            bundles.append(found)
        elif isinstance(found, Validated):
            validated.append(found)
        else:
            bench = found
    pruned = next((run for run in runs if run.masks), None)
    bundle = next((one for one in bundles if one.manifest.pruning.sparsity > 0), bundles[0] if bundles else None)
    run = pruned or (runs[0] if runs else None)
    if bundle is not None and not validated and (own := recorded(bundle)) is not None:
        validated.append(own)
    about_dense = not any(one.sparse for one in validated)
    if run is None and bundle is None and not validated and bench is None:
        raise UsageError("there is nothing to report", expected="a run, a bundle or a results document")
    return Sources(
        run=run,
        dense=None if pruned is None else next((one for one in runs if not one.masks), None),
        bundle=bundle,
        validated=tuple(one for one in validated if about_dense or one.sparse),
        dense_validated=None if about_dense else next((one for one in validated if not one.sparse), None),
        bench=bench,
        places=tuple(places),
    )


def _read(place: Path) -> LoadedRun | Bundle | Validated | Bench:
    if (place / MANIFEST).is_file() or (place.is_file() and place.suffix == CAPZ_SUFFIX):
        return verify_bundle(place)
    if (place / CONFIG).is_file():
        return load_run(place)
    if place.is_file():
        return read_document(place)
    raise UsageError(
        "this is not a source of a report" if place.exists() else "there is no such file or folder",
        where=place,
        expected="a run, a bundle, or a results document of validate or bench",
    )


def read_document(path: Path) -> Validated | Bench:
    """Read a results document.

    Raises:
        DataError: It is not one, or of another version.
    """
    content = path.read_bytes()
    try:
        tree = strict_json.parse(content)
    except BundleError as error:
        raise DataError("this is not a results document", where=path, found=error.found or error.what) from error
    kind = tree.get("kind") if isinstance(tree, dict) else None
    if kind not in (VALIDATION, BENCH):
        expected = f'"kind": "{VALIDATION}" or "{BENCH}"'
        raise DataError("this is not a results document", where=path, expected=expected, found=kind)
    return _validated(tree, path) if kind == VALIDATION else _bench(tree, content, path)


def _bench(tree: Mapping[str, Any], content: bytes, path: Path) -> Bench:
    with _as_data_error():
        measurements = parse_measurements(content, path)
    labels, given = tuple(one.bundle.name for one in measurements), tree.get("names")
    if isinstance(given, list) and len(given) == len(labels) and all(isinstance(name, str) for name in given):
        labels = tuple(given)
    return Bench(path, measurements, labels)


def _validated(tree: Mapping[str, Any], path: Path) -> Validated:
    if tree.get("schema_version") != SCHEMA_VERSION:
        raise DataError("the results are of another version", where=path, expected=SCHEMA_VERSION,
                        found=tree.get("schema_version"), hint="validate again with this capprune")  # fmt: skip
    with _as_data_error():
        measurement = parse_measurement({**tree, "kind": RUN}, path)
    return Validated(path, measurement, typed_json.read(Scored, tree, _refuse(path)))


@contextmanager
def _as_data_error() -> Iterator[None]:
    """Convert errors about a device's document to data errors, because the document is read from a file."""
    try:
        yield
    except DeviceError as error:
        raise DataError(error.what, where=error.where, expected=error.expected, found=error.found) from error


def recorded(bundle: Bundle) -> Validated | None:
    """Return the document that `validate --record` wrote into a bundle, which has no captions.

    Raises:
        DataError: It is not as expected.
    """
    if QUALITY not in bundle.files:
        return None
    path = bundle.place / QUALITY
    try:
        tree = strict_json.parse(bundle.files[QUALITY])
    except BundleError as error:
        raise DataError("this is not a results document", where=path, found=error.found or error.what) from error
    if not isinstance(tree, dict):
        raise DataError("this is not a results document", where=path, expected="an object")
    return _validated({**tree, "captions": [], "failures": []}, path)


def _refuse(path: Path) -> Refuse:
    def refuse(problem: Problem) -> Exception:
        return DataError("a results document is not as expected", where=f"{path}, {problem.where or 'the document'}",
                         expected=problem.expected or "a value", found=problem.found or "nothing")  # fmt: skip

    return refuse
