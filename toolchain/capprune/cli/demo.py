"""`capprune demo`: the whole walk on drawn scenes, from nothing to a verified sparse bundle and its table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, bar, cache_option, echo, emit, json_option, say, table

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


@click.command()
@click.option(
    "--out",
    type=Place(file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for it all.",
)
@cache_option
@json_option
def command(out: Path, cache: Path | None, as_json: bool) -> None:
    """Draw scenes, train, prune, export, validate: the whole walk, with no data of your own.

    Needs nothing but the install, about five minutes on two cores. An interrupted demo goes on where it stopped.

    \b
    Example:
      capprune demo
    """
    from capprune_runtime.atomic import check_folder_place, write_text
    from capprune_runtime.errors import GateFailed

    check_folder_place(out, new=False)

    began = time.monotonic()
    scenes = out / "scenes"
    truth = _draw(scenes)
    rows: list[Row] = []
    found: dict[str, Results] = {}
    for name in MODELS:
        run = _trained(name, scenes, out / "runs" / name, cache or out / "cache")
        found[name], validation = _validated(run, out / "bundles" / name, scenes)
        rows += _rows(name, run, found[name], validation, truth)
    page = _report(out, scenes, found)
    document = {
        "seconds": time.monotonic() - began,
        "test_scenes": SCENES["test"],
        "rows": [asdict(row) for row in rows],
        "report": None if page is None else str(page),
    }
    write_text(out / "results.json", json.dumps({"schema_version": 1, **document}, indent=2) + "\n")
    emit(document, as_json, lambda: _show(rows, out, page))
    parity = {name: all(one.holds for one in results.parity.values()) for name, results in found.items()}
    if not all(parity.values()):
        raise GateFailed("an exported model says something else than the trained one", where=out, found=parity)


def _draw(folder: Path) -> dict[str, Scene]:
    from capprune.data.scenes import draw_scenes, read_scenes

    if not folder.exists():
        with _step("drawing scenes"), bar("scenes") as tell:
            draw_scenes(folder, count=SCENES, seed=SEED, size=SIZE, progress=tell)
    return read_scenes(folder)


def _trained(name: str, scenes: Path, folder: Path, cache: Path) -> LoadedRun:
    from capprune.cli.train import train
    from capprune.training.run import load_run

    with _step(f"training the {name} model"):
        train(_config(name, scenes), folder, cache)
    return load_run(folder)


def _config(name: str, scenes: Path) -> RunConfig:
    from capprune.config.reading import parse_config

    tree = {"name": f"scenes-{name}", **COMMON, **MODELS[name]}
    return parse_config({**tree, "data": {**COMMON["data"], "folder": str(scenes)}})


def _validated(run: LoadedRun, folder: Path, scenes: Path) -> tuple[Results, Validation]:
    from capprune.cli.validate import validate
    from capprune.exporting import export
    from capprune_runtime.bundle.verify import verify_bundle

    if not folder.exists():
        with _step(f"exporting the {folder.name} model"):
            export(run, folder, say=say)
    with _step(f"validating the {folder.name} model"):
        return validate(verify_bundle(folder), scenes, "test", reference=run.folder)


def _report(out: Path, scenes: Path, found: Mapping[str, Results]) -> Path | None:
    """The page of it all, with the sparse bundle timed in turns with its rivals; None where the extra is missing."""
    from capprune.cli.bench import bench
    from capprune.cli.report import report
    from capprune.report import require_extra
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
        say(f"no report: {error}")
        return None
    sources.append(out / "bench.json")
    with _step("timing the sparse model in turns with its rivals"):
        document, _, _ = bench(verify_bundle(out / "bundles" / "sparse"), baselines=True, rounds=ROUNDS)
    write_document(document, sources[-1])
    with _step("writing the report"):
        report(tuple(sources), out / "report.html", data=scenes)
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


def _show(rows: list[Row], out: Path, page: Path | None) -> None:
    table(
        f"{SCENES['test']} test scenes",
        [
            "model",
            "runs in",
            "CIDEr-D",
            "shape and colour",
            "sparse",
            "decoder bytes",
            "bundle bytes",
            "µs a step",
            "as torch",
        ],
        [
            [
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
            for row in rows
        ],
        note="times: median of one word, one row, one thread, on this machine",
    )
    echo(f"written: {out / 'results.json'}, runs and bundles beside it")
    photo = next((out / "scenes" / "photos").iterdir())
    echo(f"next: capprune caption {photo} --bundle {out / 'bundles' / 'sparse'}")
    if page is not None:
        echo(f"report: {page}")


@contextmanager
def _step(what: str) -> Iterator[None]:
    say(f"{what} ...")
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.0f} s")
