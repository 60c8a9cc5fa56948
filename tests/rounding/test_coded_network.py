"""Encoders whose filters have few values in each layer."""

from __future__ import annotations

import copy
from pathlib import Path

import hf_networks
import numpy as np
import pytest
import tiny_shards
import torch
import yaml
from torch import Tensor, nn

import capprune
from capprune.config.encoder import EncoderConfig
from capprune.config.reading import parse_config
from capprune.models.caption_model import normalised
from capprune.models.encoder import Encoder, load_encoder
from capprune.rounding.codebook import coded
from capprune.rounding.encoder import coded_filters
from capprune.training.encoder import of_encoder
from capprune.training.run import read_run
from capprune.training.start import start_network
from capprune_runtime.errors import ConfigError
from capprune_runtime.photo import resize

pytest.importorskip("transformers")
SIZE = 64


def photos(number: int, seed: int, size: int = SIZE) -> np.ndarray:
    """Smooth drawings: what noise would hide."""
    coarse = np.random.default_rng(seed).integers(0, 256, (number, 6, 6, 3), np.uint8)
    return np.stack([resize(one, size) for one in coarse])


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("resnet")
    hf_networks.save(folder, "resnet")
    return load_encoder(EncoderConfig(name="hf", source=str(folder), size=SIZE)).eval()


def filters(network: nn.Module) -> dict[str, tuple[Tensor, int]]:
    return {
        name: (module.weight.detach(), module.groups)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def codes(weights: Tensor) -> np.ndarray:
    """The integers that an int8 export stores, which have to be near."""
    rows = weights.flatten(1).double().numpy()
    found = rows / (np.abs(rows).max(1, keepdims=True).clip(1e-30) / 127)
    assert np.abs(found - np.rint(found)).max() < 1e-3
    return np.rint(found)


@torch.no_grad()
def loss(network: Encoder, rounded: Encoder, shown: np.ndarray) -> float:
    seen = normalised(shown, network.mean, network.scale)
    wanted, found = network(seen), rounded(seen)
    return float(((wanted - found) ** 2).sum() / (wanted**2).sum())


def test_layers_have_sixteen_values_and_give_what_they_gave(resnet: Encoder) -> None:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    done: list[tuple[int, int]] = []
    found = coded_filters(resnet, photos(200, 1), lambda *now: done.append(now))
    for name, (weights, _) in filters(found).items():
        assert len(np.unique(codes(weights))) <= 16, name
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert done[-1] == (len(done), len(done)) and len(done) == len(filters(resnet))
    alone = copy.deepcopy(resnet)
    for module in alone.modules():
        if isinstance(module, nn.Conv2d):  # the same values, each layer by itself
            rows = module.weight.detach().flatten(1).double().numpy()
            rounded, _ = coded(rows, np.eye(rows.shape[1]))
            module.weight.data.copy_(torch.from_numpy(rounded).view_as(module.weight))
    fresh = photos(40, 2)
    assert loss(resnet, found, fresh) < min(0.01, loss(resnet, alone, fresh) / 2)


def test_steps_behind_a_batch_norm_are_short_numbers(resnet: Encoder) -> None:
    found = coded_filters(resnet, photos(200, 1), bits=4.0)
    assert loss(resnet, found, photos(40, 2)) < 0.01
    modules = dict(found.named_modules())
    norms = {name: name.replace("convolution", "normalization") for name in filters(found)}
    assert {name for name in norms.values() if isinstance(modules.get(name), nn.BatchNorm2d)} == {*norms.values()}
    short: list[bool] = []
    for name, (weights, _) in filters(found).items():
        norm = modules[norms[name]]
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).abs().detach().double()
        steps = steps_of((weights.flatten(1).double() * scale[:, None]).numpy())
        parts = np.frexp(steps[steps > 0])[0] * 256
        short += [*(np.abs(parts - np.rint(parts)) < 0.01)]
    assert np.mean(short) > 0.95  # not those of a filter that has only every third step, or fifth


def steps_of(rows: np.ndarray) -> np.ndarray:
    """Return the largest number of which all weights of a row are multiples; 0 for a row of zeros."""
    largest = np.abs(rows).max(1)
    found = np.zeros(len(rows))
    for number in range(127, 0, -1):
        step = largest / number
        parts = rows / np.where(step > 0, step, 1)[:, None]
        found = np.where((np.abs(parts - np.rint(parts)) < 1e-3).all(1) & (step > 0), step, found)
    return found


