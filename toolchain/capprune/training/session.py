"""Trains a run from its config: prepares its data, trains it, and fails if it has no usable checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from capprune.config.run import RunConfig
from capprune.metrics.health import caption_health
from capprune.metrics.scores import cider_d
from capprune.training.finished import finished_outcome, is_finished
from capprune.training.hardware import chosen_device
from capprune.training.launch import place_of
from capprune.training.loop import Trainer
from capprune.training.outcome import Outcome
from capprune.training.prepare import default_cache, prepare, vocabulary_and_licence
from capprune.training.progress import SILENT, Progress
from capprune.training.run import start_run
from capprune_runtime.errors import DataError


def train_run(config: RunConfig, out: Path, cache: Path | None = None, progress: Progress = SILENT) -> Outcome:
    """Prepare the data of a config and train it, from the start or from where it was interrupted.

    If `torchrun`, SLURM or `capprune train --devices` started several processes, each of them makes this call. The
    first one writes the run and reports progress.

    Args:
        config: The run's config.
        out: The run's folder, to be made.
        cache: Folder of computed features; None for the default one.
        progress: Receives progress reports.

    Raises:
        CapPruneError: The data cannot be read, the target cannot be reached, the folder holds another run, and so on.
        KeyboardInterrupt, SystemExit: On a signal, with a note once the state is saved.
    """
    place = place_of(os.environ)
    progress = progress if place.first else SILENT
    if place.world == 1 and config.data.shards is None and is_finished(out):
        return _usable(_finished(config, out, progress), config, out)
    device = chosen_device(config.training, place)  # checked before minutes of feature computation
    prepared = prepare(config, cache=cache or default_cache(), bar=progress.bar, device=device, place=place)
    for note in prepared.notes:
        progress.say(note)
    config = _with_licence(config, prepared.licence)
    human = {photo.name: photo.captions for photo in prepared.validation_photos}
    trainer = Trainer(
        config,
        out,
        vocabulary=prepared.vocabulary,
        train=prepared.train,
        validation=prepared.validation,
        quality=lambda captions: cider_d({name: human[name] for name in captions}, captions),
        health=lambda captions: caption_health(captions.values()).as_json(),
        report=progress.training(out),
        note=progress.say,
        subwords=prepared.subwords,
        place=place,
    )
    for layer, reason in trainer.pruner.blocks.left_single.items():
        progress.say(f"{layer} keeps single gates: {reason}")
    try:
        outcome = trainer.run()
    except (KeyboardInterrupt, SystemExit) as stop:
        saved = f"the state of {out} is saved"
        stop.add_note("; ".join(filter(None, (prepared.skipped(), saved))))
        raise
    if (skipped := prepared.skipped()) is not None:
        progress.say(skipped)
    return _usable(outcome, config, out)


def _usable(outcome: Outcome, config: RunConfig, out: Path) -> Outcome:
    if outcome.epoch < 0:
        raise DataError(
            "no epoch ended within tolerance of the target, so there is no checkpoint to export",
            where=out,
            expected=f"{config.pruning.sparsity:.2%} sparsity",
            hint="raise training.epochs or pruning.kappa, and choose another --out",
        )
    return outcome


def _finished(config: RunConfig, out: Path, progress: Progress) -> Outcome:
    """Return the results of a finished run, without reading a photo.

    Raises:
        CapPruneError: It has another config, or its captions have changed.
    """
    vocabulary, licence = vocabulary_and_licence(config)
    start_run(out, _with_licence(config, licence), vocabulary)
    progress.say(f"{out} is finished already")
    return finished_outcome(out)


def _with_licence(config: RunConfig, licence: str) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"licence": licence})})
