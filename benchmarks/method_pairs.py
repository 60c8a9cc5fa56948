"""Compare two groups of a sweep: the paired difference per photo, and the savings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from capprune.metrics.intervals import bootstrap_change
from capprune.sweeping.results import Group, Row, Scores

DENSE, EXACT, SMALL = "dense", "float32", "int8"
BLOCK, SHAPE = "pruning.block", "decoder."
OBJECTIVE = "training.objective"
LIMITS = ("pruning.step_us", "pruning.bytes")
UNIFORM = [{"pruning.method": "supermask", "pruning.sparsity": sparsity} for sparsity in (0.975, 0.9875)]


def pairs_of(groups: Sequence[Group], rows: Sequence[Row], scores: Scores) -> list[dict[str, Any]]:
    """Return the comparisons of the sweep of methods, over the seeds that both sides have.

    - Runs tuned with the masks of another run, with the best dense model of at most the same total epochs, of any
      width, among those that share most seeds.
    - Runs trained with rewards, with the run that they started from.
    - Runs pruned to a limit, with the supermasks that count all weights equally, at 97.5 % and 98.75 %.
    - Runs pruned in blocks and stored in int8, with the dense model of the same shape in int8.
    """
    by_run = {(row.run, row.weights): row for row in rows}
    found = []
    exact, small = ([one for one in groups if one.weights == weights and one.runs] for weights in (EXACT, SMALL))
    for one, other in [*_paired(exact, rows), *_in_blocks(small, rows)]:
        own, its = (
            {row.seed: row for row in (by_run[run, group.weights] for run in group.runs)} for group in (one, other)
        )
        seeds = sorted(own.keys() & its.keys())
        if seeds:
            sides = [[side[seed] for seed in seeds] for side in (own, its)]
            names = {"name": one.name, "against": other.name, "weights": one.weights}
            found.append({**names, "seeds": seeds, **_beside(*sides, scores=scores)})
    return found


def _paired(groups: Sequence[Group], rows: Sequence[Row]) -> Iterator[tuple[Group, Group]]:
    uniform = [group for group in groups if group.keys in UNIFORM]
    for group in groups:
        baselines = [one for one in groups if one.method == DENSE and _epochs(one) <= _epochs(group)]
        if group.keys.get(OBJECTIVE) == "scst":
            starts = {row.start for row in rows if row.run in group.runs}
            yield from ((group, one) for one in groups if starts & set(one.runs))
        elif group.method == "keep" and baselines:
            seeds = {one.name: _seeds(one, rows) & _seeds(group, rows) for one in baselines}
            yield group, max(baselines, key=lambda one: (len(seeds[one.name]), _cider(one)))
        elif any(key in group.keys for key in LIMITS):
            yield from ((group, one) for one in uniform)


def _in_blocks(groups: Sequence[Group], rows: Sequence[Row]) -> Iterator[tuple[Group, Group]]:
    for group in groups:
        baselines = [one for one in groups if one.method == DENSE and _shape(one) == _shape(group)]
        if group.keys.get(BLOCK, "none") != "none" and baselines:
            yield group, max(baselines, key=lambda one: (len(_seeds(one, rows) & _seeds(group, rows)), _cider(one)))


def _shape(group: Group) -> dict[str, Any]:
    return {key: value for key, value in group.keys.items() if key.startswith(SHAPE)}


def _cider(group: Group) -> float:
    return group.figures["cider_d"].mean


def _seeds(group: Group, rows: Sequence[Row]) -> set[int]:
    return {row.seed for row in rows if row.run in group.runs}


def _epochs(group: Group) -> float:
    return group.figures["epochs_in_all"].mean


def _beside(own: Sequence[Row], its: Sequence[Row], *, scores: Scores) -> Mapping[str, Any]:
    """Return the mean change of the scores over seeds, and the other's bytes and microseconds divided by its own."""
    before, after = (np.mean([scores[row.key] for row in side], axis=0).tolist() for side in (its, own))
    shares: dict[str, float | None] = {"smaller": None, "faster": None}
    sizes = [[row.sizes for row in side if row.sizes] for side in (own, its)]
    if all(sizes):
        bytes_of = [float(np.mean([size.decoder_bytes for size in side])) for side in sizes]
        step_of = [float(np.mean([size.step_us["p50"] for size in side])) for side in sizes]
        shares = {"smaller": bytes_of[1] / bytes_of[0], "faster": step_of[1] / step_of[0]}
    cider = {"cider_d": float(np.mean(after)), "its_cider_d": float(np.mean(before))}
    return {**cider, "change": bootstrap_change(before, after).as_json(), **shares}
