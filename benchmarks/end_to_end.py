"""Compare encoder and decoder pruned together, by the schemes A, B and C of the papers, with dense: quality, bytes, time.

    capprune data scenes --out scenes --size 128
    python benchmarks/end_to_end.py --data scenes
    python benchmarks/end_to_end.py --data flickr8k --config configs/flickr8k_dense.yaml --scheme C

Runs and times the commands of docs/encoder_pruning.md, each in a separate process. Then captions the test split with every
final run and exports it. The same command resumes an interrupted one. Writes benchmarks/results/end_to_end_NAME.json, where
NAME is the name of the data folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.exporting import Wanted, export
from capprune.metrics.intervals import bootstrap_change, bootstrap_mean
from capprune.metrics.scores import score
from capprune.trained import TrainedCaptioner
from capprune.training.encoder import of_decoder, of_encoder
from capprune.training.run import LoadedRun, load_run
from capprune.validation.validate import first_photos
from capprune_exporters.pack.capz import pack
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.manifest import ENCODE_SIGNATURE
from capprune_runtime.caption.interpreter import available_runtimes, open_model
from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.environment import environment
from capprune_runtime.measure.interleaved import time_interleaved

SCHEMA_VERSION = 1
SPLIT, BEAM = "test", 3
CALLS = 30  # timed calls of `encode`
RESULTS = Path(__file__).parent / "results"
# storage of the weights: decoder, encoder
FORMS = {"float32": ("float32", "float32"), "int8": ("int8", "weight_only_int8")}


@dataclass(frozen=True)
class Stage:
    """One command of a scheme.

    Attributes:
        run: The folder of its run.
        command: `train`, `prune` or `finetune`.
        start: The run that it starts from; None for `train`.
        options: Method and overrides.
    """

    run: str
    command: str
    start: str | None
    options: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """Settings of the stages.

    Attributes:
        sparsity: Share of pruned weights.
        first: Epochs of a first stage on cached features.
        masks: Epochs of scheme A's first stage, which sees photos.
        second: Epochs of every second stage.
        method: Method that prunes in the second stages of B and C.
        masks_method: Method that finds the masks in scheme A's first stage.
    """

    sparsity: float
    first: int
    masks: int
    second: int
    method: str
    masks_method: str


def schemes(budget: Budget) -> dict[str, tuple[Stage, ...]]:
    """Return every scheme as the commands of docs/encoder_pruning.md."""
    second = ("encoder.train=all", f"training.epochs={budget.second}")
    first, target = (f"training.epochs={budget.first}",), f"pruning.sparsity={budget.sparsity}"
    pruned = ("--method", budget.method, target, *_pace(budget.method), *second)
    masks = (f"pruning.method={budget.masks_method}", target, *_pace(budget.masks_method))
    dense = Stage("dense-1", "train", None, first)
    return {
        "dense": (dense, Stage("dense", "finetune", "dense-1", second)),
        "A": (
            Stage("A-1", "train", None, ("encoder.train=masks", f"training.epochs={budget.masks}", *masks)),
            Stage("A", "finetune", "A-1", second),
        ),
        "B": (dense, Stage("B", "prune", "dense-1", pruned)),
        "C": (
            Stage("C-1", "train", None, (*first, "pruning.method=supermask", target)),
            Stage("C", "prune", "C-1", (*pruned, "pruning.keep=[decoder]")),
        ),
    }


def _pace(method: str) -> tuple[str, ...]:
    """Return options for pruning from the first step on, pooled over all layers, if magnitudes decide."""
    return (
        ("pruning.scope=blind", "pruning.gradual.begin=0", "pruning.gradual.updates=20") if method == "gradual" else ()
    )


def arguments_of(stage: Stage, config: Path, data: Path, runs: Path, more: Sequence[str] = ()) -> list[str]:
    """Return the command line of a stage, starting with `train`."""
    source = str(config) if stage.start is None else str(runs / stage.start)
    own = [f"data.folder={data}"] if stage.start is None else []
    return [stage.command, source, *own, *stage.options, *more, "--out", str(runs / stage.run)]


def run_stage(stage: Stage, config: Path, data: Path, work: Path, more: Sequence[str]) -> dict[str, Any]:
    """Run a stage in its own process, or return the result of its earlier run.

    Raises:
        CapPruneError: The command fails.
    """
    note = work / "stages" / f"{stage.run}.json"
    if note.is_file():
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return found
    arguments = arguments_of(stage, config, data, work / "runs", more)
    _say("capprune " + " ".join(arguments))
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "capprune", *arguments, "--json"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        told = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise CapPruneError(f"a stage ended with exit code {child.returncode}", where=stage.run)
    document = json.loads(told)
    usual = arguments_of(stage, Path("configs") / config.name, Path(data.name), Path("runs"), more)
    facts = {
        "run": stage.run,
        "command": "capprune " + " ".join(usual),
        "cider_d_val": document["cider_d_val"],
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(facts))
    return facts


def per_photo(run: LoadedRun, data: Path, limit: int | None) -> list[float]:
    """Return CIDEr-D of every test photo, captioned in torch with plain tokens."""
    chosen = first_photos(load_caption_set(data).split(SPLIT), limit)
    with open_photos(data) as store:
        said = TrainedCaptioner(run).captions([photo.name for photo in chosen], store, BEAM)
    human = {photo.name: photo.captions for photo in chosen}
    captions = {name: one.caption for name, one in said.items()}
    return list(score(human, captions, tokenizer="plain", meteor=False).per_photo_cider)


def exported(run: LoadedRun) -> dict[str, dict[str, float]]:
    """Return the size of the bundle in every form, and the time of `encode`."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (weights, encoder) in FORMS.items():
            _say(f"{run.folder.name}: exporting in {name}")
            out = Path(folder) / name
            # without data: benchmarks/exports.py measures the cost of int8, and here every scheme has the same rule
            made = export(run, out, Wanted(weights=weights, encoder_weights=encoder), _say)
            packed = pack(out, out.with_suffix(".capz"))
            found[name] = {
                "encoder_bytes": len(made.bundle.encoder),
                "decoder_bytes": len(made.bundle.decoder),
                "bundle_bytes": packed.bundle_bytes,
                "packed_bytes": packed.packed_bytes,
                "encode_us": encode_us(made.bundle.encoder, run.config.encoder.size),
            }
    return found


