"""The default folder of computed features and other caches."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Return the folder of all caches: `$CAPPRUNE_CACHE`, else `~/.cache/capprune`."""
    return Path(os.environ.get("CAPPRUNE_CACHE") or Path.home() / ".cache" / "capprune")
