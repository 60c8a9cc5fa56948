"""`capprune length`: the score of the end of a caption is chosen on val, and the new run has it in its bias."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import capprune as api
from capprune.config.reading import parse_config
from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.data.scenes import draw_scenes
from capprune.lengths import BIAS, FACT, PENALTIES, Length, best_length
from capprune.metrics.intervals import bootstrap_change
from capprune.metrics.scores import cider_d
from capprune.trained import TrainedCaptioner
from capprune.training.run import load_run, read_run
from capprune.training.session import train_run
from capprune_runtime.bundle.vocabulary import END
from capprune_runtime.errors import DataError, UsageError
from cli.conftest import capprune

FAMILIES = {
    "soft_attention": {"hidden": 32, "attention": 16, "context": 16, "embedding": 16},
    "show_tell": {"hidden": 32, "embedding": 16},
    "up_down": {"hidden": 32, "attention": 16, "embedding": 16},
    "relation_transformer": {
        "width": 32,
        "heads": 2,
        "feed_forward": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
    },
    "retention": {"width": 32, "feed_forward": 32, "heads": 2, "key": 8, "layers": 1},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("length") / "scenes"
    draw_scenes(folder, count={"train": 60, "val": 20, "test": 4}, seed=2, size=64)
    return folder


def trained(scenes: Path, folder: Path, family: str, epochs: int) -> Path:
    tree = {
        "data": {"folder": str(scenes), "minimum_count": 1, "maximum_tokens": 25},
        "encoder": {"size": 64, "grid": 1},
        "decoder": {"family": family, **FAMILIES[family]},
        "training": {"epochs": epochs, "photos_per_batch": 10, "learning_rate": 5e-3},
    }
    train_run(parse_config(tree), folder, folder.parent / "cache")
    return folder


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(scenes, tmp_path_factory.mktemp("run") / "run", "soft_attention", 8)


def test_the_new_run_has_the_best_length_in_its_bias_and_says_what_was_measured(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    found = api.length(run, data=scenes, out=tmp_path / "new")
    assert [row.penalty for row in found.rows] == list(PENALTIES) and found.photos == 20
    words = [row.words for row in found.rows]
    assert words == sorted(words) and words[-1] > words[0] + 1
    assert found.chosen == best_length(found.rows)
    before, after = read_run(run).weights, read_run(tmp_path / "new").weights
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == ({BIAS} if found.chosen.penalty else set()) and before.keys() == after.keys()
    assert float(before[BIAS][END] - after[BIAS][END]) == pytest.approx(found.chosen.penalty)
    assert read_run(tmp_path / "new").facts[FACT] == str(found.chosen.penalty)
    assert said(tmp_path / "new", scenes) == pytest.approx(found.chosen.cider_d)
    usual = next(row for row in found.rows if row.penalty == 0)
    assert said(run, scenes) == pytest.approx(usual.cider_d)
    assert usual.change.difference.estimate == 0


def said(run: Path, scenes: Path) -> float:
    """Score the captions of a run on val, one photo at a time."""
    photos = load_caption_set(scenes).split("val")
    with open_photos(scenes) as store:
        captions = TrainedCaptioner(load_run(run)).captions([photo.name for photo in photos], store, 3)
    return cider_d(
        {photo.name: photo.captions for photo in photos}, {name: one.caption for name, one in captions.items()}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_an_end_that_can_be_moved(family: str, scenes: Path, tmp_path: Path) -> None:
    folder = trained(scenes, tmp_path / "run", family, 1)
    found = api.length(folder, data=[scenes, scenes], out=tmp_path / "new", limit=6, batch=4, beam=2)
    assert found.photos == 12 and found.rows[0].words <= found.rows[-1].words
    assert load_run(tmp_path / "new").config == load_run(folder).config


def test_penalties_of_two_calls_add_up(run: Path, scenes: Path, tmp_path: Path) -> None:
    first = api.length(run, data=scenes, out=tmp_path / "first", limit=5)
    second = api.length(tmp_path / "first", data=scenes, out=tmp_path / "second", limit=5)
    total = first.chosen.penalty + second.chosen.penalty
    bias = [read_run(folder).weights[BIAS][END] for folder in (run, tmp_path / "second")]
    assert float(bias[0] - bias[1]) == pytest.approx(total)
    assert float(read_run(tmp_path / "second").facts[FACT]) == total


def row(penalty: float, cider: float, bad: float) -> Length:
    return Length(penalty, cider, 9.0, bad, bootstrap_change([1.0, 2.0], [1.0, 2.0]))


def test_a_length_with_bad_endings_is_not_chosen() -> None:
    rows = [row(0, 0.50, 0.001), row(0.5, 0.52, 0.004), row(1, 0.55, 0.006)]
    assert best_length(rows).penalty == 0.5
    assert best_length([*rows, row(1.5, 0.53, 0.0)]).penalty == 1.5
    assert best_length([row(0, 0.5, 0.02), row(0.5, 0.4, 0.0)]).penalty == 0


def test_what_cannot_be_used_is_refused_before_anything_is_written(run: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="there is something here already"):
        api.length(run, data=scenes, out=tmp_path / "full")
    with pytest.raises(DataError, match="nowhere"):
        api.length(run, data=scenes, out=tmp_path / "new", split="nowhere")
    shutil.copytree(scenes, tmp_path / "scenes")
    gone = load_caption_set(scenes).split("val")[3].name
    (tmp_path / "scenes" / gone).unlink()
    with pytest.raises(DataError, match=gone):
        api.length(run, data=tmp_path / "scenes", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_prints_a_table_and_writes_the_run(run: Path, scenes: Path, tmp_path: Path) -> None:
    done = capprune("length", run, "--data", scenes, "--out", tmp_path / "new", "--limit", "6")
    assert done.code == 0 and "(chosen)" in done.out and "bad endings" in done.out
    again = capprune("length", run, "--data", scenes, "--out", tmp_path / "again", "--limit", "6", "--json")
    document = json.loads(again.out)
    assert document["photos"] == 6 and len(document["rows"]) == len(PENALTIES)
    assert document["chosen"] in document["rows"] and f"penalty of {document['chosen']['penalty']:g}" in done.out
