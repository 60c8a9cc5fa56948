from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capprune.config.reading import parse_config
from capprune.sweeping.grid import LONGEST_NAME, Combination, expand, read_grid
from capprune_runtime.errors import ConfigError, UsageError

BASE = parse_config({"data": {"folder": "nowhere"}, "pruning": {"sparsity": 0.9}})
FOLDER = Path("sweeps") / "one"


def runs(*products: dict[str, list[Any]]) -> list[Combination]:
    return expand(BASE, products, FOLDER)


def names(*products: dict[str, list[Any]]) -> list[str]:
    return [run.name for run in runs(*products)]


def test_product_stands_for_every_choice_of_values() -> None:
    found = runs({"pruning.method": ["supermask", "snip"], "training.seed": [1, 2]})
    assert [(run.method, run.seed) for run in found] == [("supermask", 1), ("supermask", 2), ("snip", 1), ("snip", 2)]
    assert [run.name for run in found] == ["supermask-seed1", "supermask-seed2", "snip-seed1", "snip-seed2"]
    assert all(run.config.name == run.name and run.config.pruning.sparsity == 0.9 for run in found)


def test_names_too_long_for_a_folder_are_cut_and_still_tell_runs_apart() -> None:
    wide = {"decoder": [{"embedding": 256, "hidden": 768, "attention": 512, "context": 768}]}
    many: dict[str, list[Any]] = {
        "training.learning_rate": [0.0041],
        "training.warmup": [0.05],
        "training.epochs": [20],
    }
    others = {
        "training.gradient_clip": [4.5],
        "start.training.learning_rate": [0.0123],
        "start.pruning.dropout_factor": [0.3333333333333333],
    }
    keys = {"pruning.method": ["keep"], "start": ["gradual"], "pruning.block": ["1x16"], **wide, **many, **others}
    found = names({**keys, "training.weight_decay": [0.001, 0.002]})
    kept = [name for name in found if name.startswith("keep-from-gradual-")]
    assert [len(name) for name in kept] == [LONGEST_NAME, LONGEST_NAME] and kept[0] != kept[1]
    assert names({**keys, "training.weight_decay": [0.001]})[-1] == kept[0]


def test_dense_run_is_one_whatever_the_sparsity() -> None:
    assert names({"pruning.method": ["none", "snip"], "pruning.sparsity": [0.8, 0.95]}) == [
        "dense",
        "snip-sparsity0.8",
        "snip-sparsity0.95",
    ]


def test_hard_brings_its_dense_run_of_the_same_seed_and_width() -> None:
    product = {"pruning.method": ["hard"], "training.seed": [5], "decoder.hidden": [64], "pruning.sparsity": [0.8, 0.9]}
    dense, *hard = runs(product)
    assert dense.method == "dense" and dense.seed == 5 and dense.config.decoder.hidden == 64
    assert len(hard) == 2
    for run in hard:
        assert run.start == dense.name and run.needs == (dense.name,)
        assert run.config.start == FOLDER / "runs" / dense.name


def test_start_is_the_row_that_the_grid_asks_for_anyway() -> None:
    gradual = {"pruning.method": ["gradual"], "pruning.sparsity": [0.975], "training.seed": [8888]}
    lottery = {**gradual, "pruning.method": ["lottery"], "start": ["gradual"]}
    assert names(gradual, lottery) == [
        "gradual-sparsity0.975-seed8888",
        "lottery-from-gradual-sparsity0.975-seed8888",
    ]
    assert names(lottery)[0] == names(gradual)[0]  # and before its child where it does not


def test_start_has_keys_of_its_own_where_they_are_given() -> None:
    parent, tuned = runs(
        {
            "pruning.method": ["keep"],
            "start": ["supermask"],
            "training.epochs": [5],
            "start.training.epochs": [20],
            "training.objective": ["scst"],
        }
    )
    assert (parent.method, parent.config.training.epochs, parent.config.training.objective) == (
        "supermask",
        20,
        "cross_entropy",
    )
    assert (tuned.method, tuned.config.training.epochs, tuned.config.training.objective) == ("keep", 5, "scst")
    assert tuned.start == parent.name


def test_teacher_is_a_run_of_the_sweep_and_no_start() -> None:
    dense, student = runs({"pruning.method": ["supermask"], "training.distillation.teacher": ["dense"]})
    assert student.start is None and student.needs == (dense.name,)
    assert student.config.training.distillation.teacher == FOLDER / "runs" / dense.name
    assert dense.config.training.distillation.teacher is None


def test_same_run_asked_for_twice_gets_the_formats_of_both() -> None:
    found = runs(
        {"pruning.method": ["snip"], "weights": ["float32"]},
        {"pruning.method": ["snip"], "pruning.sparsity": [0.9], "weights": ["int8", "float32"]},  # 0.9 is the base's
    )
    assert [(run.name, run.weights) for run in found] == [("snip", ("float32", "int8"))]


def test_keys_that_go_together_are_one_value() -> None:
    found = runs({"decoder": [{"hidden": 32, "context": 16}, {"hidden": 64, "context": 8}]})
    assert [(run.config.decoder.hidden, run.config.decoder.context) for run in found] == [(32, 16), (64, 8)]
    assert found[0].config.decoder.embedding == BASE.decoder.embedding
    assert found[0].name == "dense-context16-hidden32"


def test_start_may_have_a_start() -> None:
    product = {"pruning.method": ["keep"], "start": ["lottery"], "start.start": ["gradual"]}
    assert names(product) == ["gradual", "lottery-from-gradual", "keep-from-lottery-start.start-gradual"]


@pytest.mark.parametrize(
    ("product", "message"),
    [
        ({"pruning.metod": ["snip"]}, "unknown key pruning.metod"),
        ({"pruning.method": ["snop"]}, "invalid value for pruning.method"),
        ({"weights": ["int4"]}, "there is no such form"),
        ({"pruning.method": ["lottery"], "start": ["gradul"]}, "did you mean gradual"),
        ({"pruning.method": ["keep"]}, "needs a run with masks"),
        ({"pruning.method": ["gradual"], "start.training.epochs": [3]}, "need a run of this sweep to start from"),
        ({"training.seed": list(range(1001))}, "too many runs"),
    ],
)
def test_grid_that_cannot_be_is_refused_before_anything_is_trained(product: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        runs(product)
    assert message in str(refused.value)


def test_values_on_the_command_line_join_every_product_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("- pruning.method: [none]\n- {pruning.method: [snip], pruning.sparsity: [0.8]}\n")
    assert read_grid([str(path), "training.seed=1,2", "weights=float32,int8"]) == [
        {"pruning.method": ["none"], "training.seed": [1, 2], "weights": ["float32", "int8"]},
        {
            "pruning.method": ["snip"],
            "pruning.sparsity": [0.8],
            "training.seed": [1, 2],
            "weights": ["float32", "int8"],
        },
    ]
    assert read_grid(["pruning.method=none,snip"]) == [{"pruning.method": ["none", "snip"]}]


@pytest.mark.parametrize("text", ["pruning.method: [snip]", "- 3", "- pruning.method: snip", "- pruning.method: []"])
def test_file_that_is_no_grid_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_grid([str(path)])


def test_missing_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no such grid"):
        read_grid(["nowhere.yaml"])