def encode_us(encoder: bytes, size: int) -> float:
    """Return the median time of one photo with one thread."""
    model = open_model(encoder, ENCODE_SIGNATURE)
    photo = {"photo": np.zeros((1, size, size, 3), np.float32)}
    return float(np.median(time_interleaved({"encode": partial(model.run, photo)}, rounds=1, each=CALLS)["encode"]))


def row(scheme: str, run: LoadedRun, stages: Sequence[Mapping[str, Any]], own: list[float], dense: list[float]) -> Any:
    """Return one row of the table."""
    change = bootstrap_change(dense, own)
    return {
        "scheme": scheme,
        "stages": list(stages),
        "method": run.method,
        "sparsity": 1 - run.kept / run.prunable,
        "decoder_sparsity": _sparsity(of_decoder(run.masks)),
        "encoder_sparsity": _sparsity(of_encoder(run.masks)),
        "cider_d": float(np.mean(own)),
        "cider_d_interval": asdict(bootstrap_mean(own)),
        "relative_change": None if change.relative is None else asdict(change.relative),
        "files": exported(run),
    }


def _sparsity(masks: Mapping[str, Any]) -> float:
    size = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / size if size else 0.0


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Train, caption and export the requested schemes; return the document."""
    budget = Budget(asked.sparsity, asked.first, asked.masks, asked.second, asked.method, asked.masks_method)
    wanted = ["dense", *(name for name in asked.scheme or ["A", "B", "C"] if name != "dense")]
    every, dense, rows = schemes(budget), [], []
    for name in wanted:
        stages = [run_stage(stage, asked.config, asked.data, asked.work, asked.set) for stage in every[name]]
        run = load_run(asked.work / "runs" / every[name][-1].run)
        own = per_photo(run, asked.data, asked.limit)
        dense = dense or own
        rows.append(row(name, run, stages, own, dense))
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "end_to_end",
        "data": asked.data.name,
        "split": SPLIT,
        "photos": len(dense),
        "beam": BEAM,
        "budget": asdict(budget),
        "command": "python benchmarks/end_to_end.py " + " ".join(_arguments(asked)),
        "environment": asdict(environment(available_runtimes()[0], 1)),
        "rows": rows,
    }


def _arguments(asked: argparse.Namespace) -> list[str]:
    """Return the arguments that reproduce a document, without the folders of this machine."""
    said = ["--data", asked.data.name, "--config", f"configs/{asked.config.name}"]
    for name in ("sparsity", "first", "masks", "second", "method", "masks_method"):
        said += [f"--{name.replace('_', '-')}", str(getattr(asked, name))]
    for name in ("scheme", "set"):
        said += [part for value in getattr(asked, name) or () for part in (f"--{name}", value)]
    return said if asked.limit is None else [*said, "--limit", str(asked.limit)]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--data", type=Path, required=True, help="folder of photos and captions")
    made.add_argument("--config", type=Path, default=Path("configs/scenes.yaml"), help="a dense recipe")
    made.add_argument("--scheme", action="append", choices=["dense", "A", "B", "C"], help="may be repeated")
    made.add_argument("--sparsity", type=float, default=0.8)
    made.add_argument("--first", type=int, default=8, help="epochs of a first stage on cached features")
    made.add_argument("--masks", type=int, default=8, help="epochs of scheme A's first stage")
    made.add_argument("--second", type=int, default=12, help="epochs of every second stage")
    made.add_argument("--method", default="gradual", help="pruning method of the second stages of B and C")
    made.add_argument("--masks-method", default="gradual", help="pruning method of scheme A's first stage")
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override for every stage; may be repeated"
    )
    made.add_argument("--limit", type=int, help="use only the first N photos of the test split")
    made.add_argument("--work", type=Path, default=Path("end_to_end"), help="folder of the runs")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    asked = parser().parse_args(arguments)
    try:
        document = measure(asked)
        path = asked.out / f"end_to_end_{document['data']}.json"
        write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
