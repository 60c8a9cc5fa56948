"""Rows beside each other: each against the dense run of its seed, and those of several seeds as one."""

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
    """The row that one is compared with: the dense run of its seed whose other keys are nearest to its own.

    A dense run itself is compared with the first one of its seed, and in another format with itself in float32.

    Args:
        row: To compare.
        rows: Rows of the sweep, in its order.
    """
    if row.method == DENSE and row.weights != "float32":
        return next((one for one in rows if (one.run, one.weights) == (row.run, "float32")), None)
    dense = [one for one in rows if (one.method, one.weights, one.seed) == (DENSE, "float32", row.seed)]
    if row.method == DENSE:
        return dense[0] if dense and dense[0].run != row.run else None
    return min(dense, key=lambda one: len(_own(row) ^ _own(one)), default=None)


def compared(rows: Sequence[Row], scores: Scores) -> tuple[Row, ...]:
    """The rows that are done, each against its dense row; what was compared with the same row before stays."""
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
    """Rows of the same keys but for the seed, as one."""
    members: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        members.setdefault((group_name(row), row.weights), []).append(row)
    return tuple(_group(name, weights, own, scores) for (name, weights), own in members.items())


def group_name(row: Row) -> str:
    """The name of a run without its seed."""
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
    """None where a run does not have the figure."""
    if not values or any(value is None for value in values):
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Figure(mean=statistics.fmean(values), spread=spread)


def _change(rows: Sequence[Row], scores: Scores) -> dict[str, Any] | None:
    """The change of each photo's score averaged over the seeds, so that the interval is one over photos."""
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
    """What a row says of its model and its training, beside the seed and how it was pruned."""
    left_out = ("pruning.", START, OF_START, SEED, *OF_ITSELF)
    return {f"{key}={value}" for key, value in row.keys.items() if not key.startswith(left_out)}
