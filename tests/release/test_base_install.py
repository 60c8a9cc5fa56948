"""Every command after `pip install capprune` without extras: it works, or it names the extra before it does anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from capprune.cli.app import COMMANDS
from capprune.ready import READY
from release.conftest import ROOT, run

PHOTO = ROOT / "docs" / "gallery" / "chelsea.jpg"
WORKS: tuple[tuple[object, ...], ...] = (
    ("caption", PHOTO),
    ("verify", READY),
    ("inspect", READY),
    ("bench", "--rounds", 2),
    ("doctor",),
    ("unpack", READY, "--out", "bundle"),
    ("pack", "bundle", "--out", "again.capz"),
    ("data", "scenes", "--out", "scenes", "--train", 4, "--val", 2, "--test", 2, "--size", 64),
    ("data", "check", "scenes", "--cache", "cache"),
    ("data", "import", "scenes", "--out", "imported", "--cache", "cache"),
)
REFUSED: tuple[tuple[tuple[object, ...], str], ...] = (
    (("demo", "--out", "out"), "train,tflite"),
    (("label", "photos", "--teacher", "hf:model", "--out", "out"), "train,hf"),
    (("import", "file.zip", "--out", "out"), "train"),
    (("train", "config.yaml", "--out", "out"), "train"),
    (("prune", "run", "--out", "out"), "train"),
    (("finetune", "run", "--out", "out"), "train"),
    (("length", "run", "--data", "photos", "--out", "out"), "train"),
    (("ensemble", "run", "--photos", "photos", "--out", "out"), "train"),
    (("sweep", "config.yaml", "--grid", "training.seed=1,2", "--out", "out"), "train,tflite"),
    (("export", "run", "--out", "out"), "train,tflite"),
    (("export", "run", "--target", "onnx", "--out", "out"), "train,onnx"),
    (("validate", "--data", "photos"), "train"),
    (("bench", "--baselines", "--run", "run"), "train,tflite,onnx"),
    (("report", "run", "--out", "out.html"), "train,report"),
    (("inspect", "run"), "train"),
    (("serve",), "serve"),
    (("serve", "--static", "out"), "serve"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds something under every name that a refused command is given."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "photos").mkdir()
    (folder / "run").mkdir()
    for name in ("run/config.yaml", "config.yaml", "file.zip"):
        (folder / name).write_text("name: x\n")
    return folder


def test_every_command_is_tried() -> None:
    assert {str(one[0]) for one in WORKS} | {str(one[0]) for one, _ in REFUSED} == set(COMMANDS)


def test_commands_of_the_base_install_work(base_programs: Path, folder: Path) -> None:
    for arguments in WORKS:
        run([base_programs / "capprune", *arguments], cwd=folder)


def test_other_commands_name_their_extras_before_any_work(base_programs: Path, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    for arguments, extras in REFUSED:
        done = run([base_programs / "capprune", *arguments], exits=2, cwd=folder)
        assert f"pip install 'capprune[{extras}]'" in done.stderr and done.stdout == "", arguments
    assert sorted(folder.rglob("*")) == before


def test_capprune_is_imported_without_extras(base_programs: Path) -> None:
    run([base_programs / "python", "-c", "import capprune; print(capprune.__version__)"])
