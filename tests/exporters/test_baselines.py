"""The baselines of a bundle: the same model in every form, each what its name says."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matrix_model import checked, packed, random_blocks, random_matrix
from real_parts import Part, largest_error

from capprune_exporters.baselines import (
    BLOCKS_INT8,
    DENSE_FLOAT32,
    DENSE_INT8,
    SPARSE_FLOAT32,
    baseline_bundle,
    stored_forms,
    tflite_baselines,
    verified,
)
from capprune_exporters.plan import in_blocks
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.bundle.manifest import MANIFEST
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import ExportError

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import tiny_bundle


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_baselines_of_a_sparse_step_compute_the_same_in_every_form(cell: str, lstm_step: Part, gru_step: Part) -> None:
    part = lstm_step if cell == "lstm" else gru_step
    baselines = {one.name: one for one in tflite_baselines(part.sparse.data)}
    assert list(baselines) == [DENSE_FLOAT32, DENSE_INT8, SPARSE_FLOAT32]
    for baseline in baselines.values():
        checked(baseline.decoder, "step")
        case = part.case(baseline.decoder, "step")
        error = largest_error(open_model(baseline.decoder, "step").run(case.inputs), case.expected)
        assert error <= (0.1 if baseline.weights == "int8" else 1e-5), baseline.name
    sizes = {name: len(one.decoder) for name, one in baselines.items()}
    assert sizes[SPARSE_FLOAT32] < sizes[DENSE_INT8] < sizes[DENSE_FLOAT32]
    assert stored_forms(baselines[DENSE_FLOAT32].decoder) == stored_forms(part.converted)
    assert stored_forms(baselines[SPARSE_FLOAT32].decoder) == stored_forms(part.sparse.data)


def test_a_matrix_in_blocks_has_a_baseline_in_blocks() -> None:
    blocks = packed(random_blocks((128, 128), 0.9))
    assert [one.name for one in tflite_baselines(blocks)][-1] == BLOCKS_INT8
    scattered = packed(random_matrix((128, 128), 0.97))
    assert BLOCKS_INT8 not in [one.name for one in tflite_baselines(scattered)]


def test_a_dense_model_has_no_sparse_baselines() -> None:
    dense = packed(random_matrix((128, 128), 0.0))
    assert [one.name for one in tflite_baselines(dense)] == [DENSE_FLOAT32, DENSE_INT8]
    assert not in_blocks(np.ones((128, 128), np.float32))


def test_baselines_do_not_depend_on_the_form_that_the_bundle_has() -> None:
    matrix = random_blocks((128, 128), 0.9)
    from_dense = tflite_baselines(packed(matrix))
    from_sparse = tflite_baselines(make_sparse(packed(matrix), one_row=True, plan={"weight": "csr_float32"}).data)
    assert [stored_forms(one.decoder) for one in from_dense] == [stored_forms(one.decoder) for one in from_sparse]


def test_a_baseline_is_a_bundle_that_passes_the_verifier(bundle: Bundle) -> None:
    for baseline in tflite_baselines(bundle.decoder):
        made = verified(baseline_bundle(bundle, baseline, bundle.encoder))
        assert made.place.name == f"tflite-{baseline.name}".replace(" ", "-")
        assert made.manifest.quantisation.decoder == baseline.weights
        golden = {name for name in bundle.files if name.startswith("golden/")}
        assert golden
        assert set(made.files) == {MANIFEST, "encoder.tflite", "decoder.tflite", "vocabulary.txt", *golden}


def test_models_of_two_kinds_do_not_make_a_bundle(bundle: Bundle) -> None:
    baseline = tflite_baselines(bundle.decoder)[0]
    with pytest.raises(ExportError, match="one kind"):
        baseline_bundle(bundle, baseline, b"\x08\x0a not a tflite")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("baselines")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        models = tiny_bundle.make_models("lstm", folder)
    return verify_bundle(tiny_bundle.write_bundle(folder / "bundle", models))
