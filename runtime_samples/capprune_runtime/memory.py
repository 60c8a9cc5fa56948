"""Detect failures caused by lack of memory, which native code reports in many ways, often as another error."""

from __future__ import annotations

import errno
import mmap

from capprune_runtime.errors import NotEnoughMemory

MODEST_BYTES = 96 << 20  # for loading a small model and reading a photo, beyond what is already loaded
LEAST_ADDRESS_SPACE = 140 << 20  # below this limit NumPy's own libraries fail to load, or hang

_MESSAGES = (
    "bad_alloc",
    "cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "failed to map segment",
    "insufficient memory",
    "not enough memory",
    "out of memory",
)


def names_memory(error: BaseException) -> bool:
    """Return whether the error itself reports that memory ran out."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    text = str(error).lower()
    return any(message in text for message in _MESSAGES)


def is_short(needed_bytes: int = MODEST_BYTES) -> bool:
    """Return whether this process cannot allocate that much memory.

    The memory is released at once, and no page is touched.
    """
    try:
        mmap.mmap(-1, max(1, needed_bytes)).close()
    except (OSError, MemoryError, ValueError):
        return True
    return False


def ran_out(error: BaseException, needed_bytes: int = MODEST_BYTES) -> bool:
    """Return whether an error of native code was caused by lack of memory.

    Args:
        error: The exception.
        needed_bytes: Memory that the failed step needs. If it cannot be allocated now, it could not be allocated then.
    """
    return names_memory(error) or is_short(needed_bytes)


def address_space_bytes() -> int | None:
    """Return the limit of this process's address space (`ulimit -v`); None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def check_address_space() -> None:
    """Check that the address space is large enough for NumPy's libraries, which otherwise fail to load or hang.

    Raises:
        NotEnoughMemory: The limit of the address space is too low.
    """
    limit = address_space_bytes()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        raise NotEnoughMemory(
            "the memory limit of this process is too low",
            where="ulimit -v",
            expected=f"at least {LEAST_ADDRESS_SPACE // 1024}",
            found=limit // 1024,
            hint="ulimit -v unlimited",
        )
