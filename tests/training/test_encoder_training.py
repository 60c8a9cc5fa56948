from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import encoder_world as world
import numpy as np
import pytest
import tiny_training as tiny
import torch
from torch import nn

from capprune.config.encoder import EncoderConfig
from capprune.config.pruning import PruningConfig
from capprune.models.caption_model import BlockExtractor, FeatureExtractor, GridEncoder, normalised
from capprune.models.efficientnet_lite import CHANNELS, EfficientNetLite0
from capprune.models.search import greedy
from capprune.pruning.costs import byte_costs
from capprune.pruning.layers import prunable_layers
from capprune.training.derived import derived
from capprune.training.encoder import encoder_network, of_decoder, of_encoder
from capprune.training.loop import Trainer
from capprune.training.outcome import Split
from capprune.training.run import BEST, LAST, load_run, read_checkpoint, read_run, save_checkpoint
from capprune.training.start import start_network, teachers_eye
from capprune_runtime.errors import ConfigError

SHORT = "training.epochs=2"
HALF = "pruning.sparsity=0.5"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoder and decoder trained together, without masks."""
    folder = tmp_path_factory.mktemp("dense") / "run"
    world.trainer(folder, "encoder.train=all", SHORT).run()
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of both parts learned, the encoder's weights as published."""
    folder = tmp_path_factory.mktemp("masked") / "run"
    world.trainer(folder, "encoder.train=masks", *world.SPARSE).run()
    return folder


