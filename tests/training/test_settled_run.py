"""A run whose gates are late still ends with a model of the sparsity that was asked for, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny

from capprune.training.run import BEST, read_checkpoint, read_metrics

LATE = ("pruning.method=supermask", "pruning.sparsity=0.9", "training.epochs=24", "pruning.sparsity_weight=2")


def test_gates_that_are_late_are_moved_after_the_last_step(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path / "run", *LATE)
    outcome = trainer.run()
    ends = [line for line in read_metrics(tmp_path / "run") if "cider" in line]
    assert all(line["sparsity"] < 0.894 and "settled" not in line for line in ends[:-1])  # or there is nothing to move
    assert outcome.settled == ends[-1]["settled"] > 0
    assert outcome.epoch == 23
    assert outcome.sparsity == pytest.approx(0.9, abs=1e-3)
    facts = read_checkpoint(tmp_path / "run" / BEST).facts
    assert int(facts["settled"]) == outcome.settled
    again = tiny.trainer(tmp_path / "run", *LATE).run()
    assert (again.settled, again.cider) == (outcome.settled, outcome.cider)


def test_a_run_that_reached_its_target_moves_nothing(tmp_path: Path) -> None:
    outcome = tiny.trainer(tmp_path / "run", *tiny.SPARSE).run()
    assert outcome.settled == 0
    assert all("settled" not in line for line in read_metrics(tmp_path / "run"))
