"""Compare the packed weights of a decoder with their entropy floor, and measure how fast they are expanded.

    python benchmarks/entropy.py
    python benchmarks/entropy.py --run runs/flickr8k-sparse --bundle bundles/flickr8k-sparse --json

The synthetic model is that of decoder_step.py: random weights, the same share of zeros in every matrix. --run adds a trained
one, whose matrices are pruned unevenly. The floor of a matrix is the minimum size of its positions and values coded
independently, N·H(kept / N) + kept·H0(values), computed from masks and values. The packed sizes include tables and headers.
Kept weights are those that are not zero after quantisation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capprune.models.exportable import StepCall, exportable
from capprune.models.family import IN_STEP
from capprune.tables import table
from capprune.training.run import load_run
from capprune_exporters.pack.capz import pack, pack_file
from capprune_exporters.pack.entropy import floor_bytes
from capprune_exporters.pack.pieces import PackedTensor
from capprune_exporters.quantise import requantised
from capprune_exporters.stored import SparseModel
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.bundle.capz import PIECES, open_capz
from capprune_runtime.bundle.capz_pieces import expand_pieces
from capprune_runtime.bundle.manifest import DECODER
from capprune_runtime.bundle.verify import MAX_FILES
from capprune_runtime.formats import MAX_MODEL_BYTES
from capprune_runtime.measure.environment import environment
from decoder_step import RUNTIME, THREADS, Settings, make_step

SCHEMA_VERSION = 1
WEIGHTS = ("int8", "codebook4")
SYNTHETIC = "synthetic"
REPEATS = 5  # of each expansion; the median is reported

Matrices = dict[str, NDArray[np.float32]]


def measure(settings: Settings, runs: Iterable[Path] = (), bundles: Iterable[Path] = ()) -> dict[str, Any]:
    """Pack the decoders and whole bundles.

    Args:
        settings: Settings of the synthetic decoder.
        runs: Folders of trained runs.
        bundles: Folders of bundles.

    Returns:
        The document that `--json` prints.
    """
    rows = _rows(SYNTHETIC, make_step(settings), None)
    for run in runs:
        loaded = load_run(run)
        rows += _rows(run.name, exportable(loaded.model)[1], loaded.vocabulary.as_text().encode())
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "entropy",
        "settings": {key: value for key, value in asdict(settings).items() if key != "rounds"},
        "environment": asdict(environment(RUNTIME, THREADS)),
        "rows": rows,
        "bundles": [_bundle(folder) for folder in bundles],
    }


def matrices_of(step: StepCall) -> Matrices:
    """Return the prunable weights of `step`, by parameter name."""
    return {name: one.numpy().copy() for name, one in step.decoder.matrices(*IN_STEP).items()}


def floor_of(matrices: Matrices, sparse: SparseModel, weights: str) -> float:
    """Return the entropy floor of the quantised weights in bytes; weights that are stored dense are not quantised."""
    dense = {tensor.name for tensor in sparse.tensors if tensor.form == "dense_float32"}
    values = {name: m if name in dense else requantised(m, weights) for name, m in matrices.items()}
    return sum(floor_bytes(np.count_nonzero(v), v.size, v[v != 0]) for v in values.values())


def _rows(source: str, step: StepCall, vocabulary: bytes | None) -> list[dict[str, Any]]:
    _say(f"converting {source}")
    matrices = matrices_of(step)
    converted = convert(step, "step", step.example())
    return [_row(source, weights, matrices, converted, vocabulary) for weights in WEIGHTS]


def _row(source: str, weights: str, matrices: Matrices, converted: bytes, vocabulary: bytes | None) -> dict[str, Any]:
    _say(f"packing {source}, {weights}")
    sparse = make_sparse(converted, one_row=True, weights=weights, names=matrices)
    coding, section, tensors = pack_file(DECODER, sparse.data)
    if coding != PIECES:
        raise SystemExit(f"{source}: no part of the decoder gets smaller by coding")
    stored = [tensor for tensor in tensors if tensor.name in matrices]
    biases = [tensor for tensor in tensors if tensor.name not in matrices]
    floor, kept = floor_of(matrices, sparse, weights), sum(tensor.kept for tensor in stored)
    coded = sum(tensor.coded_bytes for tensor in stored)
    words = None if vocabulary is None else len(zlib.compress(vocabulary, 9))
    return {
        "source": source,
        "weights": weights,
        "prunable": sum(matrix.size for matrix in matrices.values()),
        "kept": kept,
        "floor_bytes": round(floor),
        "coded_bytes": coded,
        "bytes_per_kept": coded / kept,
        "ratio_to_floor": coded / floor,
        "tensors": [_tensor(tensor) for tensor in stored],
        "bias_bytes": sum(tensor.file_bytes for tensor in biases),
        "bias_coded_bytes": sum(tensor.coded_bytes for tensor in biases),
        "graph_bytes": len(sparse.data) - sum(tensor.file_bytes for tensor in tensors),
        "graph_coded_bytes": len(section) - sum(tensor.coded_bytes for tensor in tensors),
        "vocabulary_bytes": None if vocabulary is None else len(vocabulary),
        "vocabulary_coded_bytes": words,
        "file_bytes": len(sparse.data),
        "packed_bytes": len(section) + (words or 0),
        "dense_float32_bytes": len(converted),
        "times_smaller_than_dense": len(converted) / (len(section) + (words or 0)),
        "decode_mb_per_s": _mb_per_s(len(sparse.data), lambda: expand_pieces(memoryview(section), len(sparse.data))),
    }


def _tensor(tensor: PackedTensor) -> dict[str, Any]:
    return {key: value for key, value in asdict(tensor).items() if key != "file"} | {"shape": list(tensor.shape)}


def _bundle(folder: Path) -> dict[str, Any]:
    """Measure a whole bundle, encoder included: its size, packed size, and speed of expansion."""
    _say(f"packing {folder.name}")
    with tempfile.TemporaryDirectory() as temporary:
        report = pack(folder, Path(temporary) / "bundle.capz")

        def expand() -> None:
            members = open_capz(report.place)
            for name in members.names(MAX_FILES):
                members.read(name, MAX_MODEL_BYTES)

        return {
            "name": folder.name,
            "bundle_bytes": report.bundle_bytes,
            "packed_bytes": report.packed_bytes,
            "decode_mb_per_s": _mb_per_s(report.bundle_bytes, expand),
        }


def _mb_per_s(size: int, expand: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()  # CPU time of one core, independent of other work on the machine
        expand()
        seconds.append(time.process_time() - started)
    return round(size / float(np.median(seconds)) / 1e6, 1)


def _show(document: dict[str, Any]) -> None:
    rows = [
        [
            f"{row['source']}, {row['weights']}",
            f"{row['kept']:,}",
            f"{row['floor_bytes']:,}",
            f"{row['coded_bytes']:,}",
            f"{row['bytes_per_kept']:.3f}",
            f"{row['ratio_to_floor']:.3f}",
            f"{row['bias_coded_bytes']:,}",
            f"{row['graph_coded_bytes']:,}",
            "" if row["vocabulary_coded_bytes"] is None else f"{row['vocabulary_coded_bytes']:,}",
            f"{row['packed_bytes']:,}",
            f"{row['times_smaller_than_dense']:.0f}",
            f"{row['decode_mb_per_s']:.0f}",
        ]
        for row in document["rows"]
    ]
    columns = ["decoder", "kept", "floor", "coded", "bytes / kept", "to floor", "biases", "graph", "words", "packed"]
    table("Packed decoders, bytes", [*columns, "times dense", "MB/s"], rows)
    if document["bundles"]:
        bundles = [
            [b["name"], f"{b['bundle_bytes']:,}", f"{b['packed_bytes']:,}", f"{b['decode_mb_per_s']:.0f}"]
            for b in document["bundles"]
        ]
        table("Whole bundles", ["bundle", "bytes", "packed", "MB/s"], bundles)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print the results."""
    default = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a trained run; may be repeated")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="a bundle; may be repeated")
    parser.add_argument("--hidden", type=int, default=default.width, help="width of the synthetic decoder")
    parser.add_argument(
        "--vocabulary", type=int, default=default.vocabulary, help="size of its vocabulary (default %(default)s)"
    )
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    document = measure(Settings(width=asked.hidden, vocabulary=asked.vocabulary), asked.run, asked.bundle)
    if asked.json:
        print(json.dumps(document, indent=1))
    else:
        _show(document)


if __name__ == "__main__":
    main()
