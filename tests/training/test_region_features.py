"""Training on region features that were made elsewhere: folders of .npy files, a different number of regions per photo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from capprune.data.regions import RegionTable, open_regions
from capprune_runtime.errors import DataError
from cli.conftest import capprune

CHANNELS, MOST = 12, 5
COUNTS = {"train": 40, "val": 8, "test": 8}
NOUNS = ("dog", "cat", "bird", "horse")
FAMILIES = {"up_down": ["decoder.attention=16"], "show_tell": []}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos whose regions say what they show; two in three are shorter than the most regions."""
    folder = tmp_path_factory.mktemp("regions-data")
    (folder / "regions").mkdir()
    random = np.random.default_rng(3)
    images = []
    for split, count in COUNTS.items():
        for number in range(count):
            name, kind = f"{split}{number}", number % len(NOUNS)
            regions = random.normal(0, 0.1, (int(random.integers(1, MOST + 1)), CHANNELS)).astype(np.float32)
            regions[:, kind] += 2
            np.save(folder / "regions" / f"{name}.npy", regions)
            sentences = [{"raw": f"a {NOUNS[kind]} on the grass"}, {"raw": f"the {NOUNS[kind]} stands there"}]
            images.append({"filename": f"{name}.jpg", "split": split, "sentences": sentences})
    (folder / "dataset_regions.json").write_text(json.dumps({"dataset": "regions", "images": images}))
    return folder


def config_file(folder: Path, data: Path, **encoder: object) -> Path:
    tree = {
        "name": "regions",
        "data": {"folder": str(data), "minimum_count": 1, "maximum_tokens": 8},
        "encoder": {"name": "regions", "regions": MOST, "channels": CHANNELS, **encoder},
        "decoder": {"family": "up_down", "embedding": 16, "hidden": 32},
        "training": {"epochs": 30, "photos_per_batch": 8, "learning_rate": 1e-2, "validation_photos": 8},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_a_model_is_trained_pruned_and_exported_from_region_features(family: str, data: Path, tmp_path: Path) -> None:
    config, run, bundle = config_file(tmp_path, data), tmp_path / "run", tmp_path / "bundle"
    keys = [f"decoder.family={family}", *FAMILIES[family], "pruning.method=supermask", "pruning.sparsity=0.6"]
    done = capprune("train", config, *keys, "pruning.tolerance=0.03", "--out", run)
    assert done.code == 0, done.err
    exported = capprune("export", run, "--weights", "float32", "--out", bundle)
    assert exported.code == 0, exported.err
    checked = capprune("validate", bundle, "--data", data, "--reference", run, "--json").document
    assert checked["parity"]["ai-edge-litert"]["identical"] == COUNTS["test"]
    said = capprune("caption", data / "regions", "--bundle", bundle).out.splitlines()
    numbers = [int(re.findall(r"(\d+)\.npy", line)[-1]) for line in said]
    right = sum(NOUNS[number % len(NOUNS)] in line for number, line in zip(numbers, said, strict=True))
    assert len(said) == sum(COUNTS.values()) and right >= 0.9 * len(said)


def test_a_table_fills_up_with_zeros_and_names_what_does_not_fit(data: Path) -> None:
    store = open_regions(data / "regions")
    names = ["train0.jpg", "train1.jpg", "val3.jpg"]
    table = RegionTable(store, names, regions=MOST, channels=CHANNELS)
    rows = table[np.array([2, 0])]
    assert table.shape == (3, MOST, CHANNELS) and rows.shape == (2, MOST, CHANNELS)
    own = store.regions("val3")
    assert np.array_equal(rows[0, : len(own)], own) and not rows[0, len(own) :].any()
    with pytest.raises(DataError, match="another number of channels") as wrong:
        RegionTable(store, names, regions=MOST, channels=7)[[0]]
    assert wrong.value.hint == f"encoder.channels={CHANNELS}"


@pytest.mark.slow
def test_what_does_not_go_with_region_features_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, data)
    for keys, named in (
        (["decoder={family: soft_attention}"], "decoder.family"),
        (["encoder.grid=2"], "encoder.grid"),
        (["encoder.regions=2"], "at most 2 regions"),
        (["encoder.channels=7"], "encoder.channels=12"),
    ):
        refused = capprune("train", config, *keys, "--out", tmp_path / "run")
        assert refused.code in (2, 4) and named in refused.err, refused.err
        assert not (tmp_path / "run").exists()


def test_fillers_are_found_in_a_padded_decoder() -> None:
    from capprune.models.up_down import UpDown, UpDownConfig

    torch.manual_seed(0)
    decoder = UpDown(UpDownConfig(embedding=4, hidden=6, attention=4), features=5, vocabulary=9, regions=3, padded=True)
    features = torch.randn(2, 3, 5)
    features[1, 2:] = 0
    present = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    found, expected = (decoder.eval().encode(features, one)[0] for one in (None, present))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
