"""`capprune import` as a user types it."""

from __future__ import annotations

from pathlib import Path

from checkpoints import Parts, config_bytes

from cli.conftest import capprune


def test_import_reads_a_checkpoint_and_says_what_is_not_there_yet(tmp_path: Path) -> None:
    archive = Parts().archive(tmp_path / "small.zip")
    done = capprune("import", archive, "--out", tmp_path / "run")
    assert done.code == 2 and "of 609 weights kept" in done.err and "cannot write them as runs yet" in done.err
    assert not (tmp_path / "run").exists()


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