@pytest.fixture(scope="module")
def tuned(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights of `masked` trained further under its masks."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    trained(folder, "keep", "encoder.train=all", SHORT, start=masked)
    return folder


def trained(folder: Path, method: str, *overrides: str, start: Path | None = None) -> Trainer:
    own = (f"pruning.method={method}", *overrides, *((f"start={start}",) if start else ()))
    trainer = world.trainer(folder, *own)
    trainer.run()
    return trainer


def sparsity(masks: dict[str, torch.Tensor]) -> float:
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def frozen_split(seed: int) -> Split:
    return tiny.split(seed, world.PHOTOS, CHANNELS)


def test_encoder_learns_with_the_decoder_but_for_its_statistics(dense: Path) -> None:
    run = read_run(dense)
    published = encoder_network(EncoderConfig(), {}).state_dict()
    own = of_encoder(run.weights)
    assert own.keys() == published.keys()
    moved = {name for name, value in own.items() if not torch.equal(value, published[name])}
    assert "stem.conv.weight" in moved and "head.norm.bias" in moved
    assert not [name for name in moved if "running" in name or "num_batches" in name]


def test_encoder_that_learns_starts_from_all_tensors_of_its_parent(dense: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(dense, parent)
    checkpoint = read_checkpoint(parent / BEST)
    name = "encoder.stem.norm.running_mean"  # where rounding to few bits puts its shift
    save_checkpoint(
        parent / BEST, {**checkpoint.tensors, name: checkpoint.tensors[name] + 0.5}, {**checkpoint.facts, "step": 1}
    )
    trainer = world.trainer(tmp_path / "run", "encoder.train=all", SHORT, f"start={parent}")
    assert trainer.sight.encoder is not None
    own, expected = trainer.sight.encoder.network.state_dict(), of_encoder(read_run(parent).weights)
    assert own.keys() == expected.keys() and all(torch.equal(own[key], expected[key]) for key in own)


def test_encoder_that_learns_brings_the_loss_down_faster(tmp_path: Path) -> None:
    ends = {}
    own = ("encoder.train=all", "training.learning_rate=5e-3", "training.epochs=8")
    for rate in ("1e-12", "3e-4"):
        losses: list[float] = []
        trainer = world.trainer(tmp_path / rate, *own, f"encoder.learning_rate={rate}")
        trainer.report = lambda progress, losses=losses: losses.append(progress.loss)
        trainer.run()
        ends[rate] = float(np.nanmean(losses[-6:]))
        assert losses[0] == pytest.approx(2.4, abs=0.2)
    assert ends["3e-4"] < 0.8 * ends["1e-12"]


@pytest.mark.slow
def test_one_target_holds_for_masks_of_decoder_and_encoder_together(masked: Path) -> None:
    run = read_run(masked)
    assert sparsity(dict(run.masks)) == pytest.approx(0.8, abs=0.01)
    encoder = of_encoder(run.masks)
    assert len(encoder) == 33
    assert not [name for name in encoder if "depthwise" in name]
    shares = [1 - float(mask.float().mean()) for mask in run.masks.values()]
    assert max(shares) - min(shares) > 0.1


@pytest.mark.slow
def test_masks_alone_leave_the_weights_of_the_encoder_as_published(masked: Path) -> None:
    own, published = of_encoder(read_run(masked).weights), encoder_network(EncoderConfig(), {}).state_dict()
    assert all(torch.equal(value, published[name]) for name, value in own.items())


def test_fine_tuning_of_everything_keeps_all_masks(dense: Path, tmp_path: Path) -> None:
    pruned, tuned = tmp_path / "pruned", tmp_path / "tuned"
    trained(pruned, "hard", "encoder.train=all", SHORT, HALF, "pruning.scope=uniform", start=dense)  # no layer dies
    trained(tuned, "keep", "encoder.train=all", SHORT, start=pruned)
    one, other = read_run(pruned), read_run(tuned)
    assert other.masks.keys() == one.masks.keys()
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    name = "encoder.head.conv.weight"
    assert not torch.equal(one.weights[name], other.weights[name])
    removed = ~one.masks[name]
    assert torch.equal(one.weights[name][removed], other.weights[name][removed])


@pytest.mark.slow
def test_loaded_run_sees_through_the_masked_encoder_and_counts_it(tuned: Path) -> None:
    run = load_run(tuned)
    name = "blocks.9.expand.conv.weight"
    weight = run.model.encoder.network.state_dict()[name]
    mask = run.masks[f"encoder.{name}"]
    assert torch.equal(weight != 0, mask & (weight != 0)) and not bool(weight[~mask].any())
    decoder = sum(p.numel() for n, p in run.model.decoder.named_parameters() if n.endswith("weight"))
    assert run.prunable == decoder + sum(one.numel() for one in of_encoder(run.masks).values())
    assert 1 - run.kept / run.prunable == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow
def test_validation_captions_are_those_of_the_saved_model(tuned: Path, tmp_path: Path) -> None:
    trainer = trained(tmp_path / "run", "keep", "encoder.train=all", SHORT, start=tuned)
    photos = world.split(7)
    said = trainer.captions(photos)
    run = load_run(tmp_path / "run", LAST)
    with torch.inference_mode():
        encoded = run.model.encode(normalised(photos.features[np.arange(world.PHOTOS)]))
        found = greedy(run.model.decoder, encoded, 6).tokens
    assert [tiny.VOCABULARY.caption(ids) for ids in found] == list(said.values())


def test_encoder_is_pruned_beside_a_decoder_that_keeps_its_masks(dense: Path, tmp_path: Path) -> None:
    trained(tmp_path / "decoder", "hard", "encoder.train=all", "pruning.exclude=[encoder]", HALF, SHORT, start=dense)
    first = read_run(tmp_path / "decoder")
    assert not of_encoder(first.masks)
    own = ("encoder.train=all", "pruning.keep=[decoder]", "pruning.sparsity=0.7", SHORT)
    trainer = trained(tmp_path / "both", "hard", *own, start=tmp_path / "decoder")
    run = read_run(tmp_path / "both")
    decoder, encoder = of_decoder(run.masks), of_encoder(run.masks)
    assert decoder.keys() == first.masks.keys()
    assert all(torch.equal(mask, decoder[name]) for name, mask in first.masks.items())
    assert sparsity(encoder) == pytest.approx(0.7, abs=1e-4) == trainer.pruner.sparsity()


@pytest.mark.parametrize(("method", "learns"), [("gradual", "all"), ("snip", "masks")])
def test_other_methods_reach_their_target_over_both_parts(method: str, learns: str, tmp_path: Path) -> None:
    trained(tmp_path / "run", method, f"encoder.train={learns}", HALF, "training.epochs=3")
    masks = read_run(tmp_path / "run").masks
    assert len(of_encoder(masks)) == 33
    assert sparsity(dict(masks)) == pytest.approx(0.5, abs=1e-3)


def test_interrupted_run_with_an_encoder_ends_as_one_that_was_not(tmp_path: Path) -> None:
    own = ("encoder.train=all", "pruning.method=gradual", HALF, "training.epochs=3")
    world.trainer(tmp_path / "whole", *own).run()
    cut = world.trainer(tmp_path / "cut", *own)
    cut.report = lambda progress: (_ for _ in ()).throw(KeyboardInterrupt) if progress.step == 3 else None
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    world.trainer(tmp_path / "cut", *own).run()
    one, other = (read_checkpoint(tmp_path / name / LAST) for name in ("whole", "cut"))
    assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


@pytest.mark.slow
def test_run_with_a_frozen_encoder_takes_over_the_one_it_starts_from(tuned: Path, tmp_path: Path) -> None:
    own = ("pruning.method=keep", "encoder.train=frozen", SHORT, f"start={tuned}")
    trainer = world.trainer(tmp_path / "run", *own, train=frozen_split(1), validation=frozen_split(2))
    seen = start_network(trainer.config).state_dict()
    assert all(
        torch.equal(value, seen[name]) for name, value in load_run(tuned).model.encoder.network.state_dict().items()
    )
    trainer.quality = lambda captions: 1.0
    trainer.run()
    before, after = read_run(tuned), read_run(tmp_path / "run")
    assert of_encoder(after.weights).keys() == of_encoder(before.weights).keys()
    for name, value in {**of_encoder(before.weights), **of_encoder(before.masks)}.items():
        kept = after.masks if value.dtype == torch.bool else after.weights
        assert torch.equal(value, kept[f"encoder.{name}"]), name
    loaded = load_run(tmp_path / "run", BEST)
    assert 1 - loaded.kept / loaded.prunable == pytest.approx(0.8, abs=0.01)


def shown_by_blocks(trainer: Trainer) -> tuple[Split, Split]:
    """Both splits as the cache holds them for a run with frozen blocks."""
    extract = BlockExtractor(GridEncoder(trainer.config.encoder, start_network(trainer.config)))
    splits = []
    for own in (world.split(1), world.split(2, 12)):
        given = extract(own.features[np.arange(len(own.names))]).astype(np.float16)
        splits.append(replace(own, features=world.Pixels(given)))
    return splits[0], splits[1]


def on_blocks(folder: Path, *overrides: str) -> Trainer:
    """Trained from what frozen blocks give."""
    plain = world.trainer(folder, *overrides)
    train, validation = shown_by_blocks(plain)
    trainer = world.trainer(folder, *overrides, train=train, validation=validation)
    trainer.quality = lambda captions: 1.0
    trainer.run()
    return trainer


def test_frozen_blocks_stay_as_they_are_and_the_others_learn(tmp_path: Path) -> None:
    trainer = on_blocks(tmp_path / "run", "encoder.train=all", "encoder.frozen_blocks=14", SHORT)
    own, published = of_encoder(read_run(tmp_path / "run").weights), encoder_network(EncoderConfig(), {}).state_dict()
    moved = {name.rsplit(".", 2)[0] for name, value in own.items() if not torch.equal(value, published[name])}
    assert moved == {"head", *(f"blocks.{i}.{part}" for i in (14, 15) for part in ("expand", "depthwise", "project"))}
    said = trainer.captions(trainer.validation)
    run = load_run(tmp_path / "run", LAST)  # sees whole photos through the whole network
    with torch.inference_mode():
        encoded = run.model.encode(normalised(world.split(2, 12).features[np.arange(12)]))
        found = greedy(run.model.decoder, encoded, 6).tokens
    assert [tiny.VOCABULARY.caption(ids) for ids in found] == list(said.values())


def test_both_halves_of_the_network_are_the_network() -> None:
    network = encoder_network(EncoderConfig(), {})
    photo = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole = network(photo)
        for blocks in (0, 1, 11, 16):
            assert torch.equal(network.after(network.before(photo, blocks), blocks), whole)
    assert [*network.frozen_layers(0)] == [] and network.frozen_layers(2) == ("stem", "blocks.0", "blocks.1")


@pytest.mark.slow
def test_frozen_blocks_keep_their_masks_while_the_rest_is_pruned(masked: Path, tmp_path: Path) -> None:
    own = ("encoder.train=all", "encoder.frozen_blocks=14", "pruning.method=gradual", "pruning.sparsity=0.9", SHORT)
    on_blocks(tmp_path / "run", *own, f"start={masked}")
    before, after = of_encoder(read_run(masked).masks), of_encoder(read_run(tmp_path / "run").masks)
    below = {name for name in before if int((*name.split("."), "16")[1] if name.startswith("blocks") else 16) < 14}
    below |= {"stem.conv.weight"}
    assert all(torch.equal(before[name], after[name]) for name in below)
    chosen = {name: mask for name, mask in read_run(tmp_path / "run").masks.items() if name[8:] not in below}
    assert sparsity(chosen) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.slow
def test_rounded_filters_are_those_that_an_int8_export_stores(tuned: Path, tmp_path: Path) -> None:
    own = ("pruning.method=keep", "encoder.train=frozen", "encoder.rounded=true", SHORT, f"start={tuned}")
    trainer = world.trainer(tmp_path / "run", *own, train=frozen_split(1), validation=frozen_split(2))
    trainer.quality = lambda captions: 1.0
    trainer.run()
    kept, before = of_encoder(read_run(tmp_path / "run").weights), start_network(read_run(tuned).config)
    seen = start_network(trainer.config).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in seen.items())
    run = load_run(tmp_path / "run")
    for name, filters in run.model.encoder.network.folded_filters().items():
        channel = -1 if "depthwise" in name else 0
        rows = np.moveaxis(filters, channel, 0).reshape(filters.shape[channel], -1)
        steps = rows / (np.abs(rows).max(1, keepdims=True) / 127 + 1e-30)
        assert np.abs(steps - steps.round()).max() < 1e-2, name
    assert not torch.equal(kept["stem.conv.weight"], before.state_dict()["stem.conv.weight"])
    with pytest.raises(ConfigError, match="is not rounded"):
        world.trainer(tmp_path / "no", "encoder.train=all", "encoder.rounded=true")


@pytest.mark.slow
def test_a_new_decoder_sees_through_the_encoder_of_another_run(tuned: Path, dense: Path, tmp_path: Path) -> None:
    trainer = world.trainer(
        tmp_path / "run", SHORT, f"encoder.start={tuned}", train=frozen_split(1), validation=frozen_split(2)
    )
    trainer.quality = lambda captions: 1.0
    trainer.run()
    run, other = read_run(tmp_path / "run"), read_run(tuned)
    assert not of_decoder(run.masks) and of_encoder(run.masks).keys() == of_encoder(other.masks).keys()
    assert all(torch.equal(of_encoder(run.weights)[name], value) for name, value in of_encoder(other.weights).items())
    shown = normalised(np.full((1, world.SIZE, world.SIZE, 3), 90, np.uint8))
    seen = start_network(other.config.model_copy(update={"start": tuned})).eval()
    assert torch.equal(start_network(run.config).eval()(shown), seen(shown))
    followed = derived(tmp_path / "run", {}, {"method": "keep"}, {}, ())
    assert followed.encoder.start is None  # the run itself holds the encoder now
    elsewhere = (f"start={dense}", f"encoder.start={tuned}")
    world.trainer(tmp_path / "both", SHORT, *elsewhere, train=frozen_split(1), validation=frozen_split(2))
    with pytest.raises(ConfigError, match="starts from that of"):
        world.trainer(tmp_path / "no", "encoder.train=all", f"encoder.start={tuned}")


def test_teacher_sees_through_its_own_encoder_while_another_learns(dense: Path, tmp_path: Path) -> None:
    photos = world.split(1)
    extract = FeatureExtractor(teachers_eye(dense))
    seen = world.Pixels(extract(photos.features[np.arange(world.PHOTOS)]))
    teacher = (f"training.distillation.teacher={dense}", "training.distillation.weight=1.0")
    own = (*teacher, "encoder.train=all", SHORT, f"start={dense}")
    trainer = world.trainer(tmp_path / "run", *own, train=replace(photos, taught=(seen,)))
    trainer._set_training(False)
    batch = next(trainer.batches.epoch(0))
    features = trainer.sight(trainer.train.features, batch.photos)
    loss = trainer.objective.loss(trainer.decoder.scores, features, batch)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-4)  # the learner still is its teacher
    loss = trainer.objective.loss(trainer.decoder.scores, features + 1, batch)
    assert float(loss.detach()) > 1e-3
    assert trainer.run().epoch >= 0


