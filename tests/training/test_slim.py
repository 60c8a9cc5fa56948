"""A run that is handed on small: the same masks, weights to float16, and everything that takes a run takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from safetensors.torch import load_file, save_file

from capprune.training.run import BEST, METRICS, read_checkpoint, read_run
from capprune.training.slim import slim_run
from capprune.training.slim_tensors import BITS, CODES, KEPT, STEPS, slimmed, widened
from capprune_runtime.errors import BundleError, UsageError

SPARSE = ("decoder.hidden=48", "training.epochs=30", "pruning.method=supermask", "pruning.sparsity=0.9")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "run"
    tiny.trainer(folder, *SPARSE).run()
    return folder


@pytest.fixture
def slim(run: Path, tmp_path: Path) -> Path:
    slim_run(run, tmp_path / "slim")
    return tmp_path / "slim"


def test_masks_are_the_same_and_weights_differ_by_their_rounding(run: Path, slim: Path) -> None:
    whole, small = read_run(run), read_run(slim)
    assert small.method == whole.method == "supermask" and small.facts["cider"] == whole.facts["cider"]
    assert small.masks.keys() == whole.masks.keys() and small.widths == whole.widths
    for name, mask in whole.masks.items():
        assert torch.equal(small.masks[name], mask)
        assert torch.allclose(small.pruned()[name], whole.pruned()[name], rtol=1e-3, atol=1e-7)
    assert (slim / METRICS).read_bytes() == (run / METRICS).read_bytes()


def test_it_takes_a_few_bytes_a_kept_weight(run: Path, slim: Path) -> None:
    masks = read_run(run).masks.values()
    kept, weights = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    others = sum(v.numel() for name, v in load_file(slim / BEST).items() if not name.endswith((KEPT, BITS)))
    assert (slim / BEST).stat().st_size < 2 * kept + weights / 8 + 4 * others + 5000
    assert (slim / BEST).stat().st_size < (run / BEST).stat().st_size / 4


def test_filters_of_a_rounded_encoder_are_codes_and_steps() -> None:
    draws = torch.Generator().manual_seed(1)
    codes = torch.randint(-5, 6, (4, 3, 5, 5), generator=draws).float()
    codes[2] = 0  # a dead filter
    rounded = codes * torch.tensor([0.013, 0.7, 1.0, 2e-4]).reshape(-1, 1, 1, 1)
    learned = torch.randn(4, 3, 5, 5, generator=draws)
    tensors, _ = slimmed({"rounded": rounded, "learned": learned}, {})
    assert {name: value.dtype for name, value in tensors.items()} == {
        f"rounded{CODES}": torch.int8,
        f"rounded{STEPS}": torch.float32,
        "learned": torch.float16,
    }
    weights, _ = widened(tensors, {})
    torch.testing.assert_close(weights["rounded"], rounded, rtol=1e-6, atol=0)
    again, _ = slimmed(weights, {})
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    with pytest.raises(ValueError, match="3 steps do not fit"):
        widened({**tensors, f"rounded{STEPS}": tensors[f"rounded{STEPS}"][1:]}, {})


def test_it_can_be_tuned_further_and_teach(slim: Path, tmp_path: Path) -> None:
    start = (f"start={slim}", "training.epochs=2", f"training.distillation.teacher={slim}", "pruning.method=keep")
    trainer = tiny.trainer(tmp_path / "tuned", "decoder.hidden=48", *start)
    trainer.run()
    assert all(
        torch.equal(mask, read_run(slim).masks[name]) for name, mask in read_run(tmp_path / "tuned").masks.items()
    )


def test_no_path_of_this_machine_is_handed_on(slim: Path, tmp_path: Path) -> None:
    own = (f"start={slim}", "training.epochs=1", f"training.distillation.teacher={slim}", "pruning.method=keep")
    places = (f"data.folder={tmp_path / 'photos'}", "decoder.hidden=48")
    tiny.trainer(tmp_path / "tuned", *own, *places).run()
    slim_run(tmp_path / "tuned", tmp_path / "given")
    assert str(tmp_path) in (tmp_path / "tuned/config.yaml").read_text()
    config = read_run(tmp_path / "given").config
    assert config.start == config.training.distillation.teacher == Path("slim")
    assert config.data.folder == Path("photos")
    assert str(tmp_path) not in (tmp_path / "given/config.yaml").read_text()


def test_a_place_that_is_taken_is_left_alone(run: Path, slim: Path) -> None:
    before = (slim / BEST).read_bytes()
    with pytest.raises(UsageError):
        slim_run(run, slim)
    assert (slim / BEST).read_bytes() == before


@pytest.mark.parametrize("ending", [KEPT, BITS])
@pytest.mark.parametrize("cut", [True, False])
def test_a_broken_one_is_refused(ending: str, cut: bool, slim: Path) -> None:
    saved = read_checkpoint(slim / BEST)
    name = next(name for name in saved.tensors if name.endswith(ending))
    tensors = {other: value for other, value in saved.tensors.items() if other != name or cut}
    if cut:
        tensors[name] = tensors[name][1:].clone()
    save_file(tensors, slim / BEST, metadata=dict(saved.facts))
    with pytest.raises(BundleError, match="do not fit"):
        read_run(slim)
