"""The plain reference of training speed computes what ours computes, so that the two may be compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig, SoftAttentionDropout
from capprune.training.batches import Batches
from capprune.training.objectives import CrossEntropy
from plain_training import PlainDecoder, masked_loss, padded
from training_results import training_section
from training_speed import row

SHAPE = SoftAttentionConfig(embedding=6, hidden=8, attention=5, context=7)
CAPTIONS = [[(4, 5, 6), (7, 8)], [(9, 4), (5, 6, 7, 8)]]


def same_weights(ours: SoftAttention, plain: PlainDecoder) -> None:
    """An LSTMCell has its gates in the order input, forget, cell, output as well, in two matrices and two biases."""
    with torch.no_grad():
        for name in ("embedding", "initial", "key", "value", "query", "score"):
            getattr(plain, name).weight.copy_(getattr(ours, name).weight)
        inputs = SHAPE.embedding + SHAPE.context
        plain.cell.weight_ih.copy_(ours.rnn.weight[:, :inputs])
        plain.cell.weight_hh.copy_(ours.rnn.weight[:, inputs:])
        plain.cell.bias_ih.copy_(ours.rnn.bias)
        plain.cell.bias_hh.zero_()
        plain.output.load_state_dict(ours.output.state_dict())


def test_plain_and_ours_have_the_same_loss() -> None:
    torch.manual_seed(0)
    none = SoftAttentionDropout(rnn=0, attention=0)
    ours = SoftAttention(SHAPE.model_copy(update={"dropout": none}), features=9, vocabulary=12)
    plain = PlainDecoder(SHAPE, features=9, vocabulary=12, dropout=0, attention_dropout=0)
    same_weights(ours, plain)
    features = torch.randn(2, 4, 9)
    batch = next(Batches(CAPTIONS, photos_per_batch=2, seed=0).epoch(0))
    order = batch.photos.tolist()
    mine = CrossEntropy().loss(ours.scores, features[order], batch)
    inputs, targets, spoken = padded([ids for photo in order for ids in CAPTIONS[photo]])
    other = masked_loss(plain(features[order].repeat_interleave(2, 0), inputs), targets, spoken)
    torch.testing.assert_close(mine, other)


def test_times_are_beside_dense_of_the_same_round_and_batch() -> None:
    found = {
        ("dense", 50): [100.0, 50.0, 100.0],
        ("supermask", 50): [50.0, 25.0, 50.0],
        ("dense", 100): [200.0, 100.0, 200.0],
        ("supermask", 100): [150.0, 75.0, 150.0],
        ("plain", 50): [25.0, 12.5, 25.0],
    }
    memory = {"dense": 100, "supermask": 150, "plain": 90}
    rows = [row(kind, "float32", found, memory[kind[0]]) for kind in found]
    assert [one["time_beside_dense"]["p50"] for one in rows] == pytest.approx([1, 2, 1, 4 / 3, 4])
    assert rows[1]["time_beside_dense"]["p90"] == 2  # the slow round was slow for all
    environment = {
        "cpu_model": "x", "machine": "y", "cpu_count": 2, "emulated": False, "runtime": "torch",
        "runtime_version": "2", "threads": 1, "python": "3",
    }  # fmt: skip
    settings = {"width": 8, "regions": 4, "rounds": 3}
    text = training_section({"rows": rows, "environment": environment, "settings": settings})
    assert "50 captions per batch: 4.0x faster than the plain one, with a supermask 2.0x" in text
    assert "100 captions per batch: 8.0x faster than the plain one, with a supermask 6.0x" in text
    assert "2.00x the time and 1.5x the memory" in text and "1.33x the time" in text
    assert np.isfinite([one["captions_per_second"]["p10"] for one in rows]).all()
