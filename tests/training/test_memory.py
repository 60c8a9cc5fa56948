from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from capprune.training.memory import VARIABLES

FAULTS = """
import resource, sys
import numpy as np
from capprune.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    made = [np.ones(8 << 17) for _ in range(6)]  # 8 MiB each

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


def faults(keep: str, **more: str) -> float:
    plain = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    small = {"NUMPY_MADVISE_HUGEPAGE": "0"}  # pages of 4 KiB, whatever the kernel would give NumPy
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, keep], capture_output=True, text=True, check=True, env={**plain, **small, **more}
    )
    return float(done.stdout)


@pytest.fixture
def usual() -> float:
    """Page faults a step as the C library does by itself."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has these settings")
    found = faults("leave")
    if found < 1000:
        pytest.skip(f"memory comes in huge pages here: {found:.0f} faults a step")
    return found


def test_freed_memory_is_used_again_without_page_faults(usual: float) -> None:
    assert faults("keep") < usual / 10


def test_settings_of_the_environment_stay(usual: float) -> None:
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > usual / 2
