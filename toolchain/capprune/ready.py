"""The bundle that is included in the package, for a first caption without training."""

from __future__ import annotations

from pathlib import Path

from capprune_runtime.errors import UsageError

READY = Path(__file__).parent / "ready_model" / "flickr8k-coco.capz"


def ready_bundle() -> Path:
    """Return the path of the included bundle.

    Raises:
        UsageError: This installation has none.
    """
    if not READY.is_file():
        raise UsageError(
            "this installation contains no bundle", where=READY, hint="give one with --bundle; capprune demo makes one"
        )
    return READY
