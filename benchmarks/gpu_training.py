"""Train the Flickr8k recipe, dense and at 97.5 % sparsity, on a GPU and on this machine's CPU: captions/s, CIDEr-D, sparsity.

    python benchmarks/gpu_training.py --data flickr8k
    python benchmarks/gpu_training.py --data flickr8k --minutes 8 --json > gpu.json

Each run is `capprune train` at full size. It is stopped after its share of the time, unless it has finished before. The GPU
gets three quarters of the time. `--minutes` includes the time for features; those of an earlier start are kept. Without a
GPU, the script prints a message and ends with exit code 2, unless `--devices cpu` selects only the CPU.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from capprune.data.captions import load_caption_set
from capprune.tables import table
from capprune.training.hardware import found_devices
from capprune_runtime.measure.environment import environment
from capprune_runtime.stopping import TERMINATED

ROOT = Path(__file__).parents[1]
RECIPES = ("flickr8k_dense", "flickr8k_sparse")
MINUTES, GPU_SHARE = 8.0, 0.75
CPU_PHOTOS = 500  # an epoch of all photos would take longer than the CPU's share of the time
STOPPING = 5.0  # seconds in which a stopped training saves its state
WARM = 1  # epochs that are not counted, in which kernels are chosen and caches filled
PRECISION = {"cuda": "bfloat16", "mps": "float32", "cpu": "bfloat16"}


def train(
    recipe: str, data: Path, cache: Path, device: str, left: Callable[[], float], limit: int | None
) -> dict[str, Any]:
    """Train a recipe for a limited time.

    Args:
        recipe: A file of `configs/`.
        data: Flickr8k.
        cache: Feature cache; filled before the training starts.
        device: Device for training.
        left: Returns the seconds after which the training is stopped, when the features are there.
        limit: Number of training photos. [default: all]
    """
    own = [f"data.folder={data}", *([] if limit is None else [f"data.limit={limit}"])]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "capprune", "train", str(ROOT / "configs" / f"{recipe}.yaml"), *own]
        command += ["--device", device, "--precision", PRECISION[device], "--out", str(out), "--cache", str(cache)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        # features are computed before the config is written
        while not (out / "config.yaml").is_file() and process.poll() is None and left() > 0:
            time.sleep(0.1)
        try:
            process.wait(left())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
        if process.returncode not in (0, TERMINATED):
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        metrics = out / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    epochs = [line for line in lines if "cider" in line]
    counted = [line["seconds"] for line in epochs[WARM:]]
    photos = load_caption_set(data).split("train")[:limit]
    captions = sum(len(photo.captions) for photo in photos)
    return {
        "recipe": recipe,
        "device": device,
        "precision": PRECISION[device],
        "photos": len(photos),
        "finished": process.returncode == 0,
        "epochs": len(epochs),
        "captions_per_second": captions / statistics.median(counted) if counted else None,
        "cider_d": max((line["cider"] for line in epochs), default=None),
        "sparsity": epochs[-1].get("sparsity") if epochs else None,
    }


def measure(data: Path, cache: Path, kinds: list[str], minutes: float) -> dict[str, Any]:
    """Train both recipes on each kind of device."""
    shares = {kind: GPU_SHARE if kind != "cpu" else 1 - GPU_SHARE for kind in kinds}
    waiting = [(kind, recipe) for kind in kinds for recipe in RECIPES]
    end, found = time.monotonic() + 60 * minutes - STOPPING * len(waiting), []
    while waiting:
        kind, recipe = waiting[0]
        share = shares[kind] / sum(shares[one] for one, _ in waiting)
        deadline = time.monotonic() + share * max(0.0, end - time.monotonic())
        print(f"{recipe} on {kind} for at most {deadline - time.monotonic():.0f} s", file=sys.stderr)

        def left(deadline: float = deadline) -> float:
            return max(0.0, deadline - time.monotonic())

        found.append(train(recipe, data, cache, kind, left, CPU_PHOTOS if kind == "cpu" else None))
        waiting.pop(0)
    names = {kind: torch.cuda.get_device_name() if kind == "cuda" else kind for kind in kinds}
    own = {"schema_version": 1, "environment": asdict(environment("torch", torch.get_num_threads()))}
    return {**own, "torch": torch.__version__, "devices": names, "minutes": minutes, "runs": found}


def main() -> None:
    """Train the recipes and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "capprune")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="minutes of the whole script, features included")
    parser.add_argument("--devices", choices=["all", "cpu"], default="all")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    there = found_devices()
    gpus = [kind for kind in ("cuda", "mps") if there[kind]]
    if chosen.devices == "all" and not gpus:
        print(f"no GPU that torch can use: torch {torch.__version__} finds {there}; try --devices cpu", file=sys.stderr)
        raise SystemExit(2)
    found = measure(
        chosen.data, chosen.cache, ["cpu"] if chosen.devices == "cpu" else [*gpus[:1], "cpu"], chosen.minutes
    )
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    rows = [[run["recipe"], found["devices"][run["device"]], run["precision"], _number(run["captions_per_second"], 0),
             str(run["epochs"]), _number(run["cider_d"], 3), _number(run["sparsity"], 4)] for run in found["runs"]]  # fmt: skip
    columns = ["recipe", "device", "precision", "captions/s", "epochs", "CIDEr-D", "sparsity"]
    table(f"CPU: {found['environment']['cpu_model']}", columns, rows)


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:,.{places}f}"


if __name__ == "__main__":
    main()
