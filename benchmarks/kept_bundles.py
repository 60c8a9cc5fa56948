"""Measure the bundles in this repository: quality compared with their dense parent, bytes, and steps compared with dense int8.

    python benchmarks/kept_bundles.py --data flickr8k --parent ready/trained/dense

Validates every bundle against the parent's run, then times all of them interleaved, each with the same model in dense int8.
Writes benchmarks/results/kept_bundles.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capprune.api.validation import validate_bundle
from capprune.devices import BenchJob, open_device
from capprune.metrics.speed import compare
from capprune.ready import READY
from capprune.training.progress import Lines
from capprune_exporters.baselines import DENSE_INT8, baseline_bundle, tflite_baselines, verified
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.environment import environment

SCHEMA_VERSION = 1
SPLIT, BEAM = "test", 3
RUNTIME, THREADS, ROUNDS = "ai-edge-litert", 1, 60
ROOT = Path(__file__).parents[1]
KEPT = ROOT / "ready_model"
RESULTS = Path(__file__).parent / "results"


def measure(places: Mapping[str, Path], parent: Path, data: Path, *, limit: int | None, rounds: int) -> dict[str, Any]:
    """Validate and time bundles.

    Args:
        places: The bundles, by their names in the table.
        parent: The reference run of all bundles.
        data: Folder of photos and captions.
        limit: Only the first `limit` photos of the split.
        rounds: Number of timed captions of each bundle.

    Returns:
        The document.

    Raises:
        CapPruneError: A bundle, the run or the data is broken.
    """
    load, bundles = os.getloadavg()[0], {name: verify_bundle(place) for name, place in places.items()}

    def validated(bundle: Bundle) -> dict[str, Any]:
        results, _ = validate_bundle(
            bundle, data, SPLIT, limit=limit, reference=parent, beam=BEAM, runtime=RUNTIME, progress=Lines()
        )
        return results.as_json()

    results = {name: validated(bundle) for name, bundle in bundles.items()}
    steps = time_steps(bundles, rounds)
    one = next(iter(results.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "kept_bundles",
        "command": f"python benchmarks/kept_bundles.py --data {data.name} --parent {parent.name}"
        + ("" if limit is None else f" --limit {limit}"),
        "environment": {**asdict(environment(RUNTIME, THREADS)), "load_when_started": round(load, 1)},
        "data": one["data"],
        "beam": BEAM,
        "parent": {key: one["reference"][key] for key in ("name", "scores", "health")},
        "rows": [
            {
                "name": name,
                "bytes": places[name].stat().st_size,
                **{key: results[name]["bundle"][key] for key in ("kept_weights", "prunable_weights", "total_bytes")},
                **{key: results[name]["quality"][key] for key in ("scores", "cider_d_interval", "health")},
                "change": results[name]["reference"]["cider_d_change"]["relative"],
                **steps[name],
            }
            for name in places
        ],
    }


def time_steps(bundles: Mapping[str, Bundle], rounds: int) -> dict[str, dict[str, Any]]:
    """Return the median times of a step and a caption for every bundle, and its speed-up over a dense int8 step."""
    baselines = {name: _in_dense_int8(bundle) for name, bundle in bundles.items()}
    job = BenchJob([*bundles.values(), *baselines.values()], rounds=rounds, beam=BEAM, threads=THREADS)
    timed = open_device("local").bench(job, lambda *_: None)
    found = {}
    for place, name in enumerate(bundles):
        own, dense = compare((timed[place], timed[place + len(bundles)]), (name, DENSE_INT8))
        found[name] = {
            "step_us": asdict(own.step),
            "caption_us": asdict(own.caption),
            "dense_int8_step_us": asdict(dense.step),
            "faster": None if dense.faster is None else asdict(dense.faster),
        }
    return found


def _in_dense_int8(bundle: Bundle) -> Bundle:
    baseline = next(one for one in tflite_baselines(bundle.decoder) if one.name == DENSE_INT8)
    return verified(baseline_bundle(bundle, baseline, bundle.encoder))


def main(arguments: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Flickr8k")
    parser.add_argument("--parent", type=Path, required=True, help="run of the dense model that all are compared with")
    parser.add_argument("--limit", type=int, help="use only the first N photos of the test split")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="captions of each bundle that are timed")
    parser.add_argument("--out", type=Path, default=RESULTS / "kept_bundles.json")
    asked = parser.parse_args(arguments)
    places = {path.stem: path for path in (READY, *sorted(KEPT.glob("*.capz")))}
    try:
        document = measure(places, asked.parent, asked.data, limit=asked.limit, rounds=asked.rounds)
        write_text(asked.out, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
