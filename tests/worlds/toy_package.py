"""A package of somebody else's in a folder of its own, as `pip install --target` lays it out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def install(site: Path, group: str, points: Mapping[str, str], *modules: Path) -> Path:
    """Lay out a package of single modules.

    Args:
        site: The folder, made if it is not there.
        group: Of the entry points.
        points: "module:attribute" by name.
        modules: Files to be copied.
    """
    facts = site / f"toy_{group.rpartition('.')[2]}-1.0.dist-info"
    facts.mkdir(parents=True)
    for module in modules:
        (site / module.name).write_bytes(module.read_bytes())
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {facts.name.partition('-')[0]}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {place}\n" for name, place in points.items())
    (facts / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    return site


def environment(site: Path) -> dict[str, str]:
    """The variables of a process that has the package."""
    path = os.pathsep.join((str(site), *filter(None, [os.environ.get("PYTHONPATH")])))
    return {**os.environ, "PYTHONPATH": path}
