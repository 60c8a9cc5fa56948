"""The packages of `pip install capprune` without extras, and commands run with no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from cases import Done

ROOT = Path(__file__).parents[2]
BASE = ("numpy", "numpy.libs", "PIL", "pillow.libs", "click", "rich", "pygments", "markdown_it", "mdurl", "ai_edge_litert",
        "flatbuffers", "backports", "tqdm", "google", "typing_extensions.py")  # fmt: skip
BASE_NAMES = (
    "numpy",
    "pillow",
    "click",
    "rich",
    "pygments",
    "markdown_it_py",
    "mdurl",
    "ai_edge_litert",
    "flatbuffers",
)


def link_packages(site: Path) -> None:
    """Link the packages of the base install, as they are installed here, into a folder."""
    for entry in Path(np.__file__).parents[1].iterdir():
        name = entry.name.partition("-")[0].lower()
        if entry.name in BASE or (entry.name.endswith(".dist-info") and name in BASE_NAMES):
            (site / entry.name).symlink_to(entry)


def in_base(site: Path, *arguments: object) -> Done:
    """Run `capprune` with the packages of such a folder only."""
    code = "import sys; from capprune.__main__ import main; main()"
    path = os.pathsep.join(
        [*map(str, (ROOT / one for one in ("toolchain", "exporters", "runtime_samples"))), str(site)]
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert "Traceback" not in done.stderr and "this is a defect" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)
