"""Where computed things are kept between commands."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Where features are kept: `$CAPPRUNE_CACHE`, else `~/.cache/capprune`."""
    return Path(os.environ.get("CAPPRUNE_CACHE") or Path.home() / ".cache" / "capprune")
