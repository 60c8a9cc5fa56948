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
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, keep], capture_output=True, text=True, check=True, env={**plain, **more}
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    assert faults("leave") > 1000
    assert faults("keep") < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_settings_of_the_environment_stay() -> None:
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > 1000
