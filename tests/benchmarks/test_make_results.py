"""RESULTS.md is what the committed JSON says, and says only what it may."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from capprune_runtime.errors import DataError
from make_results import RESULTS, TEXT, render

STEP = json.loads((RESULTS / "decoder_step.json").read_text(encoding="utf-8"))


def test_committed_text_is_what_the_committed_figures_give() -> None:
    assert TEXT.read_text(encoding="utf-8") == render(RESULTS), "run: python benchmarks/make_results.py"


def test_section_without_figures_says_how_to_make_them(tmp_path: Path) -> None:
    text = render(tmp_path)
    assert text.count("Not measured yet") == 13
    for command in (
        "python benchmarks/decoder_step.py --json > benchmarks/results/decoder_step.json",
        "capprune train configs/flickr8k_sparse.yaml data.folder=flickr8k --out runs/flickr8k-sparse",
        "python benchmarks/flickr8k.py --data flickr8k --dense runs/flickr8k-dense bundles/flickr8k-dense",
    ):
        assert command in text.splitlines()


def test_commands_name_files_that_exist(tmp_path: Path) -> None:
    root = TEXT.parents[1]
    named = set(re.findall(r"(?:configs|benchmarks)/\w+\.(?:py|yaml)", render(tmp_path)))
    assert len(named) == 14
    assert [name for name in named if not (root / name).is_file()] == []


def test_both_models_stand_side_by_side(tmp_path: Path) -> None:
    _write(tmp_path, dense=_trained(cider=0.5, kept=1_000_000), sparse=_trained(cider=0.45, kept=25_000, zeros=0.975))
    lines = render(tmp_path).splitlines()
    assert "|  | dense | sparse |" in lines
    assert "| CIDEr-D | 0.5000 | 0.4500 |" in lines
    assert "| CIDEr-D, interval | 0.450 to 0.550 | 0.400 to 0.500 |" in lines
    assert "| weights kept | 1,000,000 | 25,000 |" in lines
    assert "| METEOR | — | — |" in lines
    assert "| parity in tensorflow | 999 of 1,000 | 999 of 1,000 |" in lines
    assert "| epoch | dense | sparse | sparse, zeros |" in lines
    assert "| 1 | 0.2500 | 0.2250 | 97.50% |" in lines


def test_parity_that_does_not_hold_is_said(tmp_path: Path) -> None:
    broken = _trained(cider=0.5, kept=9)
    broken["results"]["parity"]["tensorflow"]["holds"] = False
    _write(tmp_path, dense=broken)
    assert "| parity in tensorflow | 999 of 1,000, does not hold |" in render(tmp_path).splitlines()


def test_model_of_more_epochs_leaves_the_cells_of_the_other_empty(tmp_path: Path) -> None:
    longer = _trained(cider=0.5, kept=9)
    longer["training"]["validation"].append({"epoch": 1, "cider": 0.3, "seconds": 9.0})
    _write(tmp_path, dense=longer, sparse=_trained(cider=0.4, kept=9, zeros=0.9))
    assert "| 2 | 0.3000 |  |  |" in render(tmp_path).splitlines()


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("quality", "scores", "tokenizer"), "plain"),
        (("quality", "beam"), 1),
        (("data", "photos"), 20),
        (("data", "split"), "val"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(tmp_path: Path, keys: tuple[str, ...], value: object) -> None:
    other = _trained(cider=0.5, kept=9)
    place = other["results"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    _write(tmp_path, dense=_trained(cider=0.5, kept=9), sparse=other)
    with pytest.raises(DataError, match="cannot be compared in one table"):
        render(tmp_path)


def test_ratio_of_times_that_overlap_is_not_printed(tmp_path: Path) -> None:
    document = copy.deepcopy(STEP)
    sparse = document["rows"][2]
    sparse["us_p90"] = document["rows"][0]["us_p10"] + 1
    assert "faster" not in _row(tmp_path, document, "csr_float32")
    sparse["us_p90"] = document["rows"][0]["us_p10"] - 1
    sparse["us_p50"] = document["rows"][0]["us_p50"] / 5
    assert "| 5.0x faster |" in _row(tmp_path, document, "csr_float32")


def test_ratio_of_times_on_an_emulated_processor_is_not_printed(tmp_path: Path) -> None:
    document = copy.deepcopy(STEP)
    document["environment"]["emulated"] = True
    assert "faster" not in _row(tmp_path, document, "csr_float32")
    assert "It was emulated: the times mean nothing." in render(tmp_path)


def test_busy_machine_is_said_to_be_shared(tmp_path: Path) -> None:
    document = copy.deepcopy(STEP)
    document["environment"]["load_when_started"] = 3.0
    _row(tmp_path, document, "csr_float32")
    assert "2 shared cores (load 3.0 at the start: compare ratios)" in render(tmp_path)
    document["environment"]["load_when_started"] = 0.2
    _row(tmp_path, document, "csr_float32")
    assert "shared" not in render(tmp_path)


def _row(folder: Path, document: dict[str, Any], name: str) -> str:
    """The line of a format in the text."""
    (folder / "decoder_step.json").write_text(json.dumps(document))
    line, *_ = (line for line in render(folder).splitlines() if line.startswith(f"| `{name}`"))  # the first table
    return line


def _write(folder: Path, **documents: dict[str, Any]) -> None:
    shutil.copy(RESULTS / "decoder_step.json", folder)
    for name, document in documents.items():
        (folder / f"flickr8k_{name}.json").write_text(json.dumps(document))


def _trained(*, cider: float, kept: int, zeros: float | None = None) -> dict[str, Any]:
    """As benchmarks/flickr8k.py writes it, with the keys that the text needs; tests of that script hold the shape."""
    epoch = {"epoch": 0, "cider": cider / 2, "seconds": 9.0, **({} if zeros is None else {"sparsity": zeros})}
    times = {"p50_us": 200.0, "p90_us": 300.0}
    scores = {"bleu_4": 0.2, "cider_d": cider, "meteor": None, "tokenizer": "ptb"}
    return {
        "commands": ["capprune train"],
        "training": {"epochs": 1, "seconds_per_epoch": 9.0, "validation": [epoch]},
        "constant_caption": {"caption": "a dog", "cider_d": 0.1},
        "results": {
            "bundle": {
                "files": {"decoder.tflite": 10},
                "total_bytes": 20,
                "kept_weights": kept,
                "prunable_weights": 1_000_000,
            },
            "data": {"name": "flickr8k", "split": "test", "photos": 1000},
            "quality": {
                "beam": 3,
                "scores": scores,
                "cider_d_interval": {"low": cider - 0.05, "high": cider + 0.05},
            },
            "parity": {"tensorflow": {"photos": 1000, "identical": 999, "holds": True}},
            "latency": {"encode": times, "step": times, "caption": times},
            "environment": STEP["environment"],
            "reference": {"scores": scores},
        },
    }
