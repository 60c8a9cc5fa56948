"""Time one step of a Soft-Attention decoder in every storage form, with synthetic and with trained weights.

    python benchmarks/decoder_step.py
    python benchmarks/decoder_step.py --run runs/flickr8k-sparse --run runs/flickr8k-block
    python benchmarks/decoder_step.py --json > benchmarks/results/decoder_step.json

Synthetic weights are random, and the same share of every matrix is zero, as single weights or as whole 1x16 blocks. A trained
model prunes its matrices unevenly. A timed step sets token and state, runs the model and copies the outputs. Keys and values
are set once per caption. Rounds of the formats are interleaved, so that other work on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capprune.models.exportable import StepCall, exportable
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune.tables import table
from capprune.training.run import LoadedRun, load_run
from capprune_runtime.caption.interpreter import Model, open_model
from capprune_runtime.measure.environment import environment
from step_formats import BLOCK, FORMATS, IN_BLOCKS, MULTIPLIED, Converted, Stored, converted

SCHEMA_VERSION = 1
RUNTIME, THREADS = "ai-edge-litert", 1
INPUTS = 8  # number of different inputs; the error is the largest over all of them
STEPS_PER_ROUND = 30  # a caption of ten words at beam 3, so that caches are as warm as in use
WARM_UP = 3  # untimed steps of each format

RESULTS = Path(__file__).parent / "results"
OTHER_REGIONS = 49  # the encoder's own grid, which the configs pool

Arrays = dict[str, NDArray[Any]]


HELD = ("keys", "values")  # inputs of the step that are constant for a photo


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark. `width` is the width of embedding, hidden state, attention and context."""

    cell: str = "lstm"
    width: int = 512
    vocabulary: int = 10_000
    regions: int = 16  # as in the configs
    sparsity: float = 0.975
    rounds: int = 40
    seed: int = 8888


def measure(settings: Settings, runs: list[Path] | None = None) -> dict[str, Any]:
    """Make the model, store it in every format, and time all formats interleaved; then the same for trained runs.

    Returns:
        The document that `--json` prints.
    """
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    single, rows = measure_synthetic(settings)
    _, other_rows = measure_synthetic(replace(settings, regions=OTHER_REGIONS))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "decoder_step",
        "settings": {**asdict(settings), "steps_per_round": STEPS_PER_ROUND},
        "prunable_weights": single.prunable,
        "kept_weights": single.kept,
        "threads": THREADS,
        "environment": {**asdict(environment(RUNTIME, THREADS)), "load_when_started": round(load, 1)},
        "rows": rows,
        "other_regions": {"regions": OTHER_REGIONS, "rows": other_rows},
        "trained": [measure_run(load_run(run), settings) for run in runs or []],
    }


def measure_synthetic(settings: Settings) -> tuple[Converted, list[dict[str, Any]]]:
    """Return the model with unstructured sparsity, and the rows of all formats."""
    _say(f"converting, {settings.regions} regions")
    single, blocked = (converted(make_step(settings, block)) for block in (1, BLOCK))
    models = {name: blocked if name == IN_BLOCKS else single for name in FORMATS}
    return single, measure_formats(models, settings)


def measure_run(run: LoadedRun, settings: Settings) -> dict[str, Any]:
    """Return the rows of a trained run, with the sparsity of each matrix, and its CIDEr-D."""
    _say(f"converting {run.folder.name}")
    model = converted(exportable(run.model)[1])
    models = {name: model for name in FORMATS if model.blocked or name != IN_BLOCKS}
    return {
        "run": run.folder.name,
        **cider_of(run),
        "regions": model.step.decoder.regions,
        "prunable_weights": model.prunable,
        "kept_weights": model.kept,
        "sparsity": {name: 1 - np.count_nonzero(matrix) / matrix.size for name, matrix in model.matrices.items()},
        "rows": measure_formats(models, settings),
    }


