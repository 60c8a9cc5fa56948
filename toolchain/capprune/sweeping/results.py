"""The document of a sweep, sweep.json, and the scores of every photo beside it.

The scores of single photos allow paired intervals between any two rows. They are in scores.npz, one array per row, in the order
of the array `photos`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from capprune_runtime.atomic import write_bytes, write_text
from capprune_runtime.errors import BundleError, NewerFormat

SCHEMA_VERSION = 1
DOCUMENT, SCORES, PHOTOS = "sweep.json", "scores.npz", "photos"

Status = Literal["waiting", "done", "failed"]
Scores = dict[str, NDArray[np.float32]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(_Part):
    """Cost of training a run.

    Attributes:
        photos: Number of photos of the training split.
        captions: Number of their captions.
        epochs: Number of epochs.
        best_epoch: Best epoch, from 0.
        seconds: Time of the epochs without validation; an interrupted epoch counts from where it was resumed.
        epochs_in_all: Epochs, including those of the run it starts from.
        seconds_in_all: Seconds, including those of the run it starts from.
    """

    photos: int
    captions: int
    epochs: int
    best_epoch: int
    seconds: float
    epochs_in_all: int
    seconds_in_all: float


class Sizes(_Part):
    """Size of a decoder's file, and time of its step.

    Attributes:
        decoder_bytes: Size of the file that `capprune export` writes.
        encoder_bytes: The same for the encoder; None if all runs of the sweep have the same.
        step_us: p10, p50 and p90 of one word with one row and one thread, in microseconds.
        runtime: The interpreter.
        load: Number of running or waiting processes on the machine when the timing began.
    """

    decoder_bytes: int
    encoder_bytes: int | None
    step_us: Mapping[str, float]
    runtime: str
    load: float | None


class Against(_Part):
    """Paired difference to another row on the same photos.

    Attributes:
        run: Name of the other run.
        weights: Its format.
        change: Difference and relative difference of CIDEr-D with 95 % intervals over photos.
    """

    run: str
    weights: str
    change: Mapping[str, Any]


class Row(_Part):
    """One run in one export format.

    Attributes:
        run: Its name, also that of its folder under runs/.
        weights: The format.
        method: `dense` or the method of pruning.
        seed: Seed of the run.
        start: The run of this sweep that it started from.
        keys: Its values of the grid's keys.
        decoder: Cell and widths.
        status: Whether the figures below exist.
        error: The error if they do not, as for `--json`.
        training: Cost of the training.
        sparsity: Share of the decoder's weights that are removed.
        kept_weights: Number of kept weights.
        prunable_weights: Number of prunable weights.
        layers: Sparsity of each pruned weight tensor.
        cider_d_val: CIDEr-D of the best epoch, by greedy search.
        quality: BLEU, ROUGE-L, CIDEr-D, METEOR on the split.
        cider_d_interval: Bootstrap interval of CIDEr-D.
        health: Signs of degenerate captions; see `capprune.metrics.health`.
        said_by: Program that generated the captions: torch, or an interpreter that ran the exported decoder.
        sizes: Bytes and microseconds; None if the format could not be written here.
        sizes_reason: Why the format could not be written.
        against: Comparison with the dense run of the same seed.
    """

    run: str
    weights: str
    method: str
    seed: int
    start: str | None
    keys: Mapping[str, Any]
    decoder: Mapping[str, Any]
    status: Status = "waiting"
    error: Mapping[str, Any] | None = None
    training: Cost | None = None
    sparsity: float | None = None
    kept_weights: int | None = None
    prunable_weights: int | None = None
    layers: Mapping[str, float] = {}
    cider_d_val: float | None = None
    quality: Mapping[str, Any] | None = None
    cider_d_interval: Mapping[str, Any] | None = None
    health: Mapping[str, Any] | None = None
    said_by: str | None = None
    sizes: Sizes | None = None
    sizes_reason: str | None = None
    against: Against | None = None

    @property
    def key(self) -> str:
        """Key of the row, and name of its array in scores.npz."""
        return f"{self.run}|{self.weights}"


class Figure(_Part):
    """A figure of runs that differ only in the seed.

    Attributes:
        mean: Mean over the runs.
        spread: Standard deviation over the runs; None for a single run.
    """

    mean: float
    spread: float | None


class Group(_Part):
    """Runs that differ only in the seed, in one format.

    Attributes:
        name: Name of the runs without the seed.
        weights: The format.
        method: Pruning method of the runs.
        runs: Names of the finished runs.
        failed: Number of failed runs.
        waiting: Number of runs that were not started or not finished.
        figures: Figures by name.
        change: Change of CIDEr-D averaged over the seeds, against the dense runs of the same seeds, paired by photo.
        keys: The runs' values of the grid's keys, without the seed.
    """

    name: str
    weights: str
    method: str
    runs: tuple[str, ...]
    failed: int
    waiting: int
    figures: Mapping[str, Figure]
    change: Mapping[str, Any] | None
    keys: Mapping[str, Any] = {}


class Document(_Part):
    """A sweep.

    Attributes:
        schema_version: Version of this document's schema.
        kind: Always `sweep`.
        created_by: Program and version.
        config: The config that the grid varies.
        data: Name of the data folder.
        split: The scored split.
        photos: Number of photos of that split.
        beam: Beam width of the search.
        tokenizer: Tokenizer of the scores.
        environment: Machine and versions of the last session.
        rows: Rows in the order of the grid.
        groups: The rows, grouped over seeds.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["sweep"] = "sweep"
    created_by: str
    config: Mapping[str, Any]
    data: str
    split: str
    photos: int
    beam: int
    tokenizer: str
    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    groups: tuple[Group, ...] = ()


def read_document(folder: Path) -> Document | None:
    """Return the document of a sweep's folder; None if there is none.

    Raises:
        NewerFormat: If a later capprune wrote it.
        BundleError: If it is broken.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise NewerFormat(
                "this sweep was written by a later capprune",
                where=path,
                expected=f"at most {SCHEMA_VERSION}",
                found=version,
            )
        return Document.model_validate(found)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise BundleError(
            "this is not the document of a sweep",
            where=path,
            found=" ".join(str(error).split())[:200],
            hint="move it away; runs that are finished are not trained again",
        ) from error


def write_document(folder: Path, document: Document) -> None:
    """Write sweep.json atomically."""
    text = json.dumps(document.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / DOCUMENT, text + "\n")


def read_scores(folder: Path) -> Scores:
    """Return CIDEr-D of every photo by `Row.key`; empty if there is none yet.

    Raises:
        BundleError: If the file is broken.
    """
    path = folder / SCORES
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as found:
            return {key: found[key] for key in found.files if key != PHOTOS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError("the scores of this sweep cannot be read", where=path, found=error) from error


def write_scores(folder: Path, scores: Scores, photos: tuple[str, ...]) -> None:
    """Write scores.npz atomically."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {PHOTOS: np.array(photos), **scores}
    np.savez_compressed(content, **arrays)
    write_bytes(folder / SCORES, content.getbuffer())
