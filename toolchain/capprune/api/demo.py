"""The demo: the complete workflow on drawn scenes, up to a verified sparse bundle and a table of results."""

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
    from capprune.api.bench import BenchResult
    from capprune.config.run import RunConfig
    from capprune.data.scenes import Scene
    from capprune.training.run import LoadedRun
    from capprune.validation.results import Results
    from capprune.validation.validate import Validation

SCENES = {"train": 2000, "val": 200, "test": 250}
SIZE = 128  # pixels: 4 x 4 regions; the encoder needs a third of the time of 224 pixels
SEED = 1
ROUNDS = 25  # of the benchmark

COMMON: dict[str, Any] = {
    "data": {"minimum_count": 1, "maximum_tokens": 20, "licence": "drawn by capprune; free of rights"},
    "encoder": {"size": SIZE, "rounded": True},  # the decoders are trained on the int8 filters of the bundle
    "decoder": {
        "cell": "lstm",
        "embedding": 64,
        "hidden": 384,
        "attention": 192,
        "context": 384,
        "dropout": {"rnn": 0.3, "attention": 0.0},
    },
}
TRAINING: dict[str, Any] = {
    "photos_per_batch": 16,
    "learning_rate": 3e-3,
    "precision": "auto",
    "validation_photos": SCENES["val"],
}
COLUMNS = [
    "model",
    "weights",
    "runs in",
    "CIDEr-D",
    "shape and colour",
    "sparse",
    "decoder bytes",
    "bundle bytes",
    "µs per step",
    "as torch",
]
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"training": {**TRAINING, "epochs": 6}},
    "sparse": {
        "training": {**TRAINING, "epochs": 8},
        "pruning": {"method": "supermask", "sparsity": 0.9, "block": "1x16", "kappa": 6000, "tolerance": 0.02},
    },
}
SMALL = "sparse"  # the bundle to deploy, in int8
BUNDLES = {  # name: model and weight format
    "dense": ("dense", "float32"),
    "sparse-float32": ("sparse", "float32"),
    SMALL: ("sparse", "int8"),
}


@dataclass(frozen=True)
class Row:
    """One row of the demo's table.

    Attributes:
        model: `dense` or `sparse`.
        weights: Format of the decoder, `float32` or `int8`; with int8, the encoder is int8 too if its loss is small.
        runs_in: `torch` or the interpreter.
        cider_d: CIDEr-D on the test scenes.
        right: Share of test scenes whose main shape and colour are named correctly.
        sparsity: Sparsity of the decoder.
        decoder_bytes: Size of the decoder's weights in torch, or of its exported file.
        bundle_bytes: Size of the bundle; None for torch.
        step_us: Median time per word, with one row and one thread, in microseconds.
        identical: Captions equal to torch's; None for torch itself.
    """

    model: str
    weights: str
    runs_in: str
    cider_d: float
    right: float
    sparsity: float
    decoder_bytes: int
    bundle_bytes: int | None
    step_us: float
    identical: int | None


