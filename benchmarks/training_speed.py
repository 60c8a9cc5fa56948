"""Measure captions per second in training: ours dense and pruned, and a plain implementation.

    python benchmarks/training_speed.py --data flickr8k
    python benchmarks/training_speed.py --data flickr8k --json > benchmarks/results/training_speed.json

Captions are those of Flickr8k, and features are random, because only their shape affects the time. All kinds are interleaved
in one process with a few batches per round, so that other work on the machine affects all of them. Memory is the peak of a
separate process for each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capprune.config.pruning import PruningConfig
from capprune.data.captions import load_caption_set
from capprune.data.vocabulary import build_vocabulary, encode
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig, SoftAttentionDropout
from capprune.pruning.learned import SupermaskPruner
from capprune.pruning.supermask import Supermask
from capprune.tables import table
from capprune.training.batches import Batches
from capprune.training.memory import keep_freed_memory
from capprune.training.objectives import CrossEntropy
from capprune_runtime.measure.environment import environment
from plain_training import PAIRS, PlainDecoder, masked_loss, padded

WIDTH, REGIONS, CHANNELS = 512, 16, 1280
PER_PHOTO = 5
DROPOUT = SoftAttentionDropout()
# The timed kinds and their captions per batch: as many as the plain batches hold, and as many as in the packaged
# model's recipe.
KINDS = (("dense", PAIRS), ("supermask", PAIRS), ("dense", 2 * PAIRS), ("supermask", 2 * PAIRS), ("plain", PAIRS))
ROUNDS, BATCHES_PER_ROUND = 8, 3
WARM_UP = 40  # steps: products of a new shape start slowly, and a long run meets each shape many times
TYPES = {"float32": False, "bfloat16": True}

Step = Callable[[], tuple[float, int]]  # trains on one batch; returns seconds and captions
Kind = tuple[str, int]  # name, captions per batch


def captions_of(data: Path) -> tuple[list[list[tuple[int, ...]]], int]:
    """Return the training captions as ids, photo by photo, and the number of words."""
    photos = load_caption_set(data).split("train")
    vocabulary = build_vocabulary((text for photo in photos for text in photo.captions), minimum_count=5)
    return [[encode(text, vocabulary, 20) for text in photo.captions] for photo in photos], len(vocabulary.tokens)


def ours(captions: list[list[tuple[int, ...]]], vocabulary: int, *, pruned: bool, size: int, fast: bool) -> Step:
    """Return a training step of capprune, as in `capprune train`."""
    torch.manual_seed(0)
    dropout = DROPOUT.scaled(1 / 3) if pruned else DROPOUT
    shape = SoftAttentionConfig(embedding=WIDTH // 2, hidden=WIDTH, attention=WIDTH, context=WIDTH, dropout=dropout)
    decoder = SoftAttention(shape, features=CHANNELS, vocabulary=vocabulary, regions=REGIONS)
    batches = Batches(captions, photos_per_batch=size // PER_PHOTO, seed=0)
    pruner = SupermaskPruner(decoder, PruningConfig(method="supermask"), steps=10 * len(batches)) if pruned else None
    gates = list(pruner.gates.values()) if pruner else []
    known = set(map(id, gates))
    groups: list[dict[str, Any]] = [{"params": [one for one in decoder.parameters() if id(one) not in known]}]
    groups += [{"params": gates, "lr": 100.0, "eps": 1e-2}] if gates else []
    optimiser = torch.optim.Adam(groups, lr=1e-3, fused=True)
    order = iter(batches.epoch(0))
    objective = CrossEntropy()

    def step() -> tuple[float, int]:
        batch = next(order)
        features = torch.randn(len(batch.photos), REGIONS, CHANNELS)
        began = time.perf_counter()
        with Supermask.one_sample(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = objective.loss(decoder.scores, features, batch)
        for weight, pulled in pruner.losses(100) if pruner else []:
            loss = loss + weight * pulled
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(groups[0]["params"], 5.0)
        optimiser.step()
        return time.perf_counter() - began, len(batch.inputs)

    return step


def plain(captions: list[list[tuple[int, ...]]], vocabulary: int, *, fast: bool) -> Step:
    """Return a training step of the plain implementation."""
    torch.manual_seed(0)
    shape = SoftAttentionConfig(embedding=WIDTH // 2, hidden=WIDTH, attention=WIDTH, context=WIDTH)
    decoder = PlainDecoder(
        shape, features=CHANNELS, vocabulary=vocabulary, dropout=DROPOUT.rnn, attention_dropout=DROPOUT.attention
    )
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    pairs = [ids for own in captions for ids in own]
    random = np.random.default_rng(0)

    def step() -> tuple[float, int]:
        some = [pairs[index] for index in random.choice(len(pairs), PAIRS, replace=False)]
        inputs, targets, spoken = padded(some)
        features = torch.randn(PAIRS, REGIONS, CHANNELS)
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            scores = decoder(features, inputs)
        loss = masked_loss(scores.float(), targets, spoken)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
        optimiser.step()
        return time.perf_counter() - began, PAIRS

    return step


def step_of(kind: str, size: int, captions: list[list[tuple[int, ...]]], vocabulary: int, *, fast: bool) -> Step:
    """Return a training step of one kind."""
    if kind == "plain":
        return plain(captions, vocabulary, fast=fast)
    return ours(captions, vocabulary, pruned=kind == "supermask", size=size, fast=fast)


def measure(data: Path, threads: int) -> dict[str, Any]:
    """Time rounds of all kinds, interleaved; return the document that `--json` prints."""
    keep_freed_memory()  # as `capprune train` does; the plain implementation benefits too
    torch.set_num_threads(threads)
    own = {"runtime_version": torch.__version__.partition("+")[0], "load_when_started": round(os.getloadavg()[0], 1)}
    captions, vocabulary = captions_of(data)
    rows = []
    for name, fast in TYPES.items():
        steps = {kind: step_of(*kind, captions, vocabulary, fast=fast) for kind in KINDS}
        for step in steps.values():
            for _ in range(WARM_UP):
                step()
        found: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        for number in range(ROUNDS):
            print(f"{name}: round {number + 1} of {ROUNDS}", file=sys.stderr)
            for kind, step in steps.items():
                done = [step() for _ in range(BATCHES_PER_ROUND)]
                found[kind].append(sum(count for _, count in done) / sum(seconds for seconds, _ in done))
        rows += [row(kind, name, found, memory_mb(kind, data, fast=fast, threads=threads)) for kind in KINDS]
    return {
        "schema_version": 1,
        "benchmark": "training_speed",
        "threads": threads,
        "settings": {"width": WIDTH, "regions": REGIONS, "rounds": ROUNDS},
        "environment": {**asdict(environment("torch", threads)), **own},
        "rows": rows,
    }


def row(kind: Kind, dtype: str, found: dict[Kind, list[float]], memory: float) -> dict[str, Any]:
    """Return the figures of one kind; times are relative to dense in the same round and batch size."""
    own = np.array(found[kind])
    slower = np.array(found["dense", kind[1]]) / own
    low, middle, high = np.percentile(own, (10, 50, 90))
    return {
        "kind": kind[0],
        "captions_per_batch": kind[1],
        "dtype": dtype,
        "captions_per_second": {"p10": low, "p50": middle, "p90": high},
        "time_beside_dense": {
            key: float(np.percentile(slower, q)) for key, q in (("p10", 10), ("p50", 50), ("p90", 90))
        },
        "peak_mb": memory,
    }


def memory_mb(kind: Kind, data: Path, *, fast: bool, threads: int) -> float:
    """Return the peak resident memory of three steps in their own process, minus the memory before the model."""
    own = ["--memory-of", kind[0], "--size", str(kind[1]), *(["--fast"] if fast else [])]
    arguments = ["--data", str(data), "--threads", str(threads), *own]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_memory(kind: Kind, data: Path, *, fast: bool) -> None:
    captions, vocabulary = captions_of(data)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = peak_kb()
    step = step_of(*kind, captions, vocabulary, fast=fast)
    for _ in range(3):
        step()
    print((peak_kb() - before) / 1024)


def peak_kb() -> int:
    """Return the peak resident memory so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def show(document: dict[str, Any]) -> None:
    table(
        f"training, {document['threads']} thread(s)",
        ["kind", "captions a batch", "type", "captions/s", "time beside dense", "peak MB"],
        [
            [
                one["kind"],
                str(one["captions_per_batch"]),
                one["dtype"],
                f"{one['captions_per_second']['p50']:,.0f}",
                f"{one['time_beside_dense']['p50']:.2f}",
                f"{one['peak_mb']:,.0f}",
            ]
            for one in document["rows"]
        ],
    )


def main() -> None:
    """Measure all kinds and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", choices=sorted({kind for kind, _ in KINDS}))
    parser.add_argument("--size", type=int, default=PAIRS)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    if options.memory_of:
        torch.set_num_threads(options.threads)
        print_memory((options.memory_of, options.size), options.data, fast=options.fast)
        return
    document = measure(options.data, options.threads)
    print(json.dumps(document, indent=2)) if options.json else show(document)


if __name__ == "__main__":
    main()
