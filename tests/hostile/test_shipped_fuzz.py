"""Mutations of shipped models are refused, or every runtime computes the same from them; see `shipped_fuzz`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import shipped_fuzz
from operator_graphs import Graph, Operand, graph_file
from shipped_fuzz import INT8_TOLERANCE, RUNTIMES, TOLERANCE, Worker, compared, run_cases

from capprune.ready import READY

SHIPPED = {
    "packaged": READY,
    "int8": Path(__file__).parents[2] / "ready_model" / "flickr8k.capz",
}  # its activations too
MODULES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime", "tensorflow": "tensorflow"}


def installed() -> list[str]:
    return [name for name in RUNTIMES if importlib.util.find_spec(MODULES[name]) is not None]


@pytest.mark.slow
@pytest.mark.parametrize("place", SHIPPED.values(), ids=SHIPPED)
def test_mutations_of_shipped_models_crash_nothing_and_mean_the_same_everywhere(place: Path) -> None:
    report = run_cases(place, 3, 0, 150, installed())
    assert sum(report.counts.values()) == 150
    assert not report.failures, report.failures
    assert report.counts["accepted"] >= 20  # a fuzz of refused files alone would find nothing


@pytest.mark.slow
def test_a_file_that_ends_a_real_runtime_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.tflite"
    options = {
        "padding": 0,
        "strideH": 1,
        "strideW": 1,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
        "depthMultiplier": 1,
    }
    weight = Operand((1, 3, 3, 4), "float32", np.ones((1, 3, 3, 4), np.float32))
    path.write_bytes(graph_file(Graph("DEPTHWISE_CONV_2D", (Operand((1, 8, 8, 4)), weight), options)))
    worker = Worker("ai-edge-litert")
    worker.ask([str(path), "run", 1])
    answer = worker.answer()
    worker.close()
    assert compared({"ai-edge-litert": answer, "another": answer}) == "crashed", answer


def test_outcomes_are_compared() -> None:
    one = '[["1.000000e+00", "2.0"], ["3.0"]]'
    assert compared({"a": one, "b": one.replace("1.000000e+00", "1.000001e+00")}) == "accepted"
    assert compared({"a": one, "b": one.replace("1.000000e+00", "1.1")}) == "different"
    assert compared({"a": one, "b": "refused by the interpreter"}) == "different"
    assert compared({"a": one, "b": one.replace("3.0", "nan")}) == "accepted"
    assert compared({"a": one, "b": "signal 11"}) == "crashed"
    half_a_percent = {"a": one, "b": one.replace("1.000000e+00", "1.010000e+00")}
    assert [compared(half_a_percent, tolerance) for tolerance in (TOLERANCE, INT8_TOLERANCE)] == [
        "different",
        "accepted",
    ]
    assert compared({"a": one, "b": one.replace("1.000000e+00", "1.1")}, INT8_TOLERANCE) == "different"


def test_a_crash_and_a_hang_are_answers_and_the_next_case_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import os, signal, sys, time\n"
        "for line in sys.stdin:\n"
        "    if 'crash' in line: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if 'hang' in line: time.sleep(60)\n"
        "    if 'leave' in line: sys.exit(3)\n"
        "    print(line, end='', flush=True)\n"
    )
    monkeypatch.setattr(shipped_fuzz, "CHILD", child)
    monkeypatch.setattr(shipped_fuzz, "START_SECONDS", 3.0)
    monkeypatch.setattr(shipped_fuzz, "CASE_SECONDS", 3.0)
    worker = Worker()
    answers = []
    for question in ("one", "crash", "two", "hang", "three", "leave", "four"):
        worker.ask(question)
        answers.append(worker.answer())
    worker.close()
    assert answers == ["one", "signal 11", "two", "hang", "three", "wrong: the process ended with 3", "four"]