def test_pruned_weights_stay_zero(resnet: Encoder) -> None:
    sparse = copy.deepcopy(resnet)
    random = torch.Generator().manual_seed(1)
    for weights, _ in filters(sparse).values():
        weights.mul_(torch.rand(weights.shape, generator=random) < 0.5)
    found = coded_filters(sparse, photos(100, 1))
    for name, (weights, _) in filters(found).items():
        assert not weights[filters(sparse)[name][0] == 0].any(), name
    assert loss(sparse, found, photos(40, 2)) < 0.05


def test_depthwise_filters_have_255_steps(tmp_path: Path) -> None:
    hf_networks.save(tmp_path, "mobilenet_v2")
    network = load_encoder(EncoderConfig(name="hf", source=str(tmp_path), size=SIZE)).eval()
    found = coded_filters(network, photos(60, 1))
    values = {name: (len(np.unique(codes(weights))), groups) for name, (weights, groups) in filters(found).items()}
    assert max(number for number, groups in values.values() if groups == 1) <= 16
    assert max(number for number, groups in values.values() if groups > 1) > 16
    with pytest.raises(ValueError, match="needs photos"):
        coded_filters(network, photos(1, 1)[:0])


def test_a_run_is_trained_on_the_rounded_encoder_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path / "cache"))
    hf_networks.save(tmp_path / "resnet", "resnet")
    data = tiny_shards.photo_folder(tmp_path / "noise", train=20, val=4)
    tree = {
        "data": {"folder": str(data), "minimum_count": 1},
        "encoder": {"name": "hf", "source": str(tmp_path / "resnet"), "size": SIZE, "rounded": "codebook4"},
        "decoder": {"embedding": 8, "hidden": 8, "attention": 8, "context": 8},
        "training": {"epochs": 1, "photos_per_batch": 10},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    capprune.train(tmp_path / "config.yaml", out=tmp_path / "run")
    run = read_run(tmp_path / "run")
    kept = of_encoder(run.weights)
    for name in filters(start_network(run.config)):
        assert len(np.unique(codes(kept[f"{name}.weight"]))) <= 16, name
    (stored,) = (tmp_path / "cache" / "rounded").iterdir()
    written = stored.stat().st_ino
    again = start_network(parse_config(tree)).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in again.items())
    assert [one.stat().st_ino for one in stored.parent.iterdir()] == [written]  # computed once, for training too
    stored.write_bytes(stored.read_bytes()[:-40] + bytes(40))
    mended = start_network(parse_config(tree)).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in mended.items())
    bits = {**tree, "encoder": {**tree["encoder"], "rounded": 3.5}}
    other = start_network(parse_config(bits)).state_dict()
    assert not all(torch.equal(value, kept[name]) for name, value in other.items())
    assert len([*stored.parent.iterdir()]) == 2
    with pytest.raises(ConfigError, match="needs photos"):
        start_network(parse_config({**tree, "data": {"shards": str(data)}}))
    with pytest.raises(ConfigError, match="is not rounded"):
        capprune.train(tmp_path / "config.yaml", out=tmp_path / "no", overrides=["encoder.train=all"])


@pytest.mark.slow
def test_a_packed_bundle_is_a_third_smaller_and_says_what_torch_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path / "cache"))
    scenes = capprune.draw_scenes(out=tmp_path / "scenes", train=60, val=8, test=8, size=SIZE).folder
    sizes = {}
    for rounded in ("true", "codebook4", 3.4):
        tree = {
            "data": {"folder": str(scenes), "minimum_count": 1},
            "encoder": {"size": SIZE, "rounded": rounded},
            "decoder": {"embedding": 16, "hidden": 32, "attention": 16, "context": 16},
            "training": {"epochs": 2, "photos_per_batch": 20, "learning_rate": 0.01},
        }
        run = capprune.train(tree, out=tmp_path / str(rounded))
        options = {"weights": "float32", "encoder_weights": "weight_only_int8"}
        bundle = run.export(tmp_path / f"bundle-{rounded}", **options)
        result = bundle.validate(scenes, reference=run)
        assert result.passed, result
        sizes[rounded] = bundle.pack().report.packed_bytes
    assert sizes[3.4] < 0.95 * sizes["codebook4"] < 0.95 * 2 / 3 * sizes["true"]
