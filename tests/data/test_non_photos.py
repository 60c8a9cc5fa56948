from __future__ import annotations

import numpy as np
import pytest

from capprune.data.non_photos import KINDS, non_photos


def test_images_depend_on_kind_seed_and_number_only() -> None:
    few, more, other = non_photos(2, "a"), non_photos(4, "a"), non_photos(4, "b")
    assert list(few) == list(more) == list(KINDS)
    for kind in KINDS:
        for one, same in zip(few[kind], more[kind], strict=False):
            assert np.array_equal(one, same)
        assert not any(np.array_equal(one, two) for one, two in zip(more[kind], other[kind], strict=True))
        assert len({image.tobytes() for image in more[kind]}) == 4, kind


@pytest.mark.parametrize("size", [16, 224, 260])
def test_images_have_the_size_of_the_encoder(size: int) -> None:
    for kind, images in non_photos(2, "size", size).items():
        assert all(image.shape == (size, size, 3) and image.dtype == np.uint8 for image in images), kind


def test_kinds_look_like_their_names() -> None:
    drawn = non_photos(6, "looks")
    steps = {
        kind: [float(np.abs(np.diff(i.astype(float), axis=1)).mean()) for i in images] for kind, images in drawn.items()
    }
    assert max(steps["blank"]) < 4 < min(steps["text"])
    for image in drawn["text"]:  # mostly paper
        grey = image.mean(axis=2)
        assert np.mean(np.abs(grey - np.median(grey)) < 30) > 0.5
