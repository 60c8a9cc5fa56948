"""Large photos, small machines: what a caption takes, and what happens where there is not enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cases import run

# VmHWM, because ru_maxrss of a new process begins at what its parent held.
MEASURE = """
import sys
from pathlib import Path
from capprune.cli.app import _run
code = _run(sys.argv[1:])
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print("peak", int(peak) // 1024, "code", code)
"""


def peak_mb(photo: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "caption", str(photo)], capture_output=True, text=True, check=True
    )
    *_, peak, _, code = done.stdout.split()
    assert code == "0", done.stderr
    return int(peak)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 24-megapixel PNG with transparency, and JPEGs of 108 and 200 megapixels in colour."""
    folder = tmp_path_factory.mktemp("large")
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8))
    small.resize((6000, 4000)).save(folder / "24mp.png", compress_level=1)
    for name, size in (("108mp.jpg", (12000, 9000)), ("200mp.jpg", (16320, 12240))):
        small.convert("RGB").resize(size).save(folder / name)
    return folder


@pytest.mark.parametrize(("name", "most_mb"), [("24mp.png", 400), ("108mp.jpg", 350), ("200mp.jpg", 500)])
def test_the_peak_of_a_large_photo(large: Path, ready: Path, name: str, most_mb: int) -> None:
    assert peak_mb(large / name) <= most_mb


def test_a_small_photo_asks_for_no_large_memory(photo: Path, ready: Path) -> None:
    done = run("caption", photo, limit_kib=400_000)
    assert done.code == 0 and done.out.strip()


@pytest.mark.parametrize("limit_kib", [60_000, 100_000, 130_000, 150_000, 160_000, 170_000])
def test_too_little_memory_is_named_and_ends(photo: Path, ready: Path, limit_kib: int) -> None:
    done = run("caption", photo, limit_kib=limit_kib)
    assert (
        (done.code, done.out) == (1, "") and "not enough memory" in done.err
    ) or "the memory limit of this process is too low" in done.err
    assert "photos_per_batch" not in done.err and "pip install" not in done.err


@pytest.mark.parametrize("program", ["capprune", "capprune_runtime"])
def test_one_photo_too_large_does_not_end_a_folder(
    large: Path, photo: Path, ready: Path, tmp_path: Path, program: str
) -> None:
    (photo.parent / "b.png").symlink_to(large / "24mp.png")
    (photo.parent / "z.jpg").write_bytes(photo.read_bytes())
    out = tmp_path / "t.json"
    command = ("caption", photo.parent) if program == "capprune" else ("run", ready, photo.parent)
    done = run(*command, "--out", out, program=program, limit_kib=250_000)
    assert done.code == 1 and "b.png" in done.err and "smaller copy" in done.err
    assert out.is_file() and done.out.count("\n") == 2
