"""The interpreters: one way to run a signature, and clear words when one is missing or fails."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import torch
from numpy.typing import NDArray

from capprune_runtime.caption import interpreter
from capprune_runtime.caption.interpreter import available_runtimes, open_model
from capprune_runtime.command import main
from capprune_runtime.errors import BundleError, MissingExtra, UsageError

NO_MODEL = b"\0\0\0\0TFL3"  # of the right kind, and nothing else


def step_inputs(cell: str = "lstm", seed: int = 0) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    shapes = tiny_bundle.step_shapes(cell)
    inputs: dict[str, NDArray[Any]] = {name: generator.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    return {"token": np.array([7], np.int32), **inputs}


@pytest.mark.parametrize("runtime", ["auto", "ai-edge-litert"])
def test_a_model_gives_what_torch_gives(runtime: str, lstm_models: tiny_bundle.TinyModels) -> None:
    model = open_model(lstm_models.step_tflite, "step", runtime=runtime)
    for seed in range(3):
        inputs = step_inputs(seed=seed)
        with torch.no_grad():
            expected = lstm_models.step(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        found = model.run(inputs)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            assert np.abs(array - expected[name].numpy()).max() < 1e-5


def test_results_are_copies_that_the_next_run_leaves_alone(lstm_models: tiny_bundle.TinyModels) -> None:
    model = open_model(lstm_models.step_tflite, "step", threads=2)
    first = model.run(step_inputs(seed=1))
    kept = {name: array.copy() for name, array in first.items()}
    model.run(step_inputs(seed=2))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_held_inputs_stay_from_run_to_run(lstm_models: tiny_bundle.TinyModels) -> None:
    whole, holding = (open_model(lstm_models.step_tflite, "step") for _ in range(2))
    for photo in range(2):
        looked_at = {name: step_inputs(seed=photo)[name] for name in ("keys", "values")}
        holding.hold(looked_at)
        for seed in range(5):
            carried = {name: array for name, array in step_inputs(seed=seed).items() if name not in looked_at}
            expected, found = whole.run({**carried, **looked_at}), holding.run(carried)
            assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_is_held_must_fit_and_is_no_longer_held_once_it_is_given(lstm_models: tiny_bundle.TinyModels) -> None:
    model = open_model(lstm_models.step_tflite, "step")
    with pytest.raises(BundleError):
        model.hold({"photo": np.zeros(1, np.float32)})
    with pytest.raises(BundleError):
        model.hold({"keys": np.zeros((1, 1, 1), np.float32)})
    inputs = step_inputs()
    model.hold({"keys": inputs["keys"]})
    model.run(inputs)
    with pytest.raises(BundleError, match="keys"):
        model.run({name: array for name, array in inputs.items() if name != "keys"})


@pytest.mark.parametrize(
    "damage",
    [
        {"token": None},
        {"extra": np.zeros(1, np.float32)},
        {"h": np.zeros((1, tiny_bundle.HIDDEN + 1), np.float32)},
        {"h": np.zeros((1, tiny_bundle.HIDDEN), np.float64)},
        {"token": np.array([tiny_bundle.VOCABULARY], np.int32)},
        {"token": np.array([-1], np.int32)},
    ],
)
def test_inputs_that_do_not_fit_are_an_error(
    damage: dict[str, NDArray[Any] | None], lstm_models: tiny_bundle.TinyModels
) -> None:
    merged = {**step_inputs(), **damage}
    inputs = {name: array for name, array in merged.items() if array is not None}
    with pytest.raises(BundleError):
        open_model(lstm_models.step_tflite, "step").run(inputs)


def test_a_signature_that_is_not_there_is_an_error(lstm_models: tiny_bundle.TinyModels) -> None:
    with pytest.raises(BundleError, match="does not accept"):
        open_model(lstm_models.step_tflite, "encode")


def test_an_unknown_runtime_and_no_threads_are_usage_errors(lstm_models: tiny_bundle.TinyModels) -> None:
    with pytest.raises(UsageError, match="no such runtime"):
        open_model(lstm_models.step_tflite, "step", runtime="onnx")
    with pytest.raises(UsageError, match="one thread"):
        open_model(lstm_models.step_tflite, "step", threads=0)


def test_a_missing_interpreter_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(interpreter, "sys", type("Bare", (), {"modules": {}}))
    assert available_runtimes() == ()
    with pytest.raises(MissingExtra, match="pip install ai-edge-litert"):
        open_model(NO_MODEL, "step")
    with pytest.raises(MissingExtra, match=r"pip install 'capprune\[tensorflow\]'"):
        open_model(NO_MODEL, "step", runtime="tensorflow")


def test_tflite_runtime_is_kept_away_from_tensorflow_and_from_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "tensorflow", np)
    assert "tflite-runtime" not in available_runtimes()
    with pytest.raises(MissingExtra, match="separate process"):
        open_model(NO_MODEL, "step", runtime="tflite-runtime")
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(MissingExtra, match="numpy below 2"):
        open_model(NO_MODEL, "step", runtime="tflite-runtime")


def in_a_process_of_its_own(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """tflite-runtime and tensorflow do not live together: each gets a process."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize(("runtime", "module"), [("tflite-runtime", "tflite_runtime"), ("tensorflow", "tensorflow")])
def test_other_interpreters_say_the_same(
    runtime: str,
    module: str,
    bundle_folder: Path,
    gru_models: tiny_bundle.TinyModels,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{runtime} is not installed")
    code = (
        "import sys; from capprune_runtime.command import main\n"
        "for folder in sys.argv[2:]:\n"
        "    for beam in '13':\n"
        "        photo = folder + '/golden/scene-0.png'\n"
        "        assert main(['caption', folder, photo, '--beam', beam, '--runtime', sys.argv[1]]) == 0\n"
    )
    folders = [str(bundle_folder), str(tiny_bundle.write_bundle(tmp_path / "gru", gru_models))]
    other = in_a_process_of_its_own(code, runtime, *folders)
    assert other.returncode == 0, other.stderr
    for folder in folders:
        for beam in "13":
            assert main(["caption", folder, f"{folder}/golden/scene-0.png", "--beam", beam]) == 0
    said = capsys.readouterr().out
    assert other.stdout == said
    assert len(set(said.splitlines())) == 4


def test_importing_the_package_loads_no_interpreter_and_no_torch() -> None:
    code = (
        "import sys, capprune_runtime, capprune_runtime.command; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'tensorflow', 'tflite_runtime', 'ai_edge_litert', 'onnxruntime', 'flatbuffers', 'capprune', 'click')])"
    )
    assert in_a_process_of_its_own(code).stdout.strip() == "[]"
