"""The rivals of a bundle: the same model in every form, each what its name says."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matrix_model import checked, packed, random_blocks, random_matrix
from real_parts import Part, largest_error

from capprune_exporters.plan import in_blocks
from capprune_exporters.rivals import (
    BLOCKS_INT8,
    DENSE_FLOAT32,
    DENSE_INT8,
    SPARSE_FLOAT32,
    rival_bundle,
    stored_forms,
    tflite_rivals,
    verified,
)
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.bundle.manifest import MANIFEST
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import ExportError

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import tiny_bundle


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rivals_of_a_sparse_step_compute_the_same_in_every_form(cell: str, lstm_step: Part, gru_step: Part) -> None:
    part = lstm_step if cell == "lstm" else gru_step
    rivals = {one.name: one for one in tflite_rivals(part.sparse.data)}
    assert list(rivals) == [DENSE_FLOAT32, DENSE_INT8, SPARSE_FLOAT32]
    for rival in rivals.values():
        checked(rival.decoder, "step")
        case = part.case(rival.decoder, "step")
        error = largest_error(open_model(rival.decoder, "step").run(case.inputs), case.expected)
        assert error <= (0.1 if rival.weights == "int8" else 1e-5), rival.name
    sizes = {name: len(one.decoder) for name, one in rivals.items()}
    assert sizes[SPARSE_FLOAT32] < sizes[DENSE_INT8] < sizes[DENSE_FLOAT32]
    assert stored_forms(rivals[DENSE_FLOAT32].decoder) == stored_forms(part.converted)
    assert stored_forms(rivals[SPARSE_FLOAT32].decoder) == stored_forms(part.sparse.data)


def test_a_matrix_in_blocks_has_a_rival_in_blocks() -> None:
    blocks = packed(random_blocks((128, 128), 0.9))
    assert [one.name for one in tflite_rivals(blocks)][-1] == BLOCKS_INT8
    scattered = packed(random_matrix((128, 128), 0.97))
    assert BLOCKS_INT8 not in [one.name for one in tflite_rivals(scattered)]


def test_a_dense_model_has_no_sparse_rivals() -> None:
    dense = packed(random_matrix((128, 128), 0.0))
    assert [one.name for one in tflite_rivals(dense)] == [DENSE_FLOAT32, DENSE_INT8]
    assert not in_blocks(np.ones((128, 128), np.float32))


def test_rivals_do_not_depend_on_the_form_that_the_bundle_has() -> None:
    matrix = random_blocks((128, 128), 0.9)
    from_dense = tflite_rivals(packed(matrix))
    from_sparse = tflite_rivals(make_sparse(packed(matrix), one_row=True, plan={"weight": "csr_float32"}).data)
    assert [stored_forms(one.decoder) for one in from_dense] == [stored_forms(one.decoder) for one in from_sparse]


def test_a_rival_is_a_bundle_that_passes_the_verifier(bundle: Bundle) -> None:
    for rival in tflite_rivals(bundle.decoder):
        made = verified(rival_bundle(bundle, rival, bundle.encoder))
        assert made.place.name == f"tflite-{rival.name}".replace(" ", "-")
        assert made.manifest.quantisation.decoder == rival.weights
        golden = {name for name in bundle.files if name.startswith("golden/")}
        assert golden
        assert set(made.files) == {MANIFEST, "encoder.tflite", "decoder.tflite", "vocabulary.txt", *golden}


def test_models_of_two_kinds_do_not_make_a_bundle(bundle: Bundle) -> None:
    rival = tflite_rivals(bundle.decoder)[0]
    with pytest.raises(ExportError, match="one kind"):
        rival_bundle(bundle, rival, b"\x08\x0a not a tflite")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("rivals")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        models = tiny_bundle.make_models("lstm", folder)
    return verify_bundle(tiny_bundle.write_bundle(folder / "bundle", models))
