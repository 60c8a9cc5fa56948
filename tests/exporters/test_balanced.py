"""The balanced plan: the fastest forms by a cost table, within half of the bytes of the model dense in int8."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sparse_matrix import sparse_matrix

from capprune_exporters.balanced import SHARE, plan_balanced, predict
from capprune_exporters.cost_table import CostTable, Product, read_cost_table, shipped_tables
from capprune_exporters.plan import AS_FAST, plan_by_size
from capprune_exporters.tflite.single import WEIGHT, single_product
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.errors import ConfigError

TABLE = read_cost_table("x86-64", "--costs")


MATRICES = {
    "embedding": sparse_matrix(1000, 64, 0.97),
    "scattered": sparse_matrix(1024, 512, 0.985),
    "output": sparse_matrix(1000, 256, 0.93),
    "blocks": sparse_matrix(512, 256, 0.95, block=16),
    "tiny": sparse_matrix(8, 16, 0.5),
}
LOOKED_UP = ("embedding",)


def table(**products: tuple[float, float]) -> CostTable:
    found = {**TABLE.products, **{form: Product(*line) for form, line in products.items()}}
    return replace(TABLE, products=found)


def stored_bytes(forms: dict[str, str]) -> int:
    sizes = 0
    for name, form in forms.items():
        one = single_product(MATRICES[name])
        made = make_sparse(one, one_row=True, plan={WEIGHT: form}, weights="int8", names={WEIGHT: MATRICES[name]})
        sizes += made.tensors[0].size_bytes
    return sizes


def test_time_is_bought_where_it_costs_the_fewest_bytes() -> None:
    plan = plan_balanced(MATRICES, LOOKED_UP, "int8", TABLE)
    assert plan.made == "balanced"
    assert plan.forms == {
        "embedding": "densify_int8",
        "scattered": "csr_float32",  # dense int8 is about as fast, and 11 times larger
        "output": "dense_int8",  # three times faster
        "blocks": "block_1x16_int8",
        "tiny": "dense_float32",
    }
    assert "csr_float32" in plan.lines[2].reason and "smaller" in plan.lines[2].reason


def test_a_balanced_decoder_has_at_most_half_the_bytes_of_dense_int8() -> None:
    slow = table(csr_float32=(0.0, 1000.0), block_1x16_int8=(0.0, 1000.0))  # dense is always faster
    plan = plan_balanced(MATRICES, LOOKED_UP, "int8", slow)
    multiplied = {name: form for name, form in plan.forms.items() if name not in (*LOOKED_UP, "tiny")}
    assert 0 < sum(form == "dense_int8" for form in multiplied.values()) < len(multiplied)
    weights = sum(matrix.size for matrix in MATRICES.values())
    assert stored_bytes(multiplied) <= SHARE * weights


def test_a_dense_model_is_stored_dense() -> None:
    dense = {"output": sparse_matrix(512, 256, 0.0), "blocks": sparse_matrix(512, 128, 0.0)}
    assert set(plan_balanced(dense, (), "int8", TABLE).forms.values()) == {"dense_int8"}
    assert set(plan_balanced(dense, (), "float32", TABLE).forms.values()) == {"dense_float32"}


@pytest.mark.parametrize("weights", ["float32", "codebook4"])
def test_weights_that_are_not_int8_are_never_stored_in_int8(weights: str) -> None:
    plan = plan_balanced(MATRICES, LOOKED_UP, weights, TABLE)
    assert not any("int8" in form for form in plan.forms.values())
    assert set(plan.quantised.values()) == {weights, "float32"}


def test_the_same_matrices_always_get_the_same_plan() -> None:
    assert plan_balanced(MATRICES, LOOKED_UP, "int8", TABLE) == plan_balanced(MATRICES, LOOKED_UP, "int8", TABLE)


def test_a_prediction_tells_a_small_plan_that_is_slower_than_dense_int8() -> None:
    small = predict(plan_by_size(MATRICES, LOOKED_UP, "int8"), MATRICES, LOOKED_UP, TABLE)
    balanced = predict(plan_balanced(MATRICES, LOOKED_UP, "int8", TABLE), MATRICES, LOOKED_UP, TABLE)
    assert small.dense_int8_us == balanced.dense_int8_us
    assert small.slower and not balanced.slower
    assert balanced.plan_us <= AS_FAST * balanced.dense_int8_us
    stored = {name: np.count_nonzero(MATRICES[name]) for name in ("scattered", "output")}
    blocks = TABLE.products["block_1x16_int8"].us(512, np.count_nonzero(MATRICES["blocks"]))
    csr = sum(TABLE.products["csr_float32"].us(0, int(count)) for count in stored.values())
    assert small.plan_us == pytest.approx(csr + blocks)


def test_a_table_without_dense_forms_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    product = {"row_ns": 0.0, "kept_ns": 1.0}
    tree = {"schema_version": 1, "machine": "m", "runtime": "r", "fixed_us": 1, "attended_ns": 1}
    path.write_text(json.dumps({**tree, "products": {"csr_float32": product, "block_1x16_int8": product}}))
    with pytest.raises(ConfigError, match="dense_int8"):
        plan_balanced(MATRICES, LOOKED_UP, "int8", read_cost_table(str(path), "--costs"))


def test_every_shipped_table_has_every_form() -> None:
    assert "x86-64" in shipped_tables()
    for name in shipped_tables():
        forms = set(read_cost_table(name, "--costs").products)
        assert forms >= {"csr_float32", "block_1x16_int8", "dense_int8", "dense_float32"}
