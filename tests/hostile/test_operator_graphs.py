"""Random one-operator files: no accepted one crashes a stock runtime, and all runtimes compute what the file says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from fuzz import Report, run_cases
from operator_graphs import MAKERS, graph_file, random_graph

from capprune_runtime import check_tflite
from capprune_runtime.errors import BadModelFile
from capprune_runtime.tflite.forms import form_fits
from capprune_runtime.tflite.operators import OPERATORS

CHILD = Path(__file__).with_name("operator_child.py")
RUNTIMES = ("ai-edge-litert", "tensorflow", "tflite-runtime")
SEED = 3
FAST, SLOW = (1_200, 500), (12_000, 5_000)  # graphs made, and how many at least are accepted


def check(runtime: str, folder: Path, made: int, accepted: int) -> Report:
    if importlib.util.find_spec(runtime.replace("-", "_")) is None:
        pytest.skip(f"{runtime} is not installed")
    report = run_cases(folder, SEED, 0, made, runtime, CHILD)
    assert not report.failures, "\n".join(map(str, report.failures[:20]))
    assert report.accepted >= accepted, report.counts
    # Not those whose numbers the tolerance covers, and places out of range, which every runtime refuses.
    assert report.share("compared") > 0.9, report.counts
    return report


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_accepted_operators_are_computed_alike_by_every_runtime(runtime: str, tmp_path: Path) -> None:
    check(runtime, tmp_path, *FAST)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_five_thousand_accepted_operators_are_computed_alike_by_every_runtime(runtime: str, tmp_path: Path) -> None:
    check(runtime, tmp_path, *SLOW)


def test_graphs_are_made_of_every_operator_in_every_form() -> None:
    assert MAKERS.keys() == OPERATORS.keys()
    accepted: set[str] = set()
    for number in range(1_000):
        try:
            model = check_tflite(graph_file(random_graph(SEED, number)), "f", "run")
        except BadModelFile:
            continue
        operator = model.operators[0]
        assert form_fits(model, operator)
        accepted.add(operator.name)
    assert accepted >= OPERATORS.keys() - {"DENSIFY"}  # which has no input of its own, and so never stands alone
