"""Vision backbones of transformers as encoders: the grid is their last hidden state, and nothing of a source is assumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hf_networks
import numpy as np
import pytest
import torch
from torch import nn

from capprune.config.encoder import EncoderConfig
from capprune.config.reading import parse_config
from capprune.models.caption_model import FeatureExtractor, GridEncoder, region_count
from capprune.models.encoder import described, load_encoder
from capprune_runtime.errors import BundleError, ConfigError, MissingExtra, MissingFile
from capprune_runtime.photo import normalise

CLOSE = 1e-5
# channels, grid and tokens before the patches, for photos of 64 pixels; 5 of DINOv2's are a class token and 4 registers
GRIDS = {
    "resnet": (24, 2, 0),
    "resnet_gelu": (12, 8, 0),
    "mobilenet_v2": (1280, 2, 0),
    "convnext": (16, 2, 0),
    "vit": (16, 4, 1),
    "dinov2": (16, 4, 1),
    "dinov2_with_registers": (16, 4, 5),
    "swin": (16, 8, 0),
}


def of_folder(folder: Path, **keys: Any) -> EncoderConfig:
    return EncoderConfig(name="hf", source=str(folder), **keys)


@torch.inference_mode()
def own_features(network: nn.Module, photo: torch.Tensor, tokens: int) -> torch.Tensor:
    """What transformers computes, `(1, R, F)`."""
    base = getattr(network, "base_model", network)
    keys = {"interpolate_pos_encoding": True} if type(base).__name__ == "ViTModel" else {}
    found: torch.Tensor = base(photo, **keys).last_hidden_state
    return found.flatten(2).transpose(1, 2) if found.dim() == 4 else found[:, tokens:]


@pytest.mark.parametrize("kind", hf_networks.NETWORKS)
def test_features_are_the_last_hidden_state_without_other_tokens(kind: str, tmp_path: Path) -> None:
    network = hf_networks.save(tmp_path, kind)
    channels, grid, tokens = GRIDS[kind]
    encoder = GridEncoder(of_folder(tmp_path)).eval()
    photo = torch.rand(2, 3, 64, 64) * 4 - 2
    with torch.inference_mode():
        found = encoder(photo)
    assert found.shape == (2, grid**2, channels) and encoder.network.channels == channels
    assert float(found.std()) > 0.01
    torch.testing.assert_close(found, own_features(network, photo, tokens), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_positions_of_a_transformer_follow_the_photos_size(kind: str, tmp_path: Path) -> None:
    network = hf_networks.save(tmp_path, kind)
    encoder = GridEncoder(of_folder(tmp_path, size=112)).eval()
    photo = torch.rand(1, 3, 112, 112)
    with torch.inference_mode():
        found = encoder(photo)
    torch.testing.assert_close(found, own_features(network, photo, 1), rtol=CLOSE, atol=CLOSE)
    changed = encoder.network.state_dict()
    changed |= {name: torch.randn_like(value) for name, value in changed.items() if "position" in name}
    encoder.network.load_state_dict(changed)  # a run's own weights: positions are computed again
    with torch.inference_mode():
        assert not torch.allclose(encoder(photo), found, atol=0.01)


def test_size_mean_and_scale_are_the_sources(tmp_path: Path) -> None:
    network = hf_networks.save(tmp_path, "resnet")
    config = of_folder(tmp_path)
    assert config.size == 64 and described(config).stride == 32
    assert config.mean == (123.675, 116.28, 103.53) and config.scale == (58.395, 57.12, 57.375)
    photos = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    usual = (photos / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalise(photos[0], config.mean, config.scale), usual, atol=1e-6)
    features = FeatureExtractor(GridEncoder(config))(photos)
    pixels = torch.from_numpy(usual.astype(np.float32)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(features, own_features(network, pixels, 0).numpy(), atol=1e-4)


def test_cache_is_another_one_for_other_numbers_weights_and_settings(tmp_path: Path) -> None:
    hf_networks.save(tmp_path / "a", "resnet")
    keys = {FeatureExtractor(GridEncoder(of_folder(tmp_path / "a"))).key}
    keys.add(FeatureExtractor(GridEncoder(of_folder(tmp_path / "a", mean=(1, 2, 3)))).key)
    keys.add(FeatureExtractor(GridEncoder(of_folder(tmp_path / "a", scale=(1, 2, 3)))).key)
    settings = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text(json.dumps(settings | {"hidden_act": "gelu"}))
    for name in ("model.safetensors", "preprocessor_config.json"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    keys.add(FeatureExtractor(GridEncoder(of_folder(tmp_path / "b"))).key)
    assert len(keys) == 4


def test_config_gives_what_the_source_does_not_say(tmp_path: Path) -> None:
    hf_networks.save(tmp_path, "resnet", None)
    given = {"size": 96, "mean": (1.0, 2.0, 3.0), "scale": (4.0, 5.0, 6.0)}
    config = of_folder(tmp_path, **given)
    assert {key: getattr(config, key) for key in given} == given
    assert region_count(config) == 9


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"image_mean": None}, "encoder.mean"),
        ({"image_std": [0.5]}, "encoder.scale"),
        ({"rescale_factor": None}, "encoder.scale"),
        ({"rescale_factor": 0}, "encoder.scale"),
        ({"do_flip_channel_order": True}, "encoder.mean"),
        ({"size": None}, "encoder.size"),
        (None, "encoder.size"),
    ],
)
def test_nothing_is_assumed_of_a_source(changed: dict[str, Any] | None, missing: str, tmp_path: Path) -> None:
    preprocessor = None if changed is None else {**hf_networks.PREPROCESSOR, **changed}
    hf_networks.save(tmp_path, "resnet", preprocessor)
    with pytest.raises(ConfigError, match="does not define") as raised:
        of_folder(tmp_path)
    assert missing in str(raised.value.hint)


@pytest.mark.parametrize(
    ("changed", "size", "mean", "scale"),
    [
        ({"crop_size": {"height": 48, "width": 48}, "size": {"shortest_edge": 56}}, 48, 123.675, 58.395),
        ({"crop_size": 48, "do_center_crop": False}, 64, 123.675, 58.395),
        ({"size": {"shortest_edge": 56}}, 56, 123.675, 58.395),
        ({"size": 40}, 40, 123.675, 58.395),
        ({"do_normalize": False}, 64, 0.0, 255.0),
        ({"do_rescale": False, "rescale_factor": None}, 64, 0.485, 0.229),
    ],
)
def test_steps_that_a_source_leaves_out_are_left_out(
    changed: dict[str, Any], size: int, mean: float, scale: float, tmp_path: Path
) -> None:
    hf_networks.save(tmp_path, "resnet", {**hf_networks.PREPROCESSOR, **changed})
    config = of_folder(tmp_path)
    assert config.mean is not None and config.scale is not None
    assert (config.size, config.mean[0], config.scale[0]) == (size, mean, scale)


def test_scale_of_zero_and_keys_of_another_encoder_are_refused(tmp_path: Path) -> None:
    hf_networks.save(tmp_path, "resnet")
    tree: dict[str, Any] = {"data": {"folder": "nowhere"}, "encoder": {"name": "hf", "source": str(tmp_path)}}
    with pytest.raises(ConfigError, match=r"encoder\.scale"):
        parse_config(tree, ["encoder.scale=[1,0,1]"])
    with pytest.raises(ConfigError, match="needs a source"):
        parse_config(tree, ["encoder.source="])
    with pytest.raises(ConfigError, match="does not support source"):
        parse_config(tree, ["encoder.name=efficientnet_lite0"])


def test_config_to_hand_on_names_no_folder_but_keeps_an_id_of_the_hub(tmp_path: Path) -> None:
    hf_networks.save(tmp_path / "resnet", "resnet")
    assert of_folder(tmp_path / "resnet").without_places().source == "resnet"
    given: dict[str, Any] = {"size": 64, "mean": (0.0,) * 3, "scale": (1.0,) * 3}
    assert EncoderConfig(name="hf", source="owner/name", **given).without_places().source == "owner/name"
    assert EncoderConfig(name="hf", source="../owner/name", **given).without_places().source == "name"


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    network = hf_networks.save(tmp_path, "resnet")
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingFile, match="cannot be read"):
        load_encoder(of_folder(tmp_path))


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    hf_networks.save(tmp_path, "resnet")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="broken"):
        load_encoder(of_folder(tmp_path))


def test_weights_of_which_some_are_missing_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    hf_networks.save(tmp_path, "resnet")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["resnet.encoder.stages.3.layers.0.layer.0.convolution.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match="not the weights of a resnet") as raised:
        load_encoder(of_folder(tmp_path))
    assert "stages.3" in str(raised.value.found)


def test_sources_that_are_no_vision_backbones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(hf_networks.PREPROCESSOR))
    with pytest.raises(MissingFile, match="cannot be read"):
        load_encoder(of_folder(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match="not a vision backbone") as raised:
        load_encoder(of_folder(tmp_path))
    assert "bert" in str(raised.value.found)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BundleError):
        load_encoder(of_folder(tmp_path, size=96))


def test_folder_that_is_not_there_is_said_without_asking_the_hub(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="does not exist"):
        of_folder(tmp_path / "absent")


def test_missing_transformers_is_said_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf_networks.save(tmp_path, "resnet")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra) as raised:
        load_encoder(of_folder(tmp_path, size=160))
    assert raised.value.hint == "pip install 'capprune[hf]'"


def test_network_stays_in_evaluation_mode(tmp_path: Path) -> None:
    hf_networks.save(tmp_path, "vit")
    encoder = load_encoder(of_folder(tmp_path)).train()
    assert not any(module.training for module in encoder.modules() if isinstance(module, nn.Dropout | nn.BatchNorm2d))
