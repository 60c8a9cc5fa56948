from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch

from capprune.pruning.supermask import Gate
from capprune.training.outcome import Progress
from capprune.training.run import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    STATE,
    VOCABULARY,
    alone_in,
    read_checkpoint,
    read_metrics,
)
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import BundleError, CapPruneError, UnreachableTarget, UsageError

LONG = "training.epochs=30"  # enough to learn this world by heart
KINDS = {
    "dense": ("training.epochs=8",),
    "sparse": tiny.SPARSE,
    "capsules": (
        "training.epochs=8",
        "encoder.pooling=capsules",
        "encoder.capsules=3",
        "encoder.capsule_channels=8",
    ),
}


class Stop(Exception):
    """Ends a training as a crash would, from its report."""


def stop_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step and progress.cider is None:
            raise Stop

    return report


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def assert_same_run(first: Path, second: Path) -> None:
    """The same to the bit, but for the seconds that epochs took."""
    assert files(first) == files(second) == sorted([CONFIG, LAST, METRICS, VOCABULARY, BEST])
    for name in (CONFIG, VOCABULARY, BEST, LAST):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    lines = [[{**line, "seconds": 0} for line in read_metrics(folder)] for folder in (first, second)]
    assert lines[0] == lines[1]


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def uninterrupted(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind) / "run"
    tiny.trainer(folder, *KINDS[kind]).run()
    return folder


def test_training_learns_to_name_what_it_sees(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path / "run", LONG)
    outcome = trainer.run()
    assert outcome.cider > 0.9
    captions = trainer.captions(tiny.split(5, 30))
    assert tiny.share_right(tiny.split(5, 30))(captions) > 0.9
    assert len(set(captions.values())) >= 4
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert losses
    assert all(isinstance(loss, float) and math.isfinite(loss) for loss in losses)


@pytest.mark.slow
def test_gru_learns_as_well(tmp_path: Path) -> None:
    assert tiny.trainer(tmp_path / "run", "training.epochs=40", "decoder.cell=gru").run().cider > 0.9


@pytest.mark.parametrize(("sparsity", "epochs"), [(0.8, 24), (0.95, 40)])
@pytest.mark.slow_but_for("0.8-24")
def test_sparse_training_ends_at_its_target_and_still_learns(tmp_path: Path, sparsity: float, epochs: int) -> None:
    trainer = tiny.trainer(
        tmp_path / "run",
        *tiny.SPARSE,
        f"pruning.sparsity={sparsity}",
        f"training.epochs={epochs}",
        "decoder.hidden=48",
    )
    outcome = trainer.run()
    assert trainer.pruner.sparsity() == pytest.approx(sparsity, abs=1e-3)
    assert outcome.sparsity == pytest.approx(sparsity, abs=0.05 * (1 - sparsity))
    assert outcome.cider > 0.8


