"""A run over a vision backbone of transformers: trained on cached features, loaded again and exported with its own numbers."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))
import hf_networks

from capprune.config.reading import parse_config
from capprune.data.scenes import draw_scenes
from capprune.exporting import Wanted, export
from capprune.models.caption_model import build_decoder
from capprune.training.encoder import of_encoder
from capprune.training.run import load_run, read_run
from capprune.training.session import train_run
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import ExportError, MissingFile, UsageError
from capprune_runtime.photo import read_photo

CLOSE = 1e-4  # of sums of some hundred products of numbers of size 1
INT8 = 0.2  # of the size of what is encoded; a network of random weights has no larger errors than a trained one
CAPSULES = ("encoder.pooling=capsules", "encoder.capsules=5", "encoder.capsule_channels=8")
TARGETS = ("tflite", "onnx")


@dataclass(frozen=True)
class World:
    """Scenes and a cache, and the runs over backbones that tests asked for."""

    folder: Path

    def run(self, kind: str, *overrides: str) -> Path:
        out = self.folder / "-".join(("run", kind, *overrides))
        if not out.exists():
            if not (self.folder / kind).exists():
                hf_networks.save(self.folder / kind, kind)
            tree = {
                "data": {"folder": str(self.folder / "scenes"), "minimum_count": 1},
                "encoder": {"name": "hf", "source": str(self.folder / kind)},
                "decoder": {"embedding": 16, "hidden": 24, "attention": 16, "context": 16},
                "training": {"epochs": 3, "photos_per_batch": 4, "learning_rate": 0.01},
            }
            train_run(parse_config(tree, overrides), out, self.folder / "cache")
        return out

    @property
    def photo(self) -> Path:
        return next(iter(sorted((self.folder / "scenes" / "photos").iterdir())))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("encoders")
    draw_scenes(folder / "scenes", count={"train": 8, "val": 4, "test": 1}, seed=0, size=64)
    return World(folder)


def encoded_as_by_torch(bundle: Bundle, run: Path, photo: Path, tolerance: float = CLOSE) -> None:
    """What the exported `encode` gives for a photo is what the run's model gives, within a share of its size."""
    model, preprocessing = load_run(run).model, bundle.manifest.preprocessing
    pixels = read_photo(photo, preprocessing.size)[None]
    with torch.inference_mode():
        held, first = model.encode(model.encoder.normalised(pixels))
    shown = ((pixels.astype(np.float32) - preprocessing.mean) / preprocessing.scale).astype(np.float32)
    found = open_model(bundle.encoder, "encode").run({"photo": shown})
    for name, value in {**held, **first}.items():
        assert np.abs(found[name] - value.numpy()).max() <= tolerance * max(1, float(value.abs().max())), name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["resnet", "mobilenet_v2", "vit"])
@pytest.mark.slow_but_for("resnet-tflite")
def test_trained_run_exports_with_the_numbers_of_its_source(
    world: World, kind: str, target: str, tmp_path: Path
) -> None:
    run = world.run(kind)
    made = export(load_run(run), tmp_path / "bundle", Wanted(target=target)).bundle
    preprocessing = made.manifest.preprocessing
    assert preprocessing.mean == (123.675, 116.28, 103.53) and preprocessing.scale == (58.395, 57.12, 57.375)
    encoded_as_by_torch(made, run, world.photo)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", ["soft_attention", "show_tell"])
@pytest.mark.slow
def test_capsules_learn_beside_a_frozen_encoder_and_are_exported_in_encode(
    world: World, target: str, family: str, tmp_path: Path
) -> None:
    sizes = () if family == "soft_attention" else ("decoder={family: show_tell, embedding: 16, hidden: 24}",)
    run = world.run("resnet", *CAPSULES, *sizes)
    saved = read_run(run).weights
    torch.manual_seed(read_run(run).config.training.seed)
    drawn = build_decoder(read_run(run).config, len(read_run(run).vocabulary.tokens)).state_dict()
    assert not torch.equal(saved["pooling.project.weight"], drawn["pooling.project.weight"])
    made = export(load_run(run), tmp_path / "bundle", Wanted(target=target)).bundle
    assert made.manifest.interface.regions is None
    encoded_as_by_torch(made, run, world.photo)


@pytest.mark.slow
def test_capsules_can_be_pruned_with_the_decoder(world: World, tmp_path: Path) -> None:
    run = load_run(world.run("resnet", *CAPSULES, "pruning.method=gradual", "pruning.sparsity=0.8"))
    mask = run.masks["pooling.project.weight"]
    assert 0.5 < 1 - float(mask.float().mean()) < 0.95
    encoded_as_by_torch(export(run, tmp_path / "bundle").bundle, run.folder, world.photo)


def test_run_that_pools_otherwise_is_no_start(world: World, tmp_path: Path) -> None:
    tree = json.loads(json.dumps(read_run(world.run("resnet")).config.as_tree()))
    tree["start"] = str(world.run("resnet"))
    with pytest.raises(UsageError, match="another encoder") as raised:
        train_run(parse_config(tree, CAPSULES), tmp_path / "run", world.folder / "cache")
    assert "capsules" in str(raised.value.expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", ["weight_only_int8", "static_int8"])
@pytest.mark.slow_but_for("static_int8-tflite")
def test_residual_network_exports_in_int8(world: World, target: str, form: str, tmp_path: Path) -> None:
    wanted = Wanted(target=target, encoder_weights=form, data=world.folder / "scenes")
    made = export(load_run(world.run("resnet")), tmp_path / "bundle", wanted).bundle
    assert made.manifest.quantisation.encoder == form
    encoded_as_by_torch(made, world.run("resnet"), world.photo, INT8)


@pytest.mark.parametrize(
    ("kind", "target", "operator"), [("resnet_gelu", "tflite", "PADV2"), ("dinov2_with_registers", "onnx", "Slice")]
)
def test_network_that_no_bundle_may_hold_is_refused_with_its_operator(
    world: World, kind: str, target: str, operator: str, tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(ExportError, match="cannot be exported") as raised:
        export(load_run(world.run(kind)), tmp_path / "bundle", Wanted(target=target), said.append)
    assert operator in str(raised.value.found) and said == ["converting the encoder"]
    assert not (tmp_path / "bundle").exists()


def test_checkpoint_keeps_the_weights_that_the_source_had(world: World, tmp_path: Path) -> None:
    run, source = world.run("convnext"), world.folder / "convnext"
    before = load_run(run).model.encoder.network.state_dict()
    assert of_encoder(read_run(run).weights).keys() == before.keys()
    torch.manual_seed(99)
    changed = hf_networks.NETWORKS["convnext"]()
    shutil.copytree(source, tmp_path / "kept")
    try:
        changed.save_pretrained(source)
        after = load_run(run).model.encoder.network.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        (source / "config.json").unlink()
        with pytest.raises(MissingFile):
            load_run(run)
    finally:
        shutil.rmtree(source)
        shutil.copytree(tmp_path / "kept", source)


def test_run_over_another_encoder_is_no_start(world: World, tmp_path: Path) -> None:
    start = world.run("resnet")
    tree = json.loads(json.dumps(read_run(start).config.as_tree())) | {"start": str(start)}
    tree["encoder"] = {"size": 64}
    with pytest.raises(UsageError, match="another encoder") as raised:
        train_run(parse_config(tree), tmp_path / "run", world.folder / "cache")
    assert "hf" in str(raised.value.found)
