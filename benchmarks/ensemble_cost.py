"""Measure what each further run of an ensemble costs: in captions per photo, and in a training step that learns from it.

    python benchmarks/ensemble_cost.py runs/dense runs/tuned runs/rounded \\
        --data flickr8k --json

Measures the first run alone, the first two, and so on, interleaved, on one thread. Times are processor time, so that other
programs on the machine matter little. The student of the training step has the size of the first run; the step is forward
and backward without the optimiser.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from capprune.config.training import DistillationConfig
from capprune.data.captions import CaptionedPhoto, load_caption_set
from capprune.data.photos import open_photos
from capprune.data.vocabulary import encode
from capprune.ensembling import Ensemble
from capprune.training.batches import Batch, Batches
from capprune.training.objectives import CrossEntropy, Distillation, Objective, Teacher
from capprune.training.run import LoadedRun, load_run
from capprune_runtime.photo import decode_photo
from result_text import table

BEAM, BATCH = 3, 16
MB = 1e6


def seconds_of(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


class Cost:
    """The first runs as an ensemble and as teachers.

    Args:
        runs: The runs.
        photos: Decoded photos.
        batch: Human captions of the photos as ids of the runs' vocabulary.
    """

    def __init__(self, runs: Sequence[LoadedRun], photos: Sequence[npt.NDArray[np.uint8]], batch: Batch) -> None:
        self.runs, self._photos, self._batch = runs, photos, batch
        self._ensemble = Ensemble(runs)
        encoded = self._ensemble.encode(photos)
        seen = [extract(run, photos) for run in runs]
        teachers = [Teacher(run.model.decoder, features) for run, features in zip(runs, seen, strict=True)]
        self._encoded, self._own = encoded, torch.from_numpy(seen[0][batch.photos])
        self._student = copy.deepcopy(runs[0].model.decoder).train()
        longest = runs[0].config.data.steps
        self._objectives: dict[str, Objective] = {
            "step_alone_ms": CrossEntropy(),
            "step_taught_ms": Distillation(teachers, DistillationConfig(), longest),
        }
        self.times: dict[str, list[float]] = {
            "encode_ms": [],
            "search_ms": [],
            **{name: [] for name in self._objectives},
        }

    def measure(self) -> None:
        """Measure once; encoder and search per photo, a training step per batch."""
        each = 1e3 / len(self._photos)
        self.times["encode_ms"].append(each * seconds_of(lambda: self._ensemble.encode(self._photos)))
        self.times["search_ms"].append(each * seconds_of(lambda: self._ensemble.search(self._encoded, BEAM)))
        for name, objective in self._objectives.items():
            self.times[name].append(1e3 * seconds_of(lambda objective=objective: self._step(objective)))  # type: ignore[misc]

    def _step(self, objective: Objective) -> None:
        self._student.zero_grad()
        objective.loss(self._student.scores, self._own, self._batch).backward()

    def as_json(self) -> dict[str, Any]:
        """Return the medians, and the size of the decoders."""
        found = {name: round(median(values), 2) for name, values in self.times.items()}
        weights = sum(value.numel() * 4 for run in self.runs for value in run.model.decoder.parameters())
        encoders = len(self._ensemble.encoders)
        names = [run.folder.name for run in self.runs]
        taught = round(found["step_taught_ms"] / found["step_alone_ms"], 2)
        return {
            "runs": names,
            "encoders": encoders,
            "decoders_mb": round(weights / MB, 1),
            **found,
            "step_ratio": taught,
        }


def extract(run: LoadedRun, photos: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Return a run's features of photos."""
    return Ensemble([run]).features(photos)[0]


def captions_of(photos: Sequence[CaptionedPhoto], run: LoadedRun) -> Batch:
    """Return the captions of photos as one batch."""
    longest = run.config.data.maximum_tokens
    ids = [[encode(text, run.vocabulary, longest) for text in photo.captions] for photo in photos]
    return next(iter(Batches(ids, photos_per_batch=len(photos), seed=1).epoch(0)))


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, help="data set with a split val")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = load_caption_set(arguments.data).split("val")[:BATCH]
    with open_photos(arguments.data) as store:
        photos = [decode_photo(store.read(photo.name), photo.name) for photo in chosen]
    runs = [load_run(folder) for folder in arguments.runs]
    batch = captions_of(chosen, runs[0])
    costs = [Cost(runs[:count], photos, batch) for count in range(1, len(runs) + 1)]
    for _ in range(arguments.rounds):
        for cost in costs:
            cost.measure()
    found = [cost.as_json() for cost in costs]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    if arguments.json:
        facts = {"schema_version": 1, "benchmark": "ensemble_cost", "beam": BEAM, "batch": BATCH}
        print(json.dumps({**facts, "peak_mb": round(peak), "ensembles": found}, indent=2))
        return
    rows = [[", ".join(one["runs"]), *(str(one[name]) for name in list(one)[1:])] for one in found]
    print(table(["runs", *list(found[0])[1:]], rows))


if __name__ == "__main__":
    main()