@pytest.mark.slow_but_for("dense")
def test_interrupted_and_resumed_run_is_the_uninterrupted_one_to_the_bit(
    kind: str, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    last_of_an_epoch = 5 * tiny.BATCHES
    signals = [("SIGINT", 7, 130), ("SIGTERM", last_of_an_epoch, 143)]
    for name, step, code in signals if kind == "sparse" else signals[1:]:
        arguments = [str(folder), ",".join(KINDS[kind]), name, str(step)]
        done = subprocess.run([sys.executable, tiny.__file__, *arguments], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (code, "")
        assert int(read_checkpoint(folder / STATE).facts["step"]) == step
        assert not (folder / LAST).exists()
    tiny.trainer(folder, *KINDS[kind]).run()
    assert_same_run(folder, uninterrupted)


@pytest.mark.parametrize("step", [3, 12, tiny.BATCHES])
@pytest.mark.slow_but_for("dense", "sparse-5")
def test_crashed_run_goes_on_from_its_last_whole_epoch(
    kind: str, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Stop):
        tiny.trainer(folder, *KINDS[kind], report=stop_at(step)).run()
    with (folder / METRICS).open("a") as file:
        file.write('{"step": 2, "lo')  # the machine went down in the middle of a line
    tiny.trainer(folder, *KINDS[kind]).run()
    assert_same_run(folder, uninterrupted)


def test_run_that_was_killed_while_it_tidied_up_is_tidied_up(kind: str, uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trainer = tiny.trainer(folder, *KINDS[kind])
    trainer.run()
    trainer._save_state()
    assert (folder / STATE).exists()
    tiny.trainer(folder, *KINDS[kind], report=stop_at(-1)).run()
    assert_same_run(folder, uninterrupted)


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = tiny.trainer(tmp_path / "run").run()
    before = {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in files(tmp_path / "run")}
    steps: list[int] = []
    again = tiny.trainer(tmp_path / "run", report=lambda progress: steps.append(progress.step)).run()
    assert steps == []
    assert (again.epoch, again.cider, again.sparsity) == (first.epoch, first.cider, first.sparsity)
    assert before == {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in files(tmp_path / "run")}


def test_folder_with_another_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        tiny.trainer(tmp_path / "run", report=stop_at(2)).run()
    before = {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in files(tmp_path / "run")}
    with pytest.raises(UsageError, match=r"(?s)run of another config: .*run\n.*--out") as raised:
        tiny.trainer(tmp_path / "run", "training.learning_rate=0.5")
    assert raised.value.exit_code == 2
    assert before == {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in files(tmp_path / "run")}


def test_folder_with_other_captions_is_refused(tmp_path: Path) -> None:
    tiny.trainer(tmp_path / "run")
    with pytest.raises(BundleError, match="captions have changed"):
        tiny.trainer(tmp_path / "run", vocabulary=Vocabulary((*tiny.VOCABULARY.tokens, "new")))


def test_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="something here already"):
        tiny.trainer(tmp_path)
    assert files(tmp_path) == ["thesis.tex"]


def test_run_that_another_process_trains_is_refused(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path / "run")
    with alone_in(tmp_path / "run"), pytest.raises(UsageError, match="another process is training this run"):
        trainer.run()
    assert trainer.step == 0
    trainer.run()


@pytest.mark.parametrize(
    ("override", "what"),
    [("pruning.kappa=200", "too weak"), ("training.epochs=2", "10 training steps are too few")],
)
def test_target_out_of_reach_is_refused_before_anything_is_written(tmp_path: Path, override: str, what: str) -> None:
    with pytest.raises(UnreachableTarget, match=what):
        tiny.trainer(tmp_path / "run", *tiny.SPARSE, override)
    assert files(tmp_path) == []


def test_broken_state_is_named_with_a_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Stop):
        tiny.trainer(folder, report=stop_at(7)).run()
    whole = (folder / STATE).read_bytes()
    (folder / STATE).write_bytes(whole[:-100])
    with pytest.raises(BundleError, match=r"checkpoint cannot be read: .*state\.safetensors"):
        tiny.trainer(folder).run()
    shutil.copy(folder / BEST, folder / STATE)  # a checkpoint, but no state
    with pytest.raises(BundleError, match=r"(?s)does not fit this run.*try +remove .*run/state"):
        tiny.trainer(folder).run()
    shutil.rmtree(folder / "state")
    assert tiny.trainer(folder).run().epoch >= 0


def test_loss_that_is_not_finite_stops_the_run_with_the_step(tmp_path: Path) -> None:
    train = tiny.split(1)
    features = train.features[np.arange(tiny.PHOTOS)]
    features[7, 0, 0] = np.nan
    train = replace(train, features=tiny.Table(features))
    with pytest.raises(CapPruneError, match=r"(?s)not finite at step \d: .*found +nan.*learning_rate") as raised:
        tiny.trainer(tmp_path / "run", train=train).run()
    assert raised.value.exit_code == 1


def test_full_disk_while_saving_keeps_the_last_state_and_the_run_goes_on_from_it(
    kind: str, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def fill(progress: Progress) -> None:
        if progress.step == 2 * tiny.BATCHES + 1:
            monkeypatch.setattr(os, "fsync", full)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CapPruneError, match=r"(?s)disk is full: .*run/.*safetensors.*which resumes") as raised:
        tiny.trainer(folder, *KINDS[kind], report=fill).run()
    assert raised.value.exit_code == 1
    monkeypatch.undo()
    assert int(read_checkpoint(folder / STATE).facts["step"]) == 2 * tiny.BATCHES
    assert not [name for name in files(folder) if "partial" in name]
    tiny.trainer(folder, *KINDS[kind]).run()
    assert_same_run(folder, uninterrupted)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("a disk of its own can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_disk_that_is_really_full_is_told_and_the_run_goes_on_once_there_is_space(
    kind: str, uninterrupted: Path, small_disk: Path
) -> None:
    folder, filler = small_disk / "run", small_disk / "filler"

    def fill(progress: Progress) -> None:
        if progress.step == 2 * tiny.BATCHES + 1:
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))

    with pytest.raises(CapPruneError, match="disk is full") as raised:
        tiny.trainer(folder, *KINDS[kind], report=fill).run()
    assert raised.value.exit_code == 1
    assert int(read_checkpoint(folder / STATE).facts["step"]) == 2 * tiny.BATCHES
    filler.unlink()
    tiny.trainer(folder, *KINDS[kind]).run()
    assert_same_run(folder, uninterrupted)


def test_best_checkpoint_is_the_first_of_the_highest_quality(tmp_path: Path) -> None:
    scores = iter([0.1, 0.7, 0.3, 0.7])
    outcome = tiny.trainer(tmp_path / "run", quality=lambda captions: next(scores)).run()
    assert (outcome.epoch, outcome.cider) == (1, 0.7)
    assert read_checkpoint(tmp_path / "run" / BEST).facts["step"] == str(2 * tiny.BATCHES)
    assert read_checkpoint(tmp_path / "run" / LAST).facts["step"] == str(4 * tiny.BATCHES)


