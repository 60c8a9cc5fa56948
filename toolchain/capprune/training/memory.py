"""Settings for how the C library handles the memory that a training step frees."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt
KEPT = 1 << 30  # bytes at the end of the heap that are kept
MAPPED = 1 << 25  # bytes: larger blocks are mapped from the system and unmapped; the largest value that glibc accepts
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory for the next step.

    By default it returns tensors of some megabytes to the system and requests them again at every step. That costs one
    page fault per 4 KiB. Does nothing with another C library, or if the environment sets these options.
    """
    if any(name in os.environ for name in VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, MAPPED)
