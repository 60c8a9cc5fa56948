"""What quantisation costs decides how much of it stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from capprune.exporting.export import _keeps_quality
from capprune.exporting.quality import costs_too_much, settle_plan
from capprune.metrics.intervals import Change, Interval, bootstrap_change
from capprune_exporters.plan import Matrix, Plan, plan_by_size
from capprune_exporters.quantise import requantised

PHOTOS = 400
BEFORE = np.random.default_rng(0).uniform(0.2, 1.0, PHOTOS).tolist()


class PhotosThatCost:
    """A stand-in for photos: each quantised tensor takes a share of every caption's score."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs = costs

    def __len__(self) -> int:
        return PHOTOS

    def cider_d(self, encoder: bytes, decoder: bytes) -> Sequence[float]:
        lost = sum(self.costs[name] for name in decoder.decode().split())
        return [(1 - lost) * one for one in BEFORE]


def quantised(plan: Plan) -> bytes:
    """A decoder that says which tensors are quantised."""
    return " ".join(name for name, weights in plan.quantised.items() if weights != "float32").encode()


def matrices() -> dict[str, Matrix]:
    """Three sparse matrices with tails of their own, which one scale fits more or less well."""
    draw = np.random.default_rng(1)
    found = {}
    for name, power in (("a", 1), ("b", 3), ("c", 2)):
        normal = draw.standard_normal((128, 64))
        values = np.sign(normal) * np.abs(normal) ** power
        found[name] = np.where(draw.random((128, 64)) < 0.05, values, 0).astype(np.float32)
    return found


def settled(costs: dict[str, float]) -> tuple[Plan, list[str]]:
    said: list[str] = []
    plan = plan_by_size(matrices(), (), "int8")
    assert set(plan.quantised.values()) == {"int8"}
    photos = PhotosThatCost(costs)
    plan, change = settle_plan(plan, matrices(), photos, BEFORE, b"", quantised, said.append)  # type: ignore[arg-type]
    assert change == bootstrap_change(BEFORE, photos.cider_d(b"", quantised(plan)))
    return plan, said


def test_everything_stays_quantised_when_it_costs_nothing() -> None:
    plan, said = settled({"a": 0.0, "b": 0.0, "c": 0.0})
    assert set(plan.quantised.values()) == {"int8"} and len(said) == 1 and "[" in said[0]


def test_the_worst_quantised_tensors_go_back_to_float_until_the_rest_holds() -> None:
    lost = {name: np.square(requantised(matrix, "int8") - matrix).sum() for name, matrix in matrices().items()}
    error = {name: lost[name] / np.square(matrix).sum() for name, matrix in matrices().items()}
    worst, second, mild = sorted(error, key=lambda name: -error[name])
    plan, said = settled({worst: 0.0, second: 0.02, mild: 0.0})
    assert plan.quantised == {worst: "float32", second: "float32", mild: "int8"}
    assert [line for line in said if line.startswith("keeping")] == [
        f"keeping {name} in float32" for name in (worst, second)
    ]
    assert all("cost more" in line.reason for line in plan.lines if line.weights == "float32")


def test_nothing_is_left_to_fall_back_when_even_float_loses() -> None:
    plan, _ = settled({"a": 0.1, "b": 0.1, "c": 0.1})
    assert set(plan.quantised.values()) == {"float32"}


@pytest.mark.parametrize(("lost", "too_much"), [(0.0, False), (0.004, False), (0.006, True)])
def test_a_loss_counts_only_when_its_whole_interval_is_beyond_the_limit(lost: float, too_much: bool) -> None:
    after = [(1 - lost) * one for one in BEFORE]
    assert costs_too_much(bootstrap_change(BEFORE, after)) is too_much
    noisy = np.random.default_rng(2).permutation(after).tolist()
    assert not costs_too_much(bootstrap_change(BEFORE, noisy))


@pytest.mark.parametrize(
    ("form", "relative", "kept"),
    [
        ("static_int8", Interval(-0.004, -0.02, 0.012), True),
        ("static_int8", Interval(-0.03, -0.12, 0.1), False),  # of few photos; weight-only int8 is nearly exact
        ("weight_only_int8", Interval(-0.03, -0.12, 0.1), True),
        ("weight_only_int8", Interval(-0.03, -0.05, -0.01), False),
        ("static_int8", Interval(0.01, -0.01, 0.03), True),
    ],
)
def test_static_int8_is_a_default_only_where_its_estimate_is_good(form: str, relative: Interval, kept: bool) -> None:
    change = Change(before=1.0, after=1.0 + relative.estimate, difference=relative, relative=relative)
    assert _keeps_quality(form, change) is kept