def test_health_of_the_validation_captions_stands_beside_their_score(tmp_path: Path) -> None:
    seen: list[Mapping[str, str]] = []

    def health(captions: Mapping[str, str]) -> dict[str, object]:
        seen.append(captions)
        return {"captions": len(captions), "unknown_share": 0.25}

    tiny.trainer(tmp_path / "run", health=health).run()
    epochs = [line for line in read_metrics(tmp_path / "run") if "cider" in line]
    assert len(epochs) == len(seen) == 4
    assert all(line["health"] == {"captions": 12, "unknown_share": 0.25} for line in epochs)
    tiny.trainer(tmp_path / "other").run()
    assert not any("health" in line for line in read_metrics(tmp_path / "other"))


def test_best_checkpoint_of_a_sparse_run_is_within_tolerance_of_its_target(tmp_path: Path) -> None:
    falling = iter(np.linspace(1, 0, 24).tolist())  # the dense model at the start would win
    outcome = tiny.trainer(tmp_path / "run", *tiny.SPARSE, quality=lambda captions: next(falling)).run()
    assert outcome.epoch > 8
    lines = [line for line in read_metrics(tmp_path / "run") if "cider" in line]
    sparsity = [float(str(line["sparsity"])) for line in lines]
    within = [abs(each - 0.8) <= 0.05 * 0.2 for each in sparsity]
    assert outcome.epoch == within.index(True)
    assert outcome.sparsity == sparsity[outcome.epoch]
    gates = [value for name, value in read_checkpoint(tmp_path / "run" / BEST).tensors.items() if name.endswith("gate")]
    kept = sum(int((gate > 0).sum()) for gate in gates) / sum(gate.numel() for gate in gates)
    assert kept == pytest.approx(1 - outcome.sparsity)


def test_sparse_run_without_an_epoch_within_tolerance_has_no_best_checkpoint(tmp_path: Path) -> None:
    outcome = tiny.trainer(tmp_path / "run", *tiny.SPARSE, "pruning.tolerance=1e-9", "pruning.sparsity=0.8001").run()
    assert outcome.epoch == -1
    assert files(tmp_path / "run") == sorted([CONFIG, LAST, METRICS, VOCABULARY])


def test_dropout_is_cut_to_a_third_while_masks_are_sampled(tmp_path: Path) -> None:
    dense = tiny.trainer(tmp_path / "dense")
    sparse = tiny.trainer(tmp_path / "sparse", *tiny.SPARSE)
    assert (dense.decoder.rnn_dropout.p, dense.decoder.attention_dropout.p) == (0.35, 0.1)
    assert sparse.decoder.rnn_dropout.p == pytest.approx(0.35 / 3)
    assert sparse.decoder.attention_dropout.p == pytest.approx(0.1 / 3)


def test_every_mask_is_drawn_once_in_a_step(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path / "run", *tiny.SPARSE, report=stop_at(3))
    drawn: list[Gate] = []
    gates = [module for module in trainer.decoder.modules() if isinstance(module, Gate)]
    for gate in gates:
        gate.register_forward_hook(lambda module, inputs, output: drawn.append(module))
    with pytest.raises(Stop):
        trainer.run()
    assert len(drawn) == 3 * len(gates) == 3 * 8


def test_gradient_of_the_weights_is_clipped_and_that_of_the_gates_is_not(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path / "run", *tiny.SPARSE, "training.gradient_clip=1e-5", report=stop_at(3))
    with pytest.raises(Stop):
        trainer.run()
    weights, gates = (group["params"] for group in trainer.optimiser.param_groups)
    norms = [float(torch.stack([p.grad.norm() for p in some]).norm()) for some in (weights, gates)]
    assert norms[0] == pytest.approx(1e-5, rel=1e-3)
    assert norms[1] > 1e-4


def test_metrics_tell_every_epoch_and_what_the_target_is_doing(tmp_path: Path) -> None:
    tiny.trainer(tmp_path / "run", *tiny.SPARSE).run()
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    epochs = [line for line in lines if "cider" in line]
    assert [line["epoch"] for line in epochs] == list(range(24))
    assert all({"step", "seconds", "sparsity"} <= set(line) for line in epochs)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [50, 100]
    assert all(line["sparsity_loss"] == pytest.approx(abs(0.8 - line["sparsity"]), abs=0.1) for line in steps)


def test_progress_counts_steps_to_the_end_and_tells_the_quality_of_epochs(tmp_path: Path) -> None:
    seen: list[Progress] = []
    tiny.trainer(tmp_path / "run", report=seen.append).run()
    assert [progress.step for progress in seen if progress.cider is None] == list(range(1, 21))
    assert [progress.epoch for progress in seen if progress.cider is not None] == [0, 1, 2, 3]
    assert {progress.steps for progress in seen} == {20}
    assert seen[0].captions_per_second > 0
    assert seen[0].seconds_left > 0
