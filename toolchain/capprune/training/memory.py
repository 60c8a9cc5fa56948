"""What the C library does with the memory that a training step frees."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt
KEPT = 1 << 30  # bytes at the end of the heap that are kept
MAPPED = 1 << 25  # bytes: what is larger comes from the system and goes back to it; glibc takes no more than this
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let glibc keep up to a GiB for the next step.

    By default it gives tensors of some megabytes back to the system and takes them anew, a page fault for every 4 KiB, at every
    step. Does nothing with another C library, or where the environment has settings of its own.
    """
    if any(name in os.environ for name in VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, MAPPED)
