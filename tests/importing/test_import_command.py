"""`capprune import` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import Parts, config_bytes

from capprune.training.run import load_run
from cli.conftest import capprune


def test_import_writes_a_run_and_names_the_next_command(tmp_path: Path) -> None:
    archive = Parts().archive(tmp_path / "small.zip")
    done = capprune("import", archive, "--out", tmp_path / "run")
    assert done.code == 0 and "of 609 weights kept" in done.err and "capprune export" in done.out
    run = load_run(tmp_path / "run")
    assert (run.config.decoder.family, run.kept, run.prunable) == ("up_down", 277, 609)
    again = capprune("import", archive, "--out", tmp_path / "run")
    assert again.code == 2 and "a new or empty folder" in again.err


def test_import_names_what_is_wrong_in_text_and_in_json(tmp_path: Path) -> None:
    parts = Parts()
    parts.files["config.json"] = config_bytes(rnn_size=8)
    folder = parts.folder(tmp_path / "checkpoint")
    done = capprune("import", folder, "--out", tmp_path / "run")
    assert done.code == 5 and "a tensor does not fit the config" in done.err and "by config.json" in done.err
    document = capprune("import", folder, "--out", tmp_path / "run", "--json").document
    assert (document["error"], document["exit_code"]) == ("BadModelFile", 5)
    assert capprune("import", tmp_path / "none.pth", "--out", tmp_path / "run").code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_imported_run_goes_the_whole_way_on_the_command_line(data_folder: Path, tmp_path: Path) -> None:
    run, bundle, data = tmp_path / "run", tmp_path / "bundle", tmp_path / "data"
    assert capprune("import", data_folder / "tiny3", "--out", run).code == 0
    exported = capprune("export", run, "--weights", "int8", "--pack", "--out", bundle)
    assert exported.code == 0, exported.err
    (data / "regions").mkdir(parents=True)
    sentences = {"391895": "a man riding a motorcycle on a dirt road", "184613": "a group of people in a field"}
    for name in sentences:
        features = data_folder / "tiny3" / f"{name}_att.npy"
        (data / "regions" / features.name).write_bytes(features.read_bytes())
    images = [
        {"filename": f"{name}.jpg", "split": "test", "sentences": [{"raw": text}]} for name, text in sentences.items()
    ]
    (data / "dataset_tiny.json").write_text(json.dumps({"dataset": "tiny", "images": images}))
    said = capprune("caption", data / "regions", "--bundle", tmp_path / "bundle.capz")
    assert said.code == 0 and "391895_att.npy\ta man riding a motorcycle on a dirt\n" in said.out
    assert capprune("verify", bundle).code == 0
    checked = capprune("validate", bundle, "--data", data, "--reference", run, "--json").document
    assert checked["parity"]["ai-edge-litert"]["identical"] == 2
    assert capprune("bench", bundle, "--rounds", 2, "--json").document["runs"][0]["captions"]
    refused = capprune("caption", data / "regions", "--bundle", bundle, "--explain", tmp_path / "looked")
    assert refused.code == 2 and "no photo to draw" in refused.err
    wrong = capprune("caption", data_folder / "tiny3" / "expected.json", "--bundle", bundle)
    assert wrong.code == 4 and "not a .npy file" in wrong.err
