"""Trains and scores the runs of a sweep in order, and writes the document after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capprune import __version__
from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.sources import load_sources
from capprune.sweeping.forms import RUNTIME, Form, captions_of, make_forms, ready_to_time, time_steps
from capprune.sweeping.grid import RUNS, Combination
from capprune.sweeping.groups import compared, grouped
from capprune.sweeping.results import (
    Cost,
    Document,
    Row,
    Sizes,
    read_document,
    read_scores,
    write_document,
    write_scores,
)
from capprune.sweeping.scoring import SplitCaptions
from capprune.training.progress import SILENT, Progress
from capprune.training.run import LoadedRun, alone_in, finish_run, load_run, read_metrics
from capprune.training.session import train_run
from capprune_runtime.atomic import raise_if_unwritable, write_bytes
from capprune_runtime.bundle.manifest import STEP_SIGNATURE
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.measure.environment import environment, moment

BEAM = 3
EXACT = "float32"
DECODERS = "decoders"  # folder of the measured decoder files in a sweep

Train = Callable[[RunConfig, Path], object]  # takes a config and the run's folder; resumes an interrupted run


@dataclass(frozen=True)
class Place:
    """Folders of a sweep, and the scored split.

    Attributes:
        folder: The sweep's folder.
        split: The scored split.
        cache: Folder of feature caches.
    """

    folder: Path
    split: str
    cache: Path


class Sweep:
    """The runs of a grid; an interrupted sweep is resumed.

    Args:
        base: The config that the grid varies.
        runs: The runs, each after the runs that it depends on.
        place: Folders and scored split.
        progress: Receives progress reports.
        train: Trains one run; by default `train_run`.
        wrote: Called with the document each time it is written.

    Raises:
        UsageError: If the folder holds another sweep.
        BundleError: If the files of an interrupted sweep are damaged.
        DataError: If the split is empty.
    """

    def __init__(
        self,
        base: RunConfig,
        runs: Sequence[Combination],
        place: Place,
        *,
        progress: Progress = SILENT,
        train: Train | None = None,
        wrote: Callable[[Document], None] = lambda document: None,
    ) -> None:
        self._base, self._runs, self._place = base, runs, place
        self._train, self._say, self._wrote = train or self._train_run, progress.say, wrote
        self._progress = progress
        before = read_document(place.folder)
        tokenizer = before.tokenizer if before else "auto"
        self._split = SplitCaptions(base.data, place.split, tokenizer, place.cache, progress.bar)
        if before is not None:
            self._check(before)
        self._scores = read_scores(place.folder)
        self._rows = {row.key: row for run in runs for row in _waiting(run)}
        for row in before.rows if before else ():
            if row.status == "done" and row.key in self._scores:
                self._rows[row.key] = row  # rows of this grid keep their position; those of an earlier grid come last
        encoders = {run.config.encoder for run in runs}
        self._encoders = len(encoders) > 1 or any(encoder.train != "frozen" for encoder in encoders)

    def run(self) -> Document:
        """Train and score the remaining runs.

        Returns:
            The document, which is also written.

        Raises:
            UsageError: If another process works on this sweep.
            CapPruneError: If the disk is full.
            KeyboardInterrupt, SystemExit: On Ctrl-C or SIGTERM, after the finished rows have been written.
        """
        folder = self._place.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise_if_unwritable(error, folder)
            raise
        with alone_in(folder, "working on this sweep"):
            document, new = self._write(), False
            for number, run in enumerate(self._runs, start=1):
                left = [form for form in run.weights if self._rows[f"{run.name}|{form}"].status != "done"]
                if not left:
                    continue
                self._say(f"run {number} of {len(self._runs)}: {run.name}")
                try:
                    self._one(run, left)
                    new = True
                except CapPruneError as error:
                    self._note(run, left, error)
                document = self._write()
            if new:
                self._time_together()
                document = self._write()
            finish_run(folder)  # removes the lock's folder
        return document

    def _train_run(self, config: RunConfig, folder: Path) -> None:
        train_run(config, folder, self._place.cache, self._progress)

    def _one(self, run: Combination, formats: Sequence[str]) -> None:
        for name in run.needs:
            if not any(row.run == name and row.training is not None for row in self._rows.values()):
                raise UsageError("the start or the teacher of this run failed", where=name)
        folder = self._place.folder / RUNS / run.name
        self._train(run.config, folder)
        loaded = load_run(folder)
        facts = {**_facts(loaded), "training": self._cost(run, loaded)}
        for form in formats:
            self._set(run, form, facts)  # a run that cannot be scored can still be the start of another
        forms, reason = self._forms(loaded, formats)
        load = moment().load_average
        times = time_steps({name: ready_to_time(loaded, form.step) for name, form in forms.items()})
        sizes = {
            name: Sizes(
                decoder_bytes=len(form.decoder),
                encoder_bytes=None if form.encoder is None else len(form.encoder),
                step_us=times[name],
                runtime=RUNTIME,
                load=load,
            )
            for name, form in forms.items()
        }
        for name, made in forms.items():
            write_bytes(self._decoder(run.name, name), made.decoder)
        for name in formats:
            if name != EXACT and reason is not None:
                self._note(run, [name], reason)
                continue
            self._say(f"captioning {len(self._split.photos)} photos of {self._place.split}: {name}")
            figures = self._scored(loaded, run, name, forms.get(name))
            why = None if reason is None else str(reason)
            self._set(
                run, name, {**figures, "sizes": sizes.get(name), "sizes_reason": why, "status": "done", "error": None}
            )

    def _time_together(self) -> None:
        """Time all decoders again, interleaved: the load of the machine may have differed between their first timings."""
        places = {row.key: self._decoder(row.run, row.weights) for row in self._rows.values() if row.sizes}
        places = {key: path for key, path in places.items() if path.is_file()}
        if len(places) < 2:
            return
        self._say(f"timing {len(places)} decoders, interleaved")
        load, timed = moment().load_average, {}
        for key, path in places.items():
            run = load_run(self._place.folder / RUNS / self._rows[key].run)
            timed[key] = ready_to_time(run, open_model(path.read_bytes(), STEP_SIGNATURE, runtime=RUNTIME))
        for key, step_us in time_steps(timed).items():
            row = self._rows[key]
            assert row.sizes is not None
            sizes = row.sizes.model_copy(update={"step_us": step_us, "load": load})
            self._rows[key] = row.model_copy(update={"sizes": sizes})

    def _decoder(self, run: str, weights: str) -> Path:
        return self._place.folder / DECODERS / f"{run}.{weights}.tflite"

    def _forms(self, loaded: LoadedRun, formats: Sequence[str]) -> tuple[dict[str, Form], CapPruneError | None]:
        """Return the formats, or the error that prevented them; a float32 row does not need its file."""
        try:
            return make_forms(loaded, formats, BEAM, self._say, encoder=self._encoders), None
        except CapPruneError as error:
            if EXACT not in formats:
                raise
            return {}, error

    def _scored(self, loaded: LoadedRun, run: Combination, weights: str, form: Form | None) -> dict[str, Any]:
        if weights == EXACT or form is None:
            said, by = self._split.in_torch(loaded, BEAM), "torch"
        else:
            said, by = captions_of(loaded, form, self._split.encoded(loaded), BEAM), RUNTIME
        scored = self._split.score(said)
        self._scores[f"{run.name}|{weights}"] = np.array(scored.per_photo, np.float32)
        figures = {"quality": scored.quality, "cider_d_interval": scored.interval, "health": scored.health}
        return {**figures, "said_by": by}

    def _cost(self, run: Combination, loaded: LoadedRun) -> Cost:
        epochs = [line for line in read_metrics(loaded.folder) if "cider" in line]
        seconds = sum(float(str(line["seconds"])) for line in epochs)
        data = run.config.data
        train = [photo for source in load_sources(data) for photo in source.train(data.limit)[0]]
        start = next((row.training for row in self._rows.values() if row.run == run.start and row.training), None)
        return Cost(
            photos=len(train),
            captions=sum(len(photo.captions) for photo in train),
            epochs=len(epochs),
            best_epoch=int(loaded.facts["epoch"]),
            seconds=round(seconds, 3),
            epochs_in_all=len(epochs) + (start.epochs_in_all if start else 0),
            seconds_in_all=round(seconds + (start.seconds_in_all if start else 0.0), 3),
        )

    def _set(self, run: Combination, weights: str, changed: dict[str, Any]) -> None:
        key = f"{run.name}|{weights}"
        self._rows[key] = self._rows[key].model_copy(update=changed)

    def _note(self, run: Combination, formats: Sequence[str], error: CapPruneError) -> None:
        self._say(f"{run.name} failed: {error}")
        for form in formats:
            self._set(run, form, {"status": "failed", "error": error.as_json()})

    def _write(self) -> Document:
        rows = compared(tuple(self._rows.values()), self._scores)
        self._rows = {row.key: row for row in rows}
        document = Document(
            created_by=f"capprune {__version__}",
            config=self._base.as_tree(),
            data=self._base.data.folder.name,
            split=self._place.split,
            photos=len(self._split.photos),
            beam=BEAM,
            tokenizer=self._split.tokenizer,
            environment=asdict(environment(RUNTIME, 1)),
            rows=rows,
            groups=grouped(rows, self._scores),
        )
        if self._scores:
            write_scores(self._place.folder, self._scores, self._split.names)
        write_document(self._place.folder, document)
        self._wrote(document)
        return document

    def _check(self, before: Document) -> None:
        """Check that the rows of an earlier document have the same photos and config."""
        for what, expected, found in (
            ("config", parse_config(before.config, where=str(self._place.folder)), self._base),
            ("split", before.split, self._place.split),
            ("number of photos", before.photos, len(self._split.photos)),
        ):
            if expected != found:
                raise UsageError(
                    f"this folder holds a sweep of another {what}",
                    where=self._place.folder,
                    expected=None if what == "config" else expected,
                    found=None if what == "config" else found,
                    hint="choose another --out",
                )


def _waiting(run: Combination) -> list[Row]:
    return [
        Row(
            run=run.name,
            weights=weights,
            method=run.method,
            seed=run.seed,
            start=run.start,
            keys=run.keys,
            decoder=run.config.decoder.model_dump(),
        )
        for weights in run.weights
    ]


def _facts(loaded: LoadedRun) -> dict[str, Any]:
    return {
        "sparsity": 1 - loaded.kept / loaded.prunable,
        "kept_weights": loaded.kept,
        "prunable_weights": loaded.prunable,
        "layers": {name: 1 - float(mask.float().mean()) for name, mask in loaded.masks.items()},
        "cider_d_val": float(loaded.facts["cider"]),
    }
