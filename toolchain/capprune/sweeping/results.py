"""The document of a sweep, sweep.json, and the scores of every photo beside it.

The scores of single photos make paired intervals between any two rows possible; they lie in scores.npz, one array a row, in the
order of the array `photos`.
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
    """What training a run took.

    Attributes:
        photos: Number of photos of the training split.
        captions: Number of their captions.
        epochs: That were trained.
        best_epoch: The first is 0.
        seconds: Time of the epochs without validation; an interrupted epoch counts from where it was resumed.
        epochs_in_all: Those of the run it starts from included.
        seconds_in_all: The same.
    """

    photos: int
    captions: int
    epochs: int
    best_epoch: int
    seconds: float
    epochs_in_all: int
    seconds_in_all: float


class Sizes(_Part):
    """What a decoder's file weighs and what a step of it takes.

    Attributes:
        decoder_bytes: The file as `capprune export` writes it.
        encoder_bytes: The same of the encoder; None where all runs of the sweep have the same.
        step_us: p10, p50 and p90 of one word, one row, one thread, in microseconds.
        runtime: What it was timed in.
        load: Processes that ran or waited on the machine when the timing began.
    """

    decoder_bytes: int
    encoder_bytes: int | None
    step_us: Mapping[str, float]
    runtime: str
    load: float | None


class Against(_Part):
    """The paired difference to another row of the same photos.

    Attributes:
        run: That one's name.
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
        status: Whether the figures below are there.
        error: Why not, as `--json` shows an error.
        training: What it cost.
        sparsity: Share of the decoder's weights that are removed.
        kept_weights: How many are left.
        prunable_weights: Number of weights that could be pruned.
        layers: Sparsity of each weight tensor that was pruned.
        cider_d_val: CIDEr-D of the best epoch, by greedy search.
        quality: BLEU, ROUGE-L, CIDEr-D, METEOR on the split.
        cider_d_interval: Bootstrap interval of CIDEr-D.
        health: What the captions look like; see `capprune.metrics.health`.
        said_by: What made the captions: torch, or an interpreter that ran the exported decoder.
        sizes: Bytes and microseconds; None where the format could not be written here.
        sizes_reason: Why not.
        against: The dense run of the same seed.
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
        """Names the row, and its array in scores.npz."""
        return f"{self.run}|{self.weights}"


class Figure(_Part):
    """A figure of runs that differ in their seed alone.

    Attributes:
        mean: Over the runs.
        spread: Standard deviation between them; None for a single run.
    """

    mean: float
    spread: float | None


class Group(_Part):
    """Runs that differ in their seed alone, in one format.

    Attributes:
        name: Name of the runs without the seed.
        weights: The format.
        method: Pruning method of the runs.
        runs: Their names, those that are done.
        failed: How many are not, for an error.
        waiting: How many were not begun or not finished.
        figures: By name.
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
        created_by: The program.
        config: What the grid leaves as it is.
        data: Name of the data folder.
        split: That is scored.
        photos: Number of photos of that split.
        beam: Beam width of the search.
        tokenizer: Tokenizer of the scores.
        environment: Machine and versions of the last session.
        rows: In the order of the grid.
        groups: The rows, those of several seeds together.
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
    """The document of a sweep that was begun in a folder; None if none was.

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
                "a later capprune wrote this sweep", where=path, expected=f"at most {SCHEMA_VERSION}", found=version
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
    """Write sweep.json, whole or not at all."""
    text = json.dumps(document.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / DOCUMENT, text + "\n")


def read_scores(folder: Path) -> Scores:
    """CIDEr-D of every photo by `Row.key`; empty when there are none yet.

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
    """Write scores.npz, whole or not at all."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {PHOTOS: np.array(photos), **scores}
    np.savez_compressed(content, **arrays)
    write_bytes(folder / SCORES, content.getbuffer())
