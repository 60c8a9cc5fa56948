"""Small vision networks of transformers with random weights, saved as a user would have them in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from capprune_exporters.quiet import quiet

PREPROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
    "size": {"height": 64, "width": 64},
}
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
    ),
    "resnet_gelu": lambda: transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], hidden_act="gelu")
    ),
    "mobilenet_v2": lambda: transformers.MobileNetV2Model(
        transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=64, finegrained_output=True)
    ),
    "convnext": lambda: transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1])
    ),
    "vit": lambda: transformers.ViTModel(
        transformers.ViTConfig(**TRANSFORMER, intermediate_size=32, image_size=64, patch_size=16)
    ),
    "dinov2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**TRANSFORMER, mlp_ratio=2, image_size=98, patch_size=14)
    ),
    "dinov2_with_registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**TRANSFORMER, mlp_ratio=2, image_size=98, patch_size=14)
    ),
    "swin": lambda: transformers.SwinModel(
        transformers.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], image_size=64, window_size=4)
    ),
}


def save(folder: Path, kind: str, preprocessor: Mapping[str, Any] | None = PREPROCESSOR) -> nn.Module:
    """Save a network, and the settings of its photos if there are any; returns it as transformers has it."""
    torch.manual_seed(8)
    network = NETWORKS[kind]().eval()
    with torch.no_grad(), quiet():
        for name, value in network.named_parameters():
            if value.dim() == 1 and name.endswith("bias"):
                value.normal_(0, 0.1)  # zeros would hide a bias that is lost
        network.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(dict(preprocessor)), encoding="utf-8")
    return network
