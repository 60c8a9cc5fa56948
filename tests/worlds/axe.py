"""axe-core, which checks a page for what keeps people out, and the other npm packages of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser import Tab

BROWSER = Path(__file__).parents[2] / "browser"
NODE_MODULES = BROWSER / "node_modules"


def require_packages(when_absent: Callable[[str, str], None]) -> None:
    """Skip, or fail in CI, where `npm ci` has not run in browser/."""
    if not (NODE_MODULES / "axe-core" / "axe.min.js").is_file():
        when_absent("browser", "npm ci --ignore-scripts has not run in browser/")


def serious_issues(tab: Tab) -> list[str]:
    """What axe-core calls serious or critical, with the elements."""
    tab.evaluate((NODE_MODULES / "axe-core" / "axe.min.js").read_text() + "; null")
    found: list[dict[str, Any]] = tab.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(({violations, passes}) => [...violations, {passes: passes.length}]"
        ".map(({id, impact, nodes, passes}) => ({id, impact, passes, nodes: (nodes || []).map(node => node.html)})))"
    )
    assert found[-1]["passes"] > 5  # it has looked at something
    return [f"{one['id']}: {one['nodes']}" for one in found[:-1] if one["impact"] in ("serious", "critical")]
