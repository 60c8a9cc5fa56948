from __future__ import annotations

import numpy as np
import pytest
import torch

from capprune.config.encoder import EncoderConfig
from capprune.models.caption_model import (
    CaptionModel,
    FeatureExtractor,
    GridEncoder,
    natural_grid,
    normalised,
    pooling_matrix,
    region_count,
)
from capprune.models.efficientnet_lite import CHANNELS, EfficientNetLite0
from capprune.models.exportable import exportable
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune_runtime.errors import ConfigError
from capprune_runtime.photo import normalise

SMALL = EncoderConfig(size=64)


@pytest.fixture
def network() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0()  # untrained: these tests ask for shapes and equality


@pytest.mark.parametrize(("cells", "grid"), [(7, 4), (7, 7), (7, 1), (7, 3), (4, 2), (6, 3), (10, 4)])
def test_pooling_matrix_is_adaptive_average_pooling(cells: int, grid: int) -> None:
    features = torch.rand(2, 5, cells, cells)
    pooled = pooling_matrix(cells, grid) @ features.flatten(2).transpose(1, 2)
    expected = torch.nn.functional.adaptive_avg_pool2d(features, grid).flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize(("size", "grid", "regions"), [(224, None, 49), (224, 4, 16), (128, None, 16), (100, 2, 4)])
def test_regions_are_counted_as_the_encoder_gives_them(size: int, grid: int | None, regions: int) -> None:
    assert region_count(EncoderConfig(size=size, grid=grid)) == regions


@torch.inference_mode()
def test_encoder_pools_its_grid_to_the_one_asked_for(network: EfficientNetLite0) -> None:
    photo = torch.rand(2, 3, 96, 96)
    plain = GridEncoder(EncoderConfig(size=96), network)(photo)
    assert plain.shape == (2, 9, CHANNELS)
    pooled = GridEncoder(EncoderConfig(size=96, grid=2), network)(photo)
    assert pooled.shape == (2, 4, CHANNELS)
    torch.testing.assert_close(pooled[:, 0], plain[:, [0, 1, 3, 4]].mean(1))


def test_grid_finer_than_the_networks_own_is_a_config_error(network: EfficientNetLite0) -> None:
    with pytest.raises(ConfigError, match=r"(?s)encoder\.grid.*at most 2 for photos of 64 pixels.*found +3"):
        GridEncoder(EncoderConfig(size=64, grid=3), network)


def test_photos_are_normalised_as_on_the_device_and_read_only_ones_too() -> None:
    photos = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    photos.setflags(write=False)
    pixels = normalised(photos)
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.dtype == torch.float32
    for photo, found in zip(photos, pixels, strict=True):
        assert (found.permute(1, 2, 0).numpy() == normalise(photo)[0]).all()
    assert float(pixels[0, 0, 0, 0]) == -127 / 128
    assert float(pixels[1, 2, -1, -1]) == (int(photos[1, -1, -1, 2]) - 127) / 128


def test_extractor_gives_the_encoders_features_and_a_key_that_tells_encoders_apart(network: EfficientNetLite0) -> None:
    encoder = GridEncoder(SMALL, network)
    extract = FeatureExtractor(encoder)
    photos = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    features = extract(photos)
    assert extract.shape == (4, CHANNELS) == features.shape[1:]
    assert extract.size == 64
    with torch.inference_mode():
        np.testing.assert_array_equal(features, encoder(normalised(photos)).numpy())
    keys = {extract.key, FeatureExtractor(GridEncoder(EncoderConfig(size=96), network)).key}
    keys.add(FeatureExtractor(GridEncoder(EncoderConfig(size=64, grid=1), network)).key)
    with torch.no_grad():
        network.stem.conv.weight[0, 0, 0, 0] += 1
    keys.add(FeatureExtractor(GridEncoder(SMALL, network)).key)
    assert len(keys) == 4


@torch.inference_mode()
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_exported_calls_are_the_models_own_encode_and_step(network: EfficientNetLite0, cell: str) -> None:
    shape = SoftAttentionConfig(cell=cell, embedding=6, hidden=8, attention=5, context=7)  # type: ignore[arg-type]
    decoder = SoftAttention(shape, features=CHANNELS, vocabulary=11, regions=natural_grid(SMALL) ** 2)
    model = CaptionModel(GridEncoder(SMALL, network), decoder).eval()
    encode, step = exportable(model)
    assert not encode.training
    photo = torch.rand(1, 64, 64, 3)
    seen = encode(photo)
    held, first = model.encode(photo.permute(0, 3, 1, 2))
    assert list(seen) == ["keys", "values", "h", "c"][: 4 if cell == "lstm" else 3]
    for name, value in {**held, **first}.items():
        torch.testing.assert_close(seen[name], value, rtol=0, atol=0)
    said = step(token=torch.tensor([1], dtype=torch.int32), **seen)
    scores, after, attention = decoder.step(torch.tensor([1]), decoder.begin(first, 1), held)
    torch.testing.assert_close(said["scores"], scores, rtol=0, atol=0)
    assert attention is not None
    torch.testing.assert_close(said["attention"], attention, rtol=0, atol=0)
    for name, part in after.items():
        torch.testing.assert_close(said[name], part, rtol=0, atol=0)
    assert {name: value.shape for name, value in step.example().items()} == {
        "token": (1,),
        "keys": (1, natural_grid(SMALL) ** 2, 5),
        "values": (1, 4, 7),
        **dict.fromkeys(first, (1, 8)),
    }
    assert encode.example()["photo"].shape == photo.shape
