"""Compare all decoder families: weights, bytes of a 97.5 % sparse `step` in each form, state, and time per word.

Weights are random, every prunable matrix keeps 2.5 % of them, and sizes are each family's defaults. Bytes and times therefore
depend on graph and format, not on training. Steps are timed interleaved, with one thread and one row; times are medians.

    python benchmarks/families.py [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capprune.config.decoder import DECODERS, decoder_config
from capprune.models.exportable import StepCall
from capprune.models.family import IN_STEP, Decoder, Role
from capprune.tables import table
from capprune_exporters.onnx.convert import convert_onnx
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.plan import plan_by_size
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.sparse import make_sparse, stored_names
from capprune_runtime.caption.interpreter import Model, open_model
from capprune_runtime.measure.environment import environment
from capprune_runtime.measure.interleaved import time_interleaved

SCHEMA_VERSION = 1
RUNTIME, THREADS = "ai-edge-litert", 1
FEATURES, REGIONS, VOCABULARY, LIMIT = 1280, 16, 3000, 20
SPARSITY = 0.975
ROUNDS, STEPS = 40, 25

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """One family.

    Attributes:
        family: Its name.
        prunable: Number of prunable weights.
        held_bytes: Size of the held tensors of a photo.
        state_bytes: Size of the state of one hypothesis.
        dense_float32, sparse_float32, sparse_int8, onnx_int8: Size of the decoder's file in each form.
        step_us: Median time of a step by form, with 10th and 90th percentile.
    """

    family: str
    prunable: int
    held_bytes: int
    state_bytes: int
    dense_float32: int
    sparse_float32: int
    sparse_int8: int
    onnx_int8: int
    step_us: dict[str, tuple[float, float, float]]


def make_decoder(family: str) -> Decoder:
    """Return a decoder of default sizes with sparse random weights of unit gain."""
    torch.manual_seed(0)
    kind: type[Decoder] = DECODERS.load(family, "family")
    decoder = kind(
        decoder_config({"family": family}),
        features=FEATURES,
        vocabulary=VOCABULARY,
        regions=REGIONS,
        max_tokens=LIMIT,
    ).eval()
    with torch.no_grad():
        for name in decoder.roles():
            weight = decoder.get_submodule(name).get_parameter("weight")
            kept = torch.rand_like(weight) < 1 - SPARSITY
            weight.normal_(0, (weight.shape[-1] * (1 - SPARSITY)) ** -0.5).mul_(kept)
            if (bias := getattr(decoder.get_submodule(name), "bias", None)) is not None:
                bias.normal_(0, 0.1)  # converters drop biases that are zero
    return decoder.eval()


def forms(decoder: Decoder) -> dict[str, bytes]:
    """Return the step in every form of the table."""
    step = StepCall(decoder).eval()
    matrices = {name: value.numpy() for name, value in decoder.matrices(*IN_STEP).items()}
    converted = convert(step, "step", step.example())
    stored = stored_names(converted, matrices)
    found = {"dense_float32": dict.fromkeys(stored, "dense_float32")}
    for weights in ("float32", "int8"):
        plan = plan_by_size(matrices, tuple(decoder.matrices(Role.LOOKED_UP)), weights)
        found[f"sparse_{weights}"] = {name: form for name, form in plan.forms.items() if name in stored}
    made = {
        name: make_sparse(
            converted, one_row=True, plan=plan, weights="int8" if name.endswith("int8") else "float32", names=matrices
        ).data
        for name, plan in found.items()
    }
    rows = not decoder.interface().position
    gapped = make_gapped(convert_onnx(step, step.example(), rows=rows), weights="int8", names=matrices, dynamic=True)
    return {**made, "onnx_int8": gapped.data}


def inputs_of(decoder: Decoder) -> Arrays:
    """Return random inputs of a step."""
    draw = np.random.default_rng(0)
    return {
        name: np.full(shape, 4, np.int32) if dtype == "int32" else draw.standard_normal(shape).astype(np.float32) / 2
        for name, (shape, dtype) in decoder.interface().step_inputs().items()
    }


def measure(families: Sequence[str]) -> dict[str, Any]:
    """Return the document that `--json` prints."""
    decoders = {family: make_decoder(family) for family in families}
    files = {family: forms(decoder) for family, decoder in decoders.items()}
    models: dict[tuple[str, str], tuple[Model, Arrays]] = {}
    for family, decoder in decoders.items():
        arrays, interface = inputs_of(decoder), decoder.interface()
        kept = {*interface.held, *(name for name, spec in interface.state.items() if spec.carry == "append")}
        for form, data in files[family].items():
            model = open_model(data, "step", threads=THREADS)
            model.hold({name: arrays[name] for name in kept})
            carried = {name: array for name, array in arrays.items() if name not in kept}
            model.run(carried)
            models[family, form] = model, carried
    calls = {key: partial(model.run, carried) for key, (model, carried) in models.items()}
    times = time_interleaved(calls, rounds=ROUNDS, each=STEPS)
    rows = []
    for family, decoder in decoders.items():
        sizes = {form: len(data) for form, data in files[family].items()}
        spread = {
            form: tuple(round(float(value), 1) for value in np.quantile(times[family, form], [0.5, 0.1, 0.9]))
            for form in sizes
        }
        weights = sum(one.numel() for one in decoder.matrices(*Role).values())
        interface = decoder.interface()
        rows.append(asdict(Row(family, weights, interface.held_bytes, interface.state_bytes, **sizes, step_us=spread)))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "families",
        "settings": {"regions": REGIONS, "vocabulary": VOCABULARY, "features": FEATURES, "sparsity": SPARSITY},
        "environment": asdict(environment(RUNTIME, THREADS)),
        "rows": rows,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args()
    document = measure(DECODERS.names())
    if asked.json:
        print(json.dumps(document, indent=1))
        return
    columns = [
        *("family", "prunable", "held B", "state B", "dense float32 B", "sparse float32 B", "sparse int8 B"),
        *("ONNX int8 B", "dense µs", "sparse µs", "int8 µs", "ONNX µs"),
    ]
    names = ("dense_float32", "sparse_float32", "sparse_int8", "onnx_int8")
    table(
        f"{document['environment']['cpu_model']}, {RUNTIME} and onnxruntime, one thread",
        columns,
        [
            [
                row["family"],
                *(f"{row[key]:,}" for key in ("prunable", "held_bytes", "state_bytes", *names)),
                *(f"{row['step_us'][form][0]:.0f}" for form in names),
            ]
            for row in document["rows"]
        ],
    )


if __name__ == "__main__":
    main()
