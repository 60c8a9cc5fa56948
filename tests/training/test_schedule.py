"""How fast weights and gates learn over a run, and with what numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from capprune.training.outcome import Progress


def test_gates_keep_their_rate_while_the_weights_follow_a_cosine(tmp_path: Path) -> None:
    rates: list[tuple[float, float]] = []

    def note(progress: Progress) -> None:
        if progress.cider is None:
            rates.append(tuple(group["lr"] for group in trainer.optimiser.param_groups))

    trainer = tiny.trainer(tmp_path / "run", *tiny.SPARSE, "training.weight_decay=0.001", report=note)
    weights, gates = trainer.optimiser.param_groups
    assert (weights["eps"], weights["weight_decay"], weights["betas"]) == (1e-8, 0.001, (0.9, 0.999))
    assert (gates["eps"], gates["weight_decay"], gates["betas"]) == (trainer.pruner.gate_adam_eps, 0.0, (0.9, 0.999))
    assert gates["eps"] >= 1e-2
    assert {id(gate) for gate in gates["params"]} == {id(gate) for gate in trainer.pruner.gates.values()}
    trainer.run()
    assert {rate for _, rate in rates} == {trainer.pruner.gate_learning_rate}
    expected = [1e-5 + (2e-2 - 1e-5) * (1 + math.cos(math.pi * step / 120)) / 2 for step in range(120)]
    assert [rate for rate, _ in rates] == pytest.approx(expected)


def test_learning_rate_rises_in_a_line_over_the_warmup_and_then_falls_along_the_cosine(tmp_path: Path) -> None:
    rates = []

    def note(progress: Progress) -> None:
        if progress.cider is None:
            rates.append(trainer.optimiser.param_groups[0]["lr"])

    trainer = tiny.trainer(tmp_path / "run", "training.warmup=0.25", report=note)
    trainer.run()
    rise = [2e-2 * step / 5 for step in range(1, 6)]
    fall = [1e-5 + (2e-2 - 1e-5) * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(15)]
    assert rates == pytest.approx(rise + fall)


def test_numbers_too_small_to_be_normal_count_as_zero_while_it_trains(tmp_path: Path) -> None:
    products = []

    def note(progress: Progress) -> None:
        products.append(float(torch.tensor([1e-30]) * 1e-10))

    torch.set_flush_denormal(False)
    tiny.trainer(tmp_path / "run", "training.epochs=1", report=note).run()
    assert set(products) == {0.0}
    assert float(torch.tensor([1e-30]) * 1e-10) > 0.0
