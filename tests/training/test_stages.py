from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_training as tiny

from capprune.config.reading import load_tree
from capprune.training.stages import is_recipe, read_stages
from capprune_runtime.errors import ConfigError

RECIPE: dict[str, Any] = {
    **tiny.TREE,
    "stages": [
        {"name": "dense"},
        {
            "name": "sparse",
            "start": "dense",
            "pruning": {"method": "supermask"},
            "training": {"epochs": 9, "distillation": {"teacher": "dense", "weight": 0.7}},
        },
        {"name": "tuned", "start": "sparse", "pruning": {"method": "keep"}},
    ],
}


def stages(tree: dict[str, Any], *overrides: str) -> list[Any]:
    return read_stages(tree, overrides, Path("out"), where="recipe.yaml")


def test_stages_share_what_is_common_and_build_on_each_other() -> None:
    dense, sparse, tuned = stages(RECIPE, "training.seed=7")
    assert [stage.folder for stage in (dense, sparse, tuned)] == [
        Path("out/dense"),
        Path("out/sparse"),
        Path("out/tuned"),
    ]
    assert dense.config.start is None and sparse.config.start == Path("out/dense")
    assert sparse.config.training.distillation.teacher == Path("out/dense")
    assert sparse.config.training.distillation.weight == 0.7
    assert (dense.config.training.epochs, sparse.config.training.epochs) == (4, 9)
    assert {stage.config.training.seed for stage in (dense, sparse, tuned)} == {7}
    assert tuned.config.start == Path("out/sparse") and tuned.config.pruning.method == "keep"
    assert {stage.config.decoder for stage in (dense, sparse, tuned)} == {dense.config.decoder}


def test_a_stage_learns_from_several_earlier_stages_and_from_other_runs() -> None:
    several = {
        "name": "small",
        "data": {"vocabulary": "dense"},
        "training": {"distillation": {"teacher": ["dense", "sparse", "elsewhere/run"]}},
    }
    *_, small = stages({**RECIPE, "stages": [*RECIPE["stages"], several]})
    expected = (Path("out/dense"), Path("out/sparse"), Path("elsewhere/run"))
    assert small.config.training.distillation.teachers == expected
    assert small.config.data.vocabulary == Path("out/dense")
    own = {"name": "own", "training": {"distillation": {"teacher": ["dense", "own"]}}}
    with pytest.raises(ConfigError, match="stages before it"):
        stages({**RECIPE, "stages": [*RECIPE["stages"], own]})


def test_recipe_of_the_model_for_flickr8k_can_be_read() -> None:
    path = Path(__file__).parents[2] / "configs" / "ready_model_flickr8k.yaml"
    dense, sparse, tuned, seeing, scst, int8, rounded = read_stages(load_tree(path), (), Path("out"), where=path.name)
    assert sparse.config.start is None and tuned.config.start == sparse.folder and seeing.config.start == tuned.folder
    assert seeing.config.decoder == tuned.config.decoder == sparse.config.decoder != dense.config.decoder
    assert tuned.config.training.distillation.teacher == seeing.config.training.distillation.teacher == dense.folder
    assert seeing.config.encoder.train == "all" and tuned.config.encoder.train == scst.config.encoder.train == "frozen"
    assert int8.config.start == scst.folder and int8.config.encoder.rounded
    assert rounded.config.start == int8.folder and rounded.config.data.flip and not int8.config.data.flip
    assert scst.config.start == seeing.folder and scst.config.training.objective == "scst"
    assert sparse.config.pruning.method == "supermask" and tuned.config.pruning.method == "keep"


def test_a_stage_may_see_through_the_encoder_of_an_earlier_one() -> None:
    own = {**tiny.TREE, "stages": [{"name": "seeing"}, {"name": "blocks", "encoder": {"start": "seeing"}}]}
    assert stages(own)[1].config.encoder.start == Path("out/seeing")


def test_a_plain_config_is_no_recipe() -> None:
    assert is_recipe(RECIPE) and not is_recipe(tiny.TREE)


def test_a_folder_that_is_no_stage_stays_a_folder() -> None:
    own = {**tiny.TREE, "stages": [{"name": "tuned", "start": "runs/other"}]}
    assert stages(own)[0].config.start == Path("runs/other")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([], "a list of trees"),
        ("dense", "a list of trees"),
        ([{"training": {}}], "a unique name"),
        ([{"name": "../up"}], "a unique name"),
        ([{"name": "a"}, {"name": "a"}], "a unique name"),
        ([{"name": "a", "start": "b"}, {"name": "b"}], "stages before it"),
        ([{"name": "a", "start": "a"}], "stages before it"),
        ([{"name": "a", "trainig": {}}], "stage a"),
    ],
)
def test_broken_recipes_are_told(listed: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stages({**tiny.TREE, "stages": listed})
