"""What a report is made from is recognised by what it is, and what it is not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import validated
from measured import measurement, rounds

from capprune.reporting.sources import Bench, Validated, read_document, read_sources
from capprune_runtime.errors import CapPruneError, DataError, UsageError
from capprune_runtime.measure.bench import bench_document


def validation_tree(sparsity: float) -> dict[str, Any]:
    """The document that the figures of `fabricated.validated` come from."""
    made = validated(0.49, sparsity=sparsity, reference=0.5)
    quality = made.scored.quality
    change = {"before": 0.5, "after": 0.49, "difference": None, "relative": None, "drop": 0.02}
    return made.measurement.as_json() | {
        "kind": "validation",
        "data": {"name": "flickr8k", "split": "test", "photos": 100},
        "quality": {
            "beam": 3,
            "unfinished": 0,
            "scores": {
                "cider_d": 0.49,
                "bleu_4": 0.2,
                "rouge_l": 0.4,
                "meteor": None,
                "tokenizer": "plain",
                "photos": 100,
            },
            "cider_d_interval": quality.cider_d_interval.as_json(),
            "health": quality.health.as_json(),
            "constant_caption": None,
        },
        "parity": {"ai-edge-litert": {"photos": 100, "identical": 100, "holds": True, "differences": []}},
        "reference": {"name": "a-run", "scores": {}, "cider_d_change": change},
    }


def written(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(json.dumps(tree))
    return path


def test_a_validation_reads_back_to_its_figures(tmp_path: Path) -> None:
    found = read_document(written(tmp_path / "results.json", validation_tree(0.975)))
    assert isinstance(found, Validated) and found.sparse
    assert found.scored.quality.scores.cider_d == 0.49
    assert found.scored.reference is not None and found.scored.reference.cider_d_change.before == 0.5
    assert found.measurement == validated(0.49).measurement


def test_a_bench_keeps_the_names_that_the_table_had(tmp_path: Path) -> None:
    measurements = [measurement(name, rounds(np.full(12, 40.0), seed=1)) for name in ("one", "two")]
    tree = bench_document(measurements)
    found = read_document(written(tmp_path / "plain.json", tree))
    assert isinstance(found, Bench) and found.names == ("one", "two")
    named = read_document(written(tmp_path / "named.json", {**tree, "names": ["this bundle", "tflite dense float32"]}))
    assert isinstance(named, Bench) and named.names == ("this bundle", "tflite dense float32")
    assert named.measurements == tuple(measurements)


def test_the_dense_documents_are_what_the_others_are_compared_with(tmp_path: Path) -> None:
    sparse, dense = (written(tmp_path / f"{share}.json", validation_tree(share)) for share in (0.975, 0.0))
    for order in ((sparse, dense), (dense, sparse)):
        found = read_sources(order)
        assert [one.path for one in found.validated] == [sparse]
        assert found.dense_validated is not None and found.dense_validated.path == dense
    alone = read_sources([dense])
    assert [one.path for one in alone.validated] == [dense] and alone.dense_validated is None


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, UsageError, "there is no such file or folder"),
        ("{}", DataError, "not a results document"),
        ("[]", DataError, "not a results document"),
        ("not json", DataError, "not a results document"),
        ('{"kind": "run", "schema_version": 2}', DataError, "not a results document"),
        ('{"kind": "validation", "schema_version": 1}', DataError, "of another version"),
        ('{"kind": "bench", "schema_version": 3, "runs": []}', DataError, "of another version"),
        ('{"kind": "bench", "schema_version": 2, "runs": [{}]}', DataError, "not as expected"),
    ],
)
def test_what_is_no_source_is_named(
    tmp_path: Path, content: str | None, error: type[CapPruneError], message: str
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=message) as refused:
        read_sources([path])
    assert "results.json" in str(refused.value.where)


@pytest.mark.parametrize("key", ["quality", "parity", "data", "verdict"])
def test_a_document_without_a_section_is_refused_by_its_name(tmp_path: Path, key: str) -> None:
    tree = validation_tree(0.975)
    del tree[key]
    with pytest.raises(DataError) as refused:
        read_document(written(tmp_path / "results.json", tree))
    assert str(refused.value.where).endswith(f"results.json, {key}")


def test_a_folder_that_is_neither_run_nor_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a source of a report"):
        read_sources([tmp_path])
