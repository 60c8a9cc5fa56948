"""Estimate the cost of COCO and CC12M: shards, disk for features, hours, and the bottleneck.

    python benchmarks/scale_plan.py
    python benchmarks/scale_plan.py --rates benchmarks/results/scaling.json --workers 64 --gpu-captions 20000 --gpus 8

All rates come from a file that `benchmarks/scaling.py --json` wrote, or from an option. Sizes of the data sets are
constants below. The cost model is:

    features       photos / (workers * min(decoded, encoded) per second); stored once, or computed in every epoch
    training       captions * epochs / captions per second of one process / processes, plus for each step its all-reduce
    all-reduce     4 bytes for each weight and gate, twice over the slowest link, whatever the number of processes
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.tables import table

RATES = Path(__file__).parent / "results" / "scaling.json"
SHARD_PHOTOS = 1000
HOUR = 3600.0


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: Name of the data set.
        photos: Number of training photos with captions.
        captions: Number of captions of each photo.
        photo_kb: Mean size of a photo's file, an assumption.
        epochs: Epochs of a usual recipe, an assumption.
    """

    name: str
    photos: int
    captions: int
    photo_kb: float
    epochs: int


DATA_SETS = (DataSet("COCO 2017", 118_287, 5, 160, 8), DataSet("CC12M", 12_000_000, 1, 100, 3))


@dataclass(frozen=True)
class Machine:
    """The machine for training.

    Attributes:
        workers: Number of processor cores that decode and encode.
        processes: Number of training processes.
        captions: Captions per second of one process.
        link_gbit: Speed of the slowest link between processes; 0 uses the measured all-reduce.
    """

    workers: int
    processes: int
    captions: float
    link_gbit: float


def plan(data: DataSet, rates: dict[str, Any], machine: Machine) -> dict[str, float | str]:
    """Return the costs of one data set on one machine, in GB and hours."""
    rate, reduced = rates["photos_per_second"], rates["all_reduce"]
    slowest = min(rate["decoded"], rate["encoded"])
    once = data.photos / (machine.workers * slowest) / HOUR
    every = data.captions * data.photos * data.epochs
    steps = every / rates["captions_per_batch"] / machine.processes  # the batch size grows with the number of processes
    seconds = 2 * 4 * reduced["numbers"] * 8 / (machine.link_gbit * 1e9) if machine.link_gbit else reduced["ms"] / 1000
    computing, reducing = every / (machine.captions * machine.processes) / HOUR, 0.0
    if machine.processes > 1:
        reducing = steps * seconds / HOUR
    training = computing + reducing
    parts = {"the encoder" if rate["encoded"] < rate["decoded"] else "decoding": once, "the decoder": computing,
             "the all-reduce": reducing}  # fmt: skip
    return {
        "shards": float(-(-data.photos // SHARD_PHOTOS)),
        "photos_gb": data.photos * data.photo_kb / 1e6,
        "features_gb": data.photos * rate["feature_bytes"] / 1e9,
        "features_hours": once,
        "features_hours_every_epoch": once * data.epochs,
        "training_hours": training,
        "all_reduce_hours": reducing,
        "bottleneck": max(parts, key=lambda part: parts[part]),
    }  # fmt: skip


def machines(rates: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Machine]:
    """Return the machines of the table, by name."""
    own = rates["captions_per_processor_second"]["1 process, 1 thread"]
    found = {
        "1 core": Machine(1, 1, own, 0),
        f"{chosen.workers} cores": Machine(chosen.workers, chosen.workers, own, chosen.link_gbit),
    }
    if chosen.gpu_captions:
        name = f"{chosen.workers} cores, {chosen.gpus} GPUs at {chosen.gpu_captions:,.0f} captions/s"
        found[name] = Machine(chosen.workers, chosen.gpus, chosen.gpu_captions, chosen.link_gbit)
    return found


COLUMNS = ("data", "machine", "shards", "photos GB", "features GB", "features h", "in every epoch h", "training h",
           "of it all-reduce h", "bottleneck")  # fmt: skip
FIGURES = (
    "photos_gb",
    "features_gb",
    "features_hours",
    "features_hours_every_epoch",
    "training_hours",
    "all_reduce_hours",
)


def rows(costs: dict[tuple[str, str], dict[str, float | str]]) -> list[list[str]]:
    """Return the table's cells as text."""
    return [
        [*names, f"{one['shards']:,.0f}", *(f"{one[key]:,.1f}" for key in FIGURES), str(one["bottleneck"])]
        for names, one in costs.items()
    ]


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=Path, default=RATES, help="JSON of benchmarks/scaling.py")
    parser.add_argument("--workers", type=int, default=64, help="processor cores")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--gpu-captions", type=float, help="captions/s of one GPU, from benchmarks/gpu_training.py")
    parser.add_argument("--link-gbit", type=float, default=10.0, help="speed of the slowest link between processes")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def plans(chosen: argparse.Namespace) -> dict[tuple[str, str], dict[str, float | str]]:
    """Return the costs of each data set on each machine."""
    rates = json.loads(chosen.rates.read_text())
    return {
        (data.name, name): plan(data, rates, one) for data in DATA_SETS for name, one in machines(rates, chosen).items()
    }


def main() -> None:
    """Print the estimates."""
    chosen = options()
    found = plans(chosen)
    if chosen.json:
        print(json.dumps([{"data": data, "machine": name, **one} for (data, name), one in found.items()], indent=1))
        return
    table("", list(COLUMNS), rows(found))


if __name__ == "__main__":
    main()