@pytest.mark.slow
def test_what_makes_no_sense_is_refused(dense: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no masks of these layers"):
        world.trainer(
            tmp_path / "run", "pruning.method=hard", "encoder.train=all", "pruning.keep=[decoder]", f"start={dense}"
        )
    with pytest.raises(ConfigError, match=r"(?s)this run is sparse.*pruning\.keep"):
        world.trainer(tmp_path / "run", "pruning.method=hard", "encoder.train=all", f"start={tuned}")
    assert not (tmp_path / "run").exists()


def test_depthwise_convolutions_stay_dense_unless_asked_for() -> None:
    model = nn.ModuleDict({"rnn": nn.Linear(4, 4), "encoder": EfficientNetLite0()})
    usual = prunable_layers(model, PruningConfig())
    assert len(usual) == 1 + 33
    every = prunable_layers(model, PruningConfig(depthwise=True))
    assert {name.rsplit(".", 2)[-2] for name in set(every) - set(usual)} == {"depthwise"}
    assert prunable_layers(model, PruningConfig(exclude=("encoder",))) == ("rnn",)
    assert prunable_layers(model, PruningConfig(keep=("decoder", "encoder.blocks"))) == (
        "encoder.stem.conv",
        "encoder.head.conv",
    )
    with pytest.raises(ConfigError, match="no prunable layer"):
        prunable_layers(model, PruningConfig(exclude=("encoder.blocks.99",)))


def test_bytes_of_filters_are_counted_as_they_are_stored() -> None:
    model = nn.ModuleDict({"encoder": nn.Conv2d(300, 8, 3), "other": nn.Conv2d(16, 8, 1)})
    costs = byte_costs(model, ("encoder", "other"), {})
    assert costs.weight == {"encoder.weight": 4 + 2, "other.weight": 4 + 1}
    assert costs.fixed == 2 * (8 * 9 + 1) + 2 * (8 + 1)


def test_batch_norms_keep_their_statistics_while_masks_are_drawn() -> None:
    encoder = GridEncoder(world.parse_config(tiny.TREE, world.OWN).encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    encoder(torch.randn(2, 3, world.SIZE, world.SIZE))
    assert encoder.network.stem.conv.training and not encoder.network.stem.norm.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
