"""The measures of familiarity.py, and that the page of the packaged model states what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_run import Measured

from capprune.data.scenes import draw_scenes
from capprune.validation.familiarity import Looked
from capprune_runtime.bundle.familiarity import Familiarity
from capprune_runtime.bundle.verify import verify_bundle
from familiarity import Seen, auroc, auroc_interval, marked, measure, risk, show

ROOT = Path(__file__).parents[2]


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(1)
    low, high = random.integers(0, 9, 40).astype(float), random.integers(2, 11, 30).astype(float)
    pairs = [1.0 if b > a else 0.5 if b == a else 0.0 for a in low for b in high]
    assert auroc(low, high) == pytest.approx(np.mean(pairs))
    assert auroc(low, low) == pytest.approx(0.5)
    interval = auroc_interval(low, high)
    assert interval.low < interval.estimate == auroc(low, high) < interval.high < 1


def test_risk_keeps_the_photos_of_highest_confidence() -> None:
    rows = risk(np.array([0.9, 0.1, 0.5, 0.7]), np.array([1.0, 0.0, 0.05, 0.5]))
    assert [row["coverage"] for row in rows] == [1.0, 0.9, 0.8, 0.7, 0.5]
    assert rows[0]["cider_d"] == pytest.approx(1.55 / 4) and rows[0]["wrong"] == 0.5
    assert (rows[-1]["cider_d"], rows[-1]["wrong"]) == (0.75, 0.0)


def test_captions_are_marked_as_a_reader_sees_them() -> None:
    chosen = Familiarity((1.0,), 0.0, 0.0)
    looked = Looked(np.array([[-1.0], [0.5], [2.0], [2.0]]), np.array([-1.0, -1.0, -1.0, -3.0]))
    row = marked(chosen, -2.0, Seen(looked, np.array([0.0, 0.05, 0.02, 1.0])))
    assert (row["unfamiliar"], row["not_sure"]) == (0.25, 0.5)  # unknown; hardly known, and unlikely
    assert (row["wrong"], row["wrong_among_unmarked"]) == (0.75, 1.0)
    assert marked(chosen, None, Seen(looked))["not_sure"] == 0.25


@pytest.mark.slow
def test_a_bundle_without_limits_is_measured_and_not_changed(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "scenes"
    draw_scenes(data, count={"train": 100, "val": 100, "test": 12}, seed=5, size=96)
    before = {path: path.read_bytes() for path in measured.bundle.rglob("*") if path.is_file()}
    document = measure(verify_bundle(measured.bundle), data, data, 2, 100)
    assert before == {path: path.read_bytes() for path in measured.bundle.rglob("*") if path.is_file()}
    assert document["marked"]["scenes test"]["photos"] == 12 and document["drawn_marked"]["photos"] == 14
    show(document)
    assert "AUROC" in capsys.readouterr().out


def test_the_page_states_what_was_measured() -> None:
    page = (ROOT / "docs" / "ready_model.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "benchmarks" / "results" / "familiarity.json").read_text())
    rows = (("Flickr8k `test`", "flickr8k test", "1,000"), ("COCO photos", "coco_small val", "200"))
    for name, key, count in rows:
        row = found["marked"][key]
        assert f"| {name} | {count} | {row['unfamiliar']:.1%} | {row['not_sure']:.1%} |".replace("%", " %") in page
    assert (
        f"| {found['drawn_marked']['photos']} | {found['drawn_marked']['unfamiliar']:.1%} |".replace("%", " %") in page
    )
    for one in found["auroc"].values():
        assert f"{one['estimate']:.3f} ({one['low']:.3f} to {one['high']:.3f})" in " ".join(page.split())
    for name, key in (("both sets", "both"), ("Flickr8k `test`", "flickr8k test"), ("COCO photos", "coco_small val")):
        for by, words in (("confidence", "confidence"), ("log_probability", "log-probability")):
            cells = [f"{one['cider_d']:.3f} ({one['wrong']:.0%})".replace("%", " %") for one in found["risk"][key][by]]
            assert f"| {name}, {words} | {' | '.join(cells)} |" in page, (name, by)
