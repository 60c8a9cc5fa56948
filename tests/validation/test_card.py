from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from capprune.validation.card import model_card

QUALITY: dict[str, Any] = {
    "environment": {"runtime": "ai-edge-litert", "runtime_version": "2.3.0"},
    "data": {"name": "flickr8k", "split": "test", "photos": 1000},
    "quality": {
        "beam": 3,
        "scores": {"cider_d": 0.5, "bleu_4": 0.2, "meteor": 0.21, "tokenizer": "ptb"},
        "cider_d_interval": {"low": 0.46, "high": 0.54},
        "health": {"distinct_words": 300, "mean_words": 9.5, "bad_ending_share": 0.004, "unknown_share": 0.0},
    },
    "confidence": {
        "low_below": -1.25,
        "share": 0.1,
        "cider_d_below": 0.2,
        "cider_d": 0.5,
        "photos": 1000,
        "split": "val",
    },
}


def bundle() -> Any:
    files = {
        "encoder.tflite": SimpleNamespace(size_bytes=3_000_000),
        "decoder.tflite": SimpleNamespace(size_bytes=200_000),
    }
    manifest = SimpleNamespace(
        config={"name": "ready"},
        model=SimpleNamespace(description="LSTM with soft attention over 16 regions"),
        data=SimpleNamespace(name="flickr8k", licence="non-commercial research"),
        pruning=SimpleNamespace(kept_weights=170_000, prunable_weights=6_800_000, sparsity=0.975, method="supermask"),
        quantisation=SimpleNamespace(encoder="int8", decoder="int8"),
        files=files,
        encoder=SimpleNamespace(file="encoder.tflite"),
        decoder=SimpleNamespace(file="decoder.tflite"),
        created_by="capprune 0",
    )
    return SimpleNamespace(manifest=manifest, files={"plan.json": b'{"made": "balanced"}'})


def test_the_card_tells_terms_scores_sizes_and_limits() -> None:
    card = model_card(bundle(), QUALITY)
    for told in (
        "Terms: non-commercial research",
        "the licence of capprune's code does not",
        "CIDEr-D 0.500 (95 % interval 0.460 to 0.540)",
        "METEOR 0.210",
        "170,000 of 6,800,000",
        "97.50% sparse, by supermask",
        "encoder 3,000,000, decoder 200,000",
        "0.4% stop at",
        "below -1.250",
        "10.0% of them, with a CIDEr-D of 0.200 beside 0.500",
        "--target tflite --weights int8 --encoder-weights int8 --plan balanced`",
        "in ai-edge-litert 2.3.0",
        "Do not rely on them",
    ):
        assert told in card, told


@pytest.mark.parametrize("confidence", [None, {**QUALITY["confidence"], "low_below": None}])
def test_without_a_limit_the_card_promises_no_mark(confidence: Any) -> None:
    assert "Not sure" not in model_card(bundle(), {**QUALITY, "confidence": confidence})


@pytest.mark.parametrize("plan", [b"[]", b"{", b'{"made": ["size"]}', b'{"made": "by magic"}'])
def test_a_plan_that_is_no_plan_is_left_out(plan: bytes) -> None:
    odd = bundle()
    odd.files["plan.json"] = plan
    card = model_card(odd, QUALITY)
    assert "--encoder-weights int8` and" in card and "--plan" not in card


def test_no_meteor_is_claimed_where_none_was_computed() -> None:
    quality = json.loads(json.dumps(QUALITY))
    quality["quality"]["scores"]["meteor"] = None
    assert "METEOR" not in model_card(bundle(), quality)
