"""A published checkpoint, imported: its own captions come out of torch and out of both export formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capprune.data.regions import open_regions
from capprune.exporting import Wanted, export
from capprune.importing.reference import read_reference
from capprune.importing.run import write_run
from capprune.models.up_down import UpDown, UpDownConfig
from capprune.trained import TrainedCaptioner
from capprune.training.run import LoadedRun, load_run
from capprune_exporters.pack.capz import pack
from capprune_runtime.bundle.preprocessing import RegionsSection
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.errors import UsageError

ORIGINAL_BYTES = 978_639  # of the published file
KEPT, PRUNABLE = 47_264, 1_890_528
LARGEST = {"float32": 230_000, "int8": 130_000}  # bytes of the packed bundle, encoder and vocabulary included


@pytest.fixture(scope="module")
def tiny3(data_folder: Path) -> Path:
    return data_folder / "tiny3"


@pytest.fixture(scope="module")
def run(tiny3: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("imported") / "run"
    write_run(read_reference(tiny3), folder)
    return load_run(folder)


def expected(tiny3: Path) -> dict[str, tuple[int, str]]:
    tree = json.loads((tiny3 / "expected.json").read_text())
    return {name: (tree[name]["beam_size"], tree[name]["caption"]) for name in ("391895", "184613")}


def test_a_run_keeps_the_weights_of_the_checkpoint(run: LoadedRun) -> None:
    assert (run.kept, run.prunable) == (KEPT, PRUNABLE)
    masks = {name: int(mask.sum()) for name, mask in run.masks.items()}
    assert masks["seen.weight"] + masks["looking.weight"] == 4_437 + 1_436
    assert masks["speaking.weight"] == 6_783 + 838
    assert masks["output.weight"] == 27_747 and masks["embedding.weight"] == 1_249


def test_torch_generates_the_published_captions(run: LoadedRun, tiny3: Path) -> None:
    captioner, regions = TrainedCaptioner(run), open_regions(tiny3)
    for name, (beam, caption) in expected(tiny3).items():
        assert captioner.caption([regions.regions(name)], beam)[0].caption == caption


@pytest.mark.parametrize("target", ["tflite", "onnx"])
@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.slow_but_for("int8-tflite")
def test_exports_generate_the_published_captions_in_a_quarter_of_the_bytes(
    run: LoadedRun, tiny3: Path, target: str, weights: str, tmp_path: Path
) -> None:
    bundle = export(run, tmp_path / "bundle", Wanted(target=target, weights=weights)).bundle
    assert isinstance(bundle.manifest.preprocessing, RegionsSection)
    captioner, regions = Captioner(bundle), open_regions(tiny3)
    for name, (beam, caption) in expected(tiny3).items():
        assert captioner.caption(regions.regions(name), beam).text == caption
    if target == "tflite":
        packed = tmp_path / "bundle.capz"
        pack(bundle.place, packed)
        assert packed.stat().st_size < LARGEST[weights] < ORIGINAL_BYTES / 4
        again = Captioner(verify_bundle(packed))
        assert again.caption(regions.regions("391895"), 2).text == expected(tiny3)["391895"][1]


def test_features_of_another_kind_are_refused(run: LoadedRun, tiny3: Path, tmp_path: Path) -> None:
    bundle: Bundle = export(run, tmp_path / "bundle").bundle
    captioner = Captioner(bundle)
    regions = open_regions(tiny3).regions("391895")
    for wrong in (regions[:, :-1], regions.astype("float64"), regions[None], regions[:0]):
        with pytest.raises(UsageError, match="does not fit the encoder"):
            captioner.caption(wrong)
    with pytest.raises(UsageError, match="regions, not photos"):
        _ = bundle.manifest.photo_size


def test_an_order_of_columns_that_is_not_the_checkpoints_changes_the_captions(run: LoadedRun, tiny3: Path) -> None:
    looking = run.model.decoder.get_parameter("looking.weight")
    before = looking.detach().clone()
    hidden = before.shape[0] // 4
    with torch.no_grad():
        looking.copy_(torch.cat([before[:, hidden:], before[:, :hidden]], 1))
    try:
        captioner, regions = TrainedCaptioner(run), open_regions(tiny3)
        beam, caption = expected(tiny3)["184613"]
        assert captioner.caption([regions.regions("184613")], beam)[0].caption != caption
    finally:
        with torch.no_grad():
            looking.copy_(before)


# The published Up-Down decoder: 10,001 words, 2,048 features a region, sizes 1,000 and 512.
PUBLISHED_WEIGHTS, PUBLISHED_BIASES = 53_122_512, 29_026


def test_parameters_are_those_of_the_published_decoder_to_the_last_digit() -> None:
    config = UpDownConfig(embedding=1000, hidden=1000, attention=512)
    with torch.device("meta"):
        decoder = UpDown(config, features=2048, vocabulary=10_001, regions=100, padded=True)
    weights = sum(decoder.get_submodule(name).get_parameter("weight").numel() for name in decoder.roles())
    assert weights == PUBLISHED_WEIGHTS
    biases = sum(p.numel() for name, p in decoder.named_parameters() if name.endswith("bias"))
    # each LSTM of the reference has two biases that are added; the score's bias moves all regions alike
    assert biases + 2 * 4000 + 1 == PUBLISHED_BIASES


def test_captions_longer_than_the_run_allows_are_cut(run: LoadedRun, tiny3: Path) -> None:
    short = replace(
        run, config=run.config.model_copy(update={"data": run.config.data.model_copy(update={"maximum_tokens": 3})})
    )
    regions = open_regions(tiny3)
    assert len(TrainedCaptioner(short).caption([regions.regions("391895")], 2)[0].tokens) == 3
