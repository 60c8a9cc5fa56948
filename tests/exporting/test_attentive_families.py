"""Decoders with multi-head attention, pruned and exported: verified bundles that compute and caption as torch does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from capprune.config.encoder import EncoderConfig
from capprune.config.reading import parse_config
from capprune.exporting.calls import calls_of
from capprune.exporting.contents import bundle_contents
from capprune.models.caption_model import CaptionModel, GridEncoder, build_decoder, normalised
from capprune.models.efficientnet_lite import EfficientNetLite0
from capprune.models.encoder import Encoder
from capprune.models.exportable import EncodeCall, StepCall
from capprune.models.family import Decoder
from capprune.models.search import beam as torch_beam
from capprune.training.run import LoadedRun
from capprune_exporters.bundle import write_bundle
from capprune_exporters.onnx import graph
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.targets.target import Target, find_target
from capprune_exporters.tflite.graph import unpack
from capprune_runtime.bundle.interface import StepInterface
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, Vocabulary
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.formats import NEXT

FEATURES, SIZE, MAX_TOKENS = 96, 96, 12  # 3 x 3 cells of 32 pixels
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *(f"word{n}" for n in range(296))))
SPARSITY = 0.9
FLOAT_ERROR = 1e-4  # relative to the largest value
BY_DEFAULT = "retention"  # without --slow
FAMILIES: dict[str, dict[str, Any]] = {
    "relation_transformer": {"width": 64, "feed_forward": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 2},
    "retention": {"width": 64, "feed_forward": 128, "heads": 4, "key": 8, "layers": 2},
}
Arrays = dict[str, NDArray[Any]]


class TinyNetwork(Encoder):
    """Stands where EfficientNet-Lite0 stands: 32 pixels a cell."""

    channels, stride = FEATURES, 32
    mean, scale = (127.0,) * 3, (128.0,) * 3

    def __init__(self) -> None:
        super().__init__(EncoderConfig(size=SIZE))
        self.first, self.second = nn.Conv2d(3, 32, 8, stride=8), nn.Conv2d(32, FEATURES, 4, stride=4)

    @classmethod
    def pretrained(cls, config: EncoderConfig) -> TinyNetwork:
        return cls()

    def before(self, photo: Tensor, blocks: int) -> Tensor:
        return photo

    def after(self, photo: Tensor, blocks: int) -> Tensor:
        found: Tensor = torch.relu(self.second(torch.relu(self.first(photo))))
        return found


def random_run(family: str) -> LoadedRun:
    """A run as loaded: random weights of unit gain, nine in ten of them zero."""
    torch.manual_seed(31)
    config = parse_config(
        {
            "data": {"folder": "nowhere", "maximum_tokens": MAX_TOKENS},
            "encoder": {"size": SIZE},
            "decoder": {"family": family, **FAMILIES[family]},
        }
    )
    network = TinyNetwork()
    decoder = build_decoder(config, len(VOCABULARY), features=FEATURES)
    masks = {}
    with torch.no_grad():
        network.first.weight.mul_(3)  # photos of noise must differ
        for name, parameter in decoder.named_parameters():
            if name.removesuffix(".weight") in decoder.roles():
                mask = torch.rand_like(parameter) >= SPARSITY
                parameter.normal_(0, (parameter.shape[-1] * (1 - SPARSITY)) ** -0.5).mul_(mask)
                masks[name] = mask
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        decoder.get_parameter("embedding.weight").mul_(0.3)
    model = CaptionModel(GridEncoder(config.encoder, cast(EfficientNetLite0, network)), decoder).eval()
    return LoadedRun(Path("run"), config, VOCABULARY, masks, {"cider": "0"}, {}, model)


def photos(count: int) -> NDArray[np.uint8]:
    """Coloured noise, rough and smooth."""
    draw = np.random.default_rng(5)
    rough = draw.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return rough.repeat(SIZE // 6, 1).repeat(SIZE // 6, 2)


@dataclass(frozen=True)
class Exported:
    """A run, what a target makes of it, and its bundle in float32."""

    run: LoadedRun
    target: Target
    bundle: Bundle

    @property
    def decoder(self) -> Decoder:
        return self.run.model.decoder

    @property
    def interface(self) -> StepInterface:
        return self.decoder.interface()


def write(run: LoadedRun, target: Target, folder: Path, weights: str) -> Bundle:
    """Export with the plan that goes by size, and verify what was written."""
    plan = target.plan(weights, "size")
    encoder_weights = "float32" if weights == "float32" else "weight_only_int8"
    made = target.decoder(plan)
    contents = bundle_contents(
        run,
        target.encoder(encoder_weights),
        made.data,
        encoder_weights=encoder_weights,
        weights=weights,
        beam=3,
        plan=plan.as_json(),
    )
    return write_bundle(folder, contents)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((family, target), id=f"{family}-{target}", marks=pytest.mark.slow if family != BY_DEFAULT else ())
        for family in FAMILIES
        for target in TARGETS.own
    ],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    family, name = request.param
    run = random_run(family)
    target = find_target(name)(calls_of(run, 3))
    target.convert()
    return Exported(run, target, write(run, target, tmp_path_factory.mktemp("bundle") / "float32", "float32"))


def test_step_computes_what_torch_computes(exported: Exported) -> None:
    assert largest_step_error(exported, exported.bundle) < FLOAT_ERROR


def test_encode_computes_what_torch_computes(exported: Exported) -> None:
    photo = normalised(photos(1)).permute(0, 2, 3, 1).contiguous()
    with torch.inference_mode():
        expected = EncodeCall(exported.run.model).eval()(photo)
    manifest = exported.bundle.manifest
    found = open_model(exported.bundle.encoder, manifest.encoder.signature).run({"photo": photo.numpy()})
    assert found.keys() == exported.interface.held.keys() == expected.keys()
    assert max(relative(found[name], value.numpy()) for name, value in expected.items()) < FLOAT_ERROR


@pytest.mark.parametrize("width", [1, 3])
def test_captions_are_those_of_torch(exported: Exported, width: int) -> None:
    pixels = photos(8)
    with torch.inference_mode():
        encoded = exported.run.model.encode(normalised(pixels))
    expected = torch_beam(exported.decoder, encoded, MAX_TOKENS, width).tokens
    captioner = Captioner(exported.bundle)
    found = [captioner.caption(photo, width) for photo in pixels]
    assert [one.tokens for one in found] == expected
    assert len(set(expected)) > 4 and max(map(len, expected)) > 3  # photos and words make a difference
    assert all(one.attention is not None for one in found)


def test_every_matrix_of_a_step_is_stored_under_its_name(exported: Exported) -> None:
    made = exported.target.decoder(exported.target.plan("float32", "size"))
    assert exported.target.calls.matrices.keys() <= {tensor.name for tensor in made.tensors}


def test_int8_changes_weights_but_no_table(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported.run, exported.target, tmp_path / "int8", "int8")
    assert 1e-5 < largest_step_error(exported, bundle) < 0.1
    stored = constants(bundle)
    for name, table in exported.decoder.named_buffers():
        if name in ("positions", "masks"):
            assert any(np.array_equal(one.ravel(), table.numpy().ravel()) for one in stored), name


def test_no_constant_is_larger_than_the_largest_matrix(exported: Exported) -> None:
    largest = max(matrix.size for matrix in exported.target.calls.matrices.values())
    assert max(one.size for one in constants(exported.bundle)) <= largest
    cells = exported.decoder.regions**2
    folded = [one for one in constants(exported.bundle, encoder=True) if one.size > 4 * cells and cells == one.shape[0]]
    assert folded == []  # the relations of all pairs of regions, of which a step needs a number a head


def constants(bundle: Bundle, *, encoder: bool = False) -> list[NDArray[Any]]:
    """All float32 constants of a model file."""
    data = bundle.encoder if encoder else bundle.decoder
    if bundle.manifest.decoder.file.endswith(".onnx"):
        values = [graph.values_of(tensor) for tensor in graph.load(data).graph.initializer]
        return [one for one in values if one.dtype == np.float32 and one.ndim]
    model: Any = unpack(data)
    found = []
    for tensor in model.subgraphs[0].tensors:
        content = model.buffers[tensor.buffer].data
        if tensor.type == 0 and content is not None and len(content):
            values = np.frombuffer(bytes(content), np.float32)
            found.append(values.reshape(tensor.shape) if np.prod(tensor.shape) == values.size else values)
    return found


def largest_step_error(exported: Exported, bundle: Bundle) -> float:
    """The largest difference of any output of `step` from torch's, on random inputs."""
    step = StepCall(exported.decoder).eval()
    torch.manual_seed(6)
    inputs = {
        name: value if value.dtype == torch.int32 else torch.randn(value.shape)
        for name, value in step.example().items()
    }
    inputs["token"] = torch.tensor([7], dtype=torch.int32)
    if "position" in inputs:
        inputs["position"] = torch.tensor([5], dtype=torch.int32)
    with torch.inference_mode():
        expected = step(**inputs)
    found = open_model(bundle.decoder, bundle.manifest.decoder.signature).run(
        {name: value.numpy() for name, value in inputs.items()}
    )
    plain = {name.removeprefix(NEXT): value for name, value in found.items()}
    assert plain.keys() == expected.keys()
    return max(relative(plain[name], value.numpy()) for name, value in expected.items())


def relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())
