"""Time the caption of one photo, cold and warm: the ready run's default export, compared with its dense exports.

    python benchmarks/first_caption.py photo.jpg --data flickr8k --json

Compares the default export of the ready run with its dense float32 TFLite export and its dense int8 one (static int8 encoder),
and the blocks variant with its two. The exports are made by the project's own exporter and kept in a cache folder.
Warm is one caption of a golden photo in a process that has all bundles open, with one thread and interleaved rounds:
encoder + steps + host = total. Cold is `capprune caption photo.jpg` in a new process, from its start to its end, with its
peak memory, interleaved too. Prints the tables; --json writes benchmarks/results/first_caption.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capprune.devices import BenchJob, open_device
from capprune.metrics.speed import SpeedRow, compare, faster_caption
from capprune.ready import ready_bundle
from capprune.training.progress import Lines
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.environment import environment
from capprune_runtime.measure.results import Measurement
from first_caption_bundles import Compared, make_bundles
from first_caption_results import first_caption_section

# A process inherits the peak memory of its parent, so a small process is started in between.
LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"code": done.returncode, "seconds": seconds, "peak_kib": peak, "said": done.stdout}))
"""
SCHEMA_VERSION = 2
RUNTIME, THREADS = "ai-edge-litert", 1
COLD_ROUNDS, WARM_ROUNDS = 9, 60
PACKAGED = "the package's bundle"
ROOT = Path(__file__).parents[1]
KEPT = ROOT / "ready_model"
READY_RUN, BLOCKS_RUN, BLOCKS = KEPT / "runs" / "wide", KEPT / "runs" / "blocks", KEPT / "flickr8k-coco-blocks.capz"
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class ColdStart:
    """A process that generated one caption."""

    seconds: float
    peak_mb: float
    caption: str


def measure(photo: Path, compared: Mapping[str, Compared], *, cold: int, warm: int) -> dict[str, Any]:
    """Time bundles cold and warm, both interleaved.

    Args:
        photo: The photo for cold processes.
        compared: The bundles by name.
        cold: Number of cold processes of each bundle.
        warm: Number of warm captions of each bundle.

    Returns:
        The document, without its command.

    Raises:
        CapPruneError: A bundle is broken, or a process fails.
    """
    load = os.getloadavg()[0]
    bundles = {name: verify_bundle(one.place) for name, one in compared.items()}
    starts = time_cold(photo, {name: one.place for name, one in compared.items()}, cold)
    job = BenchJob(list(bundles.values()), rounds=warm, threads=THREADS)
    timed = dict(zip(bundles, open_device("local").bench(job, lambda *_: None), strict=True))
    rows = {row.name: row for row in compare(list(timed.values()), list(bundles))}
    first = next(iter(bundles.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "first_caption",
        "environment": {**asdict(environment(RUNTIME, THREADS)), "load_when_started": round(load, 1)},
        "beam": first.manifest.decoding.beam,
        "rows": [
            {
                "name": name,
                "encoder": bundles[name].manifest.quantisation.encoder,
                "decoder": bundles[name].manifest.quantisation.decoder,
                "download_bytes": _download_bytes(one.place, rows[name]),
                "cold_seconds": quantiles([start.seconds for start in starts[name]]),
                "peak_mb": max(start.peak_mb for start in starts[name]),
                "caption": starts[name][0].caption,
                **_warm(timed[name], rows[name]),
                **_against(name, one, timed),
            }
            for name, one in compared.items()
        ],
    }


def _download_bytes(place: Path, row: SpeedRow) -> int:
    return place.stat().st_size if place.is_file() else row.total_bytes


def _warm(timed: Measurement, row: SpeedRow) -> dict[str, Any]:
    """Return the times of warm captions, in ms; the parts of a caption add up to it, their medians only nearly."""
    encoder = [said.encode_us / 1000 for said in timed.captions]
    steps = [sum(said.step_us) / 1000 for said in timed.captions]
    total = [said.caption_us / 1000 for said in timed.captions]
    host = [whole - one - two for whole, one, two in zip(total, encoder, steps, strict=True)]
    return {
        "runtime": row.runtime,
        "warm_caption_ms": {key: getattr(row.caption, key) / 1000 for key in ("estimate", "low", "high")},
        "parts_ms": {"encoder": quantiles(encoder), "steps": quantiles(steps), "host": quantiles(host)},
        "steps": float(np.median([len(said.step_us) for said in timed.captions])),
    }


def _against(name: str, one: Compared, timed: Mapping[str, Measurement]) -> dict[str, Any]:
    """Return the speed-up of the bundle under test over this baseline."""
    if one.against is None:
        return {"against": None, "faster": None, "reason": ""}
    faster, reason = faster_caption(timed[one.against], timed[name])
    return {"against": one.against, "faster": None if faster is None else faster.as_json(), "reason": reason}


def time_cold(photo: Path, places: Mapping[str, Path], rounds: int) -> dict[str, list[ColdStart]]:
    """Time `rounds` processes of each bundle, interleaved, after one of each to fill the caches."""
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


def main(arguments: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of Flickr8k, for quantisation")
    parser.add_argument("--run", type=Path, default=READY_RUN, help="the ready run")
    parser.add_argument("--blocks-run", type=Path, default=BLOCKS_RUN, help="the run of the blocks variant")
    parser.add_argument("--blocks", type=Path, default=BLOCKS, help="the bundle of the blocks variant")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "first_caption", help="folder of the exports")
    parser.add_argument("--rounds", type=int, default=WARM_ROUNDS, help="warm captions of each bundle")
    parser.add_argument("--cold", type=int, default=COLD_ROUNDS, help="cold processes of each bundle")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/first_caption.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "first_caption.json", help="where --json writes instead")
    options = parser.parse_args(arguments)
    try:
        made = make_bundles(options.run, options.blocks_run, options.blocks, options.data, options.cache, Lines())
        compared = {PACKAGED: Compared(ready_bundle(), None), **made}
        document = measure(options.photo, compared, cold=options.cold, warm=options.rounds)
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    document["command"] = f"python benchmarks/first_caption.py {options.photo.name} --data {options.data.name} --json"
    if options.json:
        write_text(options.out, json.dumps(document, indent=2) + "\n")
        print(options.out)
    else:
        print(first_caption_section(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
