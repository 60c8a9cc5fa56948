"""Decoders with multi-head attention learn the tiny world by heart, dense and while a supermask removes their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny

from capprune.training.loop import Trainer
from capprune.training.outcome import Split

DECODERS = {
    "relation_transformer": "decoder={family: relation_transformer, width: 32, feed_forward: 32, heads: 2,"
    " encoder_layers: 1, decoder_layers: 1, dropout: {layer: 0.0, source: 0.0}}",
    "retention": "decoder={family: retention, width: 32, feed_forward: 32, heads: 2, key: 4, layers: 1,"
    " dropout: {layer: 0.0, source: 0.0}}",
}
each_family = pytest.mark.parametrize("family", DECODERS)


def in_grid(split: Split) -> Split:
    """The same photos with 2 x 2 regions."""
    features = split.features
    assert isinstance(features, tiny.Table)
    return replace(split, features=tiny.Table(features.features.repeat(2, axis=1)))


def trainer(folder: Path, family: str, *overrides: str) -> Trainer:
    """A trainer of the tiny world for a family."""
    train, validation = in_grid(tiny.split(1)), in_grid(tiny.split(2, 12))
    usual = (DECODERS[family], "encoder.grid=2", "training.learning_rate=1e-2", "training.warmup=0.1")
    return tiny.trainer(
        folder, *usual, *overrides, train=train, validation=validation, quality=tiny.share_right(validation)
    )


@each_family
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dense_training_learns_to_name_what_it_sees(family: str, precision: str, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", family, "training.epochs=30", f"training.precision={precision}")
    assert run.run().cider > 0.9
    captions = run.captions(in_grid(tiny.split(5, 30)))
    assert tiny.share_right(tiny.split(5, 30))(captions) > 0.9
    assert len(set(captions.values())) >= 4


@each_family
@pytest.mark.parametrize(("sparsity", "epochs"), [(0.8, 30), (0.9, 50)])
@pytest.mark.slow_but_for("0.8-30-retention")
def test_sparse_training_ends_at_its_target_and_still_learns(
    family: str, sparsity: float, epochs: int, tmp_path: Path
) -> None:
    sparse = (*tiny.SPARSE, f"pruning.sparsity={sparsity}", f"training.epochs={epochs}")
    run = trainer(tmp_path / "run", family, *sparse)
    outcome = run.run()
    assert run.pruner.sparsity() == pytest.approx(sparsity, abs=0.05 * (1 - sparsity))
    assert outcome.sparsity == pytest.approx(sparsity, abs=0.05 * (1 - sparsity))
    assert outcome.cider > 0.8
