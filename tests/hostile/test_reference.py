"""The reference computes what every interpreter computes, on every stored form and every operator; and tells wrong from right."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_operators
import subjects
from judge import COMPARED, compared, judged_model
from reference import run_reference
from reference_values import Known
from world import World

from capprune_runtime import check_tflite
from capprune_runtime.tflite.operators import OPERATORS

CODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from judge import judged_model
from world import read_world
from capprune_runtime import check_tflite

outcomes = {}
for subject in read_world(Path(sys.argv[2])).subjects:
    model = check_tflite(subject.data, "f", subject.signature)
    outcomes[subject.name] = judged_model(subject.data, model, subject.signature, sys.argv[1])
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tensorflow", "tflite-runtime"])
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_every_sound_file_is_computed_as_the_reference_computes_it(runtime: str, world_folder: Path) -> None:
    if importlib.util.find_spec(runtime.replace("-", "_")) is None:
        pytest.skip(f"{runtime} is not installed")
    arguments = [sys.executable, "-c", CODE, runtime, str(world_folder), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert set(outcomes.values()) == {COMPARED}, {name: how for name, how in outcomes.items() if how != COMPARED}


def test_reference_knows_every_operator_that_may_be_used() -> None:
    assert reference_operators.STEPS.keys() == OPERATORS.keys()


def test_sound_files_use_every_operator_that_may_be_used(world: World) -> None:
    used = {
        operator.name
        for subject in world.subjects
        for operator in check_tflite(subject.data, "f", subject.signature).operators
    }
    assert used == OPERATORS.keys()


@pytest.mark.parametrize("form", ["dense", "csr", "float blocks", "int8", "int8 blocks", "int8 densify"])
def test_tolerance_is_narrower_than_one_weight_left_out(form: str, world: World) -> None:
    """An interpreter that lost the largest weight of the scores would be found out."""
    (subject,) = (subject for subject in world.subjects if subject.name == f"lstm step, {form}")
    model = check_tflite(subject.data, "f", "step")
    changed = subjects.edit.edited(subject.data, lose_largest_weight)
    other = check_tflite(changed, "f", "step")
    signature = model.signatures["step"]
    shapes = {name: (model.tensors[n].shape, model.tensors[n].dtype) for name, n in signature.inputs.items()}
    inputs = {signature.inputs[name]: array for name, array in subjects.inputs_for(shapes).items()}
    expected, wrong = run_reference(model, inputs), run_reference(other, inputs)
    named = {name: expected[index] for name, index in signature.outputs.items()}
    found = {name: wrong[index].value for name, index in signature.outputs.items()}
    assert compared(named, found).startswith("wrong: scores")
    assert judged_model(changed, other, "step") == COMPARED


def lose_largest_weight(model: subjects.Any) -> None:
    tensor = subjects.edit.scores_weight(model)
    if subjects.edit.operators_of(model, 6):  # what is multiplied comes from a DENSIFY and a DEQUANTIZE
        dequantise = subjects.edit.first_operator(model, 6)
        tensor = model.subgraphs[0].tensors[subjects.edit.writer(model, dequantise.inputs[0]).inputs[0]]
    buffer = model.buffers[tensor.buffer]
    values = np.array(buffer.data, np.uint8).view(np.int8 if tensor.type == 9 else np.float32).copy()
    values[np.abs(values.astype(np.float64)).argmax()] = 0
    buffer.data = values.view(np.uint8)


def test_numbers_that_nothing_is_known_of_are_not_taken_for_right() -> None:
    known = {"scores": Known(np.ones(4), np.array([np.inf, np.inf, np.inf, 1e-6]))}
    assert compared(known, {"scores": np.ones(4, np.float32)}).startswith("not compared")
    assert compared(known, {"scores": np.array([9, np.nan, 1, 1.1], np.float32)}).startswith("wrong")
    assert compared(known, {"scores": np.array([9, 9, 9, np.nan], np.float32)}).startswith("wrong")
