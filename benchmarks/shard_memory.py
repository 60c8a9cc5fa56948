"""Measure the peak memory of training from shards by the number of photos; it should not depend on that number.

    python benchmarks/shard_memory.py --json

Draws noisy JPEGs with five captions each, writes them as shards, and trains one epoch with a frozen encoder, each time in a
new process. Writes only to a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# A process inherits the peak memory of its parent, so a small process is started in between.
LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"code": done.returncode, "peak_mb": peak / 1024, "seconds": time.perf_counter() - began,
                  "said": done.stderr[-2000:]}))
"""
CONFIG = """
data: {folder: unused, minimum_count: 1, shuffle_photos: 512}
encoder: {size: 32}
decoder: {embedding: 32, hidden: 64, attention: 32, context: 32}
training: {epochs: 1, photos_per_batch: 20, learning_rate: 3.0e-3, validation_photos: 100}
"""
VALIDATION = 100  # photos
SIDE = 96  # pixels
WORDS = 2000


def draw(folder: Path, photos: int) -> None:
    """Draw a data set of noisy photos in Karpathy's layout."""
    random = np.random.default_rng(1)
    (folder / "photos").mkdir(parents=True)
    images = []
    for number in range(photos + VALIDATION):
        small = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
        content = io.BytesIO()
        small.resize((SIDE, SIDE)).save(content, "JPEG", quality=90)
        (folder / "photos" / f"{number:06}.jpg").write_bytes(content.getvalue())
        words = random.integers(0, WORDS, (5, 10))
        sentences = [{"raw": " ".join(f"w{word}" for word in row)} for row in words]
        split = "train" if number < photos else "val"
        images.append({"filename": f"{number:06}.jpg", "split": split, "sentences": sentences})
    (folder / "dataset.json").write_text(json.dumps({"dataset": "noise", "images": images}))


def trained(work: Path, shards: Path, photos: int) -> dict[str, Any]:
    """Train on the first photos; return the peak memory and the seconds."""
    config = work / "config.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "capprune", "train", str(config), f"data.shards={shards}", f"data.limit={photos}"]
    command += ["--out", str(work / f"run-{photos}"), "--cache", str(work / f"cache-{photos}")]
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    if result["code"]:
        raise SystemExit(result["said"])
    return {"photos": photos, "peak_mb": round(result["peak_mb"], 1), "seconds": round(result["seconds"], 1)}


def main() -> None:
    """Measure each number of photos and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 8000])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        draw(work / "noise", max(arguments.photos))
        shards = work / "shards"
        command = [sys.executable, "-m", "capprune", "data", "shard", str(work / "noise"), "--out", str(shards)]
        subprocess.run([*command, "--photos-per-shard", "256"], check=True, capture_output=True)
        runs = [trained(work, shards, photos) for photos in sorted(arguments.photos)]
    growth = runs[-1]["peak_mb"] / runs[0]["peak_mb"] - 1
    if arguments.json:
        print(json.dumps({"schema_version": 1, "benchmark": "shard_memory", "runs": runs, "growth": round(growth, 4)}))
        return
    for run in runs:
        print(f"{run['photos']:,} photos: {run['peak_mb']:,.0f} MB at most, {run['seconds']:.0f} s")
    print(f"growth: {growth:.1%}")


if __name__ == "__main__":
    main()
