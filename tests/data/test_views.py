"""Parts of photos: large enough, different, and the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from capprune.data.views import SMALLEST, WHOLE, View


def coordinates(height: int, width: int) -> np.ndarray:
    """Return a photo whose red and green values are its rows and columns."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns, rows * 0], axis=2).astype(np.uint8)


def test_the_whole_photo_is_not_copied() -> None:
    photo = coordinates(30, 40)
    assert WHOLE.whole and WHOLE.cut(photo, "a") is photo and View(mirrored=True).cut(photo, "a") is photo


def test_a_part_is_a_rectangle_of_the_promised_size() -> None:
    photo = coordinates(100, 200)
    sizes = []
    for number in range(1, 300):
        part = View(number).cut(photo, "a.jpg")
        height, width, _ = part.shape
        top, left, _ = part[0, 0]
        np.testing.assert_array_equal(part, photo[top : top + height, left : left + width])
        sizes.append((height / 100, width / 200, top / 100, left / 200))
    least, most = np.min(sizes, axis=0), np.max(sizes, axis=0)
    assert (least[:2] >= SMALLEST - 0.005).all() and (least[:2] < SMALLEST + 0.02).all() and (most[:2] > 0.98).all()
    assert (least[2:] == 0).all() and (most[2:] > 0.25).all()
    assert abs(np.corrcoef(np.transpose(sizes))[0, 1]) < 0.2  # the sides are drawn independently


def test_a_part_depends_on_the_name_and_the_number_alone() -> None:
    photo = coordinates(100, 120)
    part = View(1).cut(photo, "photos/a.jpg")
    assert part.shape == (76, 105, 3) and part[0, 0].tolist() == [15, 4, 0]  # the same on every machine
    np.testing.assert_array_equal(View(1, mirrored=True).cut(photo, "photos/a.jpg"), part)
    others = [View(2).cut(photo, "photos/a.jpg"), View(1).cut(photo, "photos/b.jpg")]
    assert all(other.shape != part.shape or (other != part).any() for other in others)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 1)])
def test_tiny_photos_have_parts_too(shape: tuple[int, int]) -> None:
    assert all(min(View(number).cut(coordinates(*shape), "a").shape[:2]) >= 1 for number in range(1, 20))


def test_views_have_labels_of_their_own() -> None:
    labels = [View(part, mirrored).label for part in (0, 1, 2) for mirrored in (False, True)]
    assert labels == ["", "mirrored", "part 1", "part 1, mirrored", "part 2", "part 2, mirrored"]
