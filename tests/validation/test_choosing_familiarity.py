"""The choice of a bundle's familiarity on val photos, and that `validate --record` writes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_world import World

from capprune.api.validation import validate
from capprune.data.scenes import draw_scenes
from capprune.validation.card import model_card
from capprune.validation.familiarity import Looked, confidences, fit, unfamiliar_share
from capprune_runtime.bundle.familiarity import familiarity_of
from capprune_runtime.bundle.verify import verify_bundle


def photos(count: int, seed: int, shift: float = 0.0) -> Looked:
    random = np.random.default_rng(seed)
    pooled = random.normal(size=(count, 8))
    pooled[:, 2] += shift
    return Looked(pooled, random.normal(-1 - abs(shift) / 8, 0.2, count))


def test_one_val_photo_in_twenty_is_unfamiliar_and_so_is_what_lies_beyond_the_photos() -> None:
    val = photos(2000, 2)
    chosen = fit(photos(500, 1).pooled, val, [photos(50, 3, 6.0), photos(50, 4, 8.0)])
    assert chosen is not None and chosen.log_probability > 0 > chosen.weights[2]
    found = confidences(chosen, val)
    assert np.mean(found < 0.5) == pytest.approx(0.05, abs=0.002)
    assert np.median(found) == pytest.approx(0.9, abs=0.002)
    assert unfamiliar_share(chosen, photos(2000, 5)) == pytest.approx(0.05, abs=0.02)
    assert unfamiliar_share(chosen, photos(200, 6, 6.0)) > 0.95
    unlikely = Looked(val.pooled, val.spoken - 3)
    assert unfamiliar_share(chosen, unlikely) > 0.95  # improbable captions are a sign, too


def test_photos_that_are_all_alike_give_no_choice() -> None:
    flat = Looked(np.ones((100, 8)), np.full(100, -1.0))
    assert fit(flat.pooled, flat, [Looked(np.ones((10, 8)), np.full(10, -1.0))]) is None
    assert fit(photos(100, 1).pooled, flat, [photos(10, 2, 4.0)]) is None


def test_a_recorded_validation_of_val_chooses_it_and_one_of_test_keeps_it(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bundle = tmp_path / "scenes", tmp_path / "bundle"
    draw_scenes(data, count={"train": 100, "val": 100, "test": 4}, seed=1, size=32)
    shutil.copytree(world.folder.parent / "tiny-bundle", bundle)
    validate(bundle, data=data, split="test", record=True)
    assert "familiarity" not in json.loads((bundle / "quality.json").read_text())
    validate(bundle, data=data, split="val", record=True)
    recorded = json.loads((bundle / "quality.json").read_text())["familiarity"]
    assert (recorded["known"], recorded["photos"], recorded["split"]) == (100, 100, "val")
    assert recorded["share"] == pytest.approx(0.05, abs=0.011)
    assert recorded["drawn_share"].keys() == {"blank", "noise", "text", "screen", "drawing", "diagram", "texture"}
    validate(bundle, data=data, split="test", record=True)
    assert json.loads((bundle / "quality.json").read_text())["familiarity"] == recorded
    verified = verify_bundle(bundle)
    assert familiarity_of(verified.files, verified.manifest.interface, bundle) is not None
    assert "Unfamiliar photos" in verified.files["MODEL_CARD.md"].decode()
    assert model_card(verified, json.loads(verified.files["quality.json"])) == verified.files["MODEL_CARD.md"].decode()
