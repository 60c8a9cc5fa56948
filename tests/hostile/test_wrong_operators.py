"""Operators that are refused because a stock runtime computes something else. Should one learn them, this fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from one_operator import CASES, one_operator_file
from subjects import between_int8, edit

from capprune_runtime import check_tflite
from capprune_runtime.errors import BadModelFile

# The reader refuses some of the options itself: here it takes any.
CODE = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from judge import judged_model
from capprune_runtime.tflite import file as tflite_file
from capprune_runtime.tflite.file import read_tflite
option = tflite_file._option
tflite_file._option = lambda *arguments: option(*arguments[:-1], replace(arguments[-1], low=-1e9, high=1e9))
data = Path(sys.argv[2]).read_bytes()
print(judged_model(data, read_tflite(data, "f"), "run", sys.argv[1]))
"""


def option(name: str, value: int) -> Callable[[Any], None]:
    return lambda model: setattr(model.subgraphs[0].operators[0].builtinOptions, name, value)


def case(operator: str, place: int = 0) -> bytes:
    return one_operator_file([case for case in CASES if case.operator == operator][place])


WRONG = [
    (
        "CONCATENATION with RELU",
        edit.edited(case("CONCATENATION"), option("fusedActivationFunction", 1)),
        "ai-edge-litert",
    ),
    ("ADD with TANH", edit.edited(case("ADD"), option("fusedActivationFunction", 4)), "ai-edge-litert"),
    ("masked and shrunk axis", edit.edited(case("STRIDED_SLICE", 1), option("beginMask", 2)), "ai-edge-litert"),
    ("int8 BATCH_MATMUL", edit.edited(case("BATCH_MATMUL"), between_int8), "tensorflow"),
]


@pytest.mark.parametrize(("data", "runtime"), [entry[1:] for entry in WRONG], ids=[entry[0] for entry in WRONG])
@pytest.mark.slow_but_for("axis", "masked")
def test_refused_operator_is_computed_wrongly_by_a_stock_runtime(data: bytes, runtime: str, tmp_path: Path) -> None:
    if runtime == "tensorflow":
        pytest.importorskip("tensorflow")
    with pytest.raises(BadModelFile):
        check_tflite(data, "f", "run")
    (tmp_path / "file").write_bytes(data)
    arguments = [sys.executable, "-c", CODE, runtime, str(tmp_path / "file"), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines()[-1].startswith("wrong: t"), done.stdout + done.stderr[-2000:]