def cider_of(run: LoadedRun) -> dict[str, Any]:
    """Return CIDEr-D on the test split if another benchmark measured this run, else on val, from its training."""
    for path in sorted(RESULTS.glob("flickr8k_*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if (
            document["training"]["name"] == run.config.name
            and document["results"]["bundle"]["kept_weights"] == run.kept
        ):
            quality = document["results"]["quality"]
            return {"cider": quality["scores"]["cider_d"], "cider_split": "test", "beam": quality["beam"]}
    exports = RESULTS / "exports.json"
    document = json.loads(exports.read_text(encoding="utf-8")) if exports.is_file() else {"rows": []}
    for row in document["rows"]:
        if (row["run"], row["variant"]) == (run.config.name, "tflite float32"):
            return {"cider": row["cider_d"], "cider_split": document["split"], "beam": document["beam"]}
    return {"cider": float(run.facts["cider"]), "cider_split": "val", "beam": 1}


def measure_formats(models: Mapping[str, Converted], settings: Settings) -> list[dict[str, Any]]:
    """Return the row of each format, timed interleaved."""
    stored = {name: FORMATS[name](model) for name, model in models.items()}
    opened = {name: open_model(s.data, "step", runtime=RUNTIME, threads=THREADS) for name, s in stored.items()}
    inputs = make_inputs(next(iter(models.values())).step, settings.seed)
    errors = {name: max_abs_error(opened[name], model.step, inputs) for name, model in models.items()}
    _say(f"timing {settings.rounds} rounds of {STEPS_PER_ROUND} steps")
    times = time_interleaved(opened, inputs, settings.rounds)
    return [_row(name, stored[name], times[name], errors[name]) for name in models]


def make_step(settings: Settings, block: int = 1) -> StepCall:
    """Return a step with random weights of unit gain and equal sparsity in every matrix.

    Args:
        settings: Settings of the model.
        block: Number of neighbours in a row that are kept or pruned together, in matrices that are multiplied.
    """
    torch.manual_seed(settings.seed)
    width = settings.width
    shape = SoftAttentionConfig.model_validate(
        {"cell": settings.cell, "embedding": width, "hidden": width, "attention": width, "context": width}
    )
    decoder = SoftAttention(shape, features=1, vocabulary=settings.vocabulary, regions=settings.regions).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("weight"):
                together = block if name in MULTIPLIED else 1
                kept = max(1, round(parameter.numel() // together * (1 - settings.sparsity)))
                places = torch.randperm(parameter.numel() // together)[:kept]
                values = torch.randn(kept, together) / (parameter.shape[1] * (1 - settings.sparsity)) ** 0.5
                parameter.zero_().view(-1, together)[places] = values
            else:
                parameter.normal_(0, 0.1)  # converters drop biases that are zero
    return StepCall(decoder).eval()


def make_inputs(step: StepCall, seed: int) -> list[Arrays]:
    """Return random tokens, states, keys and values."""
    draw = np.random.default_rng(seed)
    example = {name: value.numpy() for name, value in step.example().items()}
    return [
        {
            name: draw.integers(0, step.decoder.vocabulary, 1, np.int32)
            if name == "token"
            else draw.standard_normal(value.shape).astype(np.float32) / 2
            for name, value in example.items()
        }
        for _ in range(INPUTS)
    ]


def max_abs_error(model: Model, step: StepCall, inputs: list[Arrays]) -> float:
    """Return the largest difference of any output from torch in float32."""
    worst = 0.0
    for arrays in inputs:
        found = model.run(arrays)
        with torch.inference_mode():
            expected = step(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        worst = max(worst, *(float(np.abs(found[name] - value.numpy()).max()) for name, value in expected.items()))
    return worst


def time_interleaved(models: dict[str, Model], inputs: list[Arrays], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Return the time of every step of every model in microseconds, interleaved round by round."""
    times: dict[str, list[int]] = {name: [] for name in models}
    for model in models.values():
        for arrays in inputs[:WARM_UP]:
            model.run(arrays)
    carried = [key for key in inputs[0] if key not in HELD]
    for number in range(rounds):
        for name, model in models.items():
            photo = inputs[number % len(inputs)]
            model.hold({key: photo[key] for key in HELD})
            for step in range(STEPS_PER_ROUND):
                arrays = {key: inputs[step % len(inputs)][key] for key in carried}
                started = time.perf_counter_ns()
                model.run(arrays)
                times[name].append(time.perf_counter_ns() - started)
    return {name: np.array(found) / 1000 for name, found in times.items()}


def _row(name: str, stored: Stored, times_us: NDArray[np.float64], error: float) -> dict[str, Any]:
    p10, p50, p90 = np.quantile(times_us, [0.1, 0.5, 0.9]).round(1).tolist()
    size = len(stored.data)
    row = {"format": name, "bytes": size, "us_p10": p10, "us_p50": p50, "us_p90": p90, "max_abs_err": error}
    if stored.weight_bytes is None or stored.kept is None:
        return row
    return row | {
        "kept_weights": stored.kept,
        "weight_bytes": stored.weight_bytes,
        "graph_bytes": size - stored.weight_bytes,  # operators, names, biases: the file without all weights
        "bytes_per_kept": size / stored.kept,  # of the whole file, graph included
    }


def _show(document: dict[str, Any]) -> None:
    settings, where = document["settings"], document["environment"]
    title = (
        f"{settings['cell'].upper()} step, width {settings['width']}, {settings['vocabulary']:,} words, "
        f"{{regions}} regions, {settings['sparsity']:.1%} zeros in every matrix"
    )
    note = (
        f"{where['cpu_model']}, {where['cpu_count']} cores, load {where['load_when_started']} at the start; "
        f"{where['runtime']} {where['runtime_version']}, one thread; {settings['rounds']} interleaved rounds"
    )
    for regions, rows in ((settings["regions"], document["rows"]), tuple(document["other_regions"].values())):
        _show_rows(title.format(regions=regions), rows, note)
    for run in document["trained"]:
        zeros = 1 - run["kept_weights"] / run["prunable_weights"]
        about = f"{run['run']}: CIDEr-D {run['cider']:.4f} on {run['cider_split']}, {zeros:.1%} zeros, {run['regions']} regions"
        _show_rows(about, run["rows"], note)


def _show_rows(title: str, rows: list[dict[str, Any]], note: str) -> None:
    base = rows[0]["us_p50"]
    cells = [
        [
            row["format"],
            f"{row['bytes']:,}",
            f"{row['us_p50']:,.0f}",
            f"{row['us_p90']:,.0f}",
            f"{base / row['us_p50']:.2f}",
            f"{row['max_abs_err']:.1e}",
            f"{row['bytes_per_kept']:.2f}" if "bytes_per_kept" in row else "",
        ]
        for row in rows
    ]
    table(title, ["format", "bytes", "µs p50", "µs p90", "times dense", "max abs error", "bytes / kept"], cells, note)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    default = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeat", type=int, default=default.rounds, help="rounds (default %(default)s)")
    parser.add_argument(
        "--hidden",
        type=int,
        default=default.width,
        help="width of embedding, hidden state, attention and context (default %(default)s)",
    )
    parser.add_argument("--vocabulary", type=int, default=default.vocabulary, help="words (default %(default)s)")
    parser.add_argument("--regions", type=int, default=default.regions, help="cells of the grid (default %(default)s)")
    parser.add_argument("--cell", choices=("lstm", "gru"), default=default.cell)
    parser.add_argument("--run", type=Path, action="append", default=[], help="add a trained run; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print the results."""
    asked = _arguments(arguments)
    settings = Settings(asked.cell, asked.hidden, asked.vocabulary, asked.regions, rounds=asked.repeat)
    document = measure(settings, asked.run)
    if asked.json:
        print(json.dumps(document, indent=1))
    else:
        _show(document)


if __name__ == "__main__":
    main()
