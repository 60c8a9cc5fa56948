"""Configs of runs that start from another run: pruned again, or trained further with the same masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capprune.config.methods import KEEP, METHODS, NONE, methods_of_trained_runs
from capprune.config.reading import parse_config, require_single
from capprune.config.run import RunConfig
from capprune.ineffective import ineffective_notes, refuse_ineffective
from capprune.training.progress import SILENT, Progress
from capprune.training.run import read_run
from capprune_runtime.errors import UsageError

# The training keys of each objective of `capprune finetune`
OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "cross_entropy": {"learning_rate": 3e-4, "final_learning_rate": 1e-6, "epochs": 5},
    "scst": {"learning_rate": 1e-4, "final_learning_rate": 1e-6, "epochs": 5},
}


def pruning_config(run: Path, method: str, overrides: Sequence[str], progress: Progress = SILENT) -> RunConfig:
    """Return the config that prunes a trained run with a method.

    Args:
        run: The run to start from.
        method: A pruning method for trained runs.
        overrides: `key=value`, applied last.
        progress: Receives a line about overrides that change nothing.

    Raises:
        UsageError: The run does not exist, the method does not prune trained runs, or an override has no effect.
    """
    if not METHODS.load(method, "--method").prunes_trained_runs:
        expected = ", ".join(methods_of_trained_runs())
        hint = f"capprune train CONFIG pruning.method={method}" if method != KEEP else "capprune finetune RUN"
        what = "this method does not prune a trained run"
        raise UsageError(what, where="--method", expected=expected, found=method, hint=hint)
    changed = {"start": str(run), "name": f"{run.name}-{method}"}
    return derived(run, changed, {"method": method, "keep": ()}, {}, overrides, progress=progress)


def finetuning_config(
    run: Path, objective: str, teachers: Sequence[Path], overrides: Sequence[str], progress: Progress = SILENT
) -> RunConfig:
    """Return the config that trains a run further with unchanged masks.

    Args:
        run: The run to start from.
        objective: A key of `OBJECTIVES`.
        teachers: Runs whose scores are learned too.
        overrides: `key=value`, applied last.
        progress: Receives a line about overrides that change nothing.

    Raises:
        UsageError: The run or the objective does not exist, or an override has no effect.
    """
    if objective not in OBJECTIVES:
        expected = ", ".join(OBJECTIVES)
        raise UsageError("there is no such objective", where="--objective", expected=expected, found=objective)
    training = {"objective": objective, **OBJECTIVES[objective]}
    named = [str(teacher) for teacher in teachers]
    training["distillation"] = {"teacher": named if len(named) > 1 else next(iter(named), None)}
    pruning = {"method": KEEP, "keep": (), "exclude": ()}  # keeps every existing mask
    changed = {"start": str(run), "name": f"{run.name}-tuned"}
    dropout = 0.0 if objective == "scst" else 1.0  # captions are sampled and learned without dropout
    return derived(run, changed, pruning, training, overrides, dropout=dropout, progress=progress)


def derived(
    run: Path,
    changed: Mapping[str, Any],
    pruning: Mapping[str, Any],
    training: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    dropout: float = 1.0,
    progress: Progress = SILENT,
) -> RunConfig:
    """Return the config of a run that starts from another one: the other run's config with changes and overrides.

    Args:
        run: The run to start from.
        changed: Keys of the top level.
        pruning: Keys of `pruning`. A run without masks has none to keep and stays dense.
        training: Keys of `training`.
        overrides: `key=value`, applied last.
        dropout: Factor of every dropout rate of the decoder.
        progress: Receives a line about overrides that change nothing.

    Raises:
        UsageError: The run does not exist, or an override has no effect.
    """
    require_single(overrides)
    parent = read_run(run)
    tree = parent.config.as_tree()
    method = NONE if pruning["method"] == KEEP and not parent.masks else pruning["method"]
    own = {**tree["training"], "objective": "cross_entropy", "distillation": {}, **training}
    seen = {**tree["encoder"], "start": None}  # the run already contains the encoder that it started with
    decoder = parent.config.decoder.with_dropout(dropout).model_dump(mode="json")
    pruned = {**tree["pruning"], **pruning, "method": method}
    data = {**tree["data"], "vocabulary": str(run) if tree["data"]["vocabulary"] else None}
    changes = {"data": data, "encoder": seen, "decoder": decoder, **changed, "pruning": pruned, "training": own}
    config = parse_config({**tree, **changes}, overrides, where=str(run))
    refuse_ineffective(config, overrides)
    for note in ineffective_notes(config, overrides):
        progress.say(note)
    return config
