from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capprune_runtime.caption.captioner import Caption
from capprune_runtime.caption.explain import explanation_places, write_explanation
from capprune_runtime.errors import UsageError


def names(*photos: str) -> list[str]:
    places = explanation_places(Path("out"), [Path(photo) for photo in photos])
    return [places[Path(photo)].relative_to("out").as_posix() for photo in photos]


def test_photos_of_one_name_are_explained_in_pictures_of_their_own() -> None:
    assert names("a/x.jpg", "b/y.jpg") == ["x.png", "y.png"]
    assert names("a/x.jpg", "b/x.jpg", "c/y.jpg") == ["a_x.png", "b_x.png", "y.png"]
    assert names("x.jpg", "x.png") == ["x.jpg.png", "x.png.png"]
    assert names("a/X.jpg", "b/x.jpg") == ["a_X.png", "b_x.png"]
    assert len({name.casefold() for name in names("a/b/x.jpg", "a_b/x.jpg", "a/b_x.jpg", "A/b/x.jpg")}) == 4


def test_a_photo_given_twice_has_one_picture() -> None:
    assert names("a/x.jpg", "a/x.jpg") == ["x.png", "x.png"]


def test_earlier_picture_is_replaced_and_no_other_file(tmp_path: Path) -> None:
    photo = tmp_path / "x.jpg"
    Image.new("RGB", (32, 32), "red").save(photo)
    (place,) = explanation_places(tmp_path / "out", [photo]).values()
    write_explanation(
        place,
        np.zeros((224, 224, 3), np.uint8),
        Caption("a", (4,), -1.0, np.ones((1, 4), np.float32), True, 1.0, (1.0,)),
    )
    assert explanation_places(tmp_path / "out", [photo]) == {photo: place}
    Image.new("RGB", (8, 8)).save(place)
    with pytest.raises(UsageError, match=r"another file here already: .*x\.png"):
        explanation_places(tmp_path / "out", [photo])


def test_photo_is_never_replaced_by_its_own_picture(tmp_path: Path) -> None:
    photo = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(photo)
    with pytest.raises(UsageError, match="another file here already"):
        explanation_places(tmp_path, [photo])
