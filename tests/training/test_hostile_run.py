"""A run of a stranger: a config, facts and metrics that are refused before anything is made of them."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from capprune.config.reading import load_config, parse_config
from capprune.config.run import RunConfig
from capprune.data.vocabulary import build_vocabulary
from capprune.models.caption_model import build_decoder
from capprune.training.run import BEST, load_run, save_checkpoint, start_run
from capprune.training.run_checks import check_facts, check_sizes, metrics_lines
from capprune_runtime.errors import BundleError, ConfigError

SIZES = ("embedding", "hidden", "attention", "context")
FACTS = {"step": 10, "epoch": 1, "cider": 0.25, "sparsity": 0.0}
WORDS = build_vocabulary(["a dog", "a cat"], minimum_count=1)


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
    with pytest.raises(BundleError, match="is not a number"):
        check_facts(facts, Path("weights.safetensors"))


def test_facts_of_a_training_are_accepted() -> None:
    check_facts({"epoch": "-1", "step": "0", "cider": "nan", "sparsity": "0.975", "method": "supermask"}, Path("x"))


LINES = [
    *("[1]", "3", "[" * 100_000, "{", '{"step": "x"}', '{"step": -1}'),
    *(f'{{"step": {"9" * digits}}}' for digits in (400, 5000)),
    *(
        f'{{"step": 2, "{name}": {value}}}'
        for name in ("loss", "cider", "epoch")
        for value in ("null", "[1]", '"x"', "1e300")
    ),
    f'{{"step": 2, "validation_loss": {"9" * 400}}}',
    '{"step": 2, "health": {"bad_ending_share": "x"}}',
    '{"step": 2, "health": []}',
    '{"step": 2, "warnings": {}}',
    '{"step": 2, "warnings": [{"kind": "x"}]}',
    '{"step": 2, "warnings": [{"kind": 1, "found": 2, "cause": 3, "hint": 4}]}',
]


@pytest.mark.parametrize("line", LINES)
def test_metrics_end_at_the_first_line_that_is_none(line: str, tmp_path: Path) -> None:
    place = tmp_path / "metrics.jsonl"
    place.write_text(json.dumps({"step": 1, "loss": 2.0}) + f"\n{line}\n" + json.dumps({"step": 2}) + "\n")
    assert metrics_lines(place) == [{"step": 1, "loss": 2.0}]


def test_metrics_of_a_training_that_diverged_are_read(tmp_path: Path) -> None:
    sign = {"kind": "same_captions", "found": "1 of 9", "cause": "the rate", "hint": "a lower one"}
    line = {"step": 5, "epoch": 0, "loss": math.inf, "cider": 0.0, "seconds": 2, "warnings": [sign]}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert metrics_lines(tmp_path / "metrics.jsonl") == [line]


def test_metrics_that_are_no_text_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "metrics.jsonl"
    place.write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="not UTF-8"):
        metrics_lines(place)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was never trained; its weights are a small decoder's."""
    small = parse_config({"data": {"folder": "photos"}, "decoder": dict.fromkeys(SIZES, 16)})
    start_run(tmp_path / "run", small, WORDS)
    save(tmp_path / "run", {})
    load_run(tmp_path / "run")
    return tmp_path / "run"


def save(run: Path, changed: Mapping[str, Tensor], facts: Mapping[str, object] = FACTS) -> None:
    weights = build_decoder(load_config(run / "config.yaml"), WORDS.decoder_size).state_dict()
    save_checkpoint(run / BEST, {**weights, **changed}, facts)


def test_a_run_whose_config_asks_for_gigabytes_takes_none(run: Path) -> None:
    config = (run / "config.yaml").read_text()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in (16_384, 10**400):
        (run / "config.yaml").write_text(config.replace("hidden: 16", f"hidden: {size}"))
        with pytest.raises((BundleError, ConfigError)):
            load_run(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize("name", list(FACTS))
def test_a_checkpoint_without_a_fact_is_refused(name: str, run: Path) -> None:
    save(run, {}, {key: value for key, value in FACTS.items() if key != name})
    with pytest.raises(BundleError, match=f"is missing(.*\n)*.*{name}"):
        load_run(run)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"embedding.weight": torch.full((WORDS.decoder_size, 16), 1e300, dtype=torch.float64)}, "not finite"),
        ({"embedding.weight.mask": torch.ones(3, 5)}, "do not fit"),
        ({"embedding.weight.mask": torch.full((WORDS.decoder_size, 16), 7)}, "do not fit"),
        ({"embedding.weight.gate": torch.ones(3, 5)}, "do not fit"),
        ({"nothing.weight.mask": torch.ones(2, 2)}, "do not fit"),
        ({"nothing.weight.gate": torch.ones(2, 2)}, "do not fit"),
        ({"nothing.weight": torch.ones(2, 2)}, "do not fit"),
        ({"embedding.weight": torch.ones(2, 2)}, "do not fit"),
    ],
)
def test_tensors_that_do_not_fit_a_run_are_refused(changed: dict[str, Tensor], what: str, run: Path) -> None:
    save(run, changed)
    with pytest.raises(BundleError, match=what):
        load_run(run)


@pytest.mark.parametrize("shapes", ["[" * 100_000, "[1]", '{"a": 5}', '{"a": [1e9, 1e9]}', '{"a": [1000000000]}'])
def test_shapes_of_a_small_checkpoint_are_held_against_its_tensors(shapes: str, run: Path) -> None:
    bits = {"a.bits": torch.zeros(8, dtype=torch.uint8), "a.kept": torch.zeros(0)}
    save(run, bits, {**FACTS, "shapes": shapes})
    with pytest.raises(BundleError, match="do not fit"):
        load_run(run)


def test_content_that_is_no_safetensors_is_refused(run: Path) -> None:
    whole = (run / BEST).read_bytes()
    for content in (
        b"",
        whole[:100],
        (10**12).to_bytes(8, "little") + b"{}",
        (99_999).to_bytes(8, "little") + b"[" * 99_999,
    ):
        (run / BEST).write_bytes(content)
        with pytest.raises(BundleError, match="cannot be read"):
            load_run(run)
