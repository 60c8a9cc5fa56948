"""The plan of docs/scale.md is what its script prints from the committed rates, and its costs add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scale_plan

ROOT = Path(__file__).parents[2]


def test_table_of_the_page_is_what_the_script_prints() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    lines = ["| " + " | ".join(row) + " |" for row in scale_plan.rows(scale_plan.plans(scale_plan.options([])))]
    assert [line for line in lines if line not in page] == []


def test_more_processes_cost_an_all_reduce_and_less_time() -> None:
    rates = json.loads(scale_plan.RATES.read_text())
    coco = scale_plan.DATA_SETS[0]
    alone, many = (scale_plan.plan(coco, rates, scale_plan.Machine(count, count, 100.0, 10.0)) for count in (1, 10))
    assert alone["all_reduce_hours"] == 0
    assert float(many["training_hours"]) == pytest.approx(
        float(alone["training_hours"]) / 10 + float(many["all_reduce_hours"])
    )
    assert float(many["features_hours"]) == pytest.approx(float(alone["features_hours"]) / 10)
    slow = scale_plan.plan(coco, rates, scale_plan.Machine(10, 10, 1e9, 0.01))
    assert slow["bottleneck"] == "the all-reduce"
