"""`capprune bench`: a bundle in turns with the same model in every other form."""

from __future__ import annotations

import dataclasses
import json

import pytest

import capprune as package
from capprune.api import bench as bench_api
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import UsageError
from capprune_runtime.measure import bench as on_device
from capprune_runtime.measure import cold, cooldown
from capprune_runtime.measure.results import parse_measurements
from cli.conftest import Walk, capprune

ROUNDS = 12


def test_baselines_are_made_from_the_bundle_alone_and_timed_in_the_same_rounds(walk: Walk) -> None:
    done = capprune("bench", walk.bundle, "--baselines", "--rounds", ROUNDS, "--json")
    assert done.code == 0, done.err
    document = done.document
    assert (document["schema_version"], document["kind"]) == (2, "bench")
    assert document["names"][0].startswith("this bundle: ")
    assert document["names"][1:] == ["tflite dense float32", "tflite dense int8"]
    measurements = parse_measurements(done.out, "stdout")
    assert [len(one.captions) for one in measurements] == [ROUNDS] * 3
    said = [[one.photo for one in measurement.captions] for measurement in measurements]
    assert said[0] == said[1] == said[2] and len(set(said[0])) == 4  # the golden photos of the bundle
    own, dense, int8 = document["comparison"]
    assert all(one.cold is not None and one.cold.loads == 3 and one.cold.load_us for one in measurements)
    assert all(0.2 < row["interpreter_share"] < 1 for row in document["comparison"])
    assert own["faster"] is None and own["reason"] == "the bundle itself"
    assert own["decoder_bytes"] < dense["decoder_bytes"] and int8["decoder_bytes"] < dense["decoder_bytes"]
    assert all((row["faster"] is None) == bool(row["reason"]) for row in document["comparison"])
    assert all(
        one.bundle.files["encoder.tflite"] == measurements[0].bundle.files["encoder.tflite"] for one in measurements
    )
    float32 = [one for one, row in zip(measurements, document["names"], strict=True) if "int8" not in row]
    assert len({tuple(said.tokens for said in one.captions) for one in float32}) == 1  # the same model


@pytest.mark.slow
def test_the_run_brings_its_onnx_forms(walk: Walk) -> None:
    done = capprune("bench", walk.bundle, "--baselines", "--run", walk.run, "--rounds", 2, "--cold-loads", 0, "--json")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in done.document["comparison"]}
    assert {"onnx dense float32", "onnx dense int8", "onnx sparse float32", "tflite dense float32"} <= rows.keys()
    assert {rows[name]["runtime"] for name in rows if name.startswith("onnx")} == {"onnxruntime"}
    assert all("fewer than" in row["reason"] for row in list(rows.values())[1:])
    assert rows["onnx sparse float32"]["decoder_bytes"] < rows["onnx dense float32"]["decoder_bytes"]


def test_alone_a_bundle_is_timed_and_what_to_doubt_is_said(walk: Walk) -> None:
    done = capprune("bench", walk.bundle, "--rounds", 3)
    assert done.code == 0, done.err
    assert "temperature gate (60 °C): " in done.out
    assert "median of 3 new processes" in done.out and "not measured" not in done.out
    assert "this bundle" in done.out and "3 interleaved rounds" in done.out
    assert "do not trust these times" in done.out and "at least 20 are needed" in done.out
    assert "ONNX" not in done.out


def test_a_run_without_baselines_is_refused(walk: Walk) -> None:
    done = capprune("bench", walk.bundle, "--run", walk.run, "--json")
    assert done.code == 2 and "--baselines" in json.loads(done.out)["try"]


def test_the_baselines_of_an_onnx_bundle_need_its_run(walk: Walk) -> None:
    bundle = verify_bundle(walk.bundle)
    files = {**bundle.files, bundle.manifest.decoder.file: b"\x08\x0a no TFL3 here"}
    with pytest.raises(UsageError, match="made from its run") as refused:
        bench_api.baselines_of(dataclasses.replace(bundle, files=files), None)
    assert refused.value.hint == "add --run RUN"


def test_a_run_that_the_bundle_was_not_made_from_is_refused(walk: Walk) -> None:
    from capprune.exporting.baselines import baselines_of_run
    from capprune.training.run import load_run

    bundle = verify_bundle(walk.bundle)
    pruning = dataclasses.replace(bundle.manifest.pruning, kept_weights=bundle.manifest.pruning.kept_weights - 1)
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, pruning=pruning))
    with pytest.raises(UsageError, match="not made from this run"):
        baselines_of_run(load_run(walk.run), other, lambda message: None)


def test_the_help_names_the_rounds_that_a_device_makes() -> None:
    assert (bench_api.ROUNDS, bench_api.COLD_LOADS) == (on_device.ROUNDS, cold.COLD_LOADS)
    assert bench_api.COOLDOWN_TIMEOUT_S == cooldown.TIMEOUT_S


def test_every_number_of_threads_has_rows_and_the_fastest_is_named(walk: Walk) -> None:
    done = capprune("bench", walk.bundle, "--threads", "2,1", "--rounds", ROUNDS, "--cold-loads", 0, "--json")
    assert done.code == 0, done.err
    document = done.document
    assert document["names"] == ["this bundle, 2 threads", "this bundle, one thread"]
    assert [row["threads"] for row in document["comparison"]] == [2, 1]
    assert [one.environment.threads for one in parse_measurements(done.out, "stdout")] == [2, 1]
    assert document["fastest_threads"]["threads"] in (1, 2) and not document["fastest_threads"]["reason"]


def test_auto_times_powers_of_two_up_to_the_processors(walk: Walk) -> None:
    found = package.bench(walk.bundle, rounds=2, cold_loads=0, threads="auto")
    assert {cell for row in found.cold_cells()[1] for cell in row[1:-1]} == {"not measured"}
    cores = found.measurements[0].environment.cpu_count
    counts = [row.threads for row in found.rows]
    assert counts == [1, *bench_api.doubled(cores)] and counts[-1] == min(cores, bench_api.MOST_THREADS)
    if cores > 1:
        assert "and" in found.title and found.fastest_text is not None and "fewer than" in found.fastest_text


@pytest.mark.parametrize(
    ("processors", "counts"),
    [(1, []), (2, [2]), (4, [2, 4]), (6, [2, 4, 6]), (96, [2, 4, 8, 16, 32, 64])],
)
def test_the_last_number_of_auto_is_that_of_the_processors(processors: int, counts: list[int]) -> None:
    assert bench_api.doubled(processors) == counts


@pytest.mark.parametrize("threads", ["0", "65", "1,1", "1,two", "", "1,"])
def test_wrong_numbers_of_threads_are_refused_before_anything_is_timed(walk: Walk, threads: str) -> None:
    done = capprune("bench", walk.bundle, "--threads", threads)
    assert done.code == 2 and "auto" in done.err and "rounds" not in done.err
