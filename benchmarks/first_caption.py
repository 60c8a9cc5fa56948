"""One photo's caption, from a cold process and warm: the package's bundle beside dense float32 exports of its parent.

    python benchmarks/first_caption.py photo.jpg --dense ready_model/runs/dense

Cold is `capprune caption photo.jpg` in a process of its own, from its start to its end, with the peak of its memory. Warm is one
caption of a golden photo in a process that has the bundle open, one thread. All bundles take turns in both. Writes
benchmarks/results/first_caption.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capprune.devices import BenchJob, open_device
from capprune.exporting import Wanted, export
from capprune.metrics.speed import compare
from capprune.ready import READY, ready_bundle
from capprune.training.run import load_run
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.environment import environment

# A process inherits the peak memory of its parent, so a small process is started in between.
LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"code": done.returncode, "seconds": seconds, "peak_kib": peak, "said": done.stdout}))
"""
SCHEMA_VERSION = 1
RUNTIME, THREADS = "ai-edge-litert", 1
COLD_ROUNDS, WARM_ROUNDS = 9, 60
OURS = "the package's bundle"
DENSE = ("tflite", "onnx")  # targets of the parent's exports
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class ColdStart:
    """A process that generated one caption."""

    seconds: float
    peak_mb: float
    caption: str


def measure(photo: Path, ours: Path, dense: Path, folder: Path, *, cold: int, warm: int) -> dict[str, Any]:
    """Export the dense parent and time everything interleaved.

    Args:
        photo: The photo for cold processes.
        ours: The packaged bundle.
        dense: The run of the dense parent.
        folder: An empty folder for the exports.
        cold: Number of cold processes of each bundle.
        warm: Number of warm captions of each bundle.

    Returns:
        The document.

    Raises:
        CapPruneError: A bundle or the run is broken, or a process fails.
    """
    load, run = os.getloadavg()[0], load_run(dense)
    other = "" if ours == READY else f" --bundle {ours.name}"
    place = dense.name if dense.is_absolute() else dense.as_posix()
    places = {OURS: ours}
    for target in DENSE:
        places[f"dense float32, {target}"] = export(run, folder / target, Wanted(target)).bundle.place
    bundles = {name: verify_bundle(place) for name, place in places.items()}
    starts = time_cold(photo, places, cold)
    job = BenchJob(list(bundles.values()), rounds=warm, threads=THREADS)
    rows = compare(open_device("local").bench(job, lambda *_: None), list(bundles))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "first_caption",
        "command": f"python benchmarks/first_caption.py {photo.name}{other} --dense {place}",
        "environment": {**asdict(environment(RUNTIME, THREADS)), "load_when_started": round(load, 1)},
        "beam": bundles[OURS].manifest.decoding.beam,
        "rows": [
            {
                "name": row.name,
                "runtime": row.runtime,
                "download_bytes": places[row.name].stat().st_size if places[row.name].is_file() else row.total_bytes,
                "cold_seconds": quantiles([one.seconds for one in starts[row.name]]),
                "peak_mb": max(one.peak_mb for one in starts[row.name]),
                "caption": starts[row.name][0].caption,
                "warm_caption_ms": {key: getattr(row.caption, key) / 1000 for key in ("estimate", "low", "high")},
            }
            for row in rows
        ],
    }


def time_cold(photo: Path, places: Mapping[str, Path], rounds: int) -> dict[str, list[ColdStart]]:
    """Time `rounds` processes of each bundle, interleaved, after one of each to fill the disk cache."""
    found: dict[str, list[ColdStart]] = {name: [] for name in places}
    for turn in range(rounds + 1):
        for name, place in places.items():
            started = cold_start(photo, place)
            found[name] += [started] if turn else []
    return found


def cold_start(photo: Path, bundle: Path) -> ColdStart:
    """Caption a photo in a new process.

    Raises:
        CapPruneError: The process fails.
    """
    command = [sys.executable, "-m", "capprune", "caption", str(photo), "--bundle", str(bundle)]
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if found["code"]:
        raise CapPruneError("a process could not caption", where=" ".join(command[2:]), found=found["code"])
    return ColdStart(found["seconds"], found["peak_kib"] / 1024, found["said"].strip())


def quantiles(values: list[float]) -> dict[str, float]:
    """Return the median, with the first and the ninth decile."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9]).tolist()
    return {"p10": low, "p50": middle, "p90": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--bundle", type=Path, help="instead of the package's")
    parser.add_argument("--dense", type=Path, required=True, help="the run of the dense parent")
    parser.add_argument("--out", type=Path, default=RESULTS / "first_caption.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = measure(
            options.photo,
            options.bundle or ready_bundle(),
            options.dense,
            Path(folder),
            cold=COLD_ROUNDS,
            warm=WARM_ROUNDS,
        )
    write_text(options.out, json.dumps(document, indent=2) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
