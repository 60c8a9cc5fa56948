"""Comparisons of rows with the dense run of their seed, and groups of rows that differ only in the seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from capprune.metrics.intervals import bootstrap_change
from capprune.sweeping.grid import DENSE, OF_ITSELF, OF_START, SEED, START, name_of
from capprune.sweeping.results import Against, Figure, Group, Row, Scores

FIGURES: Mapping[str, Callable[[Row], Any]] = {
    "cider_d": lambda row: (row.quality or {}).get("cider_d"),
    "bleu_4": lambda row: (row.quality or {}).get("bleu_4"),
    "meteor": lambda row: (row.quality or {}).get("meteor"),
    "sparsity": lambda row: row.sparsity,
    "decoder_bytes": lambda row: row.sizes and row.sizes.decoder_bytes,
    "encoder_bytes": lambda row: row.sizes and row.sizes.encoder_bytes,
    "step_us": lambda row: row.sizes and row.sizes.step_us["p50"],
    "distinct_words": lambda row: (row.health or {}).get("distinct_words"),
    "unknown_share": lambda row: (row.health or {}).get("unknown_share"),
    "bad_ending_share": lambda row: (row.health or {}).get("bad_ending_share"),
    "mean_words": lambda row: (row.health or {}).get("mean_words"),
    "epochs": lambda row: row.training and row.training.epochs,
    "epochs_in_all": lambda row: row.training and row.training.epochs_in_all,
    "seconds": lambda row: row.training and row.training.seconds,
    "seconds_in_all": lambda row: row.training and row.training.seconds_in_all,
}


def dense_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the row to compare a row with: the dense run of its seed whose other keys are most similar.

    A dense run is compared with the first dense run of its seed. In another format it is compared with itself in float32.

    Args:
        row: The row to compare.
        rows: Rows of the sweep, in order.
    """
    if row.method == DENSE and row.weights != "float32":
        return next((one for one in rows if (one.run, one.weights) == (row.run, "float32")), None)
    dense = [one for one in rows if (one.method, one.weights, one.seed) == (DENSE, "float32", row.seed)]
    if row.method == DENSE:
        return dense[0] if dense and dense[0].run != row.run else None
    return min(dense, key=lambda one: len(_own(row) ^ _own(one)), default=None)


def compared(rows: Sequence[Row], scores: Scores) -> tuple[Row, ...]:
    """Return the finished rows, each compared with its dense row. Earlier comparisons with the same row are kept."""
    done = [row for row in rows if row.status == "done" and row.key in scores]
    found = []
    for row in rows:
        dense = dense_of(row, done) if row in done else None
        if dense is None:
            found.append(row.model_copy(update={"against": None}))
        elif row.against is not None and (row.against.run, row.against.weights) == (dense.run, dense.weights):
            found.append(row)
        else:
            change = bootstrap_change(scores[dense.key].tolist(), scores[row.key].tolist()).as_json()
            against = Against(run=dense.run, weights=dense.weights, change=change)
            found.append(row.model_copy(update={"against": against}))
    return tuple(found)


def grouped(rows: Sequence[Row], scores: Scores) -> tuple[Group, ...]:
    """Group the rows that differ only in the seed."""
    members: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        members.setdefault((group_name(row), row.weights), []).append(row)
    return tuple(_group(name, weights, own, scores) for (name, weights), own in members.items())


def group_name(row: Row) -> str:
    """Return the name of a run without its seed."""
    return name_of(_keys(row))


def _keys(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.keys.items() if key != SEED}


def _group(name: str, weights: str, rows: Sequence[Row], scores: Scores) -> Group:
    done = [row for row in rows if row.status == "done"]
    return Group(
        name=name,
        weights=weights,
        method=rows[0].method,
        runs=tuple(row.run for row in done),
        failed=sum(row.status == "failed" for row in rows),
        waiting=sum(row.status == "waiting" for row in rows),
        figures={key: figure for key, value in FIGURES.items() if (figure := _figure([value(row) for row in done]))},
        change=_change(done, scores),
        keys=_keys(rows[0]),
    )


def _figure(values: Sequence[Any]) -> Figure | None:
    """Return mean and spread; None if a run does not have the figure."""
    if not values or any(value is None for value in values):
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Figure(mean=statistics.fmean(values), spread=spread)


def _change(rows: Sequence[Row], scores: Scores) -> dict[str, Any] | None:
    """Return the change of the photos' scores averaged over the seeds, with an interval over photos."""
    pairs = [
        (scores[f"{row.against.run}|{row.against.weights}"], scores[row.key])
        for row in rows
        if row.against is not None and row.key in scores
    ]
    if not pairs or len(pairs) < len(rows):
        return None
    if len(rows) == 1 and rows[0].against is not None:
        return dict(rows[0].against.change)
    before, after = (np.mean([pair[side] for pair in pairs], axis=0).tolist() for side in (0, 1))
    return bootstrap_change(before, after).as_json()


def _own(row: Row) -> set[str]:
    """Return the keys of a row's model and training, without seed and pruning."""
    left_out = ("pruning.", START, OF_START, SEED, *OF_ITSELF)
    return {f"{key}={value}" for key, value in row.keys.items() if not key.startswith(left_out)}
