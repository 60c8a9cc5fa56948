"""The schemes are commands that capprune takes, each is run once and timed, and the section tells what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from capprune.config.reading import load_config
from capprune.config.run import RunConfig
from capprune_runtime.errors import CapPruneError
from end_to_end import Budget, Stage, arguments_of, parser, run_stage, schemes
from end_to_end_results import end_to_end_section

CONFIGS = Path(__file__).parents[2] / "configs"
BUDGET = Budget(0.8, 8, 8, 6, "gradual", "gradual")


def config_of(stage: Stage) -> RunConfig:
    options = [option for option in stage.options if "=" in option]
    start = [] if stage.start is None else [f"start={stage.start}"]
    return load_config(CONFIGS / "scenes.yaml", [*options, *start])


@pytest.mark.parametrize("name", ["dense", "A", "B", "C"])
def test_every_stage_is_a_config_and_starts_from_one_before_it(name: str) -> None:
    first, second = schemes(BUDGET)[name]
    assert first.start is None and second.start == first.run
    assert config_of(first).encoder.train == ("masks" if name == "A" else "frozen")
    assert config_of(second).encoder.train == "all"
    assert config_of(second).training.epochs == 6
    pruned = [stage for stage in (first, second) if config_of(stage).pruning.sparsity == 0.8]
    assert len(pruned) == {"dense": 0, "A": 1, "B": 1, "C": 2}[name]
    assert config_of(second).pruning.keep == (("decoder",) if name == "C" else ())


@pytest.mark.parametrize("method", ["gradual", "supermask"])
def test_masks_of_scheme_a_are_found_by_the_method_asked_for(method: str) -> None:
    found = config_of(schemes(replace(BUDGET, masks_method=method))["A"][0]).pruning
    assert found.method == method
    assert (found.scope, found.gradual.begin) == (("blind", 0.0) if method == "gradual" else (None, None))
    assert config_of(schemes(replace(BUDGET, masks_method=method))["C"][0]).pruning.method == "supermask"


def test_command_names_the_data_only_where_it_trains_from_a_recipe() -> None:
    first, second = schemes(BUDGET)["B"]
    places = (Path("scenes.yaml"), Path("scenes"), Path("runs"))
    assert arguments_of(first, *places)[:3] == ["train", "scenes.yaml", "data.folder=scenes"]
    found = arguments_of(second, *places, ("training.seed=2",))
    assert found[:2] == ["prune", "runs/dense-1"]
    assert found[-3:] == ["training.seed=2", "--out", "runs/B"]
    assert not [one for one in found if one.startswith("data.folder")]


def test_stage_that_was_run_is_taken_over_and_one_that_fails_is_named(tmp_path: Path) -> None:
    stage = Stage("one", "train", None, ())
    with pytest.raises(CapPruneError, match=r"exit code 2: one"):
        run_stage(stage, tmp_path / "gone.yaml", tmp_path, tmp_path, ())
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "one.json").write_text(json.dumps({"run": "one", "cider_d_val": 3.0}))
    assert run_stage(stage, tmp_path / "gone.yaml", tmp_path, tmp_path, ())["cider_d_val"] == 3.0


def test_section_tells_quality_zeros_bytes_and_time_of_every_scheme() -> None:
    stage = {
        "run": "dense-1",
        "command": "capprune train configs/scenes.yaml",
        "cider_d_val": 3.9,
        "seconds": 120.0,
        "cpu_seconds": 60.0,
        "peak_bytes": 9e8,
    }
    files = {"float32": {"bundle_bytes": 5_000_000, "packed_bytes": 3_000_000, "encode_us": 4000.0}}
    one = {"scheme": "dense", "stages": [stage], "decoder_sparsity": 0.0, "encoder_sparsity": 0.0, "cider_d": 4.0}
    change = {"estimate": -0.021, "low": -0.03, "high": -0.01}
    other = {**one, "scheme": "B", "stages": [stage, {**stage, "run": "B"}], "encoder_sparsity": 0.795}
    rows = [{**one, "relative_change": None, "files": files}, {**other, "relative_change": change, "files": files}]
    machine = {"cpu_count": 2, "cpu_model": "a processor", "machine": "x86_64", "runtime": "ai-edge-litert"}
    machine |= {"runtime_version": "2.3", "threads": 1, "python": "3.11", "emulated": False}
    document = {"split": "test", "photos": 250, "beam": 3, "command": "python x", "environment": machine, "rows": rows}
    text = end_to_end_section({"scenes": document, "flickr8k": None})
    assert "| B | 4.000 | -2.1% [-3.0%, -1.0%] | 0.0% | 79.5% | 5,000,000 | 3,000,000 | 4,000 |" in text
    assert text.count("| dense-1 | 3.900 | 2.0 | 1.0 | 900 |") == 1
    assert "Not measured yet" in text and "--scheme C" in text


def test_usual_arguments_are_a_budget() -> None:
    asked = parser().parse_args(["--data", "scenes"])
    assert (asked.sparsity, asked.config.name, asked.scheme) == (0.8, "scenes.yaml", None)
