"""Trainings that are really broken print so within two epochs, with the cause; healthy ones do not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training as tiny

from capprune.training.health import Sign, signs_of, validation_loss
from capprune.training.outcome import Outcome, Progress, Split
from capprune.training.run import read_metrics

Change = Callable[[Split], Split]

TRAIN, VALIDATION = tiny.split(1, 300), tiny.split(2, 40)  # 60 steps an epoch
WORLD: dict[str, Any] = {"train": TRAIN, "validation": VALIDATION, "quality": tiny.share_right(VALIDATION)}
SLOW = ("training.learning_rate=1e-9", "training.final_learning_rate=0")


class Stop(Exception):
    """Ends a training after some epochs."""


def train(folder: Path, *overrides: str, change: Change | None = None, epochs: int = 2) -> tuple[Sign, ...]:
    """Train some epochs of a run; the signs after the last of them."""

    def report(progress: Progress) -> None:
        if progress.cider is None and progress.epoch == epochs:
            raise Stop

    splits = (TRAIN, VALIDATION) if change is None else (change(TRAIN), change(VALIDATION))
    arguments = {"train": splits[0], "validation": splits[1], "quality": tiny.share_right(splits[1])}
    trainer = tiny.trainer(folder, *overrides, report=report, **arguments)
    with suppress(Stop):
        trainer.run()
    return signs_of(read_metrics(folder))


def shuffled(split: Split) -> Split:
    """Captions of other photos."""
    order = np.random.default_rng(7).permutation(len(split.names))
    return replace(split, captions=[split.captions[photo] for photo in order])


def equal(split: Split) -> Split:
    """Photos that an encoder makes the same of."""
    features = split.features[np.arange(len(split.names))]
    return replace(split, features=tiny.Table(np.broadcast_to(features[:1], features.shape).copy()))


def one_caption(split: Split) -> Split:
    """Photos with the same captions each, as a set of one kind of photo has."""
    return replace(split, captions=[TRAIN.captions[0]] * len(split.names))


@pytest.mark.parametrize(
    "overrides", [(), ("training.seed=4",), (*tiny.SPARSE, "training.epochs=8"), ("decoder.cell=gru",)]
)
def test_a_healthy_run_is_not_warned_of(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    assert train(tmp_path / "run", *overrides) == ()
    lines = [line for line in read_metrics(tmp_path / "run") if "warnings" in line]
    assert [line["warnings"] for line in lines] == [[], []]
    assert all(
        float(str(line["validation_loss_swapped"])) > 1.2 * float(str(line["validation_loss"])) for line in lines
    )


def test_photos_that_are_all_alike_may_have_one_caption(tmp_path: Path) -> None:
    assert train(tmp_path / "run", change=one_caption) == ()


@pytest.mark.parametrize(
    ("overrides", "change", "kinds", "cause", "hint"),
    [
        (("training.learning_rate=30",), None, {"loss_stands_still"}, "learning_rate=30 is too high", "learning_rate=0.001"),
        (SLOW, None, {"loss_stands_still", "photos_unused"}, "learning_rate=1e-09 is too low", "learning_rate=0.001"),
        ((), equal, {"same_features", "same_captions", "photos_unused"}, "every photo the same features", "data check"),
        ((), shuffled, {"photos_unused"}, "captions that belong to other photos", "compare some photos"),
    ],
    ids=["rate too high", "rate of nearly zero", "equal features", "shuffled captions"],
)  # fmt: skip
def test_a_broken_run_is_warned_of_after_two_epochs(
    tmp_path: Path, overrides: tuple[str, ...], change: Change | None, kinds: set[str], cause: str, hint: str
) -> None:
    signs = train(tmp_path / "run", *overrides, change=change)
    assert kinds <= {sign.kind for sign in signs}
    for sign in signs:
        assert cause in sign.cause and hint in sign.hint, sign
    if change is equal:
        first = next(line for line in read_metrics(tmp_path / "run") if "warnings" in line)
        assert signs_of([first])[0].kind == "same_features"  # certain after one epoch


def test_a_young_run_is_judged_when_it_has_taken_enough_steps(tmp_path: Path) -> None:
    splits = {"train": tiny.split(1), "validation": VALIDATION, "quality": tiny.share_right(VALIDATION)}
    slow = ("training.epochs=21", "training.learning_rate=3e-4", "training.final_learning_rate=3e-4")
    tiny.trainer(tmp_path / "run", *slow, **splits).run()  # 5 steps an epoch, which learn little
    warned = {line["step"]: line["warnings"] != [] for line in read_metrics(tmp_path / "run") if "warnings" in line}
    assert not any(warned[step] for step in range(5, 100, 5)) and warned[100] and warned[105]
    broken = ("training.epochs=21", "training.learning_rate=30")
    assert "loss_stands_still" in {
        sign.kind for sign in train(tmp_path / "broken", *broken, change=lambda split: first(split, 24))
    }


def first(split: Split, photos: int) -> Split:
    """The first photos of a split."""
    return replace(split, names=split.names[:photos], captions=split.captions[:photos])


def test_a_run_of_few_steps_is_told_that_they_are_few(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path / "run", "training.epochs=1", "training.learning_rate=1e-4")
    outcome = trainer.run()
    (sign,) = [sign for sign in outcome.signs if sign.kind == "loss_stands_still"]
    assert "only 5 steps" in sign.cause and "training.epochs" in sign.hint


def test_a_tuned_run_may_stand_near_its_start_but_not_still(tmp_path: Path) -> None:
    train(tmp_path / "dense", "training.epochs=3", epochs=3)
    start = (f"start={tmp_path / 'dense'}", "training.learning_rate=1e-4")
    assert train(tmp_path / "tuned", *start) == ()
    (sign,) = train(tmp_path / "still", start[0], *SLOW)
    assert sign.kind == "loss_stands_still" and "an epoch ago" in sign.found
    rewarded = train(tmp_path / "rewarded", start[0], *SLOW, "training.objective=scst")  # does not raise a likelihood
    assert "loss_stands_still" not in {sign.kind for sign in rewarded}


def test_an_interrupted_run_knows_the_loss_of_the_epoch_before(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        tiny.trainer(tmp_path / "run", *SLOW, report=_stop_in_second_epoch, **WORLD).run()
    loss = validation_loss(read_metrics(tmp_path / "run"))
    outcome: Outcome = tiny.trainer(tmp_path / "run", *SLOW, **WORLD).run()
    assert validation_loss(read_metrics(tmp_path / "run")) == pytest.approx(loss, rel=1e-4)
    assert "loss_stands_still" in {sign.kind for sign in outcome.signs}
    again = tiny.trainer(tmp_path / "run", *SLOW, **WORLD).run()  # finished: not trained again
    assert again.signs == outcome.signs


def _stop_in_second_epoch(progress: Progress) -> None:
    if progress.cider is None and progress.epoch == 1:
        raise Stop
