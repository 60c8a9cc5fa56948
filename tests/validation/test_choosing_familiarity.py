"""The choice of a bundle's familiarity on val photos, and that `validate --record` writes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_world import World

from capprune.api.validation import validate
from capprune.data.scenes import draw_scenes
from capprune.validation.card import model_card
from capprune.validation.familiarity import Known, Looked, confidences, fit, unfamiliar_share
from capprune_runtime.bundle.familiarity import familiarity_of
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import UsageError


def photos(count: int, seed: int, shift: float = 0.0) -> Looked:
    random = np.random.default_rng(seed)
    pooled = random.normal(size=(count, 8))
    pooled[:, 2] += shift
    return Looked(pooled, random.normal(-1 - abs(shift) / 8, 0.2, count))


def known(count: int, seed: int) -> Known:
    """Return train photos; the higher their channel 5, the rarer their subjects."""
    pooled = photos(count, seed).pooled
    return Known(pooled, pooled[:, 5])


def test_one_val_photo_in_twenty_is_unfamiliar_and_so_is_what_lies_beyond_the_photos() -> None:
    val = photos(2000, 2)
    chosen = fit(known(500, 1), val, [photos(50, 3, 6.0), photos(50, 4, 8.0)])
    assert chosen is not None and chosen.log_probability > 0 > chosen.weights[2]
    found = confidences(chosen, val)
    assert np.mean(found < 0.5) == pytest.approx(0.05, abs=0.002)
    assert np.mean(found < 0.7) == pytest.approx(0.14, abs=0.002)
    assert unfamiliar_share(chosen, photos(2000, 5)) == pytest.approx(0.05, abs=0.02)
    assert unfamiliar_share(chosen, photos(200, 6, 7.0)) > 0.95
    rare = Looked(val.pooled + 6 * (np.arange(8) == 5), val.spoken)
    assert chosen.weights[5] < 0 and unfamiliar_share(chosen, rare) > 0.95
    unlikely = Looked(val.pooled, val.spoken - 10)
    assert unfamiliar_share(chosen, unlikely) > 0.95  # improbable captions are a sign, too


def test_photos_that_are_all_alike_give_no_choice() -> None:
    flat = Looked(np.ones((100, 8)), np.full(100, -1.0))
    assert fit(Known(flat.pooled, np.ones(100)), flat, [Looked(np.ones((10, 8)), np.full(10, -1.0))]) is None
    assert fit(known(100, 1), flat, [photos(10, 2, 4.0)]) is None


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


def test_further_known_photos_are_part_of_the_choice(world: World, tmp_path: Path) -> None:
    for name, seed in (("scenes", 1), ("more", 2)):
        draw_scenes(tmp_path / name, count={"train": 100, "val": 100, "test": 4}, seed=seed, size=32)
    bundle = tmp_path / "bundle"
    shutil.copytree(world.folder.parent / "tiny-bundle", bundle)
    validate(bundle, data=tmp_path / "scenes", split="val", record=True, known=tmp_path / "more")
    recorded = json.loads((bundle / "quality.json").read_text())["familiarity"]
    assert (recorded["known"], recorded["photos"]) == (200, 200)


@pytest.mark.parametrize("options", [{"split": "test", "record": True}, {"split": "val"}])
def test_further_known_photos_are_refused_where_nothing_is_chosen(world: World, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="only where familiar photos are chosen") as caught:
        validate(world.folder.parent / "tiny-bundle", data=world.folder, known=[world.folder], **options)
    assert caught.value.expected == "--split val --record"
