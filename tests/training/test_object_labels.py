"""The auxiliary loss on object labels, with the real encoder on photos of two colours."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import encoder_world as world
import numpy as np
import pytest
import torch

from capprune.training.object_labels import ObjectLabels
from capprune.training.outcome import Progress, Split
from capprune.training.run import BEST, LAST, read_checkpoint, read_run
from capprune_runtime.errors import ConfigError, DataError

OWN = ("encoder.train=all", "training.epochs=3", "training.learning_rate=5e-3", "training.objects.weight=2")


def labelled() -> Split:
    """Return the world's photos with their colour as an object; of every fourth it is not known."""
    split = world.split(1)
    seen = np.asarray(split.features[np.arange(world.PHOTOS)])[:, 2, 0]
    names = ["red" if red > 200 else "blue" if blue > 200 else "green" for red, _, blue in seen]
    return replace(split, objects=[(name,) if place % 4 else () for place, name in enumerate(names)])


def test_loss_counts_photos_with_labels_alone() -> None:
    labels = ObjectLabels([("cat", "dog"), (), ("dog",)], channels=4)
    assert labels.classes == ("cat", "dog")
    features = torch.ones(3, 2, 4)
    assert labels.loss(features, np.array([0, 1, 2])).item() == pytest.approx(math.log(2))
    with torch.no_grad():
        labels.bias[:] = torch.tensor([-3.0, 3.0])
    sure = math.log(1 + math.exp(-3))
    assert labels.loss(features[:2], np.array([1, 2])).item() == pytest.approx(sure)  # a dog and no cat
    assert labels.loss(features[:1], np.array([0])).item() == pytest.approx(sure + 1.5)  # a cat after all
    assert labels.loss(features[:1], np.array([1])).item() == 0
    with pytest.raises(DataError, match="no training photo has object labels"):
        ObjectLabels([(), ()], channels=4)


def test_encoder_learns_to_name_objects_and_the_run_has_no_classifier(tmp_path: Path) -> None:
    world.trainer(tmp_path / "run", *OWN, "training.epochs=12", train=labelled()).run()
    own, without = tmp_path / "run", tmp_path / "without"
    world.trainer(without, *OWN, "training.objects.weight=0", train=labelled()).run()
    for name in (BEST, LAST):
        assert read_checkpoint(own / name).tensors.keys() == read_checkpoint(without / name).tensors.keys()
    name = "encoder.head.conv.weight"
    assert not torch.equal(read_run(own).weights[name], read_run(without).weights[name])


def test_metrics_have_a_falling_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capprune.training.loop.LOG_EVERY", 2)
    world.trainer(tmp_path / "run", *OWN, "training.epochs=12", train=labelled()).run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [line["objects_loss"] for line in lines if "objects_loss" in line]
    assert len(found) == 12 and found[0] < math.log(2) + 0.01 and found[-1] < found[0] / 2


def test_stopped_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    world.trainer(tmp_path / "whole", *OWN, train=labelled()).run()

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        world.trainer(tmp_path / "stopped", *OWN, train=labelled(), report=stop).run()
    world.trainer(tmp_path / "stopped", *OWN, train=labelled()).run()
    whole, stopped = (read_checkpoint(tmp_path / name / LAST).tensors for name in ("whole", "stopped"))
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


def test_frozen_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an encoder that learns") as caught:
        world.trainer(tmp_path / "run", "training.objects.weight=1", train=labelled())
    assert caught.value.found == "encoder.train: frozen" and not (tmp_path / "run").exists()
