"""Which forms of a model file are accepted, and that those which are refused are computed wrongly.

Files that break a rule stand in tests/hostile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_edit as edit
import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune_runtime import check_tflite
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BadModelFile

schema = edit.schema
Edit = edit.Edit


CSR, BLOCKS, FLOAT_BLOCKS, INT8 = edit.make_csr, edit.make_int8_blocks, edit.make_float_blocks, edit.make_int8
DENSIFY = edit.make_densified_embedding


@pytest.mark.parametrize(
    ("sparse", "dense", "tolerance"),
    [
        ([], [], 1e-6),
        ([CSR], [edit.make_thin(1)], 1e-6),
        ([FLOAT_BLOCKS], [edit.make_thin(4)], 1e-6),
        ([BLOCKS], [edit.make_thin(16)], 2e-2),
        ([INT8], [], 3e-2),
        ([DENSIFY], [edit.make_thin_embedding], 1e-6),
        ([edit.make_densified_int8_embedding], [edit.make_thin_embedding], 1e-2),
        ([edit.make_densified_int8_weight], [edit.make_thin(1)], 1e-2),
    ],
    ids=[
        "dense",
        "csr",
        "1x4 float32",
        "1x16 int8",
        "int8",
        "densify",
        "int8 densify embedding",
        "int8 densify weight",
    ],
)
def test_accepted_forms_compute_what_their_dense_form_computes(
    sparse: list[Edit], dense: list[Edit], tolerance: float, lstm_models: tiny_bundle.TinyModels
) -> None:
    file = edit.edited(lstm_models.step_tflite, *sparse)
    check_tflite(file, "f", "step")
    expected = scores(edit.edited(lstm_models.step_tflite, *dense))
    assert np.abs(scores(file) - expected).max() <= tolerance * np.abs(expected).max()


def step_inputs() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    shapes = tiny_bundle.step_shapes("lstm")
    floats = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {"token": np.array([7], np.int32), **floats}


def scores(data: bytes) -> Any:
    return open_model(data, "step").run(step_inputs())["scores"]


WRONG_AND_REFUSED = [
    ("int8 CSR", "ai-edge-litert", [edit.make_int8_csr], [edit.make_thin(1)]),
    ("int8 CSR", "tflite-runtime", [edit.make_int8_csr], [edit.make_thin(1)]),
    ("1x16 int8 with a scale a channel", "tflite-runtime", [edit.make_int8_blocks_per_row], [edit.make_thin(16)]),
    ("int8 with a scale a channel", "tflite-runtime", [edit.make_int8_per_row], []),
    ("embedding with a scale a word", "tflite-runtime", [edit.make_int8_embedding_per_row], []),
    ("sparse weight of version 5", "ai-edge-litert", [CSR, edit.make_version(5)], [edit.make_thin(1)]),
    ("sparse weight of version 9", "ai-edge-litert", [CSR, edit.make_version(9)], [edit.make_thin(1)]),
    ("sparse weight of version 9", "tflite-runtime", [CSR, edit.make_version(9)], [edit.make_thin(1)]),
    (
        "int8 embedding behind DEQUANTIZE",
        "ai-edge-litert",
        [edit.make_dequantised_embedding],
        [edit.make_thin_embedding],
    ),
    (
        "int8 embedding behind DEQUANTIZE",
        "tflite-runtime",
        [edit.make_dequantised_embedding],
        [edit.make_thin_embedding],
    ),
    (
        "int8 weight behind DEQUANTIZE, version 8",
        "ai-edge-litert",
        [edit.make_densified_int8_weight, edit.make_version(8)],
        [edit.make_thin(1)],
    ),
]


@pytest.mark.parametrize(
    ("runtime", "wrong", "right"),
    [case[1:] for case in WRONG_AND_REFUSED],
    ids=[f"{c[0]}, {c[1]}" for c in WRONG_AND_REFUSED],
)
def test_forms_that_are_refused_are_computed_wrongly_by_a_stock_runtime(
    runtime: str, wrong: list[Edit], right: list[Edit], lstm_models: tiny_bundle.TinyModels, tmp_path: Path
) -> None:
    """Should a runtime learn one of them, this fails, and the rule can go.

    In a process, as it may crash. Some of the wrong results are memory that nobody wrote to: new memory is filled with a
    large number, or what the last owner left there might be the right result.
    """
    if runtime == "tflite-runtime":
        pytest.importorskip("tflite_runtime")
    (tmp_path / "wrong").write_bytes(edit.edited(lstm_models.step_tflite, *wrong))
    (tmp_path / "right").write_bytes(edit.edited(lstm_models.step_tflite, *right))
    with pytest.raises(BadModelFile):
        check_tflite((tmp_path / "wrong").read_bytes(), "f", "step")
    np.savez(tmp_path / "inputs.npz", **step_inputs())
    code = (
        "import sys, pathlib, numpy as np\n"
        "from capprune_runtime.caption.interpreter import open_model\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "inputs = dict(np.load(folder / 'inputs.npz'))\n"
        "models = [open_model((folder / n).read_bytes(), 'step', runtime=sys.argv[1]) for n in ('wrong', 'right')]\n"
        "wrong, right = (model.run(inputs)['scores'] for model in models)\n"
        "assert np.isfinite(right).all()\n"
        "error = np.abs(wrong - right).max() / np.abs(right).max()\n"
        "sys.exit(0 if error < 0.04 else 42)\n"  # NaN is wrong too
    )
    arguments = [sys.executable, "-c", code, runtime, str(tmp_path)]
    filled = os.environ | {"MALLOC_PERTURB_": "128"}  # floats of 3e38
    done = subprocess.run(arguments, env=filled, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 42 or done.returncode < 0, done.stderr


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_files_of_the_converter_are_accepted(cell: str, request: pytest.FixtureRequest) -> None:
    models = request.getfixturevalue(f"{cell}_models")
    encoder, step = check_tflite(models.encoder_tflite, "e", "encode"), check_tflite(models.step_tflite, "d", "step")
    assert encoder.signatures["encode"].inputs.keys() == {"photo"}
    assert step.signatures["step"].outputs.keys() == {"scores", "attention", *tiny_bundle.state_names(cell)}


def test_weight_only_int8_of_the_quantiser_is_accepted(lstm_models: tiny_bundle.TinyModels, tmp_path: Path) -> None:
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe")
    (tmp_path / "float").write_bytes(lstm_models.encoder_tflite)
    work = quantizer.Quantizer(str(tmp_path / "float"))
    work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    work.quantize().export_model(str(tmp_path / "int8.tflite"), overwrite=True)
    check_tflite((tmp_path / "int8.tflite").read_bytes(), "f", "encode")


def test_every_truncated_file_is_refused(lstm_models: tiny_bundle.TinyModels) -> None:
    data = edit.edited(lstm_models.step_tflite, CSR)
    for length in [*range(0, len(data) - 64, 211), *range(len(data) - 64, len(data), 4)]:
        with pytest.raises(BadModelFile):
            check_tflite(data[:length], "f", "step")


def test_a_file_that_repeats_one_buffer_is_refused_quickly(lstm_models: tiny_bundle.TinyModels) -> None:
    """Many tables that refer to one vector: a small file must not cost a large amount of work."""
    data = bytearray(edit.edited(lstm_models.step_tflite))
    sound = check_tflite(bytes(data), "f", "step")
    large = max(range(len(sound.buffers)), key=lambda n: len(sound.buffers[n]))
    raw = bytes(data)
    root = schema.Model.GetRootAs(raw, 0)
    target = raw.index(bytes(sound.buffers[large])) - 4
    for n in range(root.BuffersLength()):
        table = root.Buffers(n)._tab
        if place := table.Offset(4):
            offset = table.Pos + place
            if offset < target:
                data[offset : offset + 4] = (target - offset).to_bytes(4, "little")
    with pytest.raises(BadModelFile, match="overlap"):
        check_tflite(bytes(data), "f", "step")


@pytest.fixture(scope="session")
def sparse_files(lstm_models: tiny_bundle.TinyModels) -> list[bytes]:
    return [edit.edited(lstm_models.step_tflite, form) for form in (CSR, BLOCKS, DENSIFY)]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_raise_nothing_but_bad_model_file(data: st.DataObject, sparse_files: list[bytes]) -> None:
    content = bytearray(data.draw(st.sampled_from(sparse_files)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModelFile):
        check_tflite(bytes(content), "f", "step")
