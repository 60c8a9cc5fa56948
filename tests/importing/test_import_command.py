"""`capprune import` as a user types it."""

from __future__ import annotations

from pathlib import Path

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
