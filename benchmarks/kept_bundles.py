"""Measure the bundles in this repository: quality compared with a dense run, bytes, and steps compared with dense int8.

    python benchmarks/kept_bundles.py --data flickr8k --dense ready/trained/twin --dense flickr8k=ready/flickr8k-trained/dense

Validates every bundle against its dense run, searched as the bundle is, then times all of them interleaved, each with the
same model in dense int8.
Writes benchmarks/results/kept_bundles.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
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
from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.measure.environment import environment

SCHEMA_VERSION = 1
SPLIT, BEAM = "test", 3
RUNTIME, THREADS, ROUNDS = "ai-edge-litert", 1, 60
ROOT = Path(__file__).parents[1]
KEPT = ROOT / "ready_model"
RESULTS = Path(__file__).parent / "results"


def measure(
    places: Mapping[str, Path], dense: Mapping[str, Path], data: Path, *, limit: int | None, rounds: int
) -> dict[str, Any]:
    """Validate and time bundles.

    Args:
        places: The bundles, by their names in the table.
        dense: For each of them the dense run that it is compared with.
        data: Folder of photos and captions.
        limit: Only the first `limit` photos of the split.
        rounds: Number of timed captions of each bundle.

    Returns:
        The document.

    Raises:
        CapPruneError: A bundle, the run or the data is broken.
    """
    load, bundles = os.getloadavg()[0], {name: verify_bundle(place) for name, place in places.items()}

    def validated(name: str) -> dict[str, Any]:
        results, _ = validate_bundle(
            bundles[name], data, SPLIT, limit=limit, reference=dense[name], beam=BEAM, runtime=RUNTIME, progress=Lines()
        )
        return results.as_json()

    results = {name: validated(name) for name in bundles}
    steps = time_steps(bundles, rounds)
    one = next(iter(results.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "kept_bundles",
        "command": _command(data, dense, limit),
        "environment": {**asdict(environment(RUNTIME, THREADS)), "load_when_started": round(load, 1)},
        "data": one["data"],
        "beam": BEAM,
        "rows": [
            {
                "name": name,
                "bytes": places[name].stat().st_size,
                **{key: results[name]["bundle"][key] for key in ("kept_weights", "prunable_weights", "total_bytes")},
                **{key: results[name]["quality"][key] for key in ("scores", "cider_d_interval", "health")},
                "dense": {key: results[name]["reference"][key] for key in ("name", "scores", "health")},
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


def _command(data: Path, dense: Mapping[str, Path], limit: int | None) -> str:
    usual = next(iter(dense.values()))
    others = [f"--dense {name}={run.name}" for name, run in dense.items() if run != usual]
    parts = ["python benchmarks/kept_bundles.py --data", data.name, "--dense", usual.name, *others]
    return " ".join([*parts, *([] if limit is None else [f"--limit {limit}"])])


def dense_runs(given: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """Return the dense run of every bundle from `RUN`, for all others, and `BUNDLE=RUN`.

    Raises:
        UsageError: A bundle has no run, or a name is none of a bundle.
    """
    usual, own = None, {}
    for one in given:
        name, is_own, run = one.partition("=")
        if not is_own:
            usual = Path(one)
        elif name in names:
            own[name] = Path(run)
        else:
            raise UsageError("no bundle has this name", where="--dense", expected=", ".join(names), found=name)
    for name in names:
        if usual is None and name not in own:
            raise UsageError("a bundle has nothing to be compared with", where="--dense", hint=f"--dense {name}=RUN")
    return {name: own.get(name, usual or Path()) for name in names}


def _in_dense_int8(bundle: Bundle) -> Bundle:
    baseline = next(one for one in tflite_baselines(bundle.decoder) if one.name == DENSE_INT8)
    return verified(baseline_bundle(bundle, baseline, bundle.encoder))


def main(arguments: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Flickr8k")
    parser.add_argument(
        "--dense",
        action="append",
        required=True,
        metavar="[BUNDLE=]RUN",
        help="dense run that a bundle is compared with; without a name, that of all others",
    )
    parser.add_argument("--limit", type=int, help="use only the first N photos of the test split")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="captions of each bundle that are timed")
    parser.add_argument("--out", type=Path, default=RESULTS / "kept_bundles.json")
    asked = parser.parse_args(arguments)
    places = {path.stem: path for path in (READY, *sorted(KEPT.glob("*.capz")))}
    try:
        dense = dense_runs(asked.dense, list(places))
        document = measure(places, dense, asked.data, limit=asked.limit, rounds=asked.rounds)
        write_text(asked.out, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
