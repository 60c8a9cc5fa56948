from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_world import PHOTOS, World

from capprune.cli.validate import show
from capprune.data.photos import open_photos
from capprune.metrics.health import COLUMNS, caption_health
from capprune.validation.results import (
    ConstantCaption,
    DataFacts,
    Results,
    write_results,
)
from capprune.validation.validate import Validation, results_of, validate_bundle
from capprune_runtime.caption import interpreter

SCHEMA = Path(__file__).parents[2] / "docs" / "results_schema.md"


@pytest.fixture(scope="module")
def validation(world: World) -> Validation:
    """Against a reference that says other captions for two photos, so that every section is filled."""
    reference = world.reference(1)
    (first, second), own = list(reference)[:2], dict(reference)
    own[first], own[second] = own[second], own[first]
    with open_photos(world.folder) as store:
        return validate_bundle(
            world.bundle,
            world.photos,
            store,
            beam=1,
            reference=own,
            score_gap=world.score_gap,
            tokenizer="plain",
            meteor=False,
        )


@pytest.fixture(scope="module")
def results(world: World, validation: Validation) -> Results:
    return results_of(
        validation,
        DataFacts("drawn", "test", PHOTOS),
        reference_name="run",
        constant_caption=ConstantCaption("word5 word6", 0.1),
    )


def keys(tree: Any, names_of_files_and_runtimes: set[str]) -> set[str]:
    if isinstance(tree, list):
        return {key for part in tree for key in keys(part, names_of_files_and_runtimes)}
    if not isinstance(tree, dict):
        return set()
    below = {key for part in tree.values() for key in keys(part, names_of_files_and_runtimes)}
    return below | (tree.keys() - names_of_files_and_runtimes)


def test_every_key_of_the_document_is_described(results: Results, world: World) -> None:
    document = json.loads(json.dumps(results.as_json(), allow_nan=False))
    free = {*world.bundle.manifest.files, "manifest.json", *interpreter.RUNTIMES}
    described = set(re.findall(r"`([a-z0-9_]+)`", SCHEMA.read_text(encoding="utf-8"))) | {"bleu_2", "bleu_3"}
    found = keys(document, free)
    assert {"p99_us", "excused", "drop", "emulated", "caption"} <= found
    assert found - described == set()


def test_document_holds_what_was_measured(results: Results, world: World, validation: Validation) -> None:
    document: Any = json.loads(json.dumps(results.as_json()))
    assert document["schema_version"] == 2
    assert document["bundle"]["name"] == world.bundle.place.name
    on_disk = {p.relative_to(world.bundle.place).as_posix(): p for p in world.bundle.place.rglob("*") if p.is_file()}
    assert document["bundle"]["files"] == {name: path.stat().st_size for name, path in on_disk.items()}
    assert document["bundle"]["total_bytes"] == sum(document["bundle"]["files"].values())
    assert document["bundle"]["sparsity"] == 0.75
    assert document["data"] == {"name": "drawn", "split": "test", "photos": PHOTOS}
    assert document["quality"]["scores"]["cider_d"] == validation.scores.cider_d
    parity = document["parity"][validation.runtime]
    assert (parity["identical"], len(parity["differences"]), parity["holds"]) == (PHOTOS - 2, 2, False)
    assert document["reference"]["name"] == "run"
    assert document["reference"]["cider_d_change"]["drop"] < 0
    assert document["latency"]["encode"]["count"] == PHOTOS


def test_document_without_a_reference_says_null(world: World, validation: Validation) -> None:
    bare = replace(validation, reference_scores=None, change=None, parity=None)
    document = results_of(bare, DataFacts("drawn", "test", PHOTOS)).as_json()
    assert document["reference"] is None and document["parity"] == {}


def test_written_document_is_whole_or_not_there(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(results.as_json()))
    write_results(results, tmp_path / "results.json")
    nan = replace(results, quality=replace(results.quality, constant_caption=ConstantCaption("a", float("nan"))))
    with pytest.raises(ValueError, match="JSON"):
        write_results(nan, tmp_path / "results.json")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == text


def test_health_of_the_trained_model_stands_beside_that_of_the_bundle(
    validation: Validation, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validation.reference is not None and results.reference is not None
    said = [one.caption for one in validation.reference.values()]
    assert results.reference.health == caption_health(said)
    document = results.as_json()
    assert document["reference"]["health"] == caption_health(said).as_json()
    show(results)
    shown = capsys.readouterr().out
    assert all(column in shown for column in COLUMNS)
    rows = [line for line in shown.splitlines() if f"{results.quality.health.mean_words:.1f}" in line]
    assert "trained (run)" in shown and any("this bundle" in line for line in rows)
