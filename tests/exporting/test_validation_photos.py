"""What measures the loss by int8: every photo counts as it is and as its mirror image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capprune.exporting import quality
from capprune.exporting.quality import ValidationPhotos
from capprune.metrics.scores import cider_d
from capprune_runtime.bundle.preprocessing import PreprocessingSection

SIZE = 32
TEXTS = {
    "one": "a red ball lies on the grass",
    "two": "a blue box stands in the snow",
    "three": "two dogs run at the sea",
}


class Sides:
    """A stand-in for an encoder: whether the left side of a photo is the brighter one."""

    def __init__(self, data: bytes, signature: str) -> None:
        pass

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        (photo,) = inputs["photo"]
        return {"left": photo[:, : SIZE // 2].mean() > photo[:, SIZE // 2 :].mean()}


def test_a_photo_has_the_mean_score_of_itself_and_of_its_mirror_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entries = []
    for place, (name, text) in enumerate(TEXTS.items()):
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        pixels[:, : SIZE // 2] = 100 + place
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        entries.append({"filename": f"{name}.png", "split": "val", "sentences": [{"raw": text}]})
    (tmp_path / "dataset_sides.json").write_text(json.dumps({"dataset": "sides", "images": entries}))
    monkeypatch.setattr(quality, "open_model", Sides)
    monkeypatch.setattr(quality, "DecoderStep", lambda model, interface: None)
    nothing: Any = None
    photos = ValidationPhotos(
        tmp_path,
        "val",
        10,
        preprocessing=PreprocessingSection(size=SIZE),
        decoding=nothing,
        vocabulary=nothing,
        interface=nothing,
    )
    texts = iter([*TEXTS.values(), *["nothing of the kind"] * 3])
    seen = []

    def caption(step: object, encoded: dict[str, Any]) -> str:
        seen.append(bool(encoded["left"]))
        return next(texts)

    monkeypatch.setattr(photos, "_caption", caption)
    found = photos.cider_d(b"encoder", b"decoder")
    assert seen == [True] * 3 + [False] * 3 and len(photos) == 3
    alone = cider_d({name: (text,) for name, text in TEXTS.items()}, TEXTS)
    assert np.mean(found) == pytest.approx(alone / 2) and min(found) > 0
