"""The samples beside the Raspberry Pi's page run, and the page names only what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bundle

from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.measure.results import parse_measurements
from capprune_runtime.photo import read_photo

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "runtime_samples" / "raspberry_pi"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_smallest_sample_says_what_the_runtime_says_and_is_small(bundle_folder: Path) -> None:
    photo = bundle_folder / "golden" / "scene-0.png"
    done = run("smallest.py", bundle_folder, photo)
    said = Captioner(verify_bundle(bundle_folder)).caption(read_photo(photo, tiny_bundle.SIZE), 1)
    assert done.stdout.strip() == said.text != "", done.stderr
    source = (SAMPLES / "smallest.py").read_text()
    assert len(source.splitlines()) < 60
    assert {*re.findall(r"^(?:import|from) (\w+)", source, re.M)} == {
        "json",
        "sys",
        "pathlib",
        "numpy",
        "ai_edge_litert",
        "PIL",
    }


def test_the_benchmark_prints_a_table_and_writes_documents(bundle_folder: Path, tmp_path: Path) -> None:
    done = run("benchmark.py", bundle_folder, bundle_folder, "--threads", "1,2", "--rounds", 2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("encode ms") == 2 and "do not trust these times" in done.stdout
    for threads in (1, 2):
        runs = parse_measurements((tmp_path / f"threads-{threads}.json").read_text(), "here")
        assert len(runs) == 2 and runs[0].environment.threads == threads
    assert run("benchmark.py", tmp_path / "absent").returncode == 2


@pytest.mark.parametrize("page", [SAMPLES / "README.md", ROOT / "docs" / "devices.md"])
def test_the_page_names_options_and_files_that_there_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    commands = [sys.executable, "-m", "capprune_runtime", "bench", "--help"]
    known = subprocess.run(commands, capture_output=True, text=True, check=True).stdout
    for line in re.findall(r"capprune_runtime bench [^\n]*", text):
        assert all(option in known for option in re.findall(r"--[a-z-]+", line)), line
