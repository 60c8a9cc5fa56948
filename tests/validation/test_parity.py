from __future__ import annotations

import json
import math

import pytest

from capprune.validation.parity import EXCUSED_SCORE_GAP, Difference, compare_tokens, first_difference
from capprune_runtime.errors import DataError

Tokens = dict[str, tuple[int, ...]]


def both(photos: int, different: int) -> tuple[Tokens, Tokens]:
    reference: Tokens = {f"{number:04}.jpg": (4, 5, 6) for number in range(photos)}
    return reference, {**reference, **dict.fromkeys(sorted(reference)[:different], (4, 9, 6))}


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("a red disk", "a red disk", None),
        ("a red disk", "a blue disk", 1),
        ("a red disk", "the red disk", 0),
        ("a red disk", "a red disk on sand", 3),
        ("a red disk on sand", "a red disk", 3),
        ("", "", None),
        ("", "a", 0),
    ],
)
def test_first_difference(before: str, after: str, place: int | None) -> None:
    assert first_difference(before.split(), after.split()) == place


def test_identical_captions_hold_and_ask_for_no_gap() -> None:
    reference, bundle = both(10, 0)

    def never(photo: str, own: tuple[int, ...], other: tuple[int, ...]) -> float:
        raise AssertionError(photo)

    parity = compare_tokens(reference, bundle, never)
    assert parity.holds
    assert (parity.photos, parity.identical, parity.differences) == (10, 10, ())


@pytest.mark.parametrize(
    ("photos", "different", "holds"),
    [(1000, 2, True), (1000, 3, False), (500, 1, True), (499, 1, False), (1500, 3, True), (2999, 6, False)],
)
def test_at_most_two_in_a_thousand_are_excused(photos: int, different: int, holds: bool) -> None:
    parity = compare_tokens(*both(photos, different), lambda photo, own, other: 1e-6)
    assert len(parity.differences) == different
    assert all(difference.excused for difference in parity.differences)
    assert parity.holds is holds


@pytest.mark.parametrize(
    ("gap", "excused"),
    [(0.0, True), (EXCUSED_SCORE_GAP, True), (1.01e-4, False), (math.nan, False), (math.inf, False), (-1e-6, False)],
)
def test_only_a_tie_of_the_reference_itself_is_an_excuse(gap: float, excused: bool) -> None:
    parity = compare_tokens(*both(1000, 1), lambda photo, own, other: gap)
    assert parity.differences[0].excused is excused
    assert parity.holds is excused


def test_difference_tells_where_the_captions_part() -> None:
    asked = []

    def gap(photo: str, own: tuple[int, ...], other: tuple[int, ...]) -> float:
        asked.append((photo, own, other))
        return 0.5

    parity = compare_tokens({"a": (7, 8, 9), "b": (7,), "c": (5,)}, {"a": (7, 8, 4), "b": (7, 3), "c": ()}, gap)
    assert asked == [("a", (7, 8, 9), (7, 8, 4)), ("b", (7,), (7, 3)), ("c", (5,), ())]
    assert parity.differences == (
        Difference("a", 2, 9, 4, 0.5, False),
        Difference("b", 1, None, 3, 0.5, False),  # the reference had ended
        Difference("c", 0, 5, None, 0.5, False),
    )


def test_parity_becomes_json_even_when_a_gap_is_no_number() -> None:
    parity = compare_tokens(*both(4, 1), lambda photo, own, other: math.nan)
    document = json.loads(json.dumps(parity.as_json(), allow_nan=False))
    assert document["holds"] is False
    assert document["differences"][0] == {
        "photo": "0000.jpg",
        "position": 1,
        "reference_token": 5,
        "bundle_token": 9,
        "score_gap": None,
        "excused": False,
    }


def test_different_photos_are_refused() -> None:
    with pytest.raises(DataError, match=r"same photos on both sides: b\.jpg"):
        compare_tokens({"a.jpg": (4,)}, {"a.jpg": (4,), "b.jpg": (5,)}, lambda photo, own, other: 0.0)
