from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from safetensors.torch import save_file

from capprune.models.efficientnet_lite import CHANNELS
from capprune.pruning.state import plain_state
from capprune.training.run import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    STATE,
    VOCABULARY,
    append_metrics,
    load_run,
    read_checkpoint,
    read_metrics,
    rewind_metrics,
    save_checkpoint,
)
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import BundleError, CapPruneError, ConfigError, MissingFile, UsageError

OVERRIDES = ("encoder.size=64", "training.epochs=2")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished dense run whose features are as wide as the encoder's."""
    folder = tmp_path / "run"
    tiny.trainer(
        folder, *OVERRIDES, train=tiny.split(1, features=CHANNELS), validation=tiny.split(2, 5, CHANNELS)
    ).run()
    return folder


@pytest.fixture(scope="module")
def sparse_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "run"
    train, validation = tiny.split(1, features=CHANNELS), tiny.split(2, 5, CHANNELS)
    tiny.trainer(folder, *tiny.SPARSE, "encoder.size=64", train=train, validation=validation).run()
    return folder


def rewrite(path: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Change, add or (None) remove tensors of a checkpoint."""
    saved = read_checkpoint(path)
    tensors = {**saved.tensors, **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, path, dict(saved.facts))


def test_run_reads_back_as_the_model_that_was_trained(tmp_path: Path) -> None:
    train, validation = tiny.split(1, features=CHANNELS), tiny.split(2, 5, CHANNELS)
    trainer = tiny.trainer(tmp_path / "run", *OVERRIDES, train=train, validation=validation)
    outcome = trainer.run()
    loaded = load_run(tmp_path / "run", LAST)
    assert loaded.vocabulary == tiny.VOCABULARY
    assert loaded.config == trainer.config
    assert not any(module.training for module in loaded.model.modules())
    assert loaded.masks == {}
    assert loaded.kept == loaded.prunable
    assert (int(loaded.facts["epoch"]), float(loaded.facts["cider"])) == (outcome.epoch, outcome.cider)
    for name, value in plain_state(trainer.decoder).items():
        assert torch.equal(loaded.model.decoder.state_dict()[name], value)


def test_sparse_run_reads_back_with_its_masks_applied(sparse_run: Path) -> None:
    loaded = load_run(sparse_run)
    saved = read_checkpoint(sparse_run / BEST).tensors
    state = loaded.model.decoder.state_dict()
    assert set(loaded.masks) == {name for name in state if name.endswith("weight")}
    for name, mask in loaded.masks.items():
        assert torch.equal(mask, saved[f"{name}.gate"] > 0)
        assert torch.equal(state[name], saved[name] * mask)
        assert bool((saved[name][~mask] != 0).any() or mask.all())  # the mask removed something
    assert loaded.prunable == sum(mask.numel() for mask in loaded.masks.values())
    assert 1 - loaded.kept / loaded.prunable == pytest.approx(float(loaded.facts["sparsity"]), abs=1e-9)
    assert load_run(sparse_run, LAST).kept != loaded.prunable


def test_vocabulary_that_does_not_match_the_weights_is_a_bundle_error(run: Path) -> None:
    (run / VOCABULARY).write_text(Vocabulary((*tiny.VOCABULARY.tokens, "new")).as_text())
    with pytest.raises(
        BundleError, match=r"(?s)do not fit the config and the vocabulary.*soft_attention decoder .* with 12 words"
    ) as raised:
        load_run(run)
    assert raised.value.exit_code == 5


def test_config_that_does_not_match_the_weights_is_a_bundle_error(run: Path) -> None:
    text = (run / CONFIG).read_text()
    (run / CONFIG).write_text(text.replace("cell: lstm", "cell: gru"))
    with pytest.raises(BundleError, match="do not fit"):
        load_run(run)
    (run / CONFIG).write_text(text.replace("hidden: 16", "hiden: 16"))
    with pytest.raises(ConfigError, match="did you mean hidden"):
        load_run(run)


@pytest.mark.parametrize("left", [0, 7, 200, -1])
def test_truncated_checkpoint_is_a_bundle_error(run: Path, left: int) -> None:
    whole = (run / BEST).read_bytes()
    (run / BEST).write_bytes(whole[:left])
    with pytest.raises(BundleError, match=r"cannot be read: .*weights\.safetensors") as raised:
        load_run(run)
    assert raised.value.exit_code == 5


def test_missing_checkpoint_is_named_with_the_way_to_get_one(run: Path) -> None:
    (run / BEST).unlink()
    with pytest.raises(MissingFile, match=r"(?s)no such checkpoint: .*weights\.safetensors.*end of an epoch"):
        load_run(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_with_their_tensor(run: Path, value: float) -> None:
    weight = read_checkpoint(run / BEST).tensors["key.weight"].clone()
    weight[1, 2] = value
    rewrite(run / BEST, {"key.weight": weight})
    with pytest.raises(BundleError, match=r"not finite: .*weights\.safetensors: key\.weight"):
        load_run(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"key.weight": None},
        {"extra.weight": torch.ones(2)},
        {"key.weight": torch.ones(3, 3)},
        {"extra.weight.gate": torch.ones(2)},
        {"key.weight.gate": torch.ones(3, 3)},
    ],
    ids=["missing", "extra", "shape", "gate of nothing", "shape of a gate"],
)
def test_tensors_that_do_not_fit_are_a_bundle_error(run: Path, changes: dict[str, torch.Tensor | None]) -> None:
    rewrite(run / BEST, changes)
    with pytest.raises(BundleError, match="do not fit"):
        load_run(run)


def test_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run"):
        load_run(tmp_path / "gone")
    with pytest.raises(MissingFile, match="not a run"):
        load_run(tmp_path)


def test_missing_vocabulary_is_a_bundle_error(run: Path) -> None:
    (run / VOCABULARY).unlink()
    with pytest.raises(BundleError, match=r"vocabulary\.txt"):
        load_run(run)


def test_checkpoint_keeps_types_shapes_and_facts(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).view(2, 3).T,
        "b": torch.tensor(3, dtype=torch.int64),
        "c": torch.zeros(5, dtype=torch.uint8),
    }
    save_checkpoint(tmp_path / "new" / "file", tensors, {"step": 3, "cider": 0.1 + 0.2})
    saved = read_checkpoint(tmp_path / "new" / "file")
    assert set(saved.tensors) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(saved.tensors[name], value)
        assert saved.tensors[name].dtype == value.dtype
    assert saved.facts == {"step": "3", "cider": repr(0.1 + 0.2)}


def test_equal_tensors_and_facts_make_equal_bytes(tmp_path: Path) -> None:
    facts = {"step": 7, "epoch": 1, "cider": 0.5, "sparsity": 0.9, "method": "hard", "größe": "1 µm"}
    for number in range(8):  # the library orders its header anew each time
        save_checkpoint(tmp_path / f"{number}", {"a": torch.ones(3), "b": torch.zeros(2, 2)}, facts)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert read_checkpoint(tmp_path / "0").facts == {key: str(value) for key, value in facts.items()}


def test_checkpoint_on_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / STATE
    save_checkpoint(path, {"a": torch.ones(3)}, {"step": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CapPruneError, match="disk is full"):
        save_checkpoint(path, {"a": torch.zeros(3)}, {"step": 2})
    assert read_checkpoint(path).facts == {"step": "1"}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_metrics_rewind_to_a_step_and_forget_a_line_that_was_cut_off(tmp_path: Path) -> None:
    for step in (50, 100, 150):
        append_metrics(tmp_path, {"step": step, "loss": step / 7})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 20')
    assert [line["step"] for line in read_metrics(tmp_path)] == [50, 100, 150]
    rewind_metrics(tmp_path, 100)
    append_metrics(tmp_path, {"step": 101})
    assert read_metrics(tmp_path) == [{"step": 50, "loss": 50 / 7}, {"step": 100, "loss": 100 / 7}, {"step": 101}]


def test_metrics_of_a_new_run_are_empty(tmp_path: Path) -> None:
    rewind_metrics(tmp_path, 0)
    assert read_metrics(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_metrics_on_a_full_disk_say_so(tmp_path: Path) -> None:
    (tmp_path / METRICS).symlink_to("/dev/full")
    with pytest.raises(CapPruneError, match=r"disk is full: .*metrics\.jsonl"):
        append_metrics(tmp_path, {"step": 1})
