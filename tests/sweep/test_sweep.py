"""Whole sweeps: what they leave, how they go on, and what does not stop them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sweep import TEST_PHOTOS, World

from capprune.cli.app import cli
from capprune.config.reading import load_config
from capprune.config.run import RunConfig
from capprune.metrics.intervals import bootstrap_change
from capprune.sweeping import sweep as sweeping
from capprune.sweeping.forms import make_forms, ready_to_time
from capprune.sweeping.results import Document, Row, read_document, read_scores
from capprune.sweeping.table import markdown
from capprune.training.run import load_run
from capprune_runtime.errors import BundleError, CapPruneError, DataError, MissingExtra, UsageError

METHODS: dict[str, list[Any]] = {
    "pruning.method": ["none", "hard", "supermask"],
    "training.seed": [1],
    "weights": ["float32", "int8"],
}
SNIP = {"pruning.method": ["none", "snip"], "training.epochs": [1], "training.seed": [1, 2]}


@pytest.fixture
def no_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where only `capprune[train]` is installed."""

    def refuse(*_: Any, **__: Any) -> None:
        raise MissingExtra("the converter is not installed", hint="pip install 'capprune[tflite]'")

    monkeypatch.setattr(sweeping, "make_forms", refuse)


@pytest.fixture(scope="session")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Document]:
    """A sweep with real exports, in which the supermask has too few steps."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, world.sweep(out, METHODS)


def rows(document: Document) -> dict[tuple[str, str], Row]:
    return {(row.run, row.weights): row for row in document.rows}


def test_every_run_is_scored_in_every_format(whole: tuple[Path, Document]) -> None:
    out, document = whole
    assert document == read_document(out)
    for name in ("dense-seed1", "hard-seed1"):
        for weights, by in (("float32", "torch"), ("int8", "ai-edge-litert")):
            row = rows(document)[name, weights]
            assert (row.status, row.error, row.said_by) == ("done", None, by)
            assert row.quality is not None and row.quality["photos"] == TEST_PHOTOS
            assert row.quality["tokenizer"] == document.tokenizer
            assert row.health is not None and row.health["captions"] == TEST_PHOTOS
            assert row.sizes is not None and 0 < row.sizes.step_us["p10"] <= row.sizes.step_us["p50"]
            assert row.sizes.encoder_bytes is None  # all runs have the same


def test_cost_of_a_run_includes_what_it_starts_from(whole: tuple[Path, Document]) -> None:
    dense, hard = (rows(whole[1])[name, "float32"].training for name in ("dense-seed1", "hard-seed1"))
    assert dense is not None and hard is not None
    assert (dense.photos, dense.captions, dense.epochs, dense.epochs_in_all) == (16, 80, 2, 2)
    assert (hard.epochs, hard.epochs_in_all) == (2, 4)
    assert hard.seconds_in_all == pytest.approx(hard.seconds + dense.seconds, abs=0.0011)
    assert dense.seconds > 0


def test_pruned_run_tells_its_zeros_by_layer(whole: tuple[Path, Document]) -> None:
    row, run = rows(whole[1])["hard-seed1", "float32"], load_run(whole[0] / "runs" / "hard-seed1")
    assert row.sparsity == 1 - run.kept / run.prunable == pytest.approx(0.8, abs=1e-3)
    assert row.layers.keys() == run.masks.keys()
    assert row.layers["rnn.weight"] == pytest.approx(1 - float(run.masks["rnn.weight"].float().mean()))
    assert rows(whole[1])["dense-seed1", "float32"].layers == {}


def test_rows_are_paired_with_the_dense_run_by_photo(whole: tuple[Path, Document]) -> None:
    out, document = whole
    scores = read_scores(out)
    assert scores["hard-seed1|int8"].shape == (TEST_PHOTOS,)
    against = rows(document)["hard-seed1", "int8"].against
    assert against is not None and (against.run, against.weights) == ("dense-seed1", "float32")
    change = bootstrap_change(scores["dense-seed1|float32"].tolist(), scores["hard-seed1|int8"].tolist())
    assert against.change == json.loads(json.dumps(change.as_json()))
    assert rows(document)["dense-seed1", "float32"].against is None
    quality = rows(document)["hard-seed1", "int8"].quality
    assert quality is not None and scores["hard-seed1|int8"].mean() == pytest.approx(quality["cider_d"], rel=1e-5)


def test_all_decoders_are_kept_and_timed_in_turns_when_the_sweep_ends(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[list[str]] = []

    def spy(steps: dict[str, Any]) -> dict[str, dict[str, float]]:
        timed.append(sorted(steps))
        return {name: {"p10": 1.0, "p50": float(len(timed)), "p90": 9.0} for name in steps}

    monkeypatch.setattr(sweeping, "time_steps", spy)
    out = tmp_path / "out"
    grid = {"pruning.method": ["none"], "training.epochs": [1], "training.seed": [1, 2]}
    document = world.sweep(out, grid)
    names = ["dense-epochs1-seed1", "dense-epochs1-seed2"]
    assert timed == [["float32"], ["float32"], [f"{name}|float32" for name in names]]
    assert [row.sizes and row.sizes.step_us["p50"] for row in document.rows] == [3.0, 3.0]
    assert read_document(out) == document
    kept = [out / "decoders" / f"{name}.float32.tflite" for name in names]
    assert [path.stat().st_size for path in kept] == [row.sizes and row.sizes.decoder_bytes for row in document.rows]
    world.sweep(out, grid)
    assert len(timed) == 3  # nothing is new


def test_decoder_is_made_where_a_layer_has_no_weight_left(whole: tuple[Path, Document]) -> None:
    run = load_run(whole[0] / "runs" / "hard-seed1")
    with torch.no_grad():
        run.model.decoder.score.weight.zero_()  # converters fold it, and the query that only it reads
    forms = make_forms(run, ["float32", "int8"], 3, lambda text: None, encoder=False)
    assert forms.keys() == {"float32", "int8"}
    for form in forms.values():
        assert b"rnn.weight" in form.decoder and b"query.weight" not in form.decoder
        step, arrays = ready_to_time(run, form.step)
        assert all(np.isfinite(value).all() for value in step.run(arrays).values())


def test_run_that_fails_is_noted_and_the_others_go_on(whole: tuple[Path, Document]) -> None:
    _, document = whole
    failed = [row for row in document.rows if row.status == "failed"]
    assert [(row.run, row.weights) for row in failed] == [("supermask-seed1", "float32"), ("supermask-seed1", "int8")]
    assert failed[0].error is not None and "too few" in failed[0].error["what"]
    assert "supermask-seed1, float32: 8 training steps are too few" in markdown(document)


def test_finished_sweep_trains_nothing_and_draws_its_plots(
    whole: tuple[Path, Document], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    out, document = whole
    grid = [f"--grid={key}={','.join(map(str, values))}" for key, values in METHODS.items()]
    command = ["sweep", str(world.config), *grid, "--out", str(out), "--cache", str(world.cache), "--json"]
    cli.main(command, standalone_mode=False)
    printed = capsys.readouterr()
    assert "epoch 1" not in printed.err
    found = Document.model_validate_json(printed.out)
    assert found.rows == document.rows
    for name in ("bytes.svg", "step.svg"):
        assert "CIDEr-D, test" in (out / name).read_text()
    assert "| hard | int8 | 1 |" in (out / "sweep.md").read_text()
    assert not (out / "state").exists()


def test_without_matplotlib_the_extra_is_named_and_the_table_stands(
    whole: tuple[Path, Document], world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [name for name in sys.modules if name.startswith(("matplotlib", "capprune.reporting."))]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    grid = ["--grid", "pruning.method=none", "--grid", "training.seed=1"]
    command = ["sweep", str(world.config), *grid, "--out", str(whole[0]), "--cache", str(world.cache)]
    cli.main(command, standalone_mode=False)
    printed = capsys.readouterr()
    assert "pip install 'capprune[report]'" in printed.err
    assert "dense" in printed.out and "plot:" not in printed.out


def test_stopped_sweep_keeps_its_rows_and_goes_on(world: World, tmp_path: Path, no_converter: None) -> None:
    out = tmp_path / "out"

    def stop_at_third(config: RunConfig, folder: Path) -> None:
        if len(world.trained) == 2:
            raise KeyboardInterrupt
        world.train(config, folder)

    with pytest.raises(KeyboardInterrupt):
        world.sweep(out, SNIP, train=stop_at_third)
    left = read_document(out)
    assert left is not None and [row.status for row in left.rows] == ["done", "done", "waiting", "waiting"]
    assert "1, 1 not run" in markdown(left) or "2 not run" in markdown(left)
    document = world.sweep(out, SNIP)
    assert world.trained == ["snip-epochs1-seed1", "snip-epochs1-seed2"]
    assert [row.status for row in document.rows] == ["done"] * 4
    assert document.rows[:2] == left.rows[:2]


def test_seeds_are_one_group_with_mean_and_spread(world: World, tmp_path: Path, no_converter: None) -> None:
    document = world.sweep(tmp_path / "out", SNIP)
    dense, snip = document.groups
    assert (dense.name, snip.name, snip.runs) == (
        "dense-epochs1",
        "snip-epochs1",
        ("snip-epochs1-seed1", "snip-epochs1-seed2"),
    )
    words = [row.health["distinct_words"] for row in document.rows[2:] if row.health]
    assert snip.figures["distinct_words"].mean == np.mean(words)
    assert snip.figures["distinct_words"].spread == pytest.approx(np.std(words, ddof=1))
    scores = read_scores(tmp_path / "out")
    before, after = (
        np.mean([scores[f"{name}-epochs1-seed{seed}|float32"] for seed in (1, 2)], axis=0) for name in ("dense", "snip")
    )
    assert snip.change == json.loads(json.dumps(bootstrap_change(before.tolist(), after.tolist()).as_json()))
    assert "decoder_bytes" not in snip.figures  # nothing could be written


def test_without_a_converter_float32_is_scored_and_other_formats_fail(
    world: World, tmp_path: Path, no_converter: None
) -> None:
    document = world.sweep(tmp_path / "out", {"training.epochs": [1], "weights": ["float32", "int8"]})
    exact, int8 = document.rows
    assert (exact.status, exact.sizes, int8.status) == ("done", None, "failed")
    assert exact.sizes_reason is not None and "capprune[tflite]" in exact.sizes_reason
    assert int8.error is not None and int8.error["what"] == "the converter is not installed"


def test_failed_run_is_tried_again_and_so_are_those_that_need_it(
    world: World, tmp_path: Path, no_converter: None
) -> None:
    out, product = tmp_path / "out", {"pruning.method": ["hard"], "training.epochs": [1]}

    def fail(config: RunConfig, folder: Path) -> None:
        raise DataError("no luck")

    document = world.sweep(out, product, train=fail)
    assert [(row.status, (row.error or {})["what"]) for row in document.rows] == [
        ("failed", "no luck"),
        ("failed", "the start or the teacher of this run failed"),
    ]
    document = world.sweep(out, product)
    assert [(row.status, row.error) for row in document.rows] == [("done", None), ("done", None)]


def test_grid_may_grow_and_shrink_between_sittings(world: World, tmp_path: Path, no_converter: None) -> None:
    out, epochs = tmp_path / "out", {"training.epochs": [1]}
    world.sweep(out, {"training.seed": [1], **epochs})
    document = world.sweep(out, {"training.seed": [2], **epochs})
    assert world.trained == ["dense-epochs1-seed2"]
    assert [row.run for row in document.rows] == ["dense-epochs1-seed2", "dense-epochs1-seed1"]


def test_sweep_of_something_else_is_refused(world: World, tmp_path: Path, no_converter: None) -> None:
    out, product = tmp_path / "out", {"training.epochs": [1]}
    world.sweep(out, product)
    with pytest.raises(UsageError, match="another config"):
        world.sweep(out, product, overrides=["decoder.hidden=8"])
    with pytest.raises(UsageError, match="another split"):
        world.sweep(out, product, split="val")
    assert world.trained == []


def test_broken_document_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"schema_version": 1, "kind": "sweep"')
    with pytest.raises(BundleError, match="not the document of a sweep"):
        world.sweep(tmp_path, {})
    (tmp_path / "sweep.json").write_text('{"schema_version": 2}')
    with pytest.raises(BundleError, match="later capprune"):
        world.sweep(tmp_path, {})


def test_two_sweeps_do_not_work_in_one_folder(world: World, tmp_path: Path) -> None:
    def begin_another(config: RunConfig, folder: Path) -> None:
        world.sweep(tmp_path / "out", {"training.epochs": [1]})

    document = world.sweep(tmp_path / "out", {"training.epochs": [1]}, train=begin_another)
    assert "another process is working on this sweep" in str(document.rows[0].error)


def test_all_failed_is_an_error(world: World, tmp_path: Path) -> None:
    command = ["sweep", str(world.config), "--grid", "pruning.method=supermask", "--out", str(tmp_path / "out")]
    with pytest.raises(CapPruneError, match="no run of this sweep") as error:
        cli.main([*command, "--cache", str(world.cache)], standalone_mode=False)
    assert error.value.exit_code == 1
    assert "too few" in (tmp_path / "out" / "sweep.md").read_text()


def test_ctrl_c_ends_with_130_and_saves_the_run(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    grid = ["--grid", "training.epochs=100000", "--cache", str(world.cache)]
    command = [sys.executable, "-m", "capprune", "sweep", str(world.config), *grid, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130 and "Traceback" not in rest
    (run,) = (out / "runs").iterdir()
    assert (run / "state" / "state.safetensors").is_file()
    left = read_document(out)
    assert left is not None and [row.status for row in left.rows] == ["waiting"]
    assert load_config(run / "config.yaml").training.epochs == 100000
