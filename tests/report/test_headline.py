"""What the headline says, and what it does not say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from fabricated import sources, validated
from measured import measurement, rounds

from capprune.metrics.intervals import Change, Interval
from capprune.metrics.speed import compare
from capprune.reporting.contents import BAD, GOOD, PLAIN, Tile
from capprune.reporting.headline import Figures, headline, warnings
from capprune.reporting.sections import environment_section, health_section
from capprune.reporting.sources import Sources
from capprune.validation.results import DataFacts
from capprune_runtime.bundle.manifest import QuantisationSection, parse_manifest
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.bundle.vocabulary import Vocabulary

NOTHING = Figures(None, None, ())


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A bundle of which nothing runs: what the page asks of it are its manifest and its sizes."""
    files = {"encoder.tflite": b"an encoder", "decoder.tflite": b"a decoder", "vocabulary.txt": b""}
    entries = {name: {"sha256": "0" * 64, "size_bytes": len(data)} for name, data in files.items()}
    manifest = parse_manifest(json.dumps({**tiny_bundle.manifest_json("lstm"), "files": entries}), "manifest.json")
    return Bundle(Path("bundles/sparse"), manifest, Vocabulary(tiny_bundle.WORDS), files)


def quantised(bundle: Bundle, weights: str) -> Bundle:
    section = QuantisationSection(encoder=weights, decoder=weights)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, quantisation=section))


def tiles(found: Sources, figures: Figures = NOTHING) -> dict[str, Tile]:
    return {tile.title: tile for tile in headline(found, figures)}


def test_quality_kept_is_against_the_dense_model_where_both_were_validated() -> None:
    found = sources(validated(0.49, reference=0.5), dense=validated(0.56, sparsity=0.0))
    change = Change(0.56, 0.49, Interval(-0.07, -0.09, -0.05), Interval(-0.125, -0.16, -0.09))
    tile = tiles(found, Figures(change, None, ()))["Quality kept"]
    assert tile.value == "87.5%"
    assert "of the dense model's CIDEr-D: 0.490 instead of 0.560 (-12.5%, 95 % interval -16.0% to -9.0%)" in tile.note
    assert "100 photos of flickr8k, test; beam 3, plain tokens" in tile.note


def test_a_dense_model_on_other_photos_is_no_measure() -> None:
    dense = validated(0.56, sparsity=0.0)
    other = dataclasses.replace(dense, scored=dataclasses.replace(dense.scored, data=DataFacts("flickr8k", "val", 100)))
    tile = tiles(sources(validated(0.49, reference=0.5), dense=other))["Quality kept"]
    assert tile.value == "98.0%" and "of the trained model's CIDEr-D: 0.490 instead of 0.500" in tile.note


def test_without_anything_to_compare_with_the_score_stands_alone() -> None:
    found = tiles(sources(validated(0.49)))
    assert found["CIDEr-D"].value == "0.490" and "0.460 to 0.520" in found["CIDEr-D"].note
    assert "Quality kept" not in found


@pytest.mark.parametrize(
    ("identical", "weights", "value", "tone"),
    [
        (100, "float32", "equals the trained model", GOOD),
        (100, None, "equals the trained model", GOOD),
        (70, "float32", "differs from the trained model", BAD),
        (70, "int8", "quantised", PLAIN),
        (70, None, "not always equal", PLAIN),
    ],
)
def test_the_verdict_is_parity_which_only_float32_owes(
    identical: int, weights: str | None, value: str, tone: str, bundle: Bundle
) -> None:
    found = sources(validated(0.49, identical=identical, holds=identical == 100, reference=0.5))
    if weights is not None:
        found = dataclasses.replace(found, bundle=quantised(bundle, weights))
    tile = tiles(found)["Verdict"]
    assert (tile.value, tile.tone) == (value, tone)
    assert f"{identical} of 100" in tile.note
    assert ("CIDEr-D against torch: -2.0%" in tile.note) == (tone == PLAIN)


def test_what_does_not_belong_to_the_bundle_is_named(bundle: Bundle) -> None:
    found = dataclasses.replace(sources(validated(0.49)), bundle=bundle)
    assert warnings(found)[0] == f"results.json is from another bundle than {bundle.place}."
    one = found.validated[0]
    files = {name: len(data) for name, data in bundle.files.items()}
    facts = dataclasses.replace(one.measurement.bundle, files=files)
    own = dataclasses.replace(one, measurement=dataclasses.replace(one.measurement, bundle=facts))
    assert warnings(dataclasses.replace(found, validated=(own,))) == ()


def test_speed_stands_beside_its_baselines() -> None:
    measurements = [measurement(str(us), rounds(np.full(30, float(us)), seed=us)) for us in (40, 120, 41)]
    rows = compare(measurements, ["this bundle", "dense float32", "dense int8"])
    tile = tiles(sources(), Figures(None, None, rows))["Speed"]
    assert tile.value == "40 µs"
    assert "dense float32 120 µs (this bundle is 3.0" in tile.note and "x faster [" in tile.note


def test_no_speed_is_told_of_an_emulated_processor() -> None:
    found = sources(validated(0.49, emulated=True))
    assert tiles(found)["Speed"].value == "not shown"
    assert warnings(found) == ("Do not trust the times: the processor is emulated: these times mean nothing.",)
    measurements = [measurement(str(us), rounds(np.full(30, float(us)), seed=us), emulated=True) for us in (40, 120)]
    rows = compare(measurements, ["this bundle", "dense float32"])
    assert tiles(sources(), Figures(None, None, rows))["Speed"].value == "not shown"


def test_caption_health_and_the_machine_are_told() -> None:
    found = sources(validated(0.49), dense=validated(0.56, sparsity=0.0))
    health = health_section(found)
    assert health is not None
    assert health.grids[0].rows[0] == ("sparse", "0.490", "0.200", "-", "0.400", "321", "9.5", "1.0%", "0.5%")
    assert [row[0] for row in health.grids[0].rows] == ["sparse", "dense"]
    where = environment_section(found)
    assert where is not None
    rows = {row[0]: row[1] for row in where.grids[0].rows}
    assert rows["clock"] == "0.60 GHz to 1.80 GHz" and rows["emulated"] == "no" and rows["threads"] == "1"
    assert rows["temperature"] == "45.0 °C before, 45.0 °C after"


def test_sections_without_figures_are_left_out() -> None:
    assert health_section(sources()) is None and environment_section(sources()) is None
    assert headline(sources(), NOTHING) == ()
