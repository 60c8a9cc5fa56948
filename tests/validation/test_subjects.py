"""The rarity of subjects, by the published classifier of EfficientNet-Lite0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from capprune.models.efficientnet_lite import EfficientNetLite0
from capprune.validation.subjects import SIZE, mean_features, rarity
from capprune_runtime.errors import MissingExtra
from capprune_runtime.photo import read_photo

ROOT = Path(__file__).parents[2]
CATS = range(281, 286)  # classes of ImageNet
PIZZA, TRAIN = 963, 466


def test_classifier_names_the_cat_of_the_gallery() -> None:
    features = mean_features([read_photo(ROOT / "docs" / "gallery" / "chelsea.jpg", SIZE)])
    weight, bias = EfficientNetLite0.published_classifier()
    assert features.shape == (1, 1280) and weight.shape == (1000, 1280)
    assert int(np.argmax(weight @ features[0] + bias)) in CATS


def test_a_subject_is_rare_if_few_known_photos_have_it() -> None:
    weight, _ = EfficientNetLite0.published_classifier()
    random = np.random.default_rng(3)

    def photos(subject: int, count: int) -> np.ndarray:
        return 12 * weight[subject] + random.normal(0, 0.05, (count, 1280))

    found = rarity(np.concatenate([photos(CATS[0], 90), photos(TRAIN, 9), photos(PIZZA, 1)]))
    cats, trains, pizza = found[:90], found[90:99], found[99]
    assert cats.max() < trains.min() and trains.max() < pizza


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EfficientNetLite0, "package", ("no_such_package", "Model"))
    with pytest.raises(MissingExtra, match="not installed"):
        mean_features([np.zeros((SIZE, SIZE, 3), np.uint8)])
