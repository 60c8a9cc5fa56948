"""Parts that these tests share with those of the runtime."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("runtime",):
    sys.path.append(str(Path(__file__).parents[1] / folder))
