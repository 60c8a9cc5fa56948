"""A run of a stranger: a config, facts and metrics that are refused before anything is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capprune.config.run import RunConfig
from capprune.models.caption_model import build_decoder
from capprune.training.run_checks import check_facts, check_sizes, metrics_lines
from capprune_runtime.errors import BundleError


def config(hidden: int) -> RunConfig:
    return RunConfig.model_validate(
        {"data": {"folder": "photos"}, "decoder": {"family": "soft_attention", "hidden": hidden}}
    )


def test_config_that_asks_for_gigabytes_is_refused_without_taking_them() -> None:
    small = build_decoder(config(16), 50).state_dict()
    check_sizes(config(16), 50, small)
    with pytest.raises(ValueError, match="instead of"):
        check_sizes(config(4096), 50, small)
    with pytest.raises(ValueError, match="is missing"):
        check_sizes(config(16), 50, dict(list(small.items())[1:]))


@pytest.mark.parametrize(
    "facts",
    [
        {"epoch": "9" * 400},
        {"step": "1.5"},
        {"cider": "high"},
        {"cider": "9" * 400},
        {"sparsity": "[]"},
        {"settled": ""},
    ],
)
def test_fact_that_is_no_number_is_refused(facts: dict[str, str]) -> None:
    with pytest.raises(BundleError, match="is no number"):
        check_facts(facts, Path("weights.safetensors"))


def test_facts_of_a_training_are_accepted() -> None:
    check_facts({"epoch": "-1", "step": "0", "cider": "nan", "sparsity": "0.975", "method": "supermask"}, Path("x"))


@pytest.mark.parametrize("line", ["[1]", "3", "[" * 100_000, '{"step": "x"}', '{"step": ' + "9" * 400 + "}", "{"])
def test_metrics_end_at_the_first_line_that_is_none(line: str, tmp_path: Path) -> None:
    place = tmp_path / "metrics.jsonl"
    place.write_text(json.dumps({"step": 1, "loss": 2.0}) + f"\n{line}\n" + json.dumps({"step": 2}) + "\n")
    assert metrics_lines(place) == [{"step": 1, "loss": 2.0}]


def test_metrics_that_are_no_text_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "metrics.jsonl"
    place.write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="not UTF-8"):
        metrics_lines(place)
