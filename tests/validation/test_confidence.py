from __future__ import annotations

import numpy as np
import pytest

from capprune.validation.confidence import FEWEST, calibrate


def said(count: int, seed: int, slope: float) -> tuple[dict[str, float], dict[str, float]]:
    random = np.random.default_rng(seed)
    sure = random.uniform(-2, 0, count)
    scores = np.clip(0.5 + slope * (sure + 1) + random.normal(0, 0.05, count), 0, None)
    names = [f"photo-{number}" for number in range(count)]
    return dict(zip(names, sure.tolist(), strict=True)), dict(zip(names, scores.tolist(), strict=True))


def test_captions_below_the_limit_score_at_most_half() -> None:
    sure, scores = said(400, 1, 0.5)
    found = calibrate(sure, scores, split="val")
    assert found.low_below is not None and found.cider_d_below is not None
    below = [scores[name] for name in scores if sure[name] < found.low_below]
    assert np.mean(below) == pytest.approx(found.cider_d_below)
    assert found.cider_d_below <= 0.5 * found.cider_d == pytest.approx(0.5 * np.mean(list(scores.values())))
    assert found.share == pytest.approx(len(below) / 400)
    higher = [scores[name] for name in scores if sure[name] < found.low_below + 0.1]
    assert np.mean(higher) > 0.5 * found.cider_d


def test_where_sureness_tells_nothing_nothing_is_marked() -> None:
    sure, scores = said(400, 2, 0.0)
    found = calibrate(sure, scores, split="val")
    assert (found.low_below, found.share, found.cider_d_below) == (None, 0.0, None)


def test_a_handful_of_captions_is_no_evidence() -> None:
    sure, scores = said(400, 3, 0.0)
    for name in sorted(sure, key=sure.__getitem__)[: FEWEST // 4]:
        scores[name] = 0.0
    assert calibrate(sure, scores, split="val").low_below is None
