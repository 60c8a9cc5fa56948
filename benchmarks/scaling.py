"""Measure captions per second of one and of two training processes, and the other rates that scale_plan.py needs.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --json > benchmarks/results/scaling.json

The model has the published sizes with a supermask, on drawn scenes of 224 pixels. Short runs of `capprune train` are
interleaved, and only their last epochs count. On a machine with other work, captions per second of processor time are more
reliable than captions per second, because two processes get a larger share of such a machine. The rates of decoding and of the
encoder are measured on noise of Flickr8k's usual photo size, as JPEG.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from capprune.config.encoder import EncoderConfig
from capprune.models.caption_model import FeatureExtractor, GridEncoder
from capprune.tables import table
from capprune_runtime.measure.environment import environment
from capprune_runtime.photo import decode_photo, resize

KINDS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}
PHOTOS, PHOTO_SIDE, PER_BATCH, CAPTIONS = 80, 224, 20, 5
CONFIG = """
data: {{folder: {folder}}}
decoder: {{embedding: 256, hidden: 512, attention: 512, context: 512}}
training: {{epochs: 100, photos_per_batch: {batch}, validation_photos: 1, save_every: epoch, precision: {precision}}}
pruning: {{method: supermask, sparsity: 0.975}}
"""
WARM, EPOCHS = (
    1,
    3,
)  # of the hundred in the config: the first is not counted, and the run is stopped after the last
ROUNDS, REDUCTIONS = 3, 10


def captions_per_second(config: Path, cache: Path, processes: int, threads: int) -> tuple[float, float]:
    """Return captions per second over the last epochs of a short run.

    Two rates are returned: per second of wall time, and per second of processor time of all processes.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "capprune", "train", str(config), "--out", str(out), "--cache", str(cache)]
        options = ["--device", "cpu", *(["--devices", str(processes)] if processes > 1 else [])]
        own = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen([*command, *options], env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            used = []
            for wanted in (WARM, EPOCHS):
                while len(seconds := _epochs(out / "metrics.jsonl")) < wanted:
                    if process.poll() is not None:
                        raise SystemExit(f"{' '.join([*command, *options])} ended with {process.returncode}")
                    time.sleep(0.05)
                used.append(_processor_seconds(process.pid))
        finally:
            process.terminate()
            process.wait()
    captions = PHOTOS * CAPTIONS
    return captions / statistics.median(seconds[WARM:]), captions * (EPOCHS - WARM) / (used[1] - used[0])


def _processor_seconds(pid: int) -> float:
    """Return the processor seconds of a process and of its running descendants."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(own[11]) + int(own[12])) / os.sysconf("SC_CLK_TCK") + sum(
        _processor_seconds(int(one)) for one in children
    )


def _epochs(path: Path) -> list[float]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [float(json.loads(line)["seconds"]) for line in lines if '"cider"' in line and line.endswith("}")]


def photos_per_second(work: Callable[[], object], photos: int) -> float:
    """Return the median rate of a function on photos, per second of processor time of one thread."""
    work()
    found = []
    for _ in range(5):
        began = time.process_time()
        work()
        found.append(photos / (time.process_time() - began))
    return statistics.median(found)


def photo_rates() -> dict[str, float]:
    """Return photos per second of processor time, for decoding with resizing and for the encoder."""
    torch.set_num_threads(1)
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize((500, 375)).save(content, "JPEG", quality=90)
    extract = FeatureExtractor(GridEncoder(EncoderConfig()))
    pixels = np.stack([resize(decode_photo(content.getvalue(), "noise"), extract.size)] * 4)
    return {
        "decoded": photos_per_second(lambda: resize(decode_photo(content.getvalue(), "noise"), extract.size), 1),
        "encoded": photos_per_second(lambda: extract(pixels), 4),
        "feature_bytes": float(np.prod(extract.shape) * 2),
    }


def reduction_ms(numbers: int) -> float:
    """Return the time in milliseconds of an all-reduce of `numbers` float32 numbers between two processes of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--reduce", str(numbers)]
    both = [
        subprocess.Popen(command, env={**os.environ, **own, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    return float(min((process.communicate()[0] for process in both), key=float))


def _reduce(numbers: int) -> float:
    dist.init_process_group("gloo")
    buffer, found = torch.ones(numbers), []
    for _ in range(REDUCTIONS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(buffer)
        found.append(1000 * (time.perf_counter() - began))
    dist.destroy_process_group()
    return statistics.median(found)


def measure(rounds: int, precision: str) -> dict[str, Any]:
    """Return all figures."""
    with tempfile.TemporaryDirectory() as folder:
        scenes, config, cache = Path(folder) / "scenes", Path(folder) / "scaling.yaml", Path(folder) / "cache"
        drawn = ["data", "scenes", "--out", scenes, "--train", PHOTOS, "--val", 10, "--test", 1, "--size", PHOTO_SIDE]
        subprocess.run([sys.executable, "-m", "capprune", *map(str, drawn)], check=True, capture_output=True)
        config.write_text(CONFIG.format(folder=scenes, batch=PER_BATCH, precision=precision))
        speeds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            for kind, (processes, threads) in KINDS.items():
                speeds[kind].append(captions_per_second(config, cache, processes, threads))
                print(f"round {number + 1}: {kind}: {speeds[kind][-1][0]:.0f} captions/s", file=sys.stderr)
    weights = 7_000_000  # of the decoder with a vocabulary of Flickr8k's size, and the same number of gates
    return {
        "schema_version": 1,
        "environment": asdict(environment("torch", 1)),
        "load_average": os.getloadavg()[0],
        "precision": precision,
        "captions_per_batch": PER_BATCH * CAPTIONS,
        "captions_per_second": {kind: statistics.median(wall for wall, _ in found) for kind, found in speeds.items()},
        "captions_per_processor_second": {
            kind: statistics.median(used for _, used in found) for kind, found in speeds.items()
        },
        "rounds": speeds,
        "photos_per_second": photo_rates(),
        "all_reduce": {"numbers": 2 * weights, "ms": reduction_ms(2 * weights)},
    }


def main() -> None:
    """Measure the rates and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reduce", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.reduce:
        print(_reduce(chosen.reduce))
        return
    found = measure(chosen.rounds, chosen.precision)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    used = found["captions_per_processor_second"]
    rows = [[kind, f"{speed:.0f}", f"{used[kind]:.0f}"] for kind, speed in found["captions_per_second"].items()]
    title = f"{found['environment']['cpu_model']}, load {found['load_average']:.1f}"
    table(title, ["training", "captions/s", "captions per processor second"], rows)


if __name__ == "__main__":
    main()
