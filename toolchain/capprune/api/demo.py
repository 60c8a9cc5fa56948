"""The demo: the whole walk on drawn scenes, from nothing to a verified sparse bundle and its table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.api.html import html_table
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_folder_place, write_text
from capprune_runtime.errors import GateFailed

if TYPE_CHECKING:
    from capprune.config.run import RunConfig
    from capprune.data.scenes import Scene
    from capprune.training.run import LoadedRun
    from capprune.validation.results import Results
    from capprune.validation.validate import Validation

SCENES = {"train": 2000, "val": 200, "test": 250}
SIZE = 128  # pixels: 4 x 4 regions, and the encoder takes a third of the time that 224 pixels take
SEED = 1
ROUNDS = 25  # of the bench

COMMON: dict[str, Any] = {
    "data": {"minimum_count": 1, "maximum_tokens": 20, "licence": "drawn by capprune; free of rights"},
    "encoder": {"size": SIZE},
    "decoder": {
        "cell": "lstm",
        "embedding": 64,
        "hidden": 256,
        "attention": 128,
        "context": 256,
        "dropout": {"rnn": 0.3, "attention": 0.0},
    },
}
TRAINING: dict[str, Any] = {"photos_per_batch": 16, "learning_rate": 3e-3, "validation_photos": SCENES["val"]}
COLUMNS = [
    "model",
    "runs in",
    "CIDEr-D",
    "shape and colour",
    "sparse",
    "decoder bytes",
    "bundle bytes",
    "µs a step",
    "as torch",
]
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"training": {**TRAINING, "epochs": 6}},
    "sparse": {
        "training": {**TRAINING, "epochs": 8},
        "pruning": {"method": "supermask", "sparsity": 0.965, "kappa": 6000, "tolerance": 0.02},
    },
}


@dataclass(frozen=True)
class Row:
    """One line of the demo's table.

    Attributes:
        model: `dense` or `sparse`.
        runs_in: `torch` or the interpreter.
        cider_d: On the test scenes.
        right: Share of test scenes whose main shape and colour are named right.
        sparsity: Of the decoder.
        decoder_bytes: Its weights in torch, its file when exported.
        bundle_bytes: Everything a device needs; None for torch.
        step_us: One word, one row, one thread: the median.
        identical: Captions equal to torch's; None for torch itself.
    """

    model: str
    runs_in: str
    cider_d: float
    right: float
    sparsity: float
    decoder_bytes: int
    bundle_bytes: int | None
    step_us: float
    identical: int | None


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        folder: Scenes, runs, bundles and results.
        seconds: How long it took.
        rows: The table.
        page: The report; None without the extra `report`.
        parity: For each model, whether the exported one generates the trained one's captions.
    """

    folder: Path
    seconds: float
    rows: tuple[Row, ...]
    page: Path | None
    parity: Mapping[str, bool]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune demo --json` prints."""
        return {
            "seconds": self.seconds,
            "test_scenes": SCENES["test"],
            "rows": [asdict(row) for row in self.rows],
            "report": None if self.page is None else str(self.page),
        }

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of the table."""
        return COLUMNS, [_cells(row) for row in self.rows]

    def raise_if_different(self) -> None:
        """Raise an error if an exported model generates other captions than the trained one.

        Raises:
            GateFailed: One of them does.
        """
        if not all(self.parity.values()):
            what = "an exported model says something else than the trained one"
            raise GateFailed(what, where=self.folder, found=dict(self.parity))

    def _repr_html_(self) -> str:
        return html_table(f"{SCENES['test']} test scenes", *self.cells())


@needs("demo")
def demo(*, out: Place = "demo", cache: Place | None = None, progress: Progress = SILENT) -> DemoResult:
    """Draw scenes, train, prune, export and validate, without data of your own. An interrupted demo is resumed.

    Args:
        out: Folder for all of it.
        cache: Folder for computed features; a folder in `out` by default.
        progress: Is told how far the work is.

    Raises:
        UsageError: `out` cannot be written to.
    """
    folder = given_path(out)
    check_folder_place(folder, new=False)
    began, scenes = time.monotonic(), folder / "scenes"
    truth = _draw(scenes, progress)
    rows: list[Row] = []
    found: dict[str, Results] = {}
    for name in MODELS:
        run = _trained(name, scenes, folder / "runs" / name, optional_path(cache) or folder / "cache", progress)
        found[name], validation = _validated(run, folder / "bundles" / name, scenes, progress)
        rows += _rows(name, run, found[name], validation, truth)
    page = _report(folder, scenes, found, progress)
    parity = {name: all(one.holds for one in results.parity.values()) for name, results in found.items()}
    result = DemoResult(folder, time.monotonic() - began, tuple(rows), page, parity)
    write_text(folder / "results.json", json.dumps({"schema_version": 1, **result.as_json()}, indent=2) + "\n")
    return result


def _draw(folder: Path, progress: Progress) -> dict[str, Scene]:
    from capprune.data.scenes import draw_scenes, read_scenes

    if not folder.exists():
        with _step("drawing scenes", progress), progress.bar("scenes") as tell:
            draw_scenes(folder, count=SCENES, seed=SEED, size=SIZE, progress=tell)
    return read_scenes(folder)


def _trained(name: str, scenes: Path, folder: Path, cache: Path, progress: Progress) -> LoadedRun:
    from capprune.training.run import load_run
    from capprune.training.session import train_run

    with _step(f"training the {name} model", progress):
        train_run(_config(name, scenes), folder, cache, progress)
    return load_run(folder)


def _config(name: str, scenes: Path) -> RunConfig:
    from capprune.config.reading import parse_config

    tree = {"name": f"scenes-{name}", **COMMON, **MODELS[name]}
    return parse_config({**tree, "data": {**COMMON["data"], "folder": str(scenes)}})


def _validated(run: LoadedRun, folder: Path, scenes: Path, progress: Progress) -> tuple[Results, Validation]:
    from capprune.api.validation import validate_bundle
    from capprune.exporting import export
    from capprune_runtime.bundle.verify import verify_bundle

    if not folder.exists():
        with _step(f"exporting the {folder.name} model", progress):
            export(run, folder, say=progress.say)
    with _step(f"validating the {folder.name} model", progress):
        return validate_bundle(verify_bundle(folder), scenes, "test", reference=run.folder, progress=progress)


def _report(out: Path, scenes: Path, found: Mapping[str, Results], progress: Progress = SILENT) -> Path | None:
    """The page of it all, with the sparse bundle timed beside its rivals; None where the extra is missing."""
    from capprune.api.bench import bench_bundle
    from capprune.api.pages import report
    from capprune.reporting import require_extra
    from capprune.validation.results import write_results
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.errors import MissingExtra
    from capprune_runtime.measure.results import write_document

    sources = [out / "runs" / name for name in MODELS] + [out / "bundles" / "sparse"]
    for name, results in found.items():
        sources.append(out / f"validation-{name}.json")
        write_results(results, sources[-1])
    try:
        require_extra()
    except MissingExtra as error:
        progress.say(f"no report: {error}")
        return None
    sources.append(out / "bench.json")
    with _step("timing the sparse model beside its rivals", progress):
        sparse = verify_bundle(out / "bundles" / "sparse")
        timed = bench_bundle(sparse, baselines=True, rounds=ROUNDS, progress=progress)
    write_document(timed.document, sources[-1])
    with _step("writing the report", progress):
        report(sources, out=out / "report.html", data=scenes, progress=progress)
    return out / "report.html"


def _rows(
    name: str, run: LoadedRun, results: Results, validation: Validation, truth: Mapping[str, Scene]
) -> Iterator[Row]:
    from capprune.trained import step_us

    assert results.reference is not None and validation.reference is not None
    sparsity = 1 - run.kept / run.prunable
    trained = {photo: said.caption for photo, said in validation.reference.items()}
    weights = sum(4 * parameter.numel() for parameter in run.model.decoder.parameters())
    own = results.reference.scores.cider_d
    yield Row(name, "torch", own, _right(trained, truth), sparsity, weights, None, step_us(run), None)
    parity = results.parity[results.environment.runtime]
    yield Row(
        name,
        results.environment.runtime,
        results.quality.scores.cider_d,
        _right(validation.captions, truth),
        sparsity,
        results.bundle.files["decoder.tflite"],
        results.bundle.total_bytes,
        results.latency.step.p50_us,
        parity.identical,
    )


def _right(captions: Mapping[str, str], truth: Mapping[str, Scene]) -> float:
    from capprune.data.scenes import names_main_object

    return sum(names_main_object(caption, truth[photo]) for photo, caption in captions.items()) / len(captions)


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        row.runs_in,
        f"{row.cider_d:.3f}",
        f"{row.right:.1%}",
        f"{row.sparsity:.2%}",
        f"{row.decoder_bytes:,}",
        "" if row.bundle_bytes is None else f"{row.bundle_bytes:,}",
        f"{row.step_us:,.0f}",
        "" if row.identical is None else f"{row.identical}/{SCENES['test']}",
    ]


@contextmanager
def _step(what: str, progress: Progress) -> Iterator[None]:
    progress.say(f"{what} ...")
    began = time.monotonic()
    yield
    progress.say(f"{what}: {time.monotonic() - began:.0f} s")
