"""One step of a Soft-Attention decoder with synthetic weights: dense float32, dense int8 and sparse, in one run.

    python benchmarks/decoder_step.py
    python benchmarks/decoder_step.py --json > benchmarks/results/decoder_step.json

The weights are random, and the same share of them is zero in every matrix, so that formats can be compared before there
is a trained model; a trained model prunes its matrices unevenly. A step is timed as a caption pays for it: token and
state set, model run, outputs copied; keys and values are set once a caption. Rounds of the formats alternate, so that
other work on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capprune.cli.console import table
from capprune.config import DecoderConfig
from capprune.evaluation.results import environment
from capprune.models.exportable import StepCall
from capprune.models.soft_attention import SoftAttention
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.quantise import dynamic_int8
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.captioner import LOOKED_AT
from capprune_runtime.interpreter import Model, open_model

SCHEMA_VERSION = 1
RUNTIME, THREADS = "ai-edge-litert", 1
INPUTS = 8  # different inputs that take turns; the error is the largest over all of them
STEPS_PER_ROUND = 30  # a caption of ten words at beam 3, so that caches are as warm as they are in use
WARM_UP = 3  # steps of each format that are not counted

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Settings:
    """What is measured. `width` is embedding, hidden, attention and context at once."""

    cell: str = "lstm"
    width: int = 512
    vocabulary: int = 10_000
    regions: int = 49
    sparsity: float = 0.975
    rounds: int = 40
    seed: int = 8888


@dataclass(frozen=True)
class Stored:
    """A model file; for a sparse one also what its weights take."""

    data: bytes
    weight_bytes: int | None = None


def _sparse(data: bytes) -> Stored:
    model = make_sparse(data, one_row=True)
    return Stored(model.data, model.weight_bytes)


# Every format in one table: its name, and how it is made from the converter's dense float32 file.
FORMATS: dict[str, Callable[[bytes], Stored]] = {
    "dense_float32": Stored,
    "dense_int8": lambda data: Stored(dynamic_int8(data)),
    "csr_float32": _sparse,
}


def measure(settings: Settings) -> dict[str, Any]:
    """Make the model, store it in every format, and time all of them.

    Returns:
        The document that `--json` prints.
    """
    torch.set_num_threads(1)
    step = make_step(settings)
    kept = sum(int((p != 0).sum()) for name, p in step.named_parameters() if _in_step(name))
    prunable = sum(p.numel() for name, p in step.named_parameters() if _in_step(name))
    inputs = make_inputs(step, settings.seed)
    _say("converting")
    converted = convert(step, "step", step.example())
    stored = {name: make(converted) for name, make in FORMATS.items()}
    models = {name: open_model(s.data, "step", runtime=RUNTIME, threads=THREADS) for name, s in stored.items()}
    errors = {name: max_abs_error(model, step, inputs) for name, model in models.items()}
    load = os.getloadavg()[0]
    _say(f"timing {settings.rounds} rounds of {STEPS_PER_ROUND} steps")
    times = time_in_turns(models, inputs, settings.rounds)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "decoder_step",
        "settings": {**asdict(settings), "steps_per_round": STEPS_PER_ROUND},
        "prunable_weights": prunable,
        "kept_weights": kept,
        "threads": THREADS,
        "environment": {**asdict(environment(RUNTIME, THREADS)), "load_when_started": round(load, 1)},
        "rows": [_row(name, stored[name], times[name], errors[name], kept) for name in FORMATS],
    }


def make_step(settings: Settings) -> StepCall:
    """A step with random weights of unit gain; every matrix keeps the same share of them."""
    torch.manual_seed(settings.seed)
    width = settings.width
    shape = DecoderConfig.model_validate(
        {"cell": settings.cell, "embedding": width, "hidden": width, "attention": width, "context": width}
    )
    decoder = SoftAttention(shape, features=1, vocabulary=settings.vocabulary).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("weight"):
                kept = max(1, round(parameter.numel() * (1 - settings.sparsity)))
                places = torch.randperm(parameter.numel())[:kept]
                values = torch.randn(kept) / (parameter.shape[1] * (1 - settings.sparsity)) ** 0.5
                parameter.zero_().view(-1)[places] = values
            else:
                parameter.normal_(0, 0.1)  # a converter drops biases that are zero
    return StepCall(decoder, settings.regions).eval()


def make_inputs(step: StepCall, seed: int) -> list[Arrays]:
    """Random tokens, states, keys and values."""
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
    """The largest difference of any output from torch in float32."""
    worst = 0.0
    for arrays in inputs:
        found = model.run(arrays)
        with torch.inference_mode():
            expected = step(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        worst = max(worst, *(float(np.abs(found[name] - value.numpy()).max()) for name, value in expected.items()))
    return worst


def time_in_turns(models: dict[str, Model], inputs: list[Arrays], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Microseconds of every step of every model, the models taking turns round by round."""
    times: dict[str, list[int]] = {name: [] for name in models}
    for model in models.values():
        for arrays in inputs[:WARM_UP]:
            model.run(arrays)
    carried = [key for key in inputs[0] if key not in LOOKED_AT]
    for number in range(rounds):
        for name, model in models.items():
            photo = inputs[number % len(inputs)]
            model.hold({key: photo[key] for key in LOOKED_AT})
            for step in range(STEPS_PER_ROUND):
                arrays = {key: inputs[step % len(inputs)][key] for key in carried}
                started = time.perf_counter_ns()
                model.run(arrays)
                times[name].append(time.perf_counter_ns() - started)
    return {name: np.array(found) / 1000 for name, found in times.items()}


