"""The runtime as one file does what the package does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from capprune_runtime.archive import archive_bytes
from capprune_runtime.command import main


def run(archive: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(archive), *map(str, arguments)]  # -I: nothing of this clone on the path
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=archive.parent)


def test_the_archive_captions_verifies_and_makes_itself_again(bundle_folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "capprune_runtime.pyz"
    assert main(["archive", "--out", str(archive)]) == 0
    golden = bundle_folder / "golden" / "scene-0.png"
    done = run(archive, "caption", bundle_folder, golden)
    assert done.returncode == 0 and done.stdout.startswith("word"), done.stderr
    found = json.loads(run(archive, "run", bundle_folder, bundle_folder / "golden", "--json").stdout)
    assert found["captions"][0]["caption"] == done.stdout.strip()
    assert run(archive, "verify", bundle_folder).returncode == 0
    assert run(archive, "archive", "--out", tmp_path / "again.pyz").returncode == 0
    assert (tmp_path / "again.pyz").read_bytes() == archive.read_bytes()


def test_the_archive_is_the_same_bytes_twice_and_small() -> None:
    assert archive_bytes() == archive_bytes()
    assert len(archive_bytes()) < 200_000
