"""Finished runs, which are not trained again."""

from __future__ import annotations

from pathlib import Path

from capprune.training.health import signs_of
from capprune.training.outcome import Outcome
from capprune.training.resume import is_unfinished
from capprune.training.run import LAST, read_checkpoint, read_metrics


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a run that was trained to its end."""
    return (folder / LAST).is_file() and not is_unfinished(folder)


def finished_outcome(folder: Path) -> Outcome:
    """Return the results of a finished run.

    Raises:
        BundleError: Its last checkpoint or its metrics are broken.
    """
    facts = read_checkpoint(folder / LAST).facts
    settled, signs = int(facts.get("settled", 0)), signs_of(read_metrics(folder))
    return Outcome(int(facts["epoch"]), float(facts["cider"]), float(facts["sparsity"]), None, settled, signs)