def _row(name: str, stored: Stored, times_us: NDArray[np.float64], error: float, kept: int) -> dict[str, Any]:
    p10, p50, p90 = np.quantile(times_us, [0.1, 0.5, 0.9]).round(1).tolist()
    size = len(stored.data)
    row = {"format": name, "bytes": size, "us_p10": p10, "us_p50": p50, "us_p90": p90, "max_abs_err": error}
    if stored.weight_bytes is None:
        return row
    return row | {
        "kept_weights": kept,
        "weight_bytes": stored.weight_bytes,
        "graph_bytes": size - stored.weight_bytes,  # operators, names, biases: what is left when all weights are gone
        "bytes_per_kept": size / kept,  # of the whole file, graph included
    }


def _in_step(parameter: str) -> bool:
    """Whether a parameter is a prunable matrix that `step` uses; the projections belong to `encode`."""
    encode_only = ("decoder.initial.", "decoder.key.", "decoder.value.")
    return parameter.endswith("weight") and not parameter.startswith(encode_only)


def _show(document: dict[str, Any]) -> None:
    settings, where = document["settings"], document["environment"]
    base = document["rows"][0]["us_p50"]
    rows = [
        [
            row["format"],
            f"{row['bytes']:,}",
            f"{row['us_p50']:,.0f}",
            f"{row['us_p90']:,.0f}",
            f"{base / row['us_p50']:.2f}",
            f"{row['max_abs_err']:.1e}",
            f"{row['bytes_per_kept']:.2f}" if "bytes_per_kept" in row else "",
        ]
        for row in document["rows"]
    ]
    title = (
        f"{settings['cell'].upper()} step, width {settings['width']}, {settings['vocabulary']:,} words, "
        f"{settings['regions']} regions, {settings['sparsity']:.1%} zeros in every matrix"
    )
    note = (
        f"{where['cpu_model']}, {where['cpu_count']} cores, load {where['load_when_started']} at the start; "
        f"{where['runtime']} {where['runtime_version']}, one thread; {settings['rounds']} rounds in turns"
    )
    columns = ["format", "bytes", "µs p50", "µs p90", "times dense", "max abs error", "bytes / kept"]
    table(title, columns, rows, note)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    default = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--repeat", type=int, default=default.rounds, help="rounds (default %(default)s)")
    parser.add_argument(
        "--hidden",
        type=int,
        default=default.width,
        help="also of embedding, attention and context (default %(default)s)",
    )
    parser.add_argument("--vocabulary", type=int, default=default.vocabulary, help="words (default %(default)s)")
    parser.add_argument("--regions", type=int, default=default.regions, help="49 or 16 (default %(default)s)")
    parser.add_argument("--cell", choices=("lstm", "gru"), default=default.cell)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print what it found."""
    asked = _arguments(arguments)
    settings = Settings(asked.cell, asked.hidden, asked.vocabulary, asked.regions, rounds=asked.repeat)
    document = measure(settings)
    if asked.json:
        print(json.dumps(document, indent=1))
    else:
        _show(document)


if __name__ == "__main__":
    main()
