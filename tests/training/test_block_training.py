from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from capprune.cli.inspect import command as inspect_command
from capprune.config.reading import parse_config
from capprune.data.scenes import draw_scenes
from capprune.models.efficientnet_lite import CHANNELS
from capprune.training.outcome import Progress
from capprune.training.progress import Lines
from capprune.training.run import BEST, LAST, METRICS, STATE, load_run, read_checkpoint, read_metrics
from capprune.training.session import train_run
from capprune_runtime.errors import BundleError, ConfigError

WIDTH = 16
SIZES = tuple(f"decoder.{name}" for name in ("embedding=16", "context=16", "attention=16", "hidden=48"))
BLOCKS = (*tiny.SPARSE, *SIZES, "encoder.size=64", "pruning.block=1x16")
IN_BLOCKS = {"rnn.weight", "query.weight", "output.weight"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blocks") / "run"
    train, validation = tiny.split(1, features=CHANNELS), tiny.split(2, 5, CHANNELS)
    tiny.trainer(folder, *BLOCKS, train=train, validation=validation).run()
    return folder


@pytest.mark.parametrize(("sparsity", "epochs"), [(0.8, 24), (0.9, 40)])
@pytest.mark.slow_but_for("0.8-24")
def test_training_with_blocks_ends_at_its_target_in_weights_and_still_learns(
    tmp_path: Path, sparsity: float, epochs: int
) -> None:
    overrides = (*BLOCKS, f"pruning.sparsity={sparsity}", f"training.epochs={epochs}")
    outcome = tiny.trainer(tmp_path / "run", *overrides).run()
    saved = read_checkpoint(tmp_path / "run" / LAST).tensors
    kept = total = 0
    for name, weight in saved.items():
        if (gate := saved.get(f"{name}.gate")) is not None:
            width = weight.numel() // gate.numel()
            assert width == (WIDTH if name in IN_BLOCKS else 1)
            kept, total = kept + width * int((gate > 0).sum()), total + weight.numel()
    assert 1 - kept / total == pytest.approx(sparsity, abs=5e-3)  # a block is 0.2 % of this model
    assert outcome.sparsity == pytest.approx(sparsity, abs=0.05 * (1 - sparsity))
    assert outcome.cider > 0.8


@pytest.mark.parametrize("step", [3, 62])
@pytest.mark.slow_but_for("3")
def test_crashed_run_with_blocks_goes_on_to_the_same_end_to_the_bit(tmp_path: Path, step: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == step and progress.cider is None:
            raise InterruptedError

    tiny.trainer(tmp_path / "whole", *BLOCKS).run()
    with pytest.raises(InterruptedError):
        tiny.trainer(tmp_path / "broken", *BLOCKS, report=stop).run()
    assert (tmp_path / "broken" / STATE).exists() == (step > tiny.BATCHES)
    tiny.trainer(tmp_path / "broken", *BLOCKS).run()
    for name in (BEST, LAST):
        whole, broken = (read_checkpoint(tmp_path / folder / name) for folder in ("whole", "broken"))
        assert whole.facts == broken.facts
        assert all(torch.equal(value, broken.tensors[key]) for key, value in whole.tensors.items())
    lines = [[{**line, "seconds": 0} for line in read_metrics(tmp_path / folder)] for folder in ("whole", "broken")]
    assert lines[0] == lines[1]


def test_run_with_blocks_reads_back_with_masks_of_whole_blocks(run: Path) -> None:
    loaded = load_run(run)
    state = loaded.model.decoder.state_dict()
    for name, mask in loaded.masks.items():
        assert mask.shape == state[name].shape
        assert loaded.widths[name] == (WIDTH if name in IN_BLOCKS else 1)
        assert not bool(state[name][~mask].any())
        if name in IN_BLOCKS:
            blocks = mask.view(len(mask), -1, WIDTH)
            assert torch.equal(blocks.all(-1), blocks.any(-1))
    assert 1 - loaded.kept / loaded.prunable == pytest.approx(float(loaded.facts["sparsity"]), abs=1e-9)


def test_inspect_counts_weights_and_names_the_gates(run: Path) -> None:
    document = json.loads(CliRunner().invoke(inspect_command, [str(run), "--json"]).output)
    widths = {layer["weights"]: layer["weights_per_gate"] for layer in document["layers"]}
    assert {name for name, width in widths.items() if width == WIDTH} == IN_BLOCKS
    assert {width for name, width in widths.items() if name not in IN_BLOCKS} == {1}
    assert document["kept"] == load_run(run).kept == sum(layer["kept"] for layer in document["layers"])
    assert "1x16" in CliRunner().invoke(inspect_command, [str(run)]).output


@pytest.mark.parametrize("shape", [(16, 2), (16, 48), (16, 1), (16,), (16, 0)])
def test_block_gates_that_do_not_fit_their_weight_are_a_bundle_error(
    run: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saved = read_checkpoint(run / BEST)
    tensors = {**saved.tensors, "query.weight.gate": torch.ones(shape)}  # (16, 3) would fit
    save_file(tensors, tmp_path / BEST, dict(saved.facts))
    with pytest.raises(BundleError, match="do not fit"):
        load_run(tmp_path)


def test_metrics_begin_with_what_has_blocks_and_what_could_not(run: Path, tmp_path: Path) -> None:
    first = json.loads((run / METRICS).read_text().splitlines()[0])
    assert first == {"step": 0, "widths": {"rnn": 16, "query": 16, "output": 16}, "left_single": {}}
    tiny.trainer(tmp_path / "run", *BLOCKS, "decoder.hidden=40", "pruning.blocks.output=none").run()
    lines = read_metrics(tmp_path / "run")
    assert lines[0]["widths"] == {}
    assert lines[0]["left_single"] == {
        "rnn": "its rows of 72 weights are not a multiple of 16",
        "query": "its rows of 40 weights are not a multiple of 16",
    }
    assert not any("widths" in line for line in lines[1:])


def test_run_without_blocks_has_no_line_about_them(tmp_path: Path) -> None:
    tiny.trainer(tmp_path / "run", *tiny.SPARSE).run()
    assert not any("widths" in line for line in read_metrics(tmp_path / "run"))


def test_blocks_for_a_layer_that_is_not_there_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pruning\.blocks\.candidate"):
        tiny.trainer(tmp_path / "run", *BLOCKS, "pruning.blocks.candidate=1x16")
    assert not (tmp_path / "run").exists()


def test_layers_that_stay_single_are_named_when_training_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_scenes(tmp_path / "scenes", count={"train": 6, "val": 2}, seed=0, size=64)
    config = parse_config(
        {
            "data": {"folder": str(tmp_path / "scenes"), "minimum_count": 1},
            "encoder": {"size": 64},
            "decoder": {"embedding": 16, "hidden": 40, "attention": 16, "context": 16},
            "training": {"epochs": 17, "photos_per_batch": 1},
            "pruning": {"method": "supermask", "block": "1x16", "tolerance": 100},
        }
    )
    train_run(config, tmp_path / "run", tmp_path / "cache", Lines())
    told = capsys.readouterr().err
    assert "rnn keeps single gates: its rows of 72 weights are not a multiple of 16" in told