@dataclass(frozen=True)
class Baseline:
    """A form of the sparse model's decoder, timed interleaved with the others, with one thread.

    Attributes:
        name: The form, such as `tflite dense int8`; the bundle's own first.
        decoder_bytes: Size of the file.
        step_us: Median time per word, with one row, in microseconds.
    """

    name: str
    decoder_bytes: int
    step_us: float


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo.

    Attributes:
        folder: Folder with scenes, runs, bundles and results.
        seconds: Duration of the demo.
        rows: Rows of the table.
        baselines: The int8 bundle and the same model in other forms.
        page: The report; None without the extra `report`.
        parity: For each model, whether its float32 export generates the same captions as the trained model.
    """

    folder: Path
    seconds: float
    rows: tuple[Row, ...]
    baselines: tuple[Baseline, ...]
    page: Path | None
    parity: Mapping[str, bool]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune demo --json` prints."""
        return {
            "seconds": self.seconds,
            "test_scenes": SCENES["test"],
            "rows": [asdict(row) for row in self.rows],
            "baselines": [asdict(baseline) for baseline in self.baselines],
            "report": None if self.page is None else str(self.page),
        }

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of the table."""
        return COLUMNS, [_cells(row) for row in self.rows]

    def beside_dense_int8(self) -> str:
        """Return a sentence that compares the int8 bundle with the same model dense in int8."""
        own, dense = (
            self.baselines[0],
            next(baseline for baseline in self.baselines if baseline.name.endswith("dense int8")),
        )
        size, time = dense.decoder_bytes / own.decoder_bytes, dense.step_us / own.step_us
        return (
            f"beside the same model dense in int8 ({dense.decoder_bytes:,} bytes, {dense.step_us:.0f} µs per step, "
            f"interleaved): {_times(size, 'smaller', 'larger')}, {_times(time, 'faster', 'slower')}"
        )

    def raise_if_different(self) -> None:
        """Raise an error if an exported model generates other captions than the trained one.

        Raises:
            GateFailed: One of them does.
        """
        if not all(self.parity.values()):
            what = "an exported model generates other captions than the trained one"
            raise GateFailed(what, where=self.folder, found=dict(self.parity))

    def _repr_html_(self) -> str:
        return html_table(f"{SCENES['test']} test scenes", *self.cells())


@needs("demo")
def demo(*, out: Place = "demo", cache: Place | None = None, progress: Progress = SILENT) -> DemoResult:
    """Draw scenes, train, prune, export and validate, without data of your own. An interrupted demo is resumed.

    Args:
        out: Folder for all results.
        cache: Folder for computed features; a folder in `out` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: `out` cannot be written to.
    """
    folder = given_path(out)
    check_folder_place(folder, new=False)
    began, scenes = time.monotonic(), folder / "scenes"
    truth = _draw(scenes, progress)
    rows: list[Row] = []
    found: dict[str, Results] = {}
    runs = {
        name: _trained(name, scenes, folder / "runs" / name, optional_path(cache) or folder / "cache", progress)
        for name in MODELS
    }
    for name, (model, weights) in BUNDLES.items():
        _export(runs[model], folder / "bundles" / name, weights, scenes, progress)
        found[name], validation = _validated(runs[model], folder / "bundles" / name, scenes, progress)
        if weights == "float32":
            rows.append(_trained_row(model, runs[model], found[name], validation, truth))
        rows.append(_exported_row(model, weights, runs[model], found[name], validation, truth))
    timed = _timed(folder, progress)
    page = _report(folder, scenes, found, progress)
    parity = {
        model: all(one.holds for one in found[name].parity.values())
        for name, (model, weights) in BUNDLES.items()
        if weights == "float32"
    }
    baselines = tuple(Baseline(row.name, row.decoder_bytes, row.latency.step.p50_us) for row in timed.rows)
    result = DemoResult(folder, time.monotonic() - began, tuple(rows), baselines, page, parity)
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


def _export(run: LoadedRun, folder: Path, weights: str, scenes: Path, progress: Progress) -> None:
    from capprune.exporting import Wanted, export

    if not folder.exists():
        with _step(f"exporting bundles/{folder.name}", progress):
            export(run, folder, Wanted(weights=weights, data=None if weights == "float32" else scenes), progress.say)


def _validated(run: LoadedRun, folder: Path, scenes: Path, progress: Progress) -> tuple[Results, Validation]:
    from capprune.api.validation import validate_bundle
    from capprune_runtime.bundle.verify import verify_bundle

    with _step(f"validating bundles/{folder.name}", progress):
        return validate_bundle(verify_bundle(folder), scenes, "test", reference=run.folder, progress=progress)


def _timed(out: Path, progress: Progress) -> BenchResult:
    """Time the int8 bundle, interleaved with the same model in other forms."""
    from capprune.api.bench import bench_bundle
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.measure.results import write_document

    with _step("timing the sparse model beside its baselines", progress):
        bundle = verify_bundle(out / "bundles" / SMALL)
        timed = bench_bundle(bundle, baselines=True, rounds=ROUNDS, progress=progress)
    write_document(timed.document, out / "bench.json")
    return timed


def _report(out: Path, scenes: Path, found: Mapping[str, Results], progress: Progress = SILENT) -> Path | None:
    """Write the report; None if the extra is missing."""
    from capprune.api.pages import report
    from capprune.reporting import require_extra
    from capprune.validation.results import write_results
    from capprune_runtime.errors import MissingExtra

    sources = [out / "runs" / name for name in MODELS] + [out / "bundles" / SMALL]
    for name, results in found.items():
        place = out / f"validation-{name}.json"
        write_results(results, place)
        if name in ("dense", SMALL):
            sources.append(place)
    try:
        require_extra()
    except MissingExtra as error:
        progress.say(f"no report: {error}")
        return None
    sources.append(out / "bench.json")
    with _step("writing the report", progress):
        report(sources, out=out / "report.html", data=scenes, progress=progress)
    return out / "report.html"


def _trained_row(
    model: str, run: LoadedRun, results: Results, validation: Validation, truth: Mapping[str, Scene]
) -> Row:
    from capprune.trained import step_us

    assert results.reference is not None and validation.reference is not None
    return Row(
        model,
        "float32",
        "torch",
        results.reference.scores.cider_d,
        _right({photo: said.caption for photo, said in validation.reference.items()}, truth),
        1 - run.kept / run.prunable,
        sum(4 * parameter.numel() for parameter in run.model.decoder.parameters()),
        None,
        step_us(run),
        None,
    )


def _exported_row(
    model: str, weights: str, run: LoadedRun, results: Results, validation: Validation, truth: Mapping[str, Scene]
) -> Row:
    runtime = results.environment.runtime
    return Row(
        model,
        weights,
        runtime,
        results.quality.scores.cider_d,
        _right(validation.captions, truth),
        1 - run.kept / run.prunable,
        results.bundle.files["decoder.tflite"],
        results.bundle.total_bytes,
        results.latency.step.p50_us,
        results.parity[runtime].identical,
    )


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{ratio:.1f}x {better}" if ratio >= 1 else f"{1 / ratio:.1f}x {worse}"


def _right(captions: Mapping[str, str], truth: Mapping[str, Scene]) -> float:
    from capprune.data.scenes import names_main_object

    return sum(names_main_object(caption, truth[photo]) for photo, caption in captions.items()) / len(captions)


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        row.weights,
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
